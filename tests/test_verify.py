"""Two models agree where they should, and only there."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import parse
from onnx import TensorProto, helper

from zig.errors import ModelError, UsageError, VerifyError
from zig.verify import latency, verify

SCALE = "g (float[N, 4] x) => (float[N, 4] y) { y = Mul(x, w) }"


def scaled(*values: float) -> onnx.ModelProto:
    return parse(SCALE, w=np.array(values, np.float32))


def test_a_model_agrees_with_itself(model_path: Path) -> None:
    comparison = verify(model_path, model_path)
    assert comparison.equal
    assert comparison.max_abs == comparison.max_rel == 0
    assert comparison.sensitivity > 0.1
    assert not comparison.warnings
    assert [(output.name, output.shape) for output in comparison.outputs] == [("logits", (2, 5))]


def test_a_small_difference_is_equal_within_the_tolerances() -> None:
    a, b = scaled(1, 1, 1, 1), scaled(1, 1, 1, 1.00001)
    assert verify(a, b).equal
    assert not verify(a, b, rtol=0, atol=0).equal


@pytest.mark.parametrize("seed", range(3))
def test_rule_is_absolute_plus_relative_to_the_largest_value(seed: int) -> None:
    # One of the four values decides the scale (1000), another is wrong by 0.05: within 1e-4 of the largest only.
    data = {"x": np.array([[[1000, 1, 1, 1]], [[-1000, 1, 1, 1]]], np.float32)}
    a, b = scaled(1, 1, 1, 1), scaled(1, 1, 1, 1.05)
    within = verify(a, b, data=data, seed=seed)
    assert within.equal
    assert within.max_abs == pytest.approx(0.05, rel=1e-3)
    assert within.max_rel == pytest.approx(5e-5, rel=1e-3)
    assert not verify(a, b, data=data, rtol=4e-5, seed=seed).equal
    assert verify(a, b, data=data, rtol=0, atol=0.06, seed=seed).equal


def test_a_difference_is_told_in_a_sentence() -> None:
    comparison = verify(scaled(1, 1, 1, 1), scaled(1, 1, 1, 2))
    assert not comparison.equal
    assert comparison.differences[0].startswith("output 'y' differs by ")
    assert comparison.max_rel > 0.01


def test_the_seed_decides_the_inputs() -> None:
    a, b = scaled(1, 1, 1, 1), scaled(1, 1, 1, 2)
    assert verify(a, b, seed=7).max_abs == verify(a, b, seed=7).max_abs != verify(a, b, seed=8).max_abs


def test_nan_must_be_at_the_same_places() -> None:
    root = "g (float[N, 4] x) => (float[N, 4] y) { z = Mul(x, w) y = Sqrt(z) }"
    a = parse(root, w=np.ones(4, np.float32))
    same = verify(a, a)
    assert same.equal
    assert "NaN" in same.warnings[0]
    other = verify(a, parse(root, w=np.array([1, 1, 1, -1], np.float32)))
    assert not other.equal
    assert "different places" in other.differences[0]
    assert other.max_abs == math.inf
    assert json.loads(json.dumps(other.to_dict(), allow_nan=False))["max_abs"] is None


def test_infinities_must_have_the_same_sign() -> None:
    divide = "g (float[N, 4] x) => (float[N, 4] y) { z = Abs(x) y = Div(z, w) }"
    a, b = (parse(divide, w=np.array([1, 1, 1, zero], np.float32)) for zero in (0.0, -0.0))
    assert verify(a, a).equal
    assert not verify(a, b).equal


@pytest.mark.parametrize("type_", ["int64", "bool"])
def test_integers_and_booleans_must_be_identical(type_: str) -> None:
    body = {"int64": "h = Floor(z) y = Cast <to = 7> (h)", "bool": "y = Greater(z, zero)"}[type_]
    text = f"g (float[N, 4] x) => ({type_}[N, 4] y) {{ z = Mul(x, w) {body} }}"
    zero = {"zero": np.zeros(1, np.float32)} if type_ == "bool" else {}
    a, b = (parse(text, w=np.array([10, 10, 10, last], np.float32), **zero) for last in (10, -10))
    assert verify(a, a, rtol=1, atol=1).equal
    comparison = verify(a, b, rtol=1, atol=1)
    assert not comparison.equal
    assert f"{type_} values" in comparison.differences[0]


def test_large_integers_are_compared_exactly() -> None:
    text = "g (int64[N, 2] ids) => (int64[N, 2] y) { y = Add(ids, w) }"
    a, b = (parse(text, w=np.array([0, 2**60 + step])) for step in (0, 1))
    assert not verify(a, b).equal


def test_half_precision_does_not_overflow() -> None:
    text = "g (float16[N, 4] x) => (float16[N, 4] y) { s = Sign(x) y = Mul(s, w) }"
    a, b = (parse(text, w=np.array([1, 1, 1, last], np.float16)) for last in (60000, -60000))
    assert verify(a, b).max_abs == 120000


def test_parts_of_a_sequence_are_compared_one_by_one() -> None:
    text = "g (float[4] x) => (seq(float[2]) y) { z = Mul(x, w) y = SplitToSequence(z, two) }"
    a, b = (parse(text, w=np.array([1, 1, 1, last], np.float32), two=np.array(2, np.int64)) for last in (1.0, 2.0))
    comparison = verify(a, b)
    assert [(output.name, output.equal) for output in comparison.outputs] == [("y[0]", True), ("y[1]", False)]


def test_strings_are_fed_and_compared() -> None:
    text = "g (string[N] x) => (string[N] y) { y = StringConcat(x, w) }"
    a, b = (parse(text, w=np.array([end], dtype=object)) for end in ("!", "?"))
    assert verify(a, a).equal
    assert "different strings" in verify(a, b).differences[0]


def test_outputs_that_hardly_move_are_no_proof() -> None:
    text = "g (float[N, 4] x) => (float[N, 4] y) { z = Add(x, w) y = Sigmoid(z) }"
    saturated = parse(text, w=np.full(4, 50, np.float32))
    comparison = verify(saturated, parse(text, w=np.full(4, 60, np.float32)))
    assert comparison.equal
    assert comparison.sensitivity < 1e-3
    assert "--data" in comparison.warnings[0]
    real = {"x": np.array([[[-50, -51, -52, -53]], [[-50, -49, -48, -47]]], np.float32)}
    assert not verify(saturated, parse(text, w=np.full(4, 60, np.float32)), data=real).equal


def test_interfaces_that_differ_are_told_apart() -> None:
    def named(source: str, target: str, shape: str = "N, 4", kind: str = "float") -> onnx.ModelProto:
        return parse(f"g ({kind}[{shape}] {source}) => ({kind}[{shape}] {target}) {{ {target} = Relu({source}) }}")

    a = named("x", "y")
    for b, words in (
        (named("z", "y"), "lacks the input 'x'"),
        (named("x", "z"), "lacks the output 'y'"),
        (named("x", "y", "N, 5"), "input 'x' is ['N', 4] in"),
        (named("x", "y", "N, 4, 1"), "input 'x' is ['N', 4] in"),
        (named("x", "y", kind="double"), "input 'x' is tensor(float) in"),
    ):
        comparison = verify(a, b)
        assert not comparison.equal
        assert words in comparison.differences[0]


def test_output_shapes_that_differ_are_told() -> None:
    a = parse("g (float[N, 4] x) => (float[N, M] y) { y = Relu(x) }")
    b = parse("g (float[N, 4] x) => (float[N, M] y) { y = Concat <axis = 1> (x, x) }")
    assert "has shape [2, 4] in one and [2, 8] in the other" in verify(a, b).differences[0]


def test_a_fixed_batch_of_one_model_suits_both() -> None:
    free, fixed = (parse(f"g (float[{n}, 4] x) => (float[{n}, 4] y) {{ y = Relu(x) }}") for n in ("N", "7"))
    for pair in ((free, fixed), (fixed, free)):
        assert verify(*pair).outputs[0].shape == (7, 4)


def test_equal_symbols_get_equal_sizes() -> None:
    text = """g (float[N, S] x, float[M, S] y, float[M, T] w) => (float[N, T] z) {
        t = Transpose <perm = [1, 0]> (y) u = MatMul(x, t) z = MatMul(u, w) }"""
    assert verify(parse(text), parse(text)).equal


def test_symbols_that_are_sums_are_added_up() -> None:
    text = """g (float[N, past_length] x, float[N, longer] y, float[N, 3] w) => (float[N, L] z) {
        c = Concat <axis = 1> (x, w) z = Add(c, y) }"""
    model = parse(text)
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "past_length + 3"
    assert verify(model, model).equal


def test_token_numbers_fit_a_small_vocabulary_and_masks_are_ones() -> None:
    text = """g (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask,
        int64[batch, sequence] position_ids, int64[batch, sequence] token_type_ids) => (float[batch, sequence, 4] y) {
        words = Gather(table, input_ids) places = Gather(spots, position_ids) kinds = Gather(types, token_type_ids)
        m = Cast <to = 1> (attention_mask) one = Log(m) o = Unsqueeze(one, last)
        a = Add(words, places) b = Add(a, kinds) y = Add(b, o) }"""
    generator = np.random.default_rng(0)
    tables = {
        name: generator.standard_normal((n, 4)).astype(np.float32)
        for name, n in (("table", 3), ("spots", 16), ("types", 1))
    }
    model = parse(text, **tables, last=np.array([2]))
    comparison = verify(model, model)
    assert comparison.equal
    assert comparison.sensitivity > 0.1
    assert not comparison.warnings


def test_images_of_any_size_get_one_that_fits() -> None:
    # The Reshape holds for a batch of two images of 32 x 32 only, which is the second guess.
    text = "g (float[N, 3, H, W] x) => (float[N, 3072] y) { y = Reshape(x, shape) }"
    model = parse(text, shape=np.array([2, 3072]))
    assert verify(model, model).outputs[0].shape == (2, 3072)


def test_a_model_that_no_random_input_suits_asks_for_real_ones() -> None:
    text = "g (float[N, 5] x) => (float[1001, 5] y) { y = Reshape(x, shape) }"
    model = parse(text, shape=np.array([1001, 5]))
    with pytest.raises(ModelError, match=r"give real ones by --data"):
        verify(model, model)
    data = {"x": np.random.default_rng(0).standard_normal((2, 1001, 5)).astype(np.float32)}
    assert verify(model, model, data=data).equal


def test_real_inputs_come_by_name_with_a_leading_axis_of_samples(tmp_path: Path) -> None:
    path, values = tmp_path / "data.npz", np.random.default_rng(0).standard_normal((4, 2, 4))
    np.savez(path, x=values.astype(np.float32))
    a, b = scaled(1, 1, 1, 1), scaled(1, 1, 1, 2)
    assert verify(a, a, data=path).samples == 3
    assert verify(a, a, data=path, samples=10).samples == 4
    assert verify(a, b, data=path, samples=1).max_abs == pytest.approx(np.abs(values[0, :, 3]).max())
    single = verify(a, a, data={"x": values[0].astype(np.float32)})
    assert single.samples == 1
    assert math.isnan(single.sensitivity)
    assert "two samples" in single.warnings[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"z": np.zeros((1, 2, 4), np.float32)}, "holds no array for the input 'x'"),
        ({"x": np.zeros((0, 2, 4), np.float32)}, "at least one"),
        ({"x": np.zeros((1, 2, 4), np.complex64)}, "convert it"),
    ],
)
def test_real_inputs_that_do_not_fit_are_refused(data: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        verify(scaled(1, 1, 1, 1), scaled(1, 1, 1, 1), data=data)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_data_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"data.npz is not a .npz file"):
        verify(scaled(1, 1, 1, 1), scaled(1, 1, 1, 1), data=path)
    with pytest.raises(UsageError, match="no such file"):
        verify(scaled(1, 1, 1, 1), scaled(1, 1, 1, 1), data=tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"", "is empty"), (b"hello, I am no model\n", "Protobuf parsing failed")],
)
def test_bad_files_are_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"bad.onnx.*{words}"):
        verify(path, path)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a file"):
        verify(tmp_path, tmp_path)


def test_a_model_that_onnxruntime_refuses_is_named_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    model = parse("g (float[N, 4] x) => (float[N, 4] y) { y = local.Unheard(x) }")
    with pytest.raises(ModelError, match=r"^g: onnxruntime refuses the model: .*Unheard") as caught:
        verify(model, model)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_second_model_that_breaks_down_is_a_difference(capfd: pytest.CaptureFixture[str]) -> None:
    a = parse("g (float[N, 4] x) => (float[M, K] y) { y = Reshape(x, shape) }", shape=np.array([-1, 2]))
    b = parse("g (float[N, 4] x) => (float[M, K] y) { y = Reshape(x, shape) }", shape=np.array([-1, 5]))
    with pytest.raises(VerifyError, match="that g accepts"):
        verify(a, b)
    assert capfd.readouterr() == ("", "")


def test_external_data_of_a_model_in_memory_lie_in_its_folder(network: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(network, tmp_path / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=0)
    light = onnx.load(tmp_path / "big.onnx", load_external_data=False)
    assert light.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert verify(light, tmp_path / "big.onnx", folder=tmp_path).equal


def test_an_input_type_that_no_array_has_is_named() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["N"])
    out = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["N"])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ModelError, match=r"input 'x' is tensor\(bfloat16\)"):
        verify(model, model)


def test_providers_that_are_not_here_are_named() -> None:
    with pytest.raises(UsageError, match=r"choose one of .*cpu"):
        verify(scaled(1, 1, 1, 1), scaled(1, 1, 1, 1), provider="abacus")


def test_latency_is_a_time(model_path: Path) -> None:
    assert 0 < latency(model_path, runs=5) < 1000
