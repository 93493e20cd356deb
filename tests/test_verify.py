"""Two models agree where they should, and only there."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import parse
from onnx import TensorProto, helper

import zig
from zig import cli
from zig.errors import ModelError, UsageError, VerifyError
from zig.proof import verify as verifying
from zig.proof.edits import probes
from zig.proof.inputs import GUESSES, Input, feedback, random_feeds
from zig.proof.session import Session
from zig.proof.verify import latency, obstacle, verify

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
    text = "g (float[N, 4] x) => (float[N, 4] y) { z = Mul(x, w) y = Add(z, k) }"
    a, b = (parse(text, w=np.full(4, scale, np.float32), k=np.full(4, 9, np.float32)) for scale in (1e-5, 2e-5))
    comparison = verify(a, b)
    assert comparison.equal
    assert comparison.sensitivity < 1e-3
    assert "--data" in comparison.warnings[0]
    real = {"x": np.array([[[-5e5, -1e5, -2e5, -3e5]], [[5e5, 4e5, 3e5, 2e5]]], np.float32)}
    assert not verify(a, b, data=real).equal


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


@pytest.mark.parametrize("kind", ["float", "float16", "int64", "bool", "uint8", "string"])
def test_an_input_may_be_a_single_value(kind: str) -> None:
    model = parse(f"g ({kind} x) => ({kind} y) {{ y = Identity (x) }}")
    assert verify(model, model).equal
    values = np.array(["a", "b"] if kind == "string" else [1, 0])
    data = values.astype({"float": "float32", "string": "object"}.get(kind, kind))
    assert verify(model, model, data={"x": data}).samples == 2


def test_an_input_type_that_no_array_has_is_named() -> None:
    model = parse("g (float[4] x) => (float[4] y) { q = SequenceConstruct (x) y = SequenceAt (q, k) }", k=np.array(0))
    del model.graph.node[0]
    model.graph.node[0].input[0] = "x"
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"input 'x' is seq\(tensor\(float\)\)"):
        verify(model, model)


def test_providers_that_are_not_here_are_named() -> None:
    with pytest.raises(UsageError, match=r"choose one of .*cpu"):
        verify(scaled(1, 1, 1, 1), scaled(1, 1, 1, 1), provider="abacus")


@pytest.mark.parametrize("provider", ["tensorrt", "cuda"])
def test_a_provider_that_cannot_start_is_named_in_one_sentence(model_path: Path, zig: Any, provider: str) -> None:
    done = zig("verify", model_path, model_path, "--provider", provider)
    if done.returncode == 0:
        pytest.skip(f"{provider} starts here")
    assert done.returncode == 2
    assert done.stdout == ""
    named = ("onnxruntime can't start", f"provider '{provider}' is not part of the onnxruntime installed here; choose")
    assert done.stderr.startswith(tuple(f"zig: error: {text}" for text in named))
    assert done.stderr.count("\n") == 1
    assert "::" not in done.stderr


def test_the_smallest_of_all_models_runs_where_the_provider_is_not_at_fault() -> None:
    import onnxruntime

    from zig.proof.session import _starts

    assert _starts(onnxruntime, [("CPUExecutionProvider", {})])


def test_latency_is_a_time(model_path: Path) -> None:
    assert 0 < latency(model_path, runs=5) < 1000


# Tensors inside


@pytest.mark.parametrize("last", ["Sigmoid (z)", "Softmax (z)", "Tanh (z)", "HardSigmoid (z)", "Clip (z, low, high)"])
def test_what_a_saturated_operator_hides_is_found(last: str) -> None:
    text = f"g (float[N, 4] x) => (float[N, 4] y) {{ z = Add (x, w) y = {last} }}"
    limits = {"low": np.float32(-1), "high": np.float32(1)} if "low" in last else {}
    slope = np.array([90, 1000, 180, 360], np.float32)
    a, b = (parse(text, w=scale * slope, **{k: np.asarray(v) for k, v in limits.items()}) for scale in (1, 1.5))
    comparison = verify(a, b)
    assert comparison.outputs[0].equal
    assert [(one.name, one.equal) for one in comparison.inside] == [("z", False)]
    assert not comparison.equal
    assert comparison.differences[0].startswith("tensor 'z' inside differs by")
    assert verify(a, a).equal


def test_the_tensor_inside_tells_how_the_output_reacts() -> None:
    model = parse(
        "g (float[N, 4] x) => (float[N, 4] y) { z = Add (x, w) y = Sigmoid (z) }", w=np.full(4, 50, np.float32)
    )
    comparison = verify(model, model)
    assert comparison.outputs[0].sensitivity < 1e-3
    assert comparison.sensitivity > 1e-2
    assert not comparison.warnings


def test_probes_lie_behind_what_only_moves_data() -> None:
    text = """g (float[N, 4] x) => (float[M] y, int64[N, 1] best) {
        a = Mul (x, w) s = Sigmoid (a) b = Add (x, w) t = Tanh (b) c = Concat <axis = 1> (s, t) y = Reshape (c, flat)
        h = Relu (x) i = Mul (h, w) best = ArgMax <axis = 1> (i) }"""
    model = parse(text, w=np.ones(4, np.float32), flat=np.array([-1]))
    assert probes(model.graph) == {"y": ("a", "b"), "best": ("i",)}


def test_a_tensor_inside_that_another_model_lacks_or_has_narrower_is_left_out() -> None:
    text = (
        "g (float[N, 4] x) => (float[N, 1] y) {{ {} = MatMul (x, w) s = Sigmoid ({}) y = Slice (s, zero, one, one) }}"
    )
    given = {"zero": np.array([0]), "one": np.array([1])}
    wide = parse(text.format("z", "z"), w=np.ones((4, 2), np.float32), **given)
    for name, width in (("z", 1), ("other", 2)):
        assert verify(wide, parse(text.format(name, name), w=np.ones((4, width), np.float32), **given)).equal


def test_a_tie_that_rounding_breaks_is_no_difference() -> None:
    text = "g (float[N, 2] x) => (int64[N, 1] y) { z = Add (zero, w) a = Mul (x, zero) b = Add (a, z) y = ArgMax <axis = 1> (b) }"
    zero = np.zeros((1, 2), np.float32)
    a, b = (parse(text, w=np.array([[1, top]], np.float32), zero=zero) for top in (1 - 1e-6, 1 + 1e-6))
    comparison = verify(a, b)
    assert comparison.equal
    assert "what comes of rounding in 'b'" in comparison.warnings[0]
    wrong = parse(text.replace("ArgMax", "ArgMin"), w=np.array([[1, 2]], np.float32), zero=zero)
    assert not verify(parse(text, w=np.array([[1, 2]], np.float32), zero=zero), wrong).equal
    assert not verify(a, parse(text, w=np.array([[1, 1.1]], np.float32), zero=zero)).equal


def test_an_output_so_small_that_the_absolute_tolerance_covers_it_is_told() -> None:
    a, b = (parse(SCALE, w=np.full(4, scale, np.float32)) for scale in (1e-7, 2e-7))
    comparison = verify(a, b)
    assert comparison.equal
    assert "which only --atol 1e-05 allows" in comparison.warnings[0]
    assert not verify(a, b, atol=0).equal


def test_an_output_whose_shape_depends_on_data_is_compared() -> None:
    text = "g (float[N, 4] x) => (int64[2, M] y) { z = Mul (x, w) m = Greater (z, k) y = NonZero (m) }"
    k = np.zeros(1, np.float32)
    a, b = (parse(text, w=np.array([1, 1, 1, last], np.float32), k=k) for last in (1, -1))
    assert verify(a, a).equal
    assert not verify(a, b).equal


def test_maps_are_compared_entry_by_entry() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "ai.onnx.ml" : 1]> g (float[2, 3] x) => (y) {
        z = Mul (x, w) y = ai.onnx.ml.ZipMap <classlabels_int64s = [7, 8, 9]> (z) }"""
    a, b = (parse(text, w=np.array([1, 1, last], np.float32)) for last in (1, 2))
    for model in (a, b):
        model.graph.output[0].type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
        model.graph.output[0].type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    assert verify(a, a).equal
    assert [o.name for o in verify(a, b).outputs if not o.equal] == ["y[0][9]", "y[1][9]"]


def test_an_optional_is_compared() -> None:
    text = "g (float[N, 4] x) => (y) { z = Mul (x, w) y = Optional (z) }"
    a, b = (parse(text, w=np.array([1, 1, 1, last], np.float32)) for last in (1, 2))
    for model in (a, b):
        model.graph.output[0].type.optional_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    assert verify(a, a).equal
    assert not verify(a, b).equal


def test_random_operators_draw_the_same_numbers_in_both_models() -> None:
    text = "g (float[4, 4] x) => (float[4, 4] y) { r = RandomNormalLike (x) z = Mul (x, w) y = Add (z, r) }"
    a, b = (parse(text, w=np.array([1, 1, 1, last], np.float32)) for last in (1, 2))
    assert verify(a, a).equal
    assert not verify(a, b).equal


@pytest.mark.parametrize("place", ["", "folder"])
def test_tensors_inside_a_model_with_external_data(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "g (float[N, 4] x) => (float[N, 4] y) { z = Mul (x, w) y = Softmax (z) }"
    (tmp_path / place).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    paths = []
    for factor in (1, 2):
        paths.append(Path(place, f"{factor}.onnx"))
        model = parse(text, w=np.full(4, factor, np.float32))
        onnx.save(model, paths[-1], save_as_external_data=True, location=f"{factor}.bin", size_threshold=0)
    assert verify(paths[0], paths[0]).inside[0].name == "z"
    assert not verify(*paths).equal


# Half precision


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_has_a_wider_tolerance(kind: str) -> None:
    def model(factor: float) -> onnx.ModelProto:
        proto = parse(f"g ({kind}[N, 4] x) => ({kind}[N, 4] y) {{ y = Mul (x, w) }}")
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype("float16")) if kind == "float16" else TensorProto.BFLOAT16
        proto.graph.initializer.append(helper.make_tensor("w", dtype, [4], [1.0, 1.0, 1.0, factor]))
        return proto

    assert verify(model(1), model(1)).rtol == 5e-3
    assert verify(model(1), model(1)).equal
    assert verify(model(1), model(1), rtol=1e-4).rtol == 1e-4
    assert not verify(model(1), model(1.0625)).equal


def test_integers_that_activations_are_rounded_to_have_a_wider_tolerance() -> None:
    # A number next to the middle between two integers becomes the other one, and what follows makes much of it.
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N, 4] x) => (float[N, 1] y) { p = Add (x, c) q = QuantizeLinear (p, step, zero) d = DequantizeLinear (q, step, zero) y = MatMul (d, w) }'
    step, zero = np.float32(2**-12), np.uint16(0)
    w, data = np.array([[1], [1], [-1], [-1]], np.float32), {"x": np.full((1, 3, 4), [1, 0.5, 0.4, 1.2], np.float32)}

    def model(c: float) -> onnx.ModelProto:
        return parse(text, step=step, zero=zero, w=w, c=np.array([1 + c, 0, 0, 0], np.float32) * step / 2)

    comparison = verify(model(-1e-3), model(1e-3), data=data)
    assert comparison.equal
    assert comparison.rtol == 5e-3
    assert 1e-3 < comparison.max_rel < 5e-3
    weight = '<ir_version: 10, opset_import: ["" : 21]> g (float[N, 4] x) => (float[N, 1] y) { q = QuantizeLinear (w, step, zero) d = DequantizeLinear (q, step, zero) y = MatMul (x, d) }'
    model_of_weights = parse(weight, step=step, zero=zero, w=w)
    assert verify(model_of_weights, model_of_weights).rtol == 1e-4


def test_bfloat16_models_run_in_float32(tmp_path: Path) -> None:
    # onnxruntime has no MatMul for bfloat16 on a processor.
    text = "g (bfloat16[N, 4] x) => (bfloat16[N, 2] y) { h = MatMul (x, w) r = Relu (h) c = Cast <to = 1> (r) y = Cast <to = 16> (c) }"
    model = parse(text)
    weights = np.random.default_rng(0).standard_normal(8)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [4, 2], weights.tolist()))
    comparison = verify(model, model)
    assert comparison.equal
    assert comparison.sensitivity > 0.1
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.bin")
    assert verify(tmp_path / "m.onnx", tmp_path / "m.onnx").equal


# States


def test_a_state_is_fed_back() -> None:
    # The weight w acts on the state alone, which is zero at the first step.
    text = """g (float[N, 4] input, float[2, N, 4] state) => (float[N, 4] output, float[2, N, 4] stateN) {
        z = Mul (state, w) stateN = Add (z, input) output = ReduceSum <keepdims = 0> (stateN, first) }"""
    a, b = (parse(text, w=np.array([1, 1, 1, last], np.float32), first=np.array([0])) for last in (1, 2))
    comparison = verify(a, a)
    assert comparison.equal
    assert comparison.steps == 3
    assert not verify(a, b).equal


def test_a_cache_grows_from_step_to_step() -> None:
    text = """g (int64[batch, sequence] input_ids, float[batch, past, 4] past_key_values.0.key, int64[batch, total] attention_mask)
        => (float[batch, sequence, 4] logits, float[batch, longer, 4] present.0.key) {
        e = Gather (table, input_ids) present.0.key = Concat <axis = 1> (past_key_values.0.key, e)
        t = Transpose <perm = [0, 2, 1]> (present.0.key) s = MatMul (e, t) m = Cast <to = 1> (attention_mask)
        n = Unsqueeze (m, one) o = Mul (s, n) logits = MatMul (o, present.0.key) }"""
    table = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    text = text.replace("past_key_values.0.key", "past_key_values_0_key").replace("present.0.key", "present_0_key")
    model = parse(text, table=table, one=np.array([1]))
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + sequence"
    comparison = verify(model, model)
    assert comparison.equal
    assert comparison.steps == 3


@pytest.mark.parametrize(
    ("name", "output", "pairs"),
    [
        ("h0", "hn", True),
        ("state", "stateN", True),
        ("past_key_values.3.value", "present.3.value", True),
        ("past_key_values.3.value", "present.3.key", False),
        ("past_key_values.3.value", "present.13.value", False),
        ("c_in", "new_c", True),
        ("image", "logits", False),
    ],
)
def test_states_are_known_by_their_names(name: str, output: str, pairs: bool) -> None:
    declared = Input(name, "tensor(float)", (2, "N", 4))
    others = [Input(output, "tensor(float)", (2, "N", 4)), Input("more", "tensor(float)", (2, "N", 4))]
    assert feedback({name: declared}, others) == ({name: output} if pairs else {})


# Made up inputs


def made(kind: str, *sizes: int | str | None, name: str = "x", below: int = 0, **others: Input) -> np.ndarray:
    declared = Input(name, f"tensor({kind})", tuple(sizes), below)
    return random_feeds("m", {name: declared, **others}, GUESSES[0], 0, 0)[name]


def test_images_are_drawn() -> None:
    picture = made("float", "N", 3, "H", "W")
    assert picture.shape == (2, 3, 224, 224)
    assert -2 <= picture.min() < -1 < 1 < picture.max() <= 2
    smooth = np.abs(np.diff(picture, axis=-1)).mean()
    assert smooth < 0.5 * picture.std()  # noise has 1.1
    assert not np.array_equal(picture[0], picture[1])
    assert made("uint8", 1, 64, 64, 3).max() > 200
    assert made("float", 1, 64, 64, 1).shape == (1, 64, 64, 1)


def test_audio_sounds() -> None:
    sound = made("float", "N", "samples", name="audio")
    assert sound.shape == (2, 16000)
    assert 0.2 < np.abs(sound).max() < 1
    spectrum = np.abs(np.fft.rfft(sound[0]))
    assert spectrum[:2000].sum() > 3 * spectrum[2000:].sum()
    rate = Input("sr", "tensor(int64)", ())
    assert made("float", None, None, name="input", sr=rate).shape == (2, 16000)
    assert made("int64", name="sr") == 16000


def test_names_tell_what_integers_are() -> None:
    ids = Input("input_ids", "tensor(int64)", ("batch", "sequence"))
    assert made("int64", "batch", "sequence", name="input_ids", below=30000).max() > 5000
    assert (made("int64", "batch", "sequence", name="attention_mask") == 1).all()
    assert (made("bool", "batch", "sequence", name="src_key_padding_mask") == 0).all()
    assert (made("float", "batch", 1, 8, 8, name="mask") == 0).all()
    assert made("int64", "batch", "sequence", name="position_ids", below=4).max() == 3
    assert made("int64", "batch", name="lengths", input_ids=ids).tolist() == [16, 16]
    assert made("int32", 2, 50, name="bytes").max() > 100


def test_tables_bound_the_ids_that_are_looked_up() -> None:
    text = "g (int32[N, 5] ids) => (float[N, 5, 4] y) { i = Cast <to = 7> (ids) y = Gather (w, i) }"
    model = parse(text, w=np.random.default_rng(0).standard_normal((33, 4)).astype(np.float32))
    assert Session(model).inputs["ids"].below == 33
    assert verify(model, model).sensitivity > 0.1


# What can't be run


def test_a_run_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zig.proof.session.PATIENCE", 0.2)
    text = """g (float[N, 3] x) => (float[N, 3] y) {
        n = Constant <value = int64 {1000000000000}> () t = Constant <value = bool {1}> ()
        y = Loop (n, t, x) <body = b (int64 i, bool c, float[N, 3] s) => (bool d, float[N, 3] r) {
            d = Identity (c) r = Tanh (s) }> }"""
    with pytest.raises(ModelError, match="takes longer than 0 s"):
        verify(parse(text), parse(text))


def test_models_that_memory_does_not_hold_are_not_run(monkeypatch: pytest.MonkeyPatch, model_path: Path) -> None:
    assert obstacle(model_path, model_path) == ""
    monkeypatch.setattr(verifying, "_free_memory", lambda: 1000.0)
    assert "GB are free" in obstacle(model_path, model_path)
    assert not obstacle(model_path, provider="cuda")
    with pytest.raises(ModelError, match=r"network.onnx: to run it under onnxruntime takes about 0.0 GB"):
        verify(model_path, model_path)


def test_an_operand_that_is_missing_where_any_number_may_stand_is_named() -> None:
    # onnxruntime 1.31 does not look, and ends the process.
    model = parse("g (float[1] a, float[1] b) => (float[1] y) { y = Sum (a, , b) }")
    with pytest.raises(ModelError, match=r"\(Sum\) lacks an operand"):
        verify(model, model)


def test_a_scan_over_more_than_it_has_is_named() -> None:
    # onnxruntime 1.31 takes all memory.
    model = parse("""g (float[5, 3] x) => (float[5, 3] y) {
        y = Scan <num_scan_inputs = 2147483648, body = b (float[3] i) => (float[3] o) { o = Relu (i) }> (x) }""")
    with pytest.raises(ModelError, match=r"\(Scan\) scans 2147483648 inputs of 1"):
        verify(model, model)


def test_an_input_too_large_to_be_made_up_is_named() -> None:
    model = parse("g (float[1099511627776, 4] x) => (float[N, 4] y) { y = Relu (x) }")
    with pytest.raises(ModelError, match=r"input 'x' of sizes \[1099511627776, 4\] is too large"):
        verify(model, model)


def after(operator: str, *more: str) -> onnx.ModelProto:
    """An input, its logarithm of minus a square or the like, and further outputs."""
    outputs = ", ".join(["float[N, C] y", *(f"float[N, 4] z{i}" for i in range(len(more)))])
    lines = "\n".join(f"z{i} = {each}" for i, each in enumerate(more))
    return parse(f"g (float[N, 4] x) => ({outputs})\n{{\n{operator}\n{lines}\n}}")


NAN = "a = Abs (x)\nb = Neg (a)\nc = Constant <value_float = 1.0> ()\nd = Sub (b, c)\ny = Sqrt (d)"
EMPTY = "s = Constant <value_ints = [0]> ()\naxes = Constant <value_ints = [1]> ()\ny = Slice (x, s, s, axes)"


def test_outputs_of_nan_throughout_are_never_equal() -> None:
    for model in (after(NAN), after(NAN, "Relu (x)")):
        comparison = verify(model, model)
        assert not comparison.equal
        assert "output 'y' holds NaN or infinity throughout" in comparison.nothing
        assert comparison.differences == [comparison.nothing]
        assert [output.equal for output in comparison.outputs] == [False, True][: len(comparison.outputs)]


def test_an_empty_output_proves_nothing() -> None:
    alone, beside = verify(after(EMPTY), after(EMPTY)), verify(after(EMPTY, "Relu (x)"), after(EMPTY, "Relu (x)"))
    assert not alone.equal
    assert "output 'y' is empty" in alone.nothing
    assert beside.equal  # a detector that sees nothing in made up images: said, but the rest was compared
    assert beside.nothing == ""
    assert any("output 'y' is empty" in warning for warning in beside.warnings)


def test_nan_here_and_there_is_equal_where_it_is_the_same() -> None:
    model = after("y = Log (x)")
    assert verify(model, model, data={"x": np.array([[[-1.0, 1, 2, -3]]], np.float32)}).equal
    assert not verify(model, model, data={"x": np.full((1, 1, 4), -1, np.float32)}).equal


def test_compress_writes_nothing_where_nothing_was_compared(tmp_path: Path) -> None:
    file = tmp_path / "nan.onnx"
    onnx.save(after(NAN), file)
    with pytest.raises(VerifyError, match=r"'y' holds NaN or infinity throughout in both .* nothing was written"):
        zig.compress(file, tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()


def test_the_command_fails_where_nothing_was_compared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nan.onnx"
    onnx.save(after(NAN), file)
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", str(file), str(file)])
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    assert "nothing compared" in out
    assert "output 'y' holds NaN or infinity throughout in both models" in err.splitlines()[-1]
