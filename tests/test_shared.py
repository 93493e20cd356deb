"""Constants that several nodes read: how often they are stored makes no difference to the groups."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import zig
from zig.model.graph import load

zoo = pytest.importorskip("zoo", reason="the networks are torch modules")

WAYS = ("dynamo", "torchscript", "torchscript-dynamic")
RECURRENT = ("lstm_deep", "gru_deep", "gnn", "mamba")


def merged(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with equal constants stored once."""
    less = inline(model)
    first: dict[tuple[object, ...], str] = {}
    new: dict[str, str] = {}
    for tensor in list(less.graph.initializer):
        value = numpy_helper.to_array(tensor)
        key = (tensor.data_type, value.shape, value.tobytes())
        new[tensor.name] = first.setdefault(key, tensor.name)
        if new[tensor.name] != tensor.name:
            less.graph.initializer.remove(tensor)
    for node in less.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
    return less


def parted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants stored once for each node that reads them; weights, which differ along all axes, stay."""
    more = inline(model)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in more.graph.initializer}
    for i, node in enumerate(more.graph.node):
        for k, name in enumerate(node.input):
            if name in values and (values[name] == values[name].reshape(-1)[:1].reshape(())).all():
                node.input[k] = f"{name} of {i}.{k}"
                more.graph.initializer.append(numpy_helper.from_array(values[name], node.input[k]))
    return more


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without Constant nodes and Identities of initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    new: dict[str, str] = {}
    known = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = copy.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        elif node.op_type == "Identity" and node.input[0] in known:
            new[node.output[0]] = node.input[0]
        else:
            copy.graph.node.add().CopyFrom(node)
            copy.graph.node[-1].input[:] = [new.get(name, name) for name in node.input]
    return copy


def sizes(model: onnx.ModelProto) -> list[int]:
    return sorted(group.size for group in zig.analyze(model).node_groups)


@pytest.mark.parametrize("exporter", WAYS)
@pytest.mark.parametrize("name", RECURRENT)
def test_it_is_the_same_how_often_constants_are_stored(name: str, exporter: str, tmp_path: Path) -> None:
    try:
        model = onnx.load(zoo.export(name, exporter, tmp_path))
    except zoo.UnavailableError as reason:
        pytest.skip(str(reason))
    assert sizes(model) == sizes(merged(model)) == sizes(parted(model))


@pytest.mark.parametrize("change", [merged, parted])
def test_both_can_be_cut(change: Callable[[onnx.ModelProto], onnx.ModelProto], tmp_path: Path) -> None:
    model = change(onnx.load(zoo.export("gnn", "torchscript", tmp_path)))
    plan = graphs.half(zig.analyze(model))
    assert zig.compress(model, tmp_path / "small.onnx", plan).comparison.equal


STEPS = "h = MatMul (x, w)\np = {0} (h, q)\nk = MatMul (p, u)\ny = {0} (k, q)\nz = MatMul (y, v)"
SIZES: dict[str, Any] = {"x": "4 3", "w": "3 c", "u": "c c", "v": "c 2", "c": 5}


@pytest.mark.parametrize(
    ("operator", "constant"),
    [
        ("Mul", np.ones(5, np.float32)),
        ("Add", np.full((1, 5), 0.5, np.float32)),
        ("Mul", np.repeat(np.arange(4, dtype=np.float32)[:, None], 5, axis=1)),
    ],
    ids=["ones", "halves", "repeats along the units"],
)
def test_each_layer_has_a_constant_of_its_own(operator: str, constant: np.ndarray, tmp_path: Path) -> None:
    model = graphs.build(STEPS.format(operator), **SIZES, q=constant)
    partition = zig.analyze(model)
    assert [group.size for group in partition.node_groups] == [5, 5]
    remove = np.zeros(10, bool)
    remove[[0, 2, 8]] = True
    plan = zig.Plan(partition, remove)
    zig.zero(plan, tmp_path / "zeroed.onnx")
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx", check=False)
    assert report.widths[0][1:] == (5, 3)
    assert report.widths[1][1:] == (5, 4)
    inputs = graphs.feeds(model)
    full, zeroed, small = (
        graphs.run(each, inputs) for each in (model, tmp_path / "zeroed.onnx", tmp_path / "small.onnx")
    )
    assert graphs.difference(zeroed, small) < 1e-6
    assert graphs.difference(full, zeroed) > 1e-3
    assert report.after["parameters"] == zig.load(tmp_path / "small.onnx").parameters


def test_a_constant_is_stored_once_as_long_as_all_need_it_whole(tmp_path: Path) -> None:
    model = graphs.build(STEPS.format("Add"), **SIZES, q="zeros: c")
    plan = zig.Plan(zig.analyze(model), np.arange(10) == 7)
    zig.zero(plan, tmp_path / "zeroed.onnx")
    assert graphs.shapes(tmp_path / "zeroed.onnx") == graphs.shapes(model)
    zig.compress(model, tmp_path / "small.onnx", plan)
    assert graphs.shapes(tmp_path / "small.onnx") == {"w": (3, 5), "u": (5, 4), "v": (4, 2), "q": (5,), "q_1": (4,)}


def test_a_weight_stays_one() -> None:
    ones = np.ones(5, np.float32)
    assert len(zig.analyze(graphs.build(STEPS.format("Mul"), **SIZES, q="c"))) == 5
    assert len(zig.analyze(load(graphs.build(STEPS.format("Mul"), **SIZES, q=ones), tied=["q"]))) == 5


def test_what_a_caller_may_replace_is_no_constant() -> None:
    model = graphs.build(STEPS.format("Mul"), **SIZES, q="ones: c")
    model.graph.input.append(onnx.helper.make_tensor_value_info("q", onnx.TensorProto.FLOAT, [5]))
    assert len(zig.analyze(model)) == 0
    assert len(zig.analyze(load(model, freeze_inputs=True))) == 5


def test_a_large_weight_that_is_read_twice_is_not_held() -> None:
    model = graphs.build("h = Gather (q, i)\nz = MatMul (h, t)\ny = Gather (q, i)", i=[0, 1], q="2 3", t="3 2")
    del model.graph.initializer[:]
    table = np.random.default_rng(0).standard_normal((1 << 12, 1 << 10), np.float32)
    model.graph.initializer.extend(
        [numpy_helper.from_array(table, "q"), numpy_helper.from_array(np.array([0, 1]), "i"),
         numpy_helper.from_array(np.ones((1 << 10, 2), np.float32), "t")]
    )  # fmt: skip
    tracemalloc.start()
    graph = load(model)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert graph.nodes
    assert held < table.nbytes / 10


@pytest.mark.parametrize("kept", [1, 3])
def test_zeros_that_must_stay_keep_their_size(kept: int, tmp_path: Path) -> None:
    """They are made as wide as a tensor that is cut, but meet what can't be."""
    text = """
        h = MatMul (x, w)
        n = Shape (h)
        o = ConstantOfShape (n)
        k = MatMul (h, u)
        p = Add (o, k)
        z = Softmax (p)
        """
    model = graphs.build(text, x="N 3", w="3 c", u="c c", c=5)
    plan = zig.Plan(zig.analyze(model), np.arange(5) >= kept)
    assert zig.compress(model, tmp_path / "small.onnx", plan).removed == 5 - kept
