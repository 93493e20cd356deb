"""Every row of the dictionary, checked by machine in both directions, after DTensor's rule validator.

The graphs of `operators/cases.py` are built with random sizes and random weights. Then

**A rule is right** when a random half of the groups can be zeroed and cut out, and the small model computes what the
zeroed one does (`zig.zero`, `zig.compress`; onnxruntime compares).

**A rule is not too coarse** when nothing that it says can be left out. What it says are ties (index i of one axis goes
with index i of another, forks included) and fixes (this index can't go).

- Ties: take away all that nodes of this operator have made. A group then falls into pieces. Were the operator's ties
  more than is needed, then some of the pieces could go without the others. So for proper, non-empty subsets of the
  pieces: zero and cut just these. The result must be invalid (sizes that do not fit, surgery that refuses) or compute
  something else than the zeroed model. Pieces without a weight (units that only activations carry) go along or stay,
  both are tried. That all pieces together pass is asked first, by the same code, so that a failure means something.
- Fixes: take away all that nodes of this operator have made, and all that lie in values alone (an unknown rest value
  is this operator's word too, but is complained about by a later node). Groups that become free by this are zeroed and
  cut one by one. A rule fixes whole axes, so along the same axes at least one must fail in the same way (the last
  entry of a cumulative sum is needed by nobody, the first one is): else they need not have been fixed.

Both are statements about zig's own surgery: it repairs attributes and operands as well as it can, and a finer
grouping that it could carry out would be found. A row that gives up on a graph (a wall, an error) says nothing about
units at all; that it need not have done so is not seen here but by the groups that `operators/cases.py` expects.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import numpy_helper
from operators.cases import CASES, Case, case
from operators.known import marked

import zig
from zig.errors import ZigError
from zig.flow.flow import Flow
from zig.flow.units import Part, Tensor
from zig.groups.forks import Labels, members, settle
from zig.groups.partition import Partition
from zig.groups.weights import Zeroed
from zig.model.graph import Graph, Node, load
from zig.operators import OPERATORS, Operator
from zig.surgery.surgeon import Surgeon

EXACT = 1e-5
DIFFERENT = 1e-4
SUBSETS = 12  # of the pieces of a group
GROUPS = 4  # along the same axes
LISTS = ("ties", "forks", "fixes", "leaks")


# -- right ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", marked("wrong"))
def test_what_is_zeroed_can_be_cut(case: Case, tmp_path: Path) -> None:
    moved = [zeroed_and_cut(case, seed, tmp_path) for seed in range(4)]
    assert not any(moved) or max(moved) > EXACT, "zeroing never changed an output: the check is empty"


def zeroed_and_cut(case: Case, seed: int, folder: Path) -> float:
    """Zero and cut a random half of the groups; how far zeroing moved the outputs."""
    model = case.model(case.letters(np.random.default_rng(seed) if seed else None), seed)
    partition = zig.analyze(model)
    plan = graphs.half(partition, seed)
    if not plan.remove.any():
        return 0.0
    zeroed, small = folder / "zeroed.onnx", folder / "small.onnx"
    zig.zero(plan, zeroed)
    report = zig.compress(zeroed, small, check=False)
    check_sizes(plan, report, graphs.shapes(small))
    inputs = graphs.feeds(model, seed)
    full, half, cut = (graphs.run(m, inputs) for m in (model, zeroed, small))
    assert graphs.difference(half, cut) <= EXACT
    return graphs.difference(full, half)


def check_sizes(plan: zig.Plan, report: zig.Report, shapes: dict[str, tuple[int, ...]]) -> None:
    """What the plan removes is gone; where nothing else is (what nobody reads), nothing else is."""
    assert report.removed >= plan.remove.sum()
    kept: dict[tuple[str, int], Any] = {}
    for row in (row for row in plan.partition.rows if row.tensor in shapes):  # several for the axis of a product
        kept[row.tensor, row.axis] = np.append(~plan.remove, True)[row.groups] & kept.get((row.tensor, row.axis), True)
    for (tensor, axis), stays in kept.items():
        size, want = shapes[tensor][axis], int(stays.sum())
        assert size == want or (size < want and report.removed > plan.remove.sum())


# -- not too coarse ---------------------------------------------------------------------------------------------------


class Traced(Flow):
    """A flow that remembers what the nodes of one operator say.

    Their results get units of their own, tied to those that came in: passing units on is a tie that nobody wrote down.
    """

    def __init__(self, graph: Graph, operators: Mapping[str, Operator], traced: str):
        super().__init__(graph, operators)
        self.traced = traced
        self.made: dict[str, set[int]] = {name: set() for name in LISTS}

    def _visit(self, node: Node) -> None:
        before = {name: len(getattr(self, name)) for name in LISTS}
        super()._visit(node)
        if node.op == self.traced and self.calls and self.calls[-1].node is node:
            call = self.calls[-1]
            call.outputs = [tensor and self._apart(tensor) for tensor in call.outputs]
            self._tensors.update({name: t for name, t in zip(node.outputs, call.outputs, strict=False) if name})
            for name, start in before.items():
                self.made[name].update(range(start, len(getattr(self, name))))

    def ended(self, part: Part, why: int) -> Part:
        return part  # what if it were not bound?

    def _apart(self, tensor: Tensor) -> Tensor:
        return dataclasses.replace(tensor, axes=tuple(tuple(map(self._renewed, axis)) for axis in tensor.axes))

    def _renewed(self, part: Part) -> Part:
        if not part.live:
            return part
        new, free = self.fresh(len(part.units)).units, part.units > 0
        self.ties.append((part.units[free], new[free], ""))
        return self.part(np.where(free, new, 0), part.rest)

    def without(self, *lists: str) -> Flow:
        """The same, without what the traced nodes have put into these lists."""
        less = copy.copy(self)
        for name in lists:
            setattr(less, name, [entry for i, entry in enumerate(getattr(self, name)) if i not in self.made[name]])
        return less


@pytest.mark.parametrize("case", marked("coarse"))
def test_nothing_a_rule_says_can_be_left_out(case: Case) -> None:
    check_that_all_is_needed(case, OPERATORS)


def check_that_all_is_needed(case: Case, operators: Mapping[str, Operator]) -> None:
    needless: dict[str, bool] = {}
    for seed in range(2):
        trial = Trial(case, seed, operators)
        for units in trial.groups():
            assert trial.passes(units), f"{trial.describe(units)} can't be cut at all: this check would be empty"
            for subset in trial.subsets(units):
                assert not trial.passes(subset), f"{trial.describe(subset)} can go alone"
        for axes, units in trial.freed():
            needless[axes] = needless.get(axes, True) and trial.passes(units)
    assert not any(needless.values()), f"need not be fixed: {[axes for axes, free in needless.items() if free]}"


class Trial:
    """A model from which any set of units can be cut, whatever the rules say."""

    def __init__(self, case: Case, seed: int, operators: Mapping[str, Operator]):
        self.random = np.random.default_rng(seed)
        self.model = model = case.model(case.letters(self.random if seed else None), seed)
        self.flow = Traced(load(model), operators, case.operator)
        self.flow.run()
        self.labels = settle(self.flow, "heads")
        self.member = members(self.flow, self.labels)
        self.weighted = np.zeros(self.flow.count, bool)
        for _, _, units in self.axes():
            self.weighted[units] = True
        self.inputs = [graphs.feeds(model, seed + i) for i in range(2)]

    def axes(self) -> Iterator[tuple[str, int, Any]]:
        """(initializer, axis, units)."""
        for name, tensor in self.flow.weights.items():
            for axis, parts in enumerate(tensor.axes):
                for part in parts:
                    yield name, axis, part.units

    def groups(self) -> list[Any]:
        """The units of a few groups, the first one of each node group first."""
        partition = Partition(self.flow.graph, self.flow, self.labels, self.member)
        few = [group.groups[0] for group in partition.node_groups if group.size > 1]
        return [np.flatnonzero(partition.zigs(np.arange(self.flow.count)) == zig_) for zig_ in few]

    def subsets(self, units: Any) -> Iterator[Any]:
        """Parts of a group that are held together by nothing but this operator's ties."""
        component = settle(self.flow.without("ties", "forks"), "heads").component[units]
        pieces = [units[component == c] for c in np.unique(component)]
        heavy = [piece for piece in pieces if self.weighted[piece].any()]
        light = np.concatenate([np.empty(0, np.int64), *(p for p in pieces if not self.weighted[p].any())])
        masks = [
            m for m in itertools.islice(itertools.product((0, 1), repeat=len(heavy)), 4096) if 0 < sum(m) < len(heavy)
        ]
        for mask in self.random.permutation(masks)[:SUBSETS] if masks else ():
            chosen = np.concatenate([piece for piece, is_in in zip(heavy, mask, strict=True) if is_in])
            yield chosen
            if len(light):
                yield np.concatenate([chosen, light])

    def freed(self) -> Iterator[tuple[str, Any]]:
        """Groups that only this operator, or a rest value, fixes: a few along the same axes, and which these are."""
        flow = self.flow.without("fixes")
        flow.leaks = []
        labels = settle(flow, "heads")
        freed = self.weighted & (labels.why[labels.component] == 0) & (self.labels.why[self.labels.component] > 0)
        freed[0] = False
        found = [np.flatnonzero(labels.component == c) for c in np.unique(labels.component[freed])]
        seen: Counter[str] = Counter()
        for units in (found[i] for i in self.random.permutation(len(found))):
            axes = " ".join(f"{name}.{axis}" for name, axis, own in self.axes() if np.isin(own, units).any())
            seen[axes] += 1
            if seen[axes] <= GROUPS:
                yield axes, units

    def passes(self, units: Any) -> bool:
        """Whether cutting these units gives what zeroing them gives."""
        zeroed = self.zeroed(units)
        try:
            small = self.cut(units, zeroed)
            return all(graphs.difference(graphs.run(zeroed, i), graphs.run(small, i)) <= DIFFERENT for i in self.inputs)
        except (ZigError, ValueError, TypeError, LookupError, *ORT_ERRORS):  # onnx's reference has no errors of its own
            return False

    def zeroed(self, units: Any) -> onnx.ModelProto:
        """The model with the members among these units at zero; with all of them, where none is a member."""
        which = units[self.member[units]] if self.member[units].any() else units
        arrays = {t.name: np.array(numpy_helper.to_array(t)) for t in self.model.graph.initializer}
        for name, axis, own in self.axes():
            if name in arrays and self.flow.weights[name].weight:
                np.moveaxis(arrays[name], axis, 0)[np.isin(own, which)] = self.flow.zeros.get(name, 0)
        model = copy.deepcopy(self.model)
        del model.graph.initializer[:]
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in arrays.items())
        return model

    def cut(self, units: Any, zeroed: onnx.ModelProto) -> onnx.ModelProto:
        """The surgeon's work on a partition in which these units are the one and only group."""
        component = np.isin(np.arange(self.flow.count), units).astype(np.int64)
        why = np.array([self.flow.reason("stays", ""), 0])
        everything = np.ones(self.flow.count, bool)
        partition = Partition(self.flow.graph, self.flow, Labels(component, why, why), everything)
        surgeon = Surgeon(partition, np.array([True]), self.flow, AllOf(load(zeroed)))
        return onnx_ir.serde.serialize_model(surgeon.operate())

    def describe(self, units: Any) -> str:
        """The slices of these units."""
        found = ((name, axis, np.flatnonzero(np.isin(own, units))) for name, axis, own in self.axes())
        return ", ".join(f"{name}.{axis}{indices.tolist()}" for name, axis, indices in found if len(indices))


class AllOf(Zeroed):
    """The weights of another graph, all of them."""

    def changes(self, name: str) -> bool:
        """They may all differ."""
        return True


_STATE = onnxruntime.capi.onnxruntime_pybind11_state
ORT_ERRORS = (_STATE.Fail, _STATE.InvalidArgument, _STATE.InvalidGraph, _STATE.RuntimeException)


# -- the checks themselves --------------------------------------------------------------------------------------------

SQUARE = case(
    "MatMul",
    "h = Gemm (x, w, b)\ny = MatMul (h, u)\nz = Gemm (y, v)",
    "",
    "square",
    x="N 3",
    w="3 c",
    b="c",
    u="c c",
    v="c 2",
)
SUMMED = case(
    "Relu", "h = Gemm (x, w, b)\ny = Relu (h)\nz = ReduceSum (y, over)", "", "summed", x="N 3", w="3 c", b="c", over=[1]
)
NAMED = {str(one): one for one in CASES}


@pytest.mark.parametrize(
    ("one", "row", "message"),
    [
        (NAMED["Relu"], Operator("n c! -> n c", rest=OPERATORS["Relu"].rest), "need not be fixed"),
        (SUMMED, Operator("n c -> n c"), "need not be fixed"),
        (SQUARE, dataclasses.replace(OPERATORS["MatMul"], rule="*b k, k k -> *b k"), "can go alone"),
    ],
    ids=["bound", "no rest value", "tied"],
)
def test_a_row_that_says_too_much_is_found(one: Case, row: Operator, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_that_all_is_needed(one, {**OPERATORS, one.operator: row})


@pytest.mark.parametrize(
    ("one", "row"),
    [
        (NAMED["Sigmoid"], Operator("*b -> *b", rest=lambda call, x: x)),
        (NAMED["Softmax-over channels"], Operator("n c -> n c", rest=lambda call, x: x)),
        (NAMED["Transpose"], Operator("n a b -> n a b", rest=lambda call, x: x)),
        (NAMED["BatchNormalization"], Operator("n c *s, ~c, ~c, ~c, ~c -> n c *s", rest=lambda call, x, *_: x)),
    ],
    ids=["a constant leaks", "not bound", "axes mixed up", "a member is missing"],
)
def test_a_row_that_is_wrong_is_found(one: Case, row: Operator, tmp_path: Path) -> None:
    assert not is_exact(one, {one.operator: row}, tmp_path)


def is_exact(one: Case, operators: Mapping[str, Operator], folder: Path) -> bool:
    """Whether some groups are found, and half of them can be zeroed and cut."""
    model = one.model(one.letters())
    plan = graphs.half(zig.analyze(model, operators=operators))
    zig.zero(plan, folder / "zeroed.onnx")
    try:
        zig.compress(model, folder / "small.onnx", plan, rtol=EXACT, atol=EXACT)
    except (ZigError, *ORT_ERRORS):
        return False
    return bool(plan.remove.any())
