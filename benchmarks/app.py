"""How long the app takes to lay out a graph, to show it, to answer a click and to redraw.

    python benchmarks/app.py             # layout alone: needs neither streamlit nor a browser
    python benchmarks/app.py --browser   # and what a user waits for, in Debian's chromium, driven by playwright

The networks are written here, so that nothing is downloaded: DenseNet-201 as torch's TorchScript exporter writes it,
and vision transformers of any depth. Times are CPU seconds of one process. graphviz's `dot` lays out the same boxes and
arrows, where it can within 10 s, as a measure of the machine.
"""

from __future__ import annotations

import argparse
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))
DOT_SECONDS = 10


class Writer:
    """Nodes named after modules, as the TorchScript exporter names them."""

    def __init__(self) -> None:
        """Start without nodes."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, *shape: int) -> str:
        """A weight of this name."""
        self.weights[name] = numpy_helper.from_array(np.full(shape, 0.01, np.float32), name)
        return name

    def constant(self, *values: int) -> str:
        """A list of integers."""
        name = "constant_" + "_".join(map(str, values)).replace("-", "m")
        self.weights[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def add(self, op: str, path: str, *inputs: str, **attributes: Any) -> str:
        """A node in a module; its output's name."""
        name = f"{path}/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_output"], name=name, **attributes))
        return f"{name}_output"

    def save(self, target: Path, shape: list[int], output: str) -> Path:
        """Write the model."""
        ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
        result = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, target.stem, ends, result, list(self.weights.values()))
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), target)
        return target


def dense_net(target: Path, blocks: tuple[int, ...] = (6, 12, 48, 32), growth: int = 32) -> Path:
    """DenseNet-201 (Huang, Liu, van der Maaten, Weinberger 2017), BatchNorm not folded."""
    w = Writer()

    def norm(x: str, path: str, channels: int) -> str:
        values = [w.weight(f"{path}.{part}", channels) for part in ("weight", "bias", "mean", "var")]
        return w.add("Relu", path, w.add("BatchNormalization", path, x, *values))

    def conv(x: str, path: str, inputs: int, outputs: int, size: int) -> str:
        return w.add("Conv", path, x, w.weight(f"{path}.weight", outputs, inputs, size, size), pads=[size // 2] * 4)

    channels = 64
    x = conv("image", "/features/conv0", 3, channels, 7)
    for block, layers in enumerate(blocks, 1):
        parts = [x]
        for layer in range(1, layers + 1):
            path = f"/features/denseblock{block}/denselayer{layer}"
            inputs = channels + (layer - 1) * growth
            y = w.add("Concat", path, *parts, axis=1) if len(parts) > 1 else x
            y = conv(norm(y, f"{path}/norm1", inputs), f"{path}/conv1", inputs, 4 * growth, 1)
            parts.append(conv(norm(y, f"{path}/norm2", 4 * growth), f"{path}/conv2", 4 * growth, growth, 3))
        channels += layers * growth
        x = norm(w.add("Concat", f"/features/denseblock{block}", *parts, axis=1), f"/features/norm{block}", channels)
        if block < len(blocks):
            path = f"/features/transition{block}"
            x = conv(x, path, channels, channels // 2, 1)
            x = w.add("AveragePool", path, x, kernel_shape=[2, 2], strides=[2, 2])
            channels //= 2
    return w.save(target, [1, 3, 64, 64], w.add("GlobalAveragePool", "", x))


def vision_transformer(target: Path, depth: int, width: int = 32, heads: int = 4, tokens: int = 16) -> Path:
    """A vision transformer (Dosovitskiy et al. 2021) whose attention and GELU are spelt out: 30 nodes a block."""
    w = Writer()
    x = "image"
    for block in range(depth):
        path = f"/blocks/blocks.{block}"
        y = _layer_norm(w, x, f"{path}/norm1", width)
        y = _attention(w, y, f"{path}/attn", width, heads, tokens)
        x = w.add("Add", path, x, y)
        y = _layer_norm(w, x, f"{path}/norm2", width)
        x = w.add("Add", path, x, _feed_forward(w, y, f"{path}/mlp", width))
    return w.save(target, [1, tokens, width], x)


def _layer_norm(w: Writer, x: str, path: str, width: int) -> str:
    values = [w.weight(f"{path}.{part}", width) for part in ("weight", "bias")]
    return w.add("LayerNormalization", path, x, *values, axis=-1)


def _linear(w: Writer, x: str, path: str, inputs: int, outputs: int) -> str:
    y = w.add("MatMul", path, x, w.weight(f"{path}.weight", inputs, outputs))
    return w.add("Add", path, y, w.weight(f"{path}.bias", outputs))


def _attention(w: Writer, x: str, path: str, width: int, heads: int, tokens: int) -> str:
    parts = []
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        y = w.add("Reshape", path, _linear(w, x, f"{path}/{name}", width, width),
                  w.constant(1, tokens, heads, width // heads))  # fmt: skip
        parts.append(w.add("Transpose", path, y, perm=order))
    scale = w.weight("scale")
    scores = w.add("MatMul", path, w.add("Mul", path, parts[0], scale), w.add("Mul", path, parts[1], scale))
    y = w.add("MatMul", path, w.add("Softmax", path, scores, axis=-1), parts[2])
    y = w.add("Reshape", path, w.add("Transpose", path, y, perm=[0, 2, 1, 3]), w.constant(1, tokens, width))
    return _linear(w, y, f"{path}/proj", width, width)


def _feed_forward(w: Writer, x: str, path: str, width: int) -> str:
    h = _linear(w, x, f"{path}/fc1", width, 4 * width)
    half, one, root = (w.weight(name) for name in ("half", "one", "root"))
    gate = w.add("Add", path, w.add("Erf", path, w.add("Div", path, h, root)), one)
    return _linear(w, w.add("Mul", path, w.add("Mul", path, h, gate), half), f"{path}/fc2", 4 * width, width)


def models(folder: Path) -> list[Path]:
    """The networks to measure, small to large."""
    return [
        dense_net(folder / "densenet201.onnx"),
        *(vision_transformer(folder / f"vit{depth}.onnx", depth) for depth in (12, 300, 400)),
    ]


def measure(path: Path) -> dict[str, Any]:
    """CPU seconds of each step from file to scene."""
    from zig.app.opened import Opened
    from zig.app.scene.view import scene

    def timed(action: Any) -> tuple[float, Any]:
        start = time.process_time()
        result = action()
        return time.process_time() - start, result

    loading, model = timed(lambda: Opened(path, path.name))
    nodes, _ = timed(lambda: model.net)
    tree, _ = timed(lambda: model.tree)
    first, picture = timed(lambda: scene(model.net, model.graph, model.tree, model.first_open()))
    flat, whole = timed(lambda: scene(model.net, model.graph, model.tree, (), flat=True))
    nested, _ = timed(lambda: scene(model.net, model.graph, model.tree, model.containers))
    return {
        "model": path.stem, "nodes": len(model.graph.nodes), "drawn": len(whole.boxes), "arrows": len(whole.links.T),
        "load+analyse": loading, "nodes to draw": nodes, "tree": tree, "first": first, "flat": flat, "nested": nested,
        "first boxes": len(picture.boxes), "dot": dot(whole.links, len(whole.boxes)),
    }  # fmt: skip


def dot(links: np.ndarray, count: int) -> float | None:
    """CPU seconds that graphviz needs for the flat graph; None where it is missing, infinite after `DOT_SECONDS`."""
    if not shutil.which("dot"):
        return None
    arrows = "\n".join(f"{a} -> {b}" for a, b in links.T.tolist())
    boxes = ";".join(map(str, range(count)))
    text = f"digraph {{ node [shape=box, width=2, height=0.5, fixedsize=true]\n{boxes}\n{arrows}\n}}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        subprocess.run(
            ["dot", "-Tplain"], input=text.encode(), stdout=subprocess.DEVNULL, check=True, timeout=DOT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return float("inf")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def browse(path: Path) -> dict[str, Any]:
    """Wall seconds from the click on Graph to the picture, from a click on a box to its panel, and of a redraw."""
    import browsing

    with browsing.served(path) as address, browsing.browser() as browser:
        page = browser.new_page(viewport=browsing.SIZE)
        page.goto(address)
        page.wait_for_selector("text=Analysed in", timeout=120_000)
        start = time.perf_counter()
        page.get_by_role("link", name="Graph", exact=True).click()
        canvas = page.locator("canvas.main[data-ready=yes]")
        canvas.wait_for(timeout=60_000)
        picture = time.perf_counter() - start
        key = canvas.evaluate("c => c.view.s.key[c.view.s.kind.indexOf('input')]")
        place = canvas.evaluate("(c, key) => c.view.locate(key)", key)
        start = time.perf_counter()
        page.mouse.click(*place)
        page.get_by_text("Outputs", exact=True).wait_for()
        panel = time.perf_counter() - start
        page.get_by_text("Flat", exact=True).click()
        page.wait_for_timeout(3000)
        redraws = []
        for zoom in (1.0, 0.5, 0.25, 0.12, 0.06, 0.02):
            canvas.evaluate("(c, zoom) => c.view.zoomTo(zoom, 400, 300)", zoom)
            page.wait_for_timeout(150)
            redraws.append(float(canvas.evaluate("c => c.dataset.redraw")))
    return {"model": path.stem, "first picture s": picture, "click to panel s": panel, "worst redraw ms": max(redraws)}


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    for row in [{name: name for name in rows[0]}, *rows]:
        cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
        print("  ".join(f"{cell:>15}" for cell in cells))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", action="store_true", help="also measure in a browser")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = models(Path(folder))
        rows = [measure(path) for path in paths]
        show(rows)
        for row in rows:
            if row["dot"]:
                least = ">" if math.isinf(row["dot"]) else ""
                ratio = min(row["dot"], DOT_SECONDS) / row["flat"]
                print(f"{row['model']}: flat layout {least}{ratio:.0f} times as fast as dot")
        if chosen.browser:
            show([browse(path) for path in paths])


if __name__ == "__main__":
    main()
