"""A model larger than memory: what it costs to analyze, prune and compress a decoder of seven billion parameters.

    python benchmarks/large.py --layers 2     # 0.7 billion parameters, 3 GB of disk
    python benchmarks/large.py                # 32 layers, 6.7 billion parameters, 13.5 GB in float16, 27 GB of disk
    python benchmarks/large.py --distinct     # 40 GB of disk: every layer of the first file has bytes of its own

The model is a decoder in the manner of Llama (RMSNorm, rotary positions, gated MLP), written straight to ONNX with its
weights in a data file; its layers share one block of random weights there unless `--distinct` is given. `zig prune`
zeroes half of it, which gives every layer bytes of its own, and `zig compress` cuts them out. Each step is a process
whose private memory (RssAnon and swap of /proc/PID/status: mapped pages of files do not count) is read all the time.
The time of `compress` stands beside that of copying as many bytes as it keeps, out of the same file; both end when
their result is on the disk. Before each of the two the machine rests: a virtual one gives memory that was freed back to
its host meanwhile, and whoever takes it again pays for it (0.4 to 2 s for a gigabyte of a file's pages where this was
written, from one hour to another). The copy goes through the system's cache, as that of `cp`; what `compress` writes
goes past it. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zig import datafiles

MIB = 1 << 20
MOST_SECONDS, MOST_MEMORY, MOST_COPIES = 60.0, 2048.0, 1.5  # of analyze, of compress (MiB), of compress beside copying
BARS, LINES = 50, 16  # of the drawn curve


class Size(NamedTuple):
    """The sizes of a decoder; the default is Llama 2's with seven billion parameters."""

    layers: int = 32
    width: int = 4096
    hidden: int = 11008
    heads: int = 32
    words: int = 32000

    @property
    def head(self) -> int:
        """Channels of one head."""
        return self.width // self.heads


class Writer:
    """Nodes of a graph, and weights that go straight to the data file."""

    def __init__(self, data: Path):
        """Begin an empty graph beside an empty data file."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.file, self.location = data.open("wb"), data.name
        self._numbers = np.random.default_rng(0)
        self._blocks: dict[str, tuple[int, int]] = {}

    def weight(self, name: str, *dims: int, block: str, mean: float = 0.0) -> str:
        """A float16 weight; those of one block share their bytes."""
        if block not in self._blocks:
            start = self.file.tell()
            for _ in range(dims[0]):
                row = mean + 0.02 * self._numbers.standard_normal(dims[1:] or 1, dtype=np.float32)
                self.file.write(row.astype(np.float16).tobytes())
            self._blocks[block] = start, self.file.tell() - start
        offset, length = self._blocks[block]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """A small constant inside the model."""
        if all(tensor.name != name for tensor in self.weights):
            self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, *operands: str, name: str, **attributes: object) -> str:
        """The result of a node, which has the node's name."""
        self.nodes.append(helper.make_node(operator, operands, [name], name=name, **attributes))
        return name


def build(size: Size, path: Path, distinct: bool) -> None:
    """Write the decoder: token ids (batch, sequence) to scores of the next word (batch, sequence, words)."""
    writer = Writer(path.with_name(f"{path.name}.data"))
    with writer.file:
        x = writer.node("Gather", writer.weight("words", size.words, size.width, block="words"), "tokens", name="embed")
        angles = np.outer(np.arange(TOKENS), 1e4 ** (-np.arange(0, size.head, 2) / size.head))
        for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
            writer.constant(name, np.concatenate([table, table], axis=1).astype(np.float16))
        for i in range(size.layers):
            x = layer(writer, size, f"layers.{i}", x, f"{i}." if distinct else "")
        x = normed(writer, size, "norm", x, "norm")
        writer.node("MatMul", x, writer.weight("head", size.width, size.words, block="head"), name="scores")
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", TOKENS])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["batch", TOKENS, size.words])
    graph = helper.make_graph(writer.nodes, "decoder", [tokens], [scores], writer.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


TOKENS = 8  # length of the sequence


def normed(w: Writer, size: Size, name: str, x: str, block: str) -> str:
    """RMSNorm, computed in float32."""
    gain = w.weight(f"{name}.weight", size.width, block=block, mean=1.0)
    wide = w.node("Cast", x, name=f"{name}.wide", to=TensorProto.FLOAT)
    square = w.node("Mul", wide, wide, name=f"{name}.square")
    axes = w.constant("last_axis", np.array([-1]))
    mean = w.node("ReduceMean", square, axes, name=f"{name}.mean", keepdims=1)
    shifted = w.node("Add", mean, w.constant("epsilon", np.array(1e-5, np.float32)), name=f"{name}.shifted")
    root = w.node("Sqrt", shifted, name=f"{name}.root")
    scaled = w.node("Div", wide, root, name=f"{name}.scaled")
    narrow = w.node("Cast", scaled, name=f"{name}.narrow", to=TensorProto.FLOAT16)
    return w.node("Mul", narrow, gain, name=name)


def layer(w: Writer, size: Size, name: str, x: str, own: str) -> str:
    """A block: attention, then the gated MLP, each beside a skip; `own` tells its weights from those of others."""

    def linear(x: str, kind: str, rows: int, columns: int) -> str:
        weight = w.weight(f"{name}.{kind}.weight", rows, columns, block=f"{own}{kind}")
        return w.node("MatMul", x, weight, name=f"{name}.{kind}")

    normal = normed(w, size, f"{name}.before", x, f"{own}before")
    split = w.constant("by_heads", np.array([0, 0, size.heads, size.head]))
    heads = {}
    for kind in ("query", "key", "value"):
        table = w.node("Reshape", linear(normal, kind, size.width, size.width), split, name=f"{name}.{kind}.split")
        heads[kind] = w.node("Transpose", table, name=f"{name}.{kind}.heads", perm=[0, 2, 1, 3])
    query, key = (rotated(w, size, f"{name}.{kind}.turned", heads[kind]) for kind in ("query", "key"))
    key = w.node("Transpose", key, name=f"{name}.key.columns", perm=[0, 1, 3, 2])
    products = w.node("MatMul", query, key, name=f"{name}.products")
    root = w.constant("root", np.array(size.head**-0.5, np.float16))
    future = w.constant("future", np.triu(np.full((TOKENS, TOKENS), -1e4, np.float16), 1))
    masked = w.node("Add", w.node("Mul", products, root, name=f"{name}.weighed"), future, name=f"{name}.masked")
    shares = w.node("Softmax", masked, name=f"{name}.shares", axis=-1)
    mixed = w.node("MatMul", shares, heads["value"], name=f"{name}.mixed")
    rows = w.node("Transpose", mixed, name=f"{name}.rows", perm=[0, 2, 1, 3])
    whole = w.node("Reshape", rows, w.constant("merged", np.array([0, 0, -1])), name=f"{name}.merged")
    x = w.node("Add", x, linear(whole, "project", size.width, size.width), name=f"{name}.attended")

    normal = normed(w, size, f"{name}.between", x, f"{own}between")
    gate, wide = (linear(normal, kind, size.width, size.hidden) for kind in ("gate", "widen"))
    gate = w.node("Mul", gate, w.node("Sigmoid", gate, name=f"{name}.sigmoid"), name=f"{name}.silu")
    gated = w.node("Mul", gate, wide, name=f"{name}.gated")
    return w.node("Add", x, linear(gated, "narrow", size.hidden, size.width), name=name)


def rotated(w: Writer, size: Size, name: str, x: str) -> str:
    """Rotary positions: x * cos + (-second half, first half) * sin."""
    bounds = {key: w.constant(key, np.array([n])) for key, n in
              (("first", 0), ("half", size.head // 2), ("full", size.head), ("last_axis", -1))}  # fmt: skip
    left = w.node("Slice", x, bounds["first"], bounds["half"], bounds["last_axis"], name=f"{name}.left")
    right = w.node("Slice", x, bounds["half"], bounds["full"], bounds["last_axis"], name=f"{name}.right")
    turned = w.node("Concat", w.node("Neg", right, name=f"{name}.minus"), left, name=f"{name}.other", axis=-1)
    kept, moved = (w.node("Mul", y, table, name=f"{name}.{table}") for y, table in ((x, "cos"), (turned, "sin")))
    return w.node("Add", kept, moved, name=name)


@dataclass
class Run:
    """What became of a process: its seconds, and its private memory (MiB) over time."""

    seconds: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """The most private memory that was seen, in MiB."""
        return max(memory for _, memory in self.curve)

    def draw(self, title: str) -> None:
        """Print the curve, the peak of each of a few stretches of time."""
        print(f"\nprivate memory of {title}, MiB")
        for i in range(LINES):
            low, high = (self.seconds * k / LINES for k in (i, i + 1))
            seen = [memory for at, memory in self.curve if low <= at < high]
            if seen:
                print(f"{low:>9.1f} s {max(seen):>8.0f} {'#' * round(BARS * max(seen) / self.peak)}")


def private(process: int) -> float:
    """Private memory of a process in MiB: anonymous pages in memory and in swap."""
    status = Path(f"/proc/{process}/status").read_text()
    return sum(int(n) for n in re.findall(r"(?:RssAnon|VmSwap):\s+(\d+)", status)) / 1024


def watch(*command: str) -> Run:
    """Run a Python process to its end and read its memory every 10 ms.

    Raises:
        SystemExit: it failed.
    """
    run, start = Run(), time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        run.curve.append((time.perf_counter() - start, private(process.pid)))
        time.sleep(0.01)
    run.seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return run


def finish(file: Path) -> float:
    """Seconds until all of a file that was just written is on the disk."""
    start = time.perf_counter()
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    return time.perf_counter() - start


def rest(seconds: float) -> None:
    """Let the disk finish, and the machine give back the memory that is free."""
    os.sync()
    time.sleep(seconds)


def compress(source: Path, target: Path) -> Run:
    """Cut the zeros out of a model, until the result is on the disk."""
    run = watch("-m", "zig", "compress", str(source), "-o", str(target), "--no-verify")
    run.seconds += finish(data_of(target))
    return run


def copy(source: Path, count: int, target: Path) -> float:
    """Seconds to copy the first bytes of a file, until the copy is on the disk; the kernel does it, as for `cp`."""
    start, done = time.perf_counter(), 0
    with source.open("rb") as read, target.open("wb") as written:
        while done < count:
            done += os.sendfile(written.fileno(), read.fileno(), done, count - done)
    finish(target)
    seconds = time.perf_counter() - start
    target.unlink()
    return seconds


def delete(model: Path) -> None:
    """Remove a model with its data file."""
    data_of(model).unlink()
    model.unlink()


def data_of(model: Path) -> Path:
    """The data file of a model."""
    return model.parent / datafiles.of_model(model)[0]


def steps(size: Size, folder: Path, distinct: bool, ratio: float, rounds: int, pause: float) -> None:
    """Build, analyze, prune, compress and copy; print a line for each, then the ratios and the curves."""
    full, zeroed, small = (folder / f"{name}.onnx" for name in ("full", "zeroed", "small"))
    print(f"{'':<10}{'seconds':>9}{'peak MiB':>10}{'GB':>8}", flush=True)
    start = time.perf_counter()
    build(size, full, distinct)
    tell("build", time.perf_counter() - start, full)
    analyzed = watch("-m", "zig", "analyze", str(full))
    tell("analyze", analyzed, full)
    pruned = watch("-m", "zig", "prune", str(full), "-o", str(zeroed), "--ratio", str(ratio))
    tell("prune", pruned, zeroed)
    delete(full)
    compressed, copied = [], []
    for _ in range(rounds):
        rest(pause)
        compressed.append(compress(zeroed, small))
        tell("compress", compressed[-1], small)
        kept = data_of(small).stat().st_size
        delete(small)
        rest(pause)
        copied.append(copy(data_of(zeroed), kept, folder / "copy.data"))
        print(f"{'copy':<10}{copied[-1]:>9.1f}{'':>10}{kept / 1e9:>8.2f}", flush=True)
    ratio = statistics.median(run.seconds for run in compressed) / statistics.median(copied)
    print()
    for title, value, most in (
        ("analyze, seconds", analyzed.seconds, MOST_SECONDS),
        ("prune, MiB of private memory", pruned.peak, MOST_MEMORY),
        ("compress, MiB of private memory", max(run.peak for run in compressed), MOST_MEMORY),
        ("compress / copy of what it keeps", ratio, MOST_COPIES),
    ):
        print(f"{title:<34}{value:>9.2f}{most:>9.1f}{'' if value <= most else '  MISSED'}")
    pruned.draw("prune")
    compressed[-1].draw("compress")


def tell(title: str, run: Run | float, model: Path) -> None:
    """Print the line of a step, with the size of the model that it read or made."""
    seconds, peak = (run.seconds, f"{run.peak:.0f}") if isinstance(run, Run) else (run, "")
    print(f"{title:<10}{seconds:>9.1f}{peak:>10}{data_of(model).stat().st_size / 1e9:>8.2f}", flush=True)


def main() -> None:
    """Print the steps, the ratios and the memory curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--distinct", action="store_true", help="every layer has bytes of its own from the start")
    parser.add_argument("--ratio", type=float, default=0.5, help="the share of the parameters to remove")
    parser.add_argument("--rounds", type=int, default=3, help="how often compress and copy take turns")
    parser.add_argument("--rest", type=float, default=20, help="seconds of rest before each of them")
    parser.add_argument("--folder", type=Path, help="where the files go for a while; by default the system's")
    options = parser.parse_args()
    size = Size(*(getattr(options, name) for name in Size._fields))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        steps(size, Path(folder), options.distinct, options.ratio, options.rounds, options.rest)


if __name__ == "__main__":
    main()
