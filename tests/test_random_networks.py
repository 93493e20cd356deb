"""Networks that nobody would draw: random operators in random order, pruned at random, must still be cut exactly.

Rows that are right one by one may be wrong together: constants that pass through several layers, forks behind forks,
one tensor read in many ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest

import zig

EXACT = 2e-5  # of the largest output; float32 through a dozen layers in another order of summation


@dataclass
class Network:
    """A network while it grows: lines of ONNX text, and tensors that can be read, with their sizes."""

    random: np.random.Generator
    lines: list[str] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    open: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def choose(self, *values: Any) -> Any:
        return values[self.random.integers(len(values))]

    def pick(self) -> tuple[str, tuple[int, ...]]:
        """A tensor to read: mostly the last one."""
        names = list(self.open)
        name = names[-1] if self.random.random() < 0.7 else self.choose(*names)
        return name, self.open[name]

    def alike(self, sizes: tuple[int, ...]) -> list[str]:
        return [name for name, other in self.open.items() if other == sizes]

    def weight(self, *sizes: int, scale: float = 1.0, shift: float = 0.0) -> str:
        name = f"w{len(self.weights)}"
        fan = max(int(np.prod(sizes[1:])), 1)
        values = self.random.standard_normal(sizes) * scale / np.sqrt(fan) + shift
        self.weights[name] = values.astype(np.float32)
        return name

    def numbers(self, *values: int) -> str:
        name = f"n{len(self.weights)}"
        self.weights[name] = np.array(values, np.int64)
        return name

    def call(self, text: str, sizes: tuple[int, ...]) -> str:
        """Append a node; `text` lacks its result."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self.open[name] = sizes
        return name

    def hidden(self, text: str) -> str:
        """Append a node whose result is for its maker alone."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def grow(self, makers: list[Callable[[Network], None]], count: int) -> Network:
        for _ in range(count):
            self.choose(*makers)(self)
        return self

    def model(self) -> onnx.ModelProto:
        """The network as far as it has grown, every tensor that nobody reads being an output."""
        return graphs.build("\n".join(self.lines), **self.weights)


# -- images: (channels, side) ---------------------------------------------------------------------------------------


def convolution(net: Network) -> None:
    x, (c, s) = net.pick()
    o, k = int(net.random.integers(3, 9)), net.choose(1, 3)
    pad = net.choose(0, 1) if k == 3 and s > 3 else k // 2
    bias = f", {net.weight(o)}" if net.random.random() < 0.6 else ""
    attributes = f"<pads = [{pad}, {pad}, {pad}, {pad}]>"
    net.call(f"Conv {attributes} ({x}, {net.weight(o, c, k, k)}{bias})", (o, s + 2 * pad - k + 1))


def depthwise(net: Network) -> None:
    x, (c, s) = net.pick()
    net.call(f"Conv <group = {c}, pads = [1, 1, 1, 1]> ({x}, {net.weight(c, 1, 3, 3)}, {net.weight(c)})", (c, s))


def grouped(net: Network) -> None:
    x, (c, s) = net.pick()
    for g in (3, 2, 4):
        if c % g == 0 and c > g:
            e = int(net.random.integers(1, 4))
            net.call(f"Conv <group = {g}> ({x}, {net.weight(g * e, c // g, 1, 1)})", (g * e, s))
            return


def norm(net: Network) -> None:
    x, (c, s) = net.pick()
    given = [net.weight(c, shift=1), net.weight(c), net.weight(c), net.weight(c, scale=0.1, shift=1)]
    net.call(f"BatchNormalization ({x}, {', '.join(given)})", (c, s))


def function(net: Network) -> None:
    x, sizes = net.pick()
    name = net.choose(
        "Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Softplus", "Elu", "Abs", "Neg", "Cos", "Identity"
    )
    net.call(f"{name} ({x})", sizes)


def scalar(net: Network) -> None:
    x, sizes = net.pick()
    value = f"k{len(net.weights)}"
    net.weights[value] = float(net.random.standard_normal())
    net.call(f"{net.choose('Add', 'Mul', 'Sub')} ({x}, {value})", sizes)


def pair(net: Network) -> None:
    x, sizes = net.pick()
    y = net.choose(*net.alike(sizes))
    net.call(f"{net.choose('Add', 'Add', 'Mul', 'Sub', 'Max')} ({x}, {y})", sizes)


def concat(net: Network) -> None:
    x, (c, s) = net.pick()
    others = [(name, sizes) for name, sizes in net.open.items() if sizes[1:] == (s,) and sizes[0] + c < 20]
    if others:
        y, (d, _) = others[net.random.integers(len(others))]
        net.call(f"Concat <axis = 1> ({x}, {y})", (c + d, s))


def split(net: Network) -> None:
    x, (c, s) = net.pick()
    if c < 4:
        return
    a = c // 2 if net.random.random() < 0.5 else int(net.random.integers(2, c - 1))
    left, right = f"l{len(net.lines)}", f"r{len(net.lines)}"
    net.lines.append(f"{left}, {right} = Split <axis = 1> ({x}, {net.numbers(a, c - a)})")
    net.open[left], net.open[right] = (a, s), (c - a, s)


def slicing(net: Network) -> None:
    x, (c, s) = net.pick()
    step = net.choose(1, 2, -1)
    indices = range(c)[slice(*((int(net.random.integers(0, 2)), c, step) if step > 0 else (None, None, -1)))]
    if len(indices) > 1:
        start, end = (indices[0], indices[-1] + 1) if step > 0 else (-1, -99)
        given = [net.numbers(n) for n in (start, end, 1, step)]
        net.call(f"Slice ({x}, {', '.join(given)})", (len(indices), s))


def gather(net: Network) -> None:
    x, (c, s) = net.pick()
    order = net.random.integers(0, c, int(net.random.integers(2, c + 2)))
    net.call(f"Gather <axis = 1> ({x}, {net.numbers(*order.tolist())})", (len(order), s))


def shuffle(net: Network) -> None:
    x, (c, s) = net.pick()
    for g in (2, 3):
        if c % g == 0 and c > g:
            apart = net.hidden(f"Reshape ({x}, {net.numbers(-1, g, c // g, s, s)})")
            turned = net.hidden(f"Transpose <perm = [0, 2, 1, 3, 4]> ({apart})")
            net.call(f"Reshape ({turned}, {net.numbers(0, c, s, s)})", (c, s))
            return


def gate(net: Network) -> None:
    x, (c, s) = net.pick()
    pooled = net.hidden(f"GlobalAveragePool ({x})")
    narrow = net.hidden(f"Conv ({pooled}, {net.weight(3, c, 1, 1)}, {net.weight(3)})")
    active = net.hidden(f"Relu ({narrow})")
    wide = net.hidden(f"Conv ({active}, {net.weight(c, 3, 1, 1)})")
    open_ = net.hidden(f"{net.choose('Sigmoid', 'HardSigmoid')} ({wide})")
    net.call(f"Mul ({x}, {open_})", (c, s))


def pool(net: Network) -> None:
    x, (c, s) = net.pick()
    name = net.choose("MaxPool", "AveragePool")
    net.call(f"{name} <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({x})", (c, s))


def pad(net: Network) -> None:
    x, (c, s) = net.pick()
    if s < 8:
        net.call(f"Pad ({x}, {net.numbers(0, 0, 1, 0, 0, 0, 0, 1)})", (c, s + 1))


def blocks(net: Network) -> None:
    x, (c, s) = net.pick()
    if c % 4 == 0 and c > 4 and s < 5:
        net.call(f'DepthToSpace <blocksize = 2, mode = "{net.choose("DCR", "CRD")}"> ({x})', (c // 4, 2 * s))


IMAGES = [
    convolution, convolution, convolution, depthwise, grouped, norm, norm, function, function, function, scalar, pair, pair,
    concat, split, slicing, gather, shuffle, gate, pool, pad, blocks,
]  # fmt: skip


def image_network(seed: int) -> onnx.ModelProto:
    net = Network(np.random.default_rng(seed))
    net.weights["x"] = "N 3 6 6"
    net.open["x"] = (3, 6)
    convolution(net)
    del net.open["x"]
    net.grow(IMAGES, int(net.random.integers(4, 12)))
    ends = [
        (name, sizes)
        for name, sizes in net.open.items()
        if not any(f"{name}," in x or f"{name})" in x for x in net.lines)
    ]
    for name, (c, _) in ends:
        if net.random.random() < 0.5:
            pooled = net.hidden(f"GlobalAveragePool ({name})")
            flat = net.hidden(f"Flatten ({pooled})")
            net.call(f"Gemm <transB = 1> ({flat}, {net.weight(2, c)}, {net.weight(2)})", (2,))
        else:
            net.call(f"Conv ({name}, {net.weight(2, c, 1, 1)}, {net.weight(2)})", (2, 1))
    return net.model()


# -- sequences: (width,), all of them batch x places x width --------------------------------------------------------

PLACES = 5


def dense(net: Network) -> None:
    x, (d,) = net.pick()
    o = int(net.random.choice([4, 6, 8, 12]))
    y = net.call(f"MatMul ({x}, {net.weight(d, o)})", (o,))
    if net.random.random() < 0.5:
        net.call(f"Add ({y}, {net.weight(o)})", (o,))


def attend(net: Network) -> None:
    x, (d,) = net.pick()
    heads, size = net.choose((2, 3), (3, 2), (2, 4), (4, 2))
    fused = net.random.random() < 0.4
    parts = []
    if fused:
        qkv = net.hidden(f"MatMul ({x}, {net.weight(d, 3 * heads * size)})")
        table = net.hidden(f"Reshape ({qkv}, {net.numbers(0, 0, 3, heads, size)})")
        turned = net.hidden(f"Transpose <perm = [2, 0, 3, 1, 4]> ({table})")
        for i in range(3):
            index = f"n{len(net.weights)}"
            net.weights[index] = np.array(i)
            parts.append(net.hidden(f"Gather <axis = 0> ({turned}, {index})"))
    else:
        for _ in range(3):
            y = net.hidden(f"MatMul ({x}, {net.weight(d, heads * size)})")
            table = net.hidden(f"Reshape ({y}, {net.numbers(0, 0, heads, size)})")
            parts.append(net.hidden(f"Transpose <perm = [0, 2, 1, 3]> ({table})"))
    q, k, v = parts
    keys = net.hidden(f"Transpose <perm = [0, 1, 3, 2]> ({k})")
    scores = net.hidden(f"MatMul ({q}, {keys})")
    shares = net.hidden(f"Softmax <axis = -1> ({scores})")
    mixed = net.hidden(f"MatMul ({shares}, {v})")
    back = net.hidden(f"Transpose <perm = [0, 2, 1, 3]> ({mixed})")
    flat = net.hidden(f"Reshape ({back}, {net.numbers(0, 0, heads * size)})")
    net.call(f"MatMul ({flat}, {net.weight(heads * size, d)})", (d,))


def layer_norm(net: Network) -> None:
    x, (d,) = net.pick()
    net.call(f"LayerNormalization ({x}, {net.weight(d, shift=1)}, {net.weight(d)})", (d,))


def gated(net: Network) -> None:
    x, (d,) = net.pick()
    both = net.hidden(f"MatMul ({x}, {net.weight(d, 8)})")
    left, right = f"l{len(net.lines)}", f"r{len(net.lines)}"
    net.lines.append(f"{left}, {right} = Split <axis = -1, num_outputs = 2> ({both})")
    open_ = net.hidden(f"{net.choose('Sigmoid', 'Gelu')} ({left})")
    product = net.hidden(f"Mul ({open_}, {right})")
    net.call(f"MatMul ({product}, {net.weight(4, d)})", (d,))


def curve(net: Network) -> None:
    x, sizes = net.pick()
    net.call(f"{net.choose('Gelu', 'Relu', 'Sigmoid', 'Tanh', 'Mish')} ({x})", sizes)


def join(net: Network) -> None:
    x, (d,) = net.pick()
    y = net.choose(*net.open)
    net.call(f"Concat <axis = 2> ({x}, {y})", (d + net.open[y][0],))


def scaled(net: Network) -> None:
    x, (d,) = net.pick()
    net.call(f"Mul ({x}, {net.weight(d)})", (d,))


def recurrent(net: Network) -> None:
    x, (d,) = net.pick()
    first = net.hidden(f"Transpose <perm = [1, 0, 2]> ({x})")
    h = 4
    all_ = net.hidden(
        f"LSTM <hidden_size = {h}> ({first}, {net.weight(1, 4 * h, d)}, {net.weight(1, 4 * h, h)}, {net.weight(1, 8 * h)})"
    )
    plain = net.hidden(f"Squeeze ({all_}, {net.numbers(1)})")
    net.call(f"Transpose <perm = [1, 0, 2]> ({plain})", (h,))


SEQUENCES = [
    dense,
    dense,
    dense,
    attend,
    attend,
    layer_norm,
    gated,
    curve,
    curve,
    scalar,
    pair,
    pair,
    join,
    scaled,
    recurrent,
]


def sequence_network(seed: int) -> onnx.ModelProto:
    net = Network(np.random.default_rng(seed))
    net.weights["x"] = f"N {PLACES} 3"
    net.open["x"] = (3,)
    dense(net)
    del net.open["x"]
    net.grow(SEQUENCES, int(net.random.integers(3, 9)))
    for name, (d,) in list(net.open.items()):
        if not any(f"{name}," in x or f"{name})" in x for x in net.lines):
            net.call(f"MatMul ({name}, {net.weight(d, 2)})", (2,))
    return net.model()


# -- the test -------------------------------------------------------------------------------------------------------

MAKERS = {"images": image_network, "sequences": sequence_network}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", range(40))
def test_any_network_is_cut_exactly(kind: str, seed: int, tmp_path: Path) -> None:
    cut_at_random(MAKERS[kind](seed), seed, tmp_path)


def cut_at_random(model: onnx.ModelProto, seed: int, folder: Path) -> float:
    """Zero and cut a random plan, by the plan and by the zeros in the file; how much larger it would be uncut."""
    zeroed, small, same = (folder / f"{name}.onnx" for name in ("zeroed", "small", "same"))
    partition = zig.analyze(model, forks=("heads", "head_dims", "finest")[seed % 3])
    plan = graphs.half(partition, seed)
    zig.zero(plan, zeroed)
    by_plan = zig.compress(model, small, plan, check=False)
    by_file = zig.compress(zeroed, same, check=False)
    assert by_plan.removed >= plan.remove.sum()
    inputs = graphs.feeds(model, seed)
    wanted = graphs.run(zeroed, inputs)
    assert graphs.difference(wanted, graphs.run(small, inputs)) <= EXACT
    assert graphs.difference(wanted, graphs.run(same, inputs)) <= EXACT
    return by_file.before["parameters"] / by_file.after["parameters"]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_zero_is_cut_exactly(kind: str, seed: int, tmp_path: Path) -> None:
    cut_what_is_zero(MAKERS[kind](seed), seed, tmp_path)


def cut_what_is_zero(model: onnx.ModelProto, seed: int, folder: Path) -> int:
    """Zero slices of weights without asking for groups, compress, compare; how many groups went."""
    zero_anything(model, np.random.default_rng(seed))
    report = zig.compress(model, folder / "small.onnx", check=False)
    inputs = graphs.feeds(model, seed)
    assert graphs.difference(graphs.run(model, inputs), graphs.run(folder / "small.onnx", inputs)) <= EXACT
    return report.removed


def zero_anything(model: onnx.ModelProto, random: np.random.Generator) -> None:
    """Zeros in some rows and columns of some weights: filters without their biases, scales without their shifts, ..."""
    for tensor in model.graph.initializer:
        values = np.array(onnx.numpy_helper.to_array(tensor))
        if values.dtype == np.float32 and values.ndim and random.random() < 0.7:
            axis = int(random.integers(min(values.ndim, 2)))
            np.moveaxis(values, axis, 0)[random.random(values.shape[axis]) < 0.4] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
