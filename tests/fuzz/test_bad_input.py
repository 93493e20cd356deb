"""Kinds of bad input, each on a file made for it: the command ends in time, in one sentence that can be printed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import parse
from onnx import TensorProto, helper, serialization

import zig
from fuzz.command import misbehaviour, run, trial
from fuzz.test_regressions import RELU, changed, model, outside, weight
from zig.errors import ModelError, UsageError, VerifyError
from zig.printable import LONGEST, cell, printable, sentence

EVIL = (
    "\x1b[31mred\x1b[0m",
    "a\0b",
    "a\b\b",
    "\u202eabc",
    "\u2066a\u2069",
    "a\u200bb",
    "a\rb",
    "a\nb",
    "\x9b2J",
    "[red]x[/red]",
    ":smile:",
)


def called(name: str, new: str) -> onnx.ModelProto:
    """The model with another name for a tensor or a node."""
    proto = model()
    proto.graph.node[1].name = "relu"
    for node in proto.graph.node:
        node.name = new if node.name == name else node.name
        for values in (node.input, node.output):
            values[:] = [new if value == name else value for value in values]
    for each in (*proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        each.name = new if each.name == name else each.name
    return proto


def all_called(new: str) -> onnx.ModelProto:
    """The model with such names for all of its tensors, its nodes, and an operator that nobody knows."""
    names, proto = {name: f"{new}{name}" for name in "xwhrvyg"}, model()
    for node in proto.graph.node:
        node.name = f"{new}node"
        for values in (node.input, node.output):
            values[:] = [names[value] for value in values]
    for each in (*proto.graph.initializer, *proto.graph.input, *proto.graph.output, proto.graph):
        each.name = names.get(each.name, each.name)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = new
    proto.graph.node[1].op_type = new
    return proto


def doubling(levels: int, times: int = 2) -> onnx.ModelProto:
    """A function that calls another one twice, which calls another one twice, ..."""
    proto = model()
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    for i in range(levels):
        names = ["h", *(f"t{j}" for j in range(times - 1)), "r"]
        body = [helper.make_node(f"f{i + 1}", [a], [b], domain="local") for a, b in itertools.pairwise(names)]
        body = body if i < levels - 1 else [RELU]
        proto.functions.append(helper.make_function("local", f"f{i}", ["h"], ["r"], body, opsets))
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "f0", "local"
    proto.opset_import.append(opsets[1])
    return proto


def sized(size: str) -> onnx.ModelProto:
    """The model with a batch of this size."""
    proto = model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = size
    return proto


def sparse() -> onnx.ModelProto:
    """The model with a weight that is a sparse constant."""
    proto = model()
    value = helper.make_sparse_tensor(
        helper.make_tensor("", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("", TensorProto.INT64, [1], [5]),
        [4, 3],
    )
    del proto.graph.initializer[0]
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=value))
    return proto


def texts(*values: bytes) -> onnx.ModelProto:
    """The model with texts where a weight should be."""
    return changed(
        lambda proto: proto.graph.initializer[1].CopyFrom(
            helper.make_tensor("b", TensorProto.STRING, [len(values)], values)
        ),
        "h = MatMul (x, w) k = Shape (b) r = Relu (h)",
    )


def segment(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].segment.end = 3


def empty(proto: onnx.ModelProto) -> None:
    for tensor, dims in ((proto.graph.initializer[0], [4, 0]), (proto.graph.initializer[2], [0, 2])):
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, dims, b"", raw=True))


KINDS: dict[str, Callable[[], onnx.ModelProto]] = {
    **{f"all are called {new!r}": lambda new=new: all_called(new) for new in EVIL},
    **{f"a data file is called {new!r}": lambda new=new: changed(outside(location=new)) for new in EVIL[:4]},
    "functions that call each other twice": lambda: doubling(40),
    "a function of many calls": lambda: doubling(3, 200),
    "a long chain of functions": lambda: doubling(300, 1),
    "a long name of an operator": lambda: changed(lambda proto: setattr(proto.graph.node[1], "op_type", "n" * 900_000)),
    "a long name of a domain": lambda: changed(lambda proto: setattr(proto.graph.node[1], "domain", "n" * 900_000)),
    "a size of many brackets": lambda: sized("(" * 5000 + "N" + ")" * 5000),
    "a size of many signs": lambda: sized("-" * 900 + "N"),
    "a size of many sums": lambda: sized("+".join(["1"] * 450)),
    "a size of many terms": lambda: sized("*".join(["(a+b+c+d+e+f)"] * 60)),
    "a size that Python warns of": lambda: sized("1 is N"),
    "an offset of 5000 digits": lambda: changed(outside(location="d", offset="1" * 5000, length="48")),
    "a length of 5000 digits": lambda: changed(outside(location="d", length="1" * 5000)),
    "a key of a data file that nobody knows": lambda: changed(outside(location="d", colour="red")),
    "a link in a circle": lambda: changed(outside(location="loop")),
    "a hard link": lambda: changed(outside(location="hard")),
    "a pipe": lambda: changed(outside(location="pipe")),
    "a name of a file that is too long": lambda: changed(outside(location="d" * 3000)),
    "texts in a data file": lambda: changed(lambda proto: (outside(location="d")(proto), weight(data_type=8)(proto))),
    "bfloat16 in a data file that goes on": lambda: changed(lambda proto: (outside(location="d")(proto), weight(data_type=16)(proto))),
    "half a bfloat16": lambda: changed(weight(data_type=16)),
    "a segment": lambda: changed(segment),
    "a sparse constant": sparse,
    "texts": lambda: texts(b"a", b"b"),
    "texts for numbers": lambda: changed(
        lambda proto: proto.graph.initializer[2].CopyFrom(helper.make_tensor("v", TensorProto.STRING, [3, 2], [b"a"] * 6))
    ),
    "texts that are none": lambda: texts(b"\xff"),
    "sizes of zero": lambda: changed(empty),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_bad_input(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").write_bytes(bytes(96))
    Path("loop").symlink_to("loop")
    Path("other").write_bytes(bytes(48))
    Path("hard").hardlink_to("other")
    os.mkfifo("pipe")
    Path("bad.onnx").write_bytes(KINDS[name]().SerializeToString())
    assert trial("bad.onnx") == []


def test_names_in_json_are_true(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(called("w", "\x1b[31mw\u202e").SerializeToString())
    summary = json.loads(run("analyze", str(tmp_path / "m.onnx"), "--json").out)
    assert {member["tensor"] for member in summary["node_groups"][0]["members"]} == {"\x1b[31mw\u202e"}


def test_markup_in_names_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(called("w", "[red]:smile:[/red]").SerializeToString())
    assert "[red]:smile:[/red]:1" in run("analyze", str(tmp_path / "m.onnx")).out


def test_a_picture_is_printable(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(called("relu", "\x1b[31m\u202er").SerializeToString())
    assert not run("analyze", str(tmp_path / "m.onnx"), "--dot", str(tmp_path / "p.dot")).code
    assert r"\\x1b[31m\\u202er" in (tmp_path / "p.dot").read_text()


def test_printable() -> None:
    assert printable("grün/conv.1") == "grün/conv.1"
    assert printable("\x1b[31m\u202e\u200b\udc80\n") == r"\x1b[31m\u202e\u200b\udc80\n"
    assert sentence("one\ntwo \x1b") == r"one two \x1b"
    assert cell("a " + "n" * 1000) == "a " + "n" * (LONGEST // 2 - 1) + "…" + "n" * (LONGEST // 2 - 1)
    assert str(ModelError("tensor '\b'")) == r"tensor '\x08'"


TEXTS = {".json": "json", ".onnxtxt": "onnxtxt", ".textproto": "textproto", ".pbtxt": "textproto", ".onnxjson": "json"}


@pytest.mark.parametrize("suffix", TEXTS)
def test_models_as_text_are_read_and_not_written(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = serialization.registry.get(TEXTS[suffix]).serialize_proto(model())
    Path(f"bad{suffix}").write_bytes(data if isinstance(data, bytes) else data.encode())
    assert trial(f"bad{suffix}") == []
    assert {"small.onnx", "zeroed.onnx"} < set(os.listdir())
    onnx.save(model(), "full.onnx")
    for line in (["compress", "full.onnx"], ["prune", "full.onnx", "--ratio", "0.5"]):
        done = run(*line, "-o", f"small{suffix}")
        assert (done.code, done.error) == (
            2,
            f"zig: error: small{suffix}: zig writes ONNX alone, not {suffix}; name it small.onnx\n",
        )
    with pytest.raises(UsageError, match=r"name it small\.onnx"):
        zig.compress("full.onnx", f"small{suffix}")


@pytest.mark.parametrize(
    "data",
    [b"{" * 50_000, b'{"graph":' * 5000, b"graph{node{attribute{g{" * 3000, b"\xff\x1b[31m", b"", b"null", b"[1]"],
)
@pytest.mark.parametrize("suffix", [*TEXTS, ".onnx"])
def test_what_is_no_model_in_any_format(suffix: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(data)
    for line in (["analyze", str(path)], ["verify", str(path), str(path)]):
        done = run(*line)
        assert done.code == 2
        assert not misbehaviour(done)


def test_the_format_of_onnxruntime(tmp_path: Path) -> None:
    (tmp_path / "m.ort").write_bytes(b"ORTM" * 10)
    onnx.save(model(), tmp_path / "m.onnx")
    assert "onnxruntime's own format" in run("analyze", str(tmp_path / "m.ort")).error
    assert "zig writes ONNX alone" in run("compress", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "s.ort")).error


def test_data_of_attributes_come_along(tmp_path: Path) -> None:
    proto = model()
    tensor = proto.graph.initializer[0]
    (tmp_path / "d").write_bytes(tensor.raw_data)
    outside(location="d", offset="0", length="48")(proto)
    node = helper.make_node("Constant", [], ["w"], value=tensor)
    del proto.graph.initializer[0]
    proto.graph.node.insert(0, node)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    zig.zero(zig.prune(zig.analyze(tmp_path / "m.onnx"), ratio=0.4), tmp_path / "z.onnx")
    assert zig.compress(tmp_path / "z.onnx", tmp_path / "s.onnx").removed == 1


def test_the_true_reason_where_an_output_without_a_shape_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = model()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    partition = zig.analyze(tmp_path / "m.onnx")
    monkeypatch.setattr("zig.surgery.compress.removable", lambda p, _: (p, np.array([True, False, False]), p.flow))
    with pytest.raises(
        VerifyError, match=r"the same outputs \(output 'y' differs by .* so nothing was written.*--keep"
    ) as caught:
        zig.compress(partition.graph, tmp_path / "s.onnx")
    assert "valid ONNX" not in str(caught.value)
    assert not (tmp_path / "s.onnx").exists()


def test_a_conv_of_no_channels_beside_others() -> None:
    proto = parse(
        """g (float[N, 4] x) => (float[N, 4] y) {
        s = Constant <value = int64[3] {0, 0, 5}> ()
        h = MatMul (x, w)
        k = Reshape <allowzero = 1> (e, s)
        p = ReduceSum <keepdims = 0> (k)
        q = Add (h, p)
        y = MatMul (q, v) }""",
        w=np.ones((4, 6), np.float32), v=np.ones((6, 4), np.float32), e=np.ones((0, 5), np.float32),
    )  # fmt: skip
    assert len(zig.analyze(proto)) == 6
