"""Pictures stay readable, are deterministic, and need graphviz for nothing but the drawing."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from conftest import ROOT, parse
from zig.app.scene.sketch import sketch

import zig
from zig import picture
from zig.errors import UsageError
from zig.partition import Partition
from zig.picture import draw

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's program dot is not installed")


@pytest.fixture
def partition(network: onnx.ModelProto) -> Partition:
    return zig.analyze(network)


def text(partition: Partition, folder: Path) -> str:
    assert draw(partition, folder / "graph.dot") is None
    return (folder / "graph.dot").read_text(encoding="utf-8")


def chain(length: int, scope: str = "") -> onnx.ModelProto:
    """A long network of which each activation is read twice: two edges for each node."""
    nodes = ["h0 = Conv (x, w)"]
    for index in range(1, length):
        nodes += [f"a{index} = Relu (h{index - 1})", f"h{index} = Add (a{index}, h{index - 1})"]
    model = parse(
        f"g (float[N, 3, 4, 4] x) => (float[N, 5, 4, 4] h{length - 1}) {{ {' '.join(nodes)} }}",
        w=np.ones((5, 3, 1, 1), np.float32),
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"{scope.format(index // 20)}{node.op_type}_{index}"
    return model


def test_boxes_say_in_words_what_they_write_and_read(partition: Partition, tmp_path: Path) -> None:
    written = text(partition, tmp_path)
    boxes = re.findall(r'label="([^"]*)"', written)
    assert r"/stem/conv1/Conv\nConv\ngroup 0 · 6" in boxes
    assert any("Gemm" in box and "reads group 0" in box for box in boxes)
    assert "network: 6 groups in 1 node groups" in boxes


def test_a_box_whose_weights_are_all_fixed_is_dashed(tmp_path: Path) -> None:
    model = parse(
        "g (float[N, 4] x) => (float[N, 4] y) { z = MatMul(x, w) y = local.Unheard(z) }", w=np.ones((4, 4), np.float32)
    )
    assert text(zig.analyze(model), tmp_path).count("dashed") == 1


def test_a_picture_is_the_same_every_time(partition: Partition, tmp_path: Path) -> None:
    assert text(partition, tmp_path) == text(partition, tmp_path)


def test_nodes_that_prepare_weights_belong_to_their_reader(tmp_path: Path) -> None:
    model = parse(
        "g (float[N, 4] x) => (float[N, 5] y) { t = Transpose(w) y = MatMul(x, t) }", w=np.ones((5, 4), np.float32)
    )
    assert text(zig.analyze(model), tmp_path).count("label=") == 2  # the title and one box


@pytest.mark.parametrize("scope", ["", "/stage{}/block/"])
def test_a_big_graph_collapses(scope: str, tmp_path: Path) -> None:
    partition = zig.analyze(chain(300, scope))
    written = text(partition, tmp_path)
    assert written.count("->") <= picture.EDGES
    assert ("stage3/block" in written) == bool(scope)


def test_scopes_of_the_dynamo_exporter_are_read(network: onnx.ModelProto) -> None:
    for node in network.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer1', 'layer1.0', 'conv2d']")
    names = {box.name for box in picture._drawing(*_collapsed(zig.analyze(network), 1)).boxes.values()}
    assert names == {"layer1.0"}


def _collapsed(partition: Partition, level: int) -> tuple[Partition, list[picture.Key]]:
    return partition, list(picture._levels(partition))[level]


def test_colours_are_distinct_for_21_groups_and_then_repeat() -> None:
    colours = [picture._colour(group) for group in range(22)]
    assert len(set(colours)) == 21
    assert colours[21] == colours[0]


@needs_dot
@pytest.mark.parametrize(("form", "magic"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_the_suffix_or_the_argument_decides_the_format(
    partition: Partition, form: str, magic: bytes, tmp_path: Path
) -> None:
    for target, given in ((tmp_path / f"graph.{form}", None), (tmp_path / "graph", form)):
        assert draw(partition, target, given) is None
        assert target.read_bytes().startswith(magic)


def test_an_unknown_format_is_refused(partition: Partition, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"draws svg, pdf, png, dot, not 'jpg'"):
        draw(partition, tmp_path / "graph.jpg")


def test_without_graphviz_the_text_is_written_and_a_line_says_what_to_do(
    partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = draw(partition, tmp_path / "graph.svg")
    assert message is not None
    assert "install graphviz" in message
    assert [path.name for path in tmp_path.iterdir()] == ["graph.dot"]


def test_without_graphviz_an_svg_is_drawn_by_the_layout_of_the_app(
    partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = draw(partition, tmp_path / "graph.svg", sketch=sketch)
    assert message is not None
    assert "drawn without graphviz" in message
    drawn = ElementTree.parse(tmp_path / "graph.svg").getroot()
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"image", "Relu", "Add", "g0"} <= set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.svg"]


def test_the_command_draws_on_a_machine_without_graphviz(zig: Callable[..., Any], model_path: Path) -> None:
    done = zig("analyze", model_path, "--svg", "graph.svg", env={"PATH": "", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "without graphviz" in done.stderr
    assert (model_path.parent / "graph.svg").read_text(encoding="utf-8").startswith("<svg")


def fake_dot(folder: Path, script: str) -> None:
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_drawing_that_takes_too_long_collapses_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This dot hangs as long as it gets more than 20 arrows.
    fake_dot(tmp_path, """n=$(grep -c -e "->"); if [ "$n" -gt 20 ]; then exec sleep 60; fi; echo "$n arrows" """)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(picture, "SECONDS", 0.3)
    assert draw(zig.analyze(chain(60, "/stage{}/block/")), tmp_path / "graph.svg") is None
    assert int((tmp_path / "graph.svg").read_text().split()[0]) <= 20


def test_a_graphviz_that_fails_is_named(partition: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "echo 'no such font' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UsageError, match=r"graph.svg: graphviz fails \(no such font\)"):
        draw(partition, tmp_path / "graph.svg")
    assert not (tmp_path / "graph.svg").exists()


@needs_dot
def test_odd_names_are_quoted(tmp_path: Path) -> None:
    model = parse("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    model.graph.node[0].name = 'a "quoted" \\ name\nof two lines <b>'
    assert draw(zig.analyze(model), tmp_path / "graph.svg") is None
    drawn = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    assert "quoted" in drawn
