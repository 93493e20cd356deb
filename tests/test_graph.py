"""Loading: what comes in, and what is refused with one clear sentence."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnx_ir
import pytest
from conftest import parse
from onnx import TensorProto, numpy_helper

import zig
from zig.errors import ModelError, UsageError, ZigError
from zig.model.dims import Dim, symbol
from zig.model.graph import Graph, load

MLP = "h = Gemm (x, w, b)\ny = Relu (h)\nz = Gemm (y, v)"
SIZES = {"x": "N 3", "w": "3 c", "b": "c", "v": "c 2", "c": 4}
GROUPS = {"4: b.0 w.1 | v.0"}


@pytest.fixture
def mlp() -> onnx.ModelProto:
    return graphs.build(MLP, **SIZES)


@pytest.fixture
def external(mlp: onnx.ModelProto, tmp_path: Path) -> Path:
    """The model with its weights in a file beside it."""
    path = tmp_path / "model.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(mlp)  # saving moves the weights out of the model in memory too
    onnx.save(copy, path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


# -- sources --------------------------------------------------------------------------------------------------------


def test_a_path_a_proto_an_ir_model_and_a_graph_are_the_same(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(mlp, path)
    sources: list[Any] = [path, str(path), mlp, onnx_ir.from_proto(mlp), Graph(mlp)]
    assert [graphs.families(zig.analyze(source)) for source in sources] == [GROUPS] * 5


def test_a_graph_comes_back_as_it_is(mlp: onnx.ModelProto) -> None:
    graph = Graph(mlp)
    assert load(graph) is graph


def test_what_a_graph_knows(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(mlp, path)
    graph = load(path)
    assert graph.path == path
    assert graph.name == str(path)
    assert [node.op for node in graph.nodes] == ["Gemm", "Relu", "Gemm"]
    assert list(graph.initializers) == ["w", "b", "v"]
    assert graph.inputs == ["x"]
    assert graph.outputs == ["z"]
    assert graph.parameters == 3 * 4 + 4 + 4 * 2
    assert isinstance(graph.shapes["h"][0], Dim)
    assert graph.shapes["h"][1] == 4


def test_loading_changes_nothing_in_the_model(mlp: onnx.ModelProto) -> None:
    before = mlp.SerializeToString()
    zig.analyze(mlp)
    assert mlp.SerializeToString() == before


# -- errors ---------------------------------------------------------------------------------------------------------


def truncated(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString()[:-40]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is not an ONNX model, or it is empty"),
        (b"just some text\n", "is not an ONNX model"),
        (truncated(graphs.build(MLP, **SIZES)), "is not an ONNX model, or it is damaged or cut off"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "is empty"),
    ],
)
def test_a_file_that_is_no_model(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        zig.analyze(path)
    check_sentence(caught.value, path)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read") as caught:
        load(tmp_path)
    check_sentence(caught.value, tmp_path)


def test_external_data_that_is_missing(external: Path) -> None:
    external.with_name("model.data").unlink()
    with pytest.raises(ModelError, match=r"data file 'model.data' of tensor 'w' is missing") as caught:
        load(external)
    check_sentence(caught.value, external)


def test_external_data_that_is_too_short(external: Path) -> None:
    data = external.with_name("model.data")
    data.write_bytes(data.read_bytes()[:8])
    with pytest.raises(ModelError, match="too short"):
        load(external)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "", "."])
def test_external_data_outside_its_folder(location: str, external: Path) -> None:
    external.parent.with_name("secret").write_bytes(bytes(1000))
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"outside the model's folder|is missing"):
        load(external)


def test_external_data_behind_a_link_that_leads_outside(
    external: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, elsewhere = external.with_name("model.data"), tmp_path_factory.mktemp("elsewhere") / "data"
    data.rename(elsewhere)
    data.symlink_to(elsewhere)
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(external)


def test_a_cycle() -> None:
    model = graphs.build("a = Add (x, b)\nb = Relu (a)\nz = Relu (b)", x="N 3")
    with pytest.raises(ModelError, match="cycle"):
        Graph(model)


def check_sentence(error: ZigError, path: Path) -> None:
    """One line that names the file; exit code 2."""
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)
    assert error.exit_code == 2


# -- what models are made of ----------------------------------------------------------------------------------------


def test_constant_nodes_are_weights() -> None:
    text = """
        w = Constant <value = float[3, 4] {1., 2., 3., 4., 5., 6., 7., 8., -1., -2., -3., 4.}> ()
        h = MatMul (x, w)
        z = MatMul (h, v)
    """
    model = graphs.build(text, x="N 3", v="4 2")
    graph = Graph(model)
    assert graph.array("w").tolist()[0] == [1, 2, 3, 4]
    assert [node.op for node in graph.nodes] == ["MatMul", "MatMul"]
    assert graphs.families(zig.analyze(graph)) == {"4: w.1 | v.0"}


def test_constant_nodes_are_cut(tmp_path: Path) -> None:
    text = "w = Constant <value = float[2, 3] {1., 2., 3., 4., 5., 6.}> ()\nh = MatMul (x, w)\nz = MatMul (h, v)"
    model = graphs.build(text, x="N 2", v="3 2")
    partition = zig.analyze(model)
    zeroed, small = tmp_path / "z.onnx", tmp_path / "s.onnx"
    zig.zero(zig.Plan(partition, np.array([False, True, False])), zeroed)
    assert zig.compress(zeroed, small).comparison.equal
    assert Graph(onnx.load(small)).array("w").tolist() == [[1, 3], [4, 6]]


@pytest.mark.parametrize(
    ("attribute", "value", "dtype"),
    [
        ("value_float = 0.5", 0.5, np.float32), ("value_int = 3", 3, np.int64), ("value_ints = [1, 2]", [1, 2], np.int64),
        ("value_floats = [1.5, 2.5]", [1.5, 2.5], np.float32),
    ],
)  # fmt: skip
def test_constants_of_all_kinds(attribute: str, value: Any, dtype: Any) -> None:
    graph = Graph(graphs.build(f"k = Constant <{attribute}> ()\nz = Identity (k)", x="N 3"))
    assert graph.array("k").tolist() == value
    assert graph.array("k").dtype == dtype


def test_a_constant_of_strings_stays_a_node() -> None:
    graph = Graph(graphs.build('k = Constant <value_string = "a"> ()\nz = Identity (k)', x="N 3", returns="string"))
    assert [node.op for node in graph.nodes] == ["Constant", "Identity"]


def test_nodes_are_put_in_order(mlp: onnx.ModelProto) -> None:
    nodes = list(mlp.graph.node)
    del mlp.graph.node[:]
    mlp.graph.node.extend(reversed(nodes))
    assert [node.outputs[0] for node in Graph(mlp).nodes] == ["h", "y", "z"]
    assert graphs.families(zig.analyze(mlp)) == GROUPS


def test_nodes_in_disorder_are_cut_exactly(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    nodes = list(mlp.graph.node)
    del mlp.graph.node[:]
    mlp.graph.node.extend(nodes[::-1])
    zig.compress(mlp, tmp_path / "s.onnx", graphs.half(zig.analyze(mlp)), check=False)
    assert len(zig.analyze(tmp_path / "s.onnx")) < 4


def test_an_order_that_is_right_is_kept() -> None:
    model = graphs.build("b = Relu (x)\na = Relu (x)\nd = Relu (b)\nc = Add (a, b)\nz = Add (c, d)", x="N 3")
    assert [node.outputs[0] for node in Graph(model).nodes] == ["b", "a", "d", "c", "z"]


def mapped(array: Any) -> bool:
    """Whether an array lies in a file that is mapped into memory."""
    while array is not None:
        if isinstance(array, (np.memmap, mmap.mmap)):
            return True
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return False


def test_external_data_is_memory_mapped(external: Path, mlp: onnx.ModelProto) -> None:
    graph = load(external)
    assert all(mapped(graph.array(name)) for name in ("w", "b", "v"))
    assert np.array_equal(graph.array("w"), numpy_helper.to_array(mlp.graph.initializer[0]))


def test_external_data_is_not_read_by_the_analysis(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "array", lambda *_: pytest.fail("a weight was read"))
    assert graphs.families(zig.analyze(external)) == GROUPS


def test_functions_of_the_model_are_entered() -> None:
    function = """
        <opset_import : ["" : 20], domain : "local">
        block (a, w, b) => (r) {
            h = Gemm (a, w, b)
            r = Relu (h)
        }
    """
    text = "y = local.block (x, w, b)\nz = Gemm (y, v)"
    partition = zig.analyze(graphs.build(text, functions=function, **SIZES))
    assert graphs.families(partition) == GROUPS
    assert not partition.unknown_operators


def test_functions_inside_functions_and_attributes() -> None:
    functions = """
        <opset_import : ["" : 20], domain : "local">
        inner <slope> (a) => (r) { r = LeakyRelu <alpha : float = @slope> (a) }
        <opset_import : ["" : 20, "local" : 1], domain : "local">
        outer (a, w) => (r) {
            h = MatMul (a, w)
            r = local.inner <slope = 0.5> (h)
        }
    """
    model = graphs.build("y = local.outer (x, w)\nz = MatMul (y, v)", functions=functions, x="N 3", w="3 4", v="4 2")
    graph = Graph(model)
    assert [node.op for node in graph.nodes] == ["MatMul", "LeakyRelu", "MatMul"]
    assert graph.nodes[1].attribute("alpha") == 0.5
    assert graphs.families(zig.analyze(graph)) == {"4: w.1 | v.0"}


def test_old_files_list_initializers_among_their_inputs() -> None:
    model = graphs.build(MLP.replace("Gemm (y, v)", "Gemm (y, v, k)"), ir_version=3, opset=8, **SIZES, k="2")
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    graph = Graph(model)
    assert graph.inputs == ["x"]
    assert graphs.families(zig.analyze(graph)) == GROUPS


def test_old_files_are_cut_with_their_inputs(tmp_path: Path) -> None:
    model = graphs.build(MLP.replace("Gemm (y, v)", "Gemm (y, v, k)"), ir_version=3, opset=8, **SIZES, k="2")
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    report = zig.compress(model, tmp_path / "s.onnx", graphs.half(zig.analyze(model)))
    assert report.removed
    small = onnx.load(tmp_path / "s.onnx")
    declared = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in small.graph.input}
    assert all(declared[name] == list(shape) for name, shape in graphs.shapes(small).items() if name in declared)


def test_half_precision_and_double_weights_are_weights_and_indices_are_not() -> None:
    graph = Graph(graphs.build("z = Gather (w, k)", x="N", w=np.zeros((3, 4), np.float16), k=[0, 1]))
    assert graph.is_float("w")
    assert not graph.is_float("k")
    assert graph.parameters == 12


def test_unwritable_targets_are_wrong_use(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be written"):
        zig.compress(mlp, tmp_path / "missing" / "s.onnx")
    with pytest.raises(UsageError, match="folder"):
        zig.compress(mlp, tmp_path)


def test_a_tensor_with_too_few_bytes_is_refused(tmp_path: Path) -> None:
    model = graphs.build("y = MatMul(x, w)", x="2 3", w="3 4")
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-8]
    onnx.save(model, tmp_path / "short.onnx")
    with pytest.raises(ModelError, match="'w' holds 40 bytes instead of 48"):
        load(tmp_path / "short.onnx")


def test_sizes_that_a_tool_could_not_tell_are_found_anew() -> None:
    model = parse(
        """g (float[N, W, 8] x) => (float[N, K, 2] y) <float[N, Reshape_1_o0__d1, 4] r, float[N, J, 2] z> {
            n = Shape <end = 1> (x) s = Shape <start = 1, end = 2> (x) t = Mul (s, two)
            to = Concat <axis = 0> (n, t, four) h = MatMul (x, w) r = Reshape (h, to) o = MatMul (r, v)
            z = my.own.Thing (o) y = MatMul (z, u) }""",
        w=np.ones((8, 8), np.float32), v=np.ones((4, 4), np.float32), u=np.ones((2, 2), np.float32),
        two=np.array([2]), four=np.array([4]),
    )  # fmt: skip
    model.opset_import.append(onnx.helper.make_opsetid("my.own", 1))
    shapes = load(model).shapes
    assert shapes["r"] == shapes["o"] == (symbol("N"), 2 * symbol("W"), 4)
    assert shapes["z"] == (symbol("N"), symbol("J"), 2)  # all that anybody says of what an unknown node makes


def test_numbers_beside_a_size_that_a_tool_could_not_tell_are_kept() -> None:
    model = parse(
        """g (float[N, 1] x, int64[2] s) => (float[M, 4] y) <float[u0, 64] c> {
            c = Expand (x, s) d = MatMul (c, w) y = MatMul (d, v) }""",
        w=np.ones((64, 16), np.float32), v=np.ones((16, 4), np.float32),
    )  # fmt: skip
    assert load(model).shapes["c"][1] == 64
    assert len(zig.analyze(model)) == 16 + 64


def test_a_size_that_follows_from_those_of_inputs_is_kept() -> None:
    text = """g (float[1, 3, H, W] x) => (float[1, 8, P, Q] y) <float[1, 8, R, S] c> {
        c = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, k) y = Relu (c) }"""
    model = parse(text, k=np.ones((8, 3, 3, 3), np.float32))
    for dim, size in zip(model.graph.value_info[0].type.tensor_type.shape.dim[2:], ("H//2", "W//2"), strict=True):
        dim.dim_param = size
    shapes = load(model).shapes
    assert shapes["c"][2:] == (symbol("H") // 2, symbol("W") // 2)


@pytest.mark.parametrize("step", ["back", "n"])
def test_a_slice_that_goes_backwards_or_by_a_dynamic_step_leaves_the_rest_known(step: str) -> None:
    text = f"""g (float[N, T, 8] x) => (float[N, T, 4] y) {{
        n = Shape <end = 1> (x) h = MatMul (x, w) r = Slice (h, last, first, one, {step}) q = Relu (r)
        y = MatMul (q, v) }}"""
    numbers = {"last": [-1], "first": [-(2**63) + 1], "one": [1], "back": [-1]}
    weights = {"w": np.ones((8, 16), np.float32), "v": np.ones((16, 4), np.float32)}
    model = parse(text, **weights, **{name: np.array(value) for name, value in numbers.items()})
    assert len(zig.analyze(model)) == 16
