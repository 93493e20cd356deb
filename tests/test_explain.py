"""Reasons with the way to where they arose, what would free a weight, and what differs between two models."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import onnx
import pytest

import zig
from zig import cli
from zig.errors import UsageError

STREAM = """
    h = MatMul(x, w)
    m = MatMul(h, t)
    a = Relu(m)
    d = MatMul(a, u)
    s = Add(h, d)
    r = LayerNormalization(s, g, b)
    y = MatMul(r, v)
    """
GIVEN = {"x": "2 4", "w": "4 6", "t": "6 8", "u": "8 6", "g": "6", "b": "6", "v": "6 3"}


def model(text: str = STREAM, **given: str) -> onnx.ModelProto:
    built = graphs.build(text, **(given or GIVEN))
    for node in built.graph.node:
        node.name = f"node_{node.output[0]}"
    return built


def test_the_way_leads_from_the_weight_to_the_node_that_fixes_it() -> None:
    reasons = {why.axis: why for why in zig.why(zig.analyze(model()), "w")}
    assert reasons[0].reason == "is part of the model's input 'x'"
    assert reasons[0].advice.startswith("nothing")
    assert (reasons[1].node, reasons[1].size) == ("node_r", 6)
    assert reasons[1].chain == []  # it is fixed there itself
    (why,) = (why for why in zig.why(zig.analyze(model()), "u") if why.axis == 1)
    assert why.chain == ["node_s"]  # by way of the Add
    assert reasons[1].advice == "allow rewriting (--allow-rewrite)"


def test_the_advice_frees_it() -> None:
    partition = zig.analyze(model(), rewrite=True)
    assert [why.axis for why in zig.why(partition, "w")] == [0]
    assert zig.why(partition, "b") == []


def test_a_part_of_an_axis_is_told_apart() -> None:
    text = "h = MatMul(x, w)\ny1 = Gather<axis = 1>(h, first)\nz1 = Identity(y1)\nz2 = MatMul(h, v)"
    partition = zig.analyze(graphs.build(text, x="2 3", w="3 4", v="4 2", first=[2]))
    (why,) = (why for why in zig.why(partition, "w") if why.axis == 1)
    assert why.size == 1
    assert why.reason.startswith("is read alone by Gather")


@pytest.mark.parametrize("name", ["missing", "h", ""])
def test_only_weights_have_reasons(name: str) -> None:
    with pytest.raises(UsageError, match="has no weight"):
        zig.why(zig.analyze(model()), name)


def test_models_differ_by_the_width_of_their_node_groups(tmp_path: Path) -> None:
    a = zig.analyze(model("h = MatMul(x, w)\ny = MatMul(h, v)", x="2 3", w="3 6", v="6 2"))
    b = zig.analyze(model("h = MatMul(x, w)\nk = MatMul(h, u)\ny = MatMul(k, v)", x="2 3", w="3 4", u="4 5", v="5 2"))
    assert zig.diff(a, b) == [("w", 6, 4), ("u", 0, 5)]
    assert zig.diff(a, a) == []


def run(capsys: pytest.CaptureFixture[str], *line: object) -> str:
    with pytest.raises(SystemExit) as done:
        cli.main([str(argument) for argument in line])
    assert not done.value.code
    return capsys.readouterr().out


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    told = run(capsys, "analyze", path, "--why", "w")
    assert "LayerNormalization 'node_r' normalises over this axis" in told
    assert "what would free them: allow rewriting" in told
    assert json.loads(run(capsys, "analyze", path, "--why", "w", "--json"))[1]["node"] == "node_r"
    assert "can be pruned along all of its axes" in run(capsys, "analyze", path, "--why", "g", "--allow-rewrite")
    zeroed, small = tmp_path / "zeroed.onnx", tmp_path / "small.onnx"
    run(capsys, "prune", path, "-o", zeroed, "--ratio", "0.5", "--scope", "local", "--allow-rewrite")
    assert json.loads(run(capsys, "compress", zeroed, "-o", small, "--allow-rewrite", "--json"))["removed"] == 7
    run(capsys, "prune", path, "-o", zeroed, "--ratio", "0.5", "--scope", "local")
    run(capsys, "compress", zeroed, "-o", small)
    changes = json.loads(run(capsys, "analyze", "--diff", path, small, "--json"))
    assert changes == [{"name": "t", "before": 8, "after": 4}]
    assert "have the same groups" in run(capsys, "analyze", "--diff", path, path)


def advice(partition: zig.Partition, tensor: str, axis: int) -> str:
    (why,) = (why for why in zig.why(partition, tensor) if why.axis == axis)
    return why.advice


def test_rewriting_is_advised_only_where_it_frees_something() -> None:
    norm = "h = MatMul(x, w)\nr = LayerNormalization(h, g, b)\n"
    given = {"x": "2 4", "w": "4 6", "g": "6", "b": "6"}
    free = graphs.build(f"{norm}y = MatMul(r, v)", **given, v="6 3")
    for text, more in (
        ("y = Softmax(r)", {}),
        ("a = Softmax(h)\nk = Add(a, r)\ny = MatMul(k, v)", {"v": "6 3"}),
    ):
        held = graphs.build(norm + text, **given, **more)
        assert "--allow-rewrite" not in advice(zig.analyze(held), "w", 1)
        assert "--allow-rewrite" not in advice(zig.analyze(held, rewrite=True), "w", 1)
        assert not any("--allow-rewrite" in fixed.reason for fixed in zig.analyze(held).fixed)
    assert advice(zig.analyze(free), "w", 1) == "allow rewriting (--allow-rewrite)"
    most = graphs.build("h = MatMul(x, w)\nm = ReduceMax<axes=[1]>(h)\na = Mul(h, m)\ny = MatMul(a, v)", x="2 4", w="4 6",
                        v="6 3", opset=12)  # fmt: skip
    assert advice(zig.analyze(most), "w", 1) == "allow rewriting (--allow-rewrite)"


def test_forks_are_advised_only_where_another_choice_frees_something() -> None:
    text = "h = MatMul(x, w)\nr = Reshape(h, two)\ns = Mul(r, e)\nf = Reshape(s, one)\ny = MatMul(f, v)"
    sizes = {"x": "2 4", "w": "4 6", "two": [2, 2, 3], "one": [2, 6], "v": "6 3"}
    for option in zig.partition.FORKS:
        for given in ("2 1", "3"):
            partition = zig.analyze(graphs.build(text, **sizes, e=given), forks=option)
            for tensor in partition.flow.weights:
                for why in zig.why(partition, tensor):
                    if "--forks" in why.advice:
                        other = why.advice.rpartition(" ")[2].rstrip(")")
                        model = graphs.build(text, **sizes, e=given)
                        assert held(zig.analyze(model, forks=other), why) < held(partition, why)


def held(partition: zig.Partition, why: zig.explain.Why) -> int:
    return sum(other.size for other in zig.why(partition, why.tensor) if other.axis == why.axis)


def test_dropping_one_of_two_reasons_is_no_advice() -> None:
    kept = graphs.build("h = MatMul(x, w)\ny = MatMul(h, v)", x="2 4", w="4 6", v="6 3")
    assert advice(zig.analyze(kept, keep=("v",)), "w", 1) == "drop that --keep pattern"
    out = graphs.build("h = MatMul(x, w)\ny = Relu(h)", x="2 4", w="4 6")
    assert "drop" not in advice(zig.analyze(out, keep=("w",)), "w", 1)
