"""Cutting: what the values allow, and what must survive it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from conftest import parse
from onnx import TensorProto, numpy_helper
from operators.cases import attention

import zig
from zig.errors import PlanError, UnchangedError, VerifyError
from zig.graph import Graph

Weights = dict[str, np.ndarray]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "small.onnx"


def weights(model: onnx.ModelProto | Path) -> Weights:
    proto = onnx.load(model) if isinstance(model, Path) else model
    return {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in proto.graph.initializer}


def changed(model: onnx.ModelProto, **new: np.ndarray) -> onnx.ModelProto:
    """The model with other values in some initializers."""
    for tensor in model.graph.initializer:
        if tensor.name in new:
            tensor.CopyFrom(numpy_helper.from_array(_like(tensor, new[tensor.name]), tensor.name))
    return model


def _like(tensor: TensorProto, value: np.ndarray) -> np.ndarray:
    return value.astype(numpy_helper.to_array(tensor).dtype)


def zeroed(model: onnx.ModelProto, *places: tuple[str, Any]) -> onnx.ModelProto:
    """The model with zeros at some places: ("w", np.s_[:, 2])."""
    values = weights(model)
    for name, place in places:
        values[name][place] = 0
    return changed(model, **values)


def compressed(model: onnx.ModelProto | Path, target: Path, **options: Any) -> zig.Report:
    """Compress, and let our own comparison confirm it."""
    report = zig.compress(model, target, **options)
    check(target)
    proto = onnx.load(model) if isinstance(model, Path) else model
    for seed in range(2):
        inputs = graphs.feeds(proto, seed)
        assert graphs.difference(graphs.run(model, inputs), graphs.run(target, inputs)) <= 1e-5
    return report


def check(model: Path) -> None:
    """The file is valid ONNX, and all sizes in it fit."""
    onnx.checker.check_model(str(model))
    onnx.shape_inference.infer_shapes(onnx.load(model), strict_mode=True, check_type=True)


# -- what can go ----------------------------------------------------------------------------------------------------

NORMED = """
    h = Conv (x, w)
    n = BatchNormalization (h, gamma, beta, mean, var)
    r = Relu (n)
    z = Conv {pads}(r, v, k)
"""
NORMED_SIZES = {
    "x": "N 3 6 6", "w": "5 3 1 1", "gamma": "5", "beta": "5", "mean": "5", "var": "positive: 5", "v": "2 5 3 3", "k": "2",
}  # fmt: skip


def normed(pads: str = "") -> onnx.ModelProto:
    return graphs.build(NORMED.replace("{pads}", pads), **NORMED_SIZES)


def test_nothing_goes_from_a_model_without_zeros(target: Path) -> None:
    model = normed()
    report = compressed(model, target)
    assert report.removed == 0
    assert report.before == report.after | {"bytes": report.before["bytes"]}
    assert all(np.array_equal(a, weights(target)[name]) for name, a in weights(model).items())


def test_channels_behind_a_zero_batch_norm_go_though_their_filters_are_not_zero(target: Path) -> None:
    model = zeroed(normed("<pads = [1, 1, 1, 1]>"), ("gamma", [1, 3]), ("beta", [1, 3]))
    report = compressed(model, target)
    assert report.removed == 2
    assert graphs.shapes(target) == {
        "w": (3, 3, 1, 1), "gamma": (3,), "beta": (3,), "mean": (3,), "var": (3,), "v": (2, 3, 3, 3), "k": (2,),
    }  # fmt: skip
    assert np.array_equal(weights(target)["w"], weights(model)["w"][[0, 2, 4]])


def test_a_constant_channel_folds_into_the_bias(target: Path) -> None:
    model = zeroed(normed(), ("gamma", 1))
    model = changed(model, beta=np.array([1.0, 2.0, -1.0, 0.5, 0.1]))
    report = compressed(model, target)
    assert report.removed == 1
    old, new = weights(model), weights(target)
    bias = next(value for name, value in new.items() if value.shape == (2,) and name != "v")
    assert bias == pytest.approx(old["k"] + 2.0 * old["v"][:, 1].sum(axis=(1, 2)), rel=1e-5)


def test_a_constant_that_relu_stops_is_zero(target: Path) -> None:
    model = changed(zeroed(normed("<pads = [1, 1, 1, 1]>"), ("gamma", 1)), beta=np.array([1.0, -2.0, -1.0, 0.5, 0.1]))
    assert compressed(model, target).removed == 1


def test_a_constant_channel_stays_where_padding_would_show(target: Path) -> None:
    model = changed(zeroed(normed("<pads = [1, 1, 1, 1]>"), ("gamma", 1)), beta=np.array([1.0, 2.0, -1.0, 0.5, 0.1]))
    assert compressed(model, target).removed == 0


def test_channels_that_nobody_reads_go(target: Path) -> None:
    assert compressed(zeroed(normed(), ("v", np.s_[:, [0, 4]])), target).removed == 2


DEEP = "a = Gemm (x, w1, b1)\nb = Relu (a)\nc = Gemm (b, w2, b2)\nd = Relu (c)\nz = Gemm (d, w3, b3)"
DEEP_SIZES = {"x": "N 3", "w1": "3 6", "b1": "6", "w2": "6 5", "b2": "5", "w3": "5 4", "b3": "4"}


def test_what_only_dead_channels_feed_dies_too(target: Path) -> None:
    model = graphs.build(DEEP, **DEEP_SIZES)
    model = zeroed(
        model, ("w1", np.s_[:, [1, 2]]), ("b1", [1, 2]),  # channels 1 and 2 of the first layer are zero ...
        ("w2", np.s_[[0, 3, 4, 5], 2]), ("b2", 2),  # ... and channel 2 of the second reads them alone
    )  # fmt: skip
    report = compressed(model, target)
    assert report.removed == 3
    assert graphs.shapes(target)["w2"] == (4, 4)


def test_what_only_unread_channels_read_dies_too(target: Path) -> None:
    model = zeroed(graphs.build(DEEP, **DEEP_SIZES), ("w3", [0, 1]), ("w2", np.s_[3, 2:]))
    report = compressed(model, target)
    assert report.removed == 3  # channels 0 and 1 of the second layer, and channel 3 of the first
    assert graphs.shapes(target)["w2"] == (5, 3)


def test_what_reads_a_folded_constant_is_not_taken_for_dead(target: Path) -> None:
    model = zeroed(graphs.build(DEEP, **DEEP_SIZES), ("w1", np.s_[:, 1]), ("w2", np.s_[[0, 2, 3, 4, 5], 2]))
    model = changed(model, b1=np.arange(1, 7) / 5)  # channel 1 is 0.4, and channel 2 of the next layer reads it alone
    report = compressed(model, target)  # once channel 1 is gone, its 0.4 speaks through the next layer's bias
    assert report.removed == 1


def test_one_channel_stays_where_all_are_zero(target: Path) -> None:
    model = zeroed(graphs.build(DEEP, **DEEP_SIZES), ("w1", ...), ("b1", ...))
    report = compressed(model, target)
    assert {name: (before, after) for name, before, after in report.widths}["w1"] == (6, 1)


def test_weights_up_to_a_tolerance_count_as_zero(target: Path) -> None:
    model = graphs.build(DEEP, **DEEP_SIZES)
    values = weights(model)
    values["w1"][:, 2], values["b1"][2] = 1e-9, -1e-9
    model = changed(model, **values)
    assert compressed(model, target).removed == 0
    assert compressed(model, target, tolerance=1e-8).removed == 1


def test_a_difference_from_the_tolerance_is_found(target: Path) -> None:
    with pytest.raises(VerifyError):
        zig.compress(graphs.build(DEEP, **DEEP_SIZES), target, tolerance=0.5)
    assert not target.exists()


def test_finding_nothing_is_an_error_only_where_that_is_asked_for(target: Path) -> None:
    with pytest.raises(UnchangedError, match="no group is zero"):
        zig.compress(graphs.build(DEEP, **DEEP_SIZES), target, strict=True)
    assert not target.exists()


@pytest.mark.parametrize("forks", ["heads", "head_dims"])
def test_a_file_pruned_by_heads_or_by_their_size_is_cut_though_it_does_not_say_which(
    forks: str, tmp_path: Path
) -> None:
    case = attention("Reshape", "heads")
    partition = zig.analyze(case.model({**case.letters(), "g": 3, "d": 4}), forks=forks)
    plan = graphs.half(partition)
    zig.zero(plan, tmp_path / "z.onnx")
    assert compressed(tmp_path / "z.onnx", tmp_path / "s.onnx").removed == plan.remove.sum()


# -- folding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consumer", "given"),
    [
        ("z = Gemm (p, v, k)", {"v": "5 2", "k": "2"}),
        ("z = Gemm (p, v, k)", {"v": "5 2", "k": "1"}),
        ("z = Gemm (p, v, k)", {"v": "5 2", "k": "1 2"}),
        ("z = Gemm (p, v, k)", {"v": "5 2", "k": 0.25}),
        ("z = Gemm (p, v)", {"v": "5 2"}),
        ("z = Gemm <transB = 1> (p, v, k)", {"v": "2 5", "k": "2"}),
        ("z = Gemm <alpha = 0.5, beta = 2.0> (p, v, k)", {"v": "5 2", "k": "2"}),
        ("z = Gemm <alpha = 0.5> (p, v)", {"v": "5 2"}),
        ("z = MatMul (p, v)", {"v": "5 2"}),
        ("y = MatMul (p, v)\nz = Relu (y)", {"v": "5 2"}),
        ("y = MatMul (p, v)\nz = Relu (y)\nq = Neg (y)", {"v": "5 2"}),
    ],
)
def test_constants_fold_into_any_linear_layer(consumer: str, given: dict[str, Any], target: Path) -> None:
    model = graphs.build(f"h = Gemm (x, w, b)\np = Sigmoid (h)\n{consumer}", x="N 3", w="3 5", b="5", **given)
    report = zig.compress(model, target, graphs.half(zig.analyze(model)), rtol=1e-5, atol=1e-6)
    check(target)
    assert report.removed
    assert report.comparison is not None
    assert report.comparison.equal


@pytest.mark.parametrize(
    ("consumer", "given", "zeros"),
    [
        ("z = ConvTranspose (p, v)", {"v": "5 2 2 2"}, ("v", np.s_[[1, 3]])),
        ('z = Einsum <equation = "ncij,oc->noij"> (p, v)', {"v": "2 5"}, ("v", np.s_[:, [1, 3]])),
        ("z = Conv <pads = [1, 1, 1, 1]> (p, v)", {"v": "2 5 3 3"}, ("v", np.s_[:, [1, 3]])),
    ],
    ids=["ConvTranspose", "Einsum", "Conv"],
)  # fmt: skip
def test_a_constant_that_only_zeros_read_needs_no_folding(
    consumer: str, given: dict[str, Any], zeros: tuple[str, Any], target: Path
) -> None:
    model = graphs.build(f"h = Conv (x, w, b)\np = Sigmoid (h)\n{consumer}", x="N 3 4 4", w="5 3 1 1", b="5", **given)
    assert compressed(zeroed(model, zeros, ("w", [1, 3])), target).removed == 2


def test_two_consumers_of_a_constant_fold_each_on_its_own(target: Path) -> None:
    text = "h = Gemm (x, w, b)\np = Sigmoid (h)\ny = Gemm (p, v, k)\nz = MatMul (p, u)"
    model = graphs.build(text, x="N 3", w="3 5", b="5", v="5 2", k="2", u="5 3")
    zig.compress(model, target, graphs.half(zig.analyze(model)), rtol=1e-5)
    assert [out.name for out in onnx.load(target).graph.output] == ["y", "z"]


def test_a_bias_that_two_layers_share_is_not_folded_into_both(target: Path) -> None:
    text = "h = Gemm (x, w, b)\np = Sigmoid (h)\ny = Gemm (p, v, k)\nz = Gemm (x, u, k)"
    model = graphs.build(text, x="N 3", w="3 5", b="5", v="5 2", k="2", u="3 2")
    zig.compress(model, target, graphs.half(zig.analyze(model)), rtol=1e-5)
    assert np.array_equal(weights(target)["k"], weights(model)["k"])


def test_a_weight_that_two_layers_share_is_folded_for_each(target: Path) -> None:
    text = "h = Gemm (x, w, b)\np = Sigmoid (h)\nq = Relu (h)\ny = Gemm (p, v)\nz = Gemm (q, v)"
    model = graphs.build(text, x="N 3", w="3 5", b="5", v="5 2")
    assert zig.compress(model, target, graphs.half(zig.analyze(model)), rtol=1e-5).removed


# -- operators whose operands change --------------------------------------------------------------------------------


def test_a_slice_with_a_step_becomes_a_gather(target: Path) -> None:
    text = "h = Gemm (x, w, b)\ns = Slice (h, start, end, axes, step)\nz = Gemm (s, v)\ny = Gemm (h, u)"
    model = graphs.build(text, x="N 3", w="3 8", b="8", start=[0], end=[8], axes=[1], step=[2], v="4 2", u="8 2")
    partition = zig.analyze(model)
    remove = np.isin(partition[0].id + np.arange(8), [1, 4])
    assert zig.compress(model, target, zig.Plan(partition, remove), rtol=1e-5).removed == 2
    assert "Gather" in [node.op_type for node in onnx.load(target).graph.node]


def test_a_slice_that_stays_a_range_stays_a_slice(target: Path) -> None:
    text = "h = Gemm (x, w, b)\ns = Slice (h, start, end, axes)\nz = Gemm (s, v)\ny = Gemm (h, u)"
    model = graphs.build(text, x="N 3", w="3 8", b="8", start=[2], end=[6], axes=[1], v="4 2", u="8 2")
    assert zig.compress(model, target, graphs.half(zig.analyze(model), 1), rtol=1e-5).removed
    assert [node.op_type for node in onnx.load(target).graph.node] == ["Gemm", "Slice", "Gemm", "Gemm"]


ROOT = """
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    t = Transpose <perm = [0, 2, 1]> (k)
    scores = MatMul (q, t)
    shape = Shape (q)
    last = Slice (shape, minus, end)
    real = Cast <to = 1> (last)
    root = Sqrt (real)
    scaled = Div (scores, root)
    z = Softmax <axis = -1> (scaled)
"""


def test_the_root_of_a_size_stays_the_number_it_was(target: Path) -> None:
    model = graphs.build(ROOT, x="N 4 3", wq="3 16", wk="3 16", minus=[-1], end=[9999])
    partition = zig.analyze(model)
    assert graphs.families(partition) == {"16: wk.1 wq.1"}
    plan = zig.Plan(partition, np.arange(16) >= 5)
    assert zig.compress(model, target, plan, rtol=1e-5).removed == 11
    assert graphs.shapes(target)["wq"] == (3, 5)


def test_a_batch_of_unknown_size_stays_unknown(target: Path) -> None:
    text = """
        h = Conv (x, w, b)
        shape = Shape (h)
        n = Gather (shape, zero)
        c = Gather (shape, one)
        half = Div (c, two)
        n1 = Unsqueeze (n, axes)
        h1 = Unsqueeze (half, axes)
        sizes = Concat <axis = 0> (n1, two1, h1, side, side)
        r = Reshape (h, sizes)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
        merge = Concat <axis = 0> (n1, minus, side, side)
        s = Reshape (t, merge)
        z = Conv (s, v)
    """
    model = graphs.build(
        text, x="N 3 4 4", w="6 3 1 1", b="6", v="2 6 1 1", zero=np.array(0), one=np.array(1), two=np.array(2), axes=[0],
        two1=[2], side=[4], minus=[-1],
    )  # fmt: skip
    partition = zig.analyze(model)
    assert len(partition) == 3
    plan = zig.Plan(partition, np.array([True, False, False]))
    zig.zero(plan, target.with_name("z.onnx"))
    assert zig.compress(model, target, plan, rtol=1e-5).removed == 1
    for n in (1, 2, 5):
        inputs = graphs.feeds(model, N=n)
        assert graphs.difference(graphs.run(target.with_name("z.onnx"), inputs), graphs.run(target, inputs)) <= 1e-5


# -- what survives --------------------------------------------------------------------------------------------------


@pytest.fixture
def documented() -> onnx.ModelProto:
    """A model with something written in every place that can hold it."""
    model = graphs.build(DEEP, **DEEP_SIZES)
    model.doc_string, model.producer_name, model.model_version = "the model", "a test", 7
    onnx.helper.set_model_props(model, {"author": "somebody"})
    model.graph.doc_string = "the graph"
    model.graph.input[0].doc_string = "an image"
    for i, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"layer{i}", f"number {i}"
        node.metadata_props.add(key="scope", value=f"net.layer{i}")
    for tensor in model.graph.initializer:
        tensor.doc_string = f"weight {tensor.name}"
    return model


def test_names_doc_strings_and_metadata_survive(documented: onnx.ModelProto, target: Path) -> None:
    zig.compress(documented, target, graphs.half(zig.analyze(documented)))
    small = onnx.load(target)
    assert (small.doc_string, small.producer_name, small.model_version) == ("the model", "a test", 7)
    assert {p.key: p.value for p in small.metadata_props} == {"author": "somebody"}
    assert small.graph.name == documented.graph.name
    assert small.graph.doc_string == "the graph"
    assert small.graph.input[0].doc_string == "an image"
    assert [(n.name, n.doc_string, n.metadata_props[0].value) for n in small.graph.node] == [
        (f"layer{i}", f"number {i}", f"net.layer{i}") for i in range(5)
    ]
    assert [i.name for i in small.graph.input] == ["x"]
    assert [o.name for o in small.graph.output] == ["z"]
    assert [t.name for t in small.graph.initializer] == [t.name for t in documented.graph.initializer]
    assert small.ir_version == documented.ir_version
    assert small.opset_import == documented.opset_import


def test_zeroing_changes_nothing_but_values(documented: onnx.ModelProto, target: Path) -> None:
    partition = zig.analyze(documented)
    zig.zero(graphs.half(partition), target)
    small = onnx.load(target)
    for a, b in zip(small.graph.node, documented.graph.node, strict=True):
        a.domain = b.domain = ""  # may be written or left out
        assert a == b
    assert graphs.shapes(target) == graphs.shapes(documented)
    assert graphs.families(zig.analyze(target)) == graphs.families(partition)


def test_declared_shapes_follow(target: Path) -> None:
    model = onnx.shape_inference.infer_shapes(graphs.build(DEEP, **DEEP_SIZES))
    plan = graphs.half(zig.analyze(model))
    zig.compress(model, target, plan)
    small = onnx.load(target)
    widths = {v.name: v.type.tensor_type.shape.dim[-1].dim_value for v in small.graph.value_info}
    assert widths["a"] == widths["b"] == graphs.shapes(target)["w1"][1] < 6
    check(target)


def test_weights_that_nobody_reads_are_left_out_or_left_alone(target: Path) -> None:
    model = graphs.build(DEEP, **DEEP_SIZES, unused="7 7")
    zig.compress(model, target, graphs.half(zig.analyze(model)))
    assert graphs.shapes(target).get("unused", (7, 7)) == (7, 7)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_floats_keep_their_type(dtype: Any, target: Path) -> None:
    generator = np.random.default_rng(0)
    given = {n: generator.standard_normal(s).astype(dtype) for n, s in (("w", (3, 6)), ("v", (6, 2)))}
    model = graphs.build("h = MatMul (x, w)\np = Sigmoid (h)\nz = MatMul (p, v)", x="N 3", **given)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    zig.compress(model, target, graphs.half(zig.analyze(model)), rtol=1e-2)
    assert {a.dtype for a in weights(target).values()} == {np.dtype(dtype)}


def test_bfloat16_weights_are_zeroed_and_cut(target: Path) -> None:
    model = graphs.build("h = MatMul (x, w)\nz = MatMul (h, v)", x="N 3", w="3 6", v="6 2")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, TensorProto.BFLOAT16, values.shape, values.ravel()))
    plan = graphs.half(zig.analyze(model))
    zig.zero(plan, target.with_name("z.onnx"))
    assert zig.compress(target.with_name("z.onnx"), target, check=False).removed == plan.remove.sum()
    assert onnx.load(target).graph.initializer[0].data_type == TensorProto.BFLOAT16


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights are large enough to lie in a file of their own."""
    model = graphs.build("h = Gemm (x, w, b)\ny = Relu (h)\nz = Gemm (y, v)", x="N 32", w="32 64", b="64", v="64 32")
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    return path


def data_of(model: Path) -> list[str]:
    """The names of the data files that a model refers to."""
    proto = onnx.load(model, load_external_data=False)
    entries = [entry for tensor in proto.graph.initializer for entry in tensor.external_data]
    return sorted({entry.value for entry in entries if entry.key == "location"})


def test_external_data_stay_external(external: Path, target: Path) -> None:
    plan = graphs.half(zig.analyze(external))
    zeroed_path = target.with_name("zeroed.onnx")
    zig.zero(plan, zeroed_path)
    report = compressed(zeroed_path, target)
    assert report.removed == plan.remove.sum()
    assert {p.name for p in target.parent.iterdir()} == {
        "model.onnx", "weights.bin", "zeroed.onnx", "small.onnx", *data_of(zeroed_path), *data_of(target),
    }  # fmt: skip
    located = {t.name: t.data_location for t in onnx.load(target, load_external_data=False).graph.initializer}
    assert located["w"] == TensorProto.EXTERNAL
    assert located["b"] == TensorProto.DEFAULT
    assert report.after["bytes"] == sum(target.with_name(n).stat().st_size for n in ("small.onnx", *data_of(target)))


def test_a_model_with_external_data_is_replaced_in_place(external: Path) -> None:
    before = external.read_bytes()
    zig.zero(graphs.half(zig.analyze(external)), external)
    report = zig.compress(external, external)
    assert report.removed
    assert external.read_bytes() != before
    assert zig.compress(external, external).removed == 0


def test_the_target_may_be_the_source(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(graphs.build(DEEP, **DEEP_SIZES), path)
    plan = graphs.half(zig.analyze(path))
    zig.zero(plan, path)
    assert zig.compress(path, path).removed == plan.remove.sum()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("existed", [True, False])
def test_nothing_is_written_where_the_outputs_differ(
    existed: bool, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if existed:
        target.write_text("what was here")
    module = sys.modules["zig.verify"]
    worse = module.Comparison(False, 1.0, 0.5, 1.0, [], 1, 1e-4, 1e-5)
    monkeypatch.setattr(module, "verify", lambda *_, **__: worse)
    model = graphs.build(DEEP, **DEEP_SIZES)
    with pytest.raises(VerifyError, match=r"would not give the same outputs .*0\.5"):
        zig.compress(model, target, graphs.half(zig.analyze(model)))
    assert [p.name for p in target.parent.iterdir()] == (["small.onnx"] if existed else [])
    assert not existed or target.read_text() == "what was here"


def test_a_plan_is_zeroed_first_and_compared_with_that(target: Path) -> None:
    model = graphs.build(DEEP, **DEEP_SIZES)
    plan = graphs.half(zig.analyze(model))
    report = zig.compress(model, target, plan)
    assert report.removed == plan.remove.sum()
    assert report.comparison is not None
    assert report.comparison.max_rel < 1e-5
    zig.zero(plan, target.with_name("z.onnx"))
    assert zig.verify(target.with_name("z.onnx"), target, rtol=1e-5).equal
    assert not zig.verify(model, target).equal


def test_a_plan_for_another_model_is_refused(target: Path) -> None:
    model, other = (
        graphs.build(DEEP, **DEEP_SIZES),
        graphs.build(DEEP, **{**DEEP_SIZES, "w1": "3 7", "b1": "7", "w2": "7 5"}),
    )
    plan = graphs.half(zig.analyze(model))
    with pytest.raises(PlanError, match="the plan is for"):
        zig.compress(other, target, plan)
    with pytest.raises(PlanError, match="the plan is for"):
        zig.zero(plan, target, source=other)


def test_a_plan_for_another_model_with_as_many_groups_is_refused(target: Path) -> None:
    model = graphs.build("h = Gemm (x, w, b)\nz = Gemm (h, v)", x="N 3", w="3 5", b="5", v="5 2")
    other = graphs.build("k = Gemm (x, u)\nz = Gemm (k, t)", x="N 4", u="4 5", t="5 3")
    with pytest.raises(PlanError, match="the plan is for"):
        zig.compress(other, target, graphs.half(zig.analyze(model)))


def test_the_report_is_plain_data(target: Path) -> None:
    model = graphs.build(DEEP, **DEEP_SIZES)
    plan = graphs.half(zig.analyze(model))
    report = zig.compress(model, target, plan)
    plain = report.to_dict()
    assert plain["groups"] == 11
    assert plain["removed"] == report.removed == plan.remove.sum()
    assert plain["comparison"]["equal"] is True
    assert [before for _, before, _ in plain["widths"]] == [6, 5]
    assert sum(before - after for _, before, after in plain["widths"]) == report.removed
    assert plain["after"]["parameters"] == sum(a.size for a in weights(target).values())
    assert plain["after"]["bytes"] == target.stat().st_size
    assert plain["before"]["nodes"] == plain["after"]["nodes"] == 5


def test_compressing_twice_finds_nothing_more(target: Path) -> None:
    model = graphs.build(DEEP, **DEEP_SIZES)
    zig.compress(model, target, graphs.half(zig.analyze(model)))
    assert zig.compress(target, target.with_name("again.onnx")).removed == 0


def test_bounds_keep_their_type(tmp_path: Path) -> None:
    text = "h = MatMul (x, w)\na = Slice (h, start, end, axes)\nz = MatMul (a, v)"
    bounds = {"start": np.array([0], np.int32), "end": np.array([4], np.int32), "axes": np.array([1], np.int32)}
    model = graphs.build(text, x="2 3", w="3 6", v="4 2", **bounds)
    report = zig.compress(model, tmp_path / "small.onnx", graphs.half(zig.analyze(model)))
    assert report.removed


def test_parameters_that_are_stored_once_because_they_are_equal_go_apart(tmp_path: Path) -> None:
    text = """
        c = Identity (b)
        h = Gemm (x, w, b)
        r = Relu (h)
        k = Gemm (r, v, c)
        s = Relu (k)
        z = MatMul (s, u)
    """
    model = graphs.build(text, x="2 3", w="3 6", v="6 6", u="6 2", b=np.ones(6, np.float32))
    partition = zig.analyze(model)
    assert graphs.families(partition) == {"6: b.0 w.1 | v.0", "6: c.0 v.1 | u.0"}
    report = zig.compress(model, tmp_path / "small.onnx", graphs.half(partition))
    assert report.removed
    only = zig.Plan(partition, partition.node_group == 0)
    zig.zero(only, tmp_path / "zeroed.onnx")
    zeroed = Graph(onnx.load(tmp_path / "zeroed.onnx"))
    assert not zeroed.array("b").any()
    assert zeroed.array("c").all()


def test_one_weight_that_is_used_twice_stays_one(tmp_path: Path) -> None:
    text = "s = Identity (w)\nh = MatMul (x, w)\nr = Relu (h)\nk = MatMul (r, s)\nz = MatMul (k, u)"
    model = graphs.build(text, x="2 6", w="6 6", u="6 2")
    partition = zig.analyze(model)
    assert partition.summary()["parameters"] == 6 * 6 + 6 * 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_zeros_that_are_read_with_infinite_weights_stay(dtype: type, odd: float, tmp_path: Path) -> None:
    kind = np.dtype(dtype).name.replace("32", "").replace("float64", "double")
    random = np.random.default_rng(0)
    w, b, v = (random.standard_normal(shape).astype(dtype) for shape in ((4, 5), (5,), (5, 2)))
    w[:, [1, 3]], b[[1, 3]] = 0, 0
    v[0], v[1, 1], v[3] = np.finfo(dtype).max, odd, 3  # the largest number is finite: it stands in no one's way
    model = parse(
        f"g ({kind}[N, 4] x) => ({kind}[N, 2] y) {{ h = MatMul (x, w) a = Add (h, b) r = Relu (a) y = MatMul (r, v) }}",
        w=w,
        b=b,
        v=v,
    )
    report = zig.compress(model, tmp_path / "small.onnx", check=False)
    assert (report.groups, report.removed) == (5, 1)
    small = zig.load(tmp_path / "small.onnx")
    np.testing.assert_array_equal(small.array("v"), v[[0, 1, 2, 4]])


def test_infinite_numbers_that_are_added_are_in_no_ones_way(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    w, mask, v = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 5), (3, 5), (5, 2)))
    mask[:] = np.where(mask < 0, -np.inf, 0)
    w[:, 1], mask[:, 1], mask[0, 0] = 0, 0, -np.inf
    model = parse(
        "g (float[3, 4] x) => (float[3, 2] y) { h = MatMul (x, w) a = Add (h, mask) r = Relu (a) y = MatMul (r, v) }",
        w=w,
        mask=mask,
        v=v,
    )
    report = zig.compress(model, tmp_path / "small.onnx")
    assert report.removed == 1


@pytest.mark.parametrize(
    ("text", "shape", "place"),
    [
        ("y = MatMul (h, v)", (5, 1), (1, 0)),
        ("y = Gemm <transB = 1> (h, v)", (1, 5), (0, 1)),
        ("g = Mul (h, v) y = MatMul (g, u)", (5,), (1,)),
        ("g = Mul (h, v) y = MatMul (g, u)", (1, 5), (0, 1)),
        ("i = Unsqueeze (h, last) j = Expand (i, pairs) f = Flatten (j) y = MatMul (f, v)", (10, 2), (3, 0)),
    ],
)
def test_infinite_weights_of_any_shape_keep_zeros(
    text: str, shape: tuple[int, ...], place: tuple[int, ...], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    w, v, u = (random.standard_normal(size).astype(np.float32) for size in ((4, 5), shape, (5, 2)))
    w[:, [1, 3]], v[place] = 0, np.inf
    model = parse(
        f"g (float[3, 4] x) => (float[3, M] y) {{ h = MatMul (x, w) {text} }}",
        w=w, v=v, u=u, last=np.array([2]), pairs=np.array([1, 1, 2]),
    )  # fmt: skip
    assert zig.compress(model, tmp_path / "small.onnx", check=False).removed == 1
