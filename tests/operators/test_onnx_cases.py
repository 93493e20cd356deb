"""The cases of onnx's own test suite, as a source of shapes and attributes: what they let go can go.

Each case is one node with inputs. Every float input of it becomes a weight times an input of one number, so that units
flow in along all of its axes; every other input becomes a constant. Every output is multiplied by a
weight of its own shape and summed up, so that units may end along all of its axes. Of the groups that the dictionary
finds in this model, a random half is zeroed and cut out, and both models must compute the same.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import zig
from zig.operators import OPERATORS

EXACT = 1e-5
_LIVE = (TensorProto.FLOAT, TensorProto.DOUBLE)
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_CANT_RUN = (
    _STATE.Fail, _STATE.InvalidArgument, _STATE.InvalidGraph, _STATE.NotImplemented, _STATE.RuntimeException,
    NotImplementedError, RuntimeError, TypeError, ValueError, IndexError,
)  # fmt: skip


@functools.cache
def collected() -> dict[str, list[Any]]:
    """For each operator its cases of one node whose inputs and outputs are all tensors of numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases  # makes its data, for seconds

        found: dict[str, list[Any]] = {}
        for case in collect_testcases(None):
            nodes = case.model.graph.node
            if len(nodes) == 1 and case.data_sets and _is_numeric(case):
                name = f"{nodes[0].domain}.{nodes[0].op_type}".lstrip(".")
                found.setdefault(name, []).append(case)
    return found


def _is_numeric(case: Any) -> bool:
    tensors = [*case.data_sets[0][0], *case.data_sets[0][1]]
    declared = (*case.model.graph.input, *case.model.graph.output)
    return all(isinstance(t, np.ndarray) and t.dtype.kind in "fiub" for t in tensors) and all(
        value.type.HasField("tensor_type") for value in declared
    )


class Trial:
    """The model around a case, with units flowing in by some of its inputs."""

    def __init__(self, case: Any, live: set[int], seed: int = 0):
        self.random = np.random.default_rng(seed)
        self.node = copy.deepcopy(case.model.graph.node[0])
        self.graph = onnx.GraphProto(name=case.name)
        self.feeds: dict[str, Any] = {}
        inputs, outputs = case.data_sets[0]
        for i, (value, array) in enumerate(zip(case.model.graph.input, inputs, strict=True)):
            self.feed(value, array) if i in live else self.constant(value.name, array)
        self.graph.node.append(self.node)
        for value, array in zip(case.model.graph.output, outputs, strict=True):
            self.sum_up(value.name, np.asarray(array))
        schema = onnx.defs.get_schema(self.node.op_type, case.model.opset_import[0].version, self.node.domain)
        opset = max(13, schema.since_version if not self.node.domain else 13)
        self.model = helper.make_model(self.graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    def constant(self, name: str, array: Any) -> str:
        """An initializer."""
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def feed(self, value: Any, array: Any) -> None:
        """A weight of all axes, times an input of one number."""
        given, one = f"{value.name}.given", np.ones((1,) * array.ndim, array.dtype)
        self.feeds[given] = one
        self.graph.input.append(helper.make_tensor_value_info(given, value.type.tensor_type.elem_type, one.shape))
        weight = self.constant(f"{value.name}.weight", array)
        self.graph.node.append(helper.make_node("Mul", [given, weight], [value.name]))

    def sum_up(self, name: str, array: Any) -> None:
        """An output, times two tensors of weights, summed up."""
        weights = self.random.standard_normal((2, *array.shape)).astype(np.float32)
        axes = self.constant(f"{name}.axes", np.arange(1, array.ndim + 1))
        self.graph.node.extend([
            helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.float", self.constant(f"{name}.last", weights)], [f"{name}.product"]),
            helper.make_node("ReduceSum", [f"{name}.product", axes], [f"{name}.sum"], keepdims=0),
        ])  # fmt: skip
        self.graph.output.append(helper.make_tensor_value_info(f"{name}.sum", TensorProto.FLOAT, (2,)))

    def removed(self, folder: Path, seed: int) -> int:
        """How many groups went, exactly; none, where there are none or the full model does not run."""
        partition = zig.analyze(self.model)
        assert not partition.unknown_operators
        plan = graphs.half(partition, seed)
        if not plan.remove.any() or not self.runs():
            return 0
        zeroed, small = folder / "zeroed.onnx", folder / "small.onnx"
        zig.zero(plan, zeroed)
        zig.compress(zeroed, small, check=False)
        half, cut = (graphs.run(path, self.feeds) for path in (zeroed, small))
        assert graphs.difference(half, cut) <= EXACT
        return int(plan.remove.sum())

    def runs(self) -> bool:
        """Whether onnxruntime, or onnx's reference, can run the model at all."""
        try:
            return all(np.isfinite(array).all() for array in graphs.run(self.model, self.feeds))
        except _CANT_RUN:
            return False


def trials(case: Any) -> Iterator[Trial]:
    """Units flow in by all inputs that they can; then by each of them alone."""
    inputs = case.model.graph.input
    arrays = case.data_sets[0][0]
    able = [i for i, v in enumerate(inputs) if v.type.tensor_type.elem_type in _LIVE and math.prod(arrays[i].shape) > 1]
    for live in [set(able), *({i} for i in able)][: 1 if len(able) < 2 else None]:
        if live:
            yield Trial(case, live)


# Operators of whose cases nothing can go, so that they show only that the analysis holds.
NOTHING_GOES = {
    "the constant of a zero slice is infinite or undefined":
        "Acosh Log Reciprocal MeanVarianceNormalization",
    "no input of theirs is of floats":
        "And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Equal If MatMulInteger Not Or QLinearMatMul Trilu Xor",
    "their images have one channel, in a batch of one":
        "Conv DeformConv GridSample MaxUnpool Resize RoiAlign STFT Upsample",
    "they bind all that is not of size one": "AffineGrid EyeLike OptionalHasElement Pad Scatter",
    "their state is one number": "Loop",
    "they make their result of sizes": "Constant ConstantOfShape",
}  # fmt: skip
_NOTHING = {name for names in NOTHING_GOES.values() for name in names.split()}
NAMES = sorted(name for name, row in OPERATORS.items() if not row.wall and not name.startswith("com.microsoft."))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_what_the_cases_let_go_can_go(name: str, tmp_path: Path) -> None:
    cases = collected().get(name)
    if not cases:
        pytest.skip("onnx has no case of it that is one node on tensors of numbers")
    removed = sum(trial.removed(tmp_path, seed=0) for case in cases for trial in trials(case))
    assert bool(removed) != (name in _NOTHING)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(name for name, row in OPERATORS.items() if row.wall))
def test_nothing_goes_through_a_wall(name: str) -> None:
    for case in collected().get(name, ()):
        for trial in trials(case):
            assert not len(zig.analyze(trial.model)), case.name
