"""How long zig's analysis takes, beside Torch-Pruning's on the same architectures and beside reading the file.

    python benchmarks/analyze.py                    # three tables: about two minutes on two cores
    python benchmarks/analyze.py --table peer       # one of them: peer, process or growth
    python benchmarks/analyze.py --exporter dynamo  # the graphs of torch's other exporter (BatchNorm folded)

- `peer`: `zig.analyze` of a loaded graph against Torch-Pruning's graph build and group enumeration.
- `process`: `zig analyze MODEL` against `python -c "import onnx; onnx.load(MODEL)"`, both as whole processes.
- `growth`: load, analysis and peak memory against the size of the model, each in a fresh process (Linux).

Every number is the median of rounds in which the two sides take turns. Torch-Pruning traces a forward pass, zig runs
nothing; so one row gives it the smallest image that the network takes, where its own work is nearly all that counts.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import onnx
import torch
import zoo
from torch import Tensor, nn

import zig

PEERS = (  # network, side of its image, largest allowed ratio
    ("densenet121", 224, 1 / 10),
    ("llama-32-64", 0, 1 / 10),
    ("gpt-32-64", 0, 1 / 10),
    ("resnet50", 224, 1 / 3),
    ("resnet50", 32, 1.0),
)
BYTE_CODE = tempfile.TemporaryDirectory()  # gone when this script ends
TWICE = 2.0  # a whole `zig analyze` against reading the file
READ = "import sys, onnx; onnx.load(sys.argv[1])"
PEAK = """
import re, sys, time, zig
def peak():  # VmHWM: getrusage would tell the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
analyze, load = zig.analyze, zig.load
before, start = peak(), time.perf_counter()
graph = load(sys.argv[1])
loaded = time.perf_counter()
partition = analyze(graph)
took = time.perf_counter() - loaded
print(len(graph.nodes), len(partition), partition.flow.count, loaded - start, took, before, peak())
"""


class RMSNorm(nn.Module):
    """Root mean square normalisation, written out as language models do."""

    def __init__(self, width: int):
        """One weight for each channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


class Attention(nn.Module):
    """Causal self-attention by four plain linear layers."""

    def __init__(self, width: int, heads: int, length: int, bias: bool):
        """Heads of width // heads channels each, over sequences of one length."""
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width, bias) for _ in range(4))
        self.register_buffer("future", torch.full((length, length), -1e4).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to this token and those before it."""
        batch, length, width = x.shape
        q, k, v = (
            linear(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(2, 3)) * (width // self.heads) ** -0.5 + self.future
        return self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class GatedMLP(nn.Module):
    """Llama's MLP."""

    def __init__(self, width: int):
        """Twice as wide inside."""
        super().__init__()
        self.gate, self.widen, self.narrow = (
            nn.Linear(i, o, bias=False) for i, o in ((width, 2 * width), (width, 2 * width), (2 * width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Gate, widen, narrow."""
        return self.narrow(nn.functional.silu(self.gate(x)) * self.widen(x))


class Block(nn.Module):
    """A pre-norm block: in the manner of GPT (LayerNorm, GELU), or of Llama (RMSNorm, gated MLP, no biases)."""

    def __init__(self, kind: str, width: int, heads: int, length: int):
        """A block of kind `gpt` or `llama`."""
        super().__init__()
        llama = kind == "llama"
        self.before, self.between = (RMSNorm(width) if llama else nn.LayerNorm(width) for _ in range(2))
        self.attention = Attention(width, heads, length, bias=not llama)
        plain = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp = GatedMLP(width) if llama else plain

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the MLP, each beside a skip."""
        x = x + self.attention(self.before(x))
        return x + self.mlp(self.between(x))


class Decoder(nn.Module):
    """A language model over 16 tokens."""

    def __init__(self, kind: str, layers: int, width: int, words: int = 100, length: int = 16):
        """Blocks of kind `gpt` or `llama`, with heads of up to 64 channels."""
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(kind, width, max(4, width // 64), length) for _ in range(layers)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, words)
        self.register_buffer("positions", torch.arange(length))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next word: (batch, length) -> (batch, length, words)."""
        return self.head(self.last(self.blocks(self.words(tokens) + self.places(self.positions))))


class Model(NamedTuple):
    """A torch network, an input for it, and the ONNX file that it was exported to."""

    title: str
    module: nn.Module
    example: Tensor
    path: Path


def build(name: str, image: int) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with random weights, and an input for it.

    Args:
        name: of torchvision, or a decoder: `gpt-32-64` and `llama-32-64` have 32 layers of width 64.
        image: side of the square image for torchvision's.
    """
    torch.manual_seed(0)
    if name.startswith(("gpt-", "llama-")):
        kind, layers, width = name.split("-")
        module: nn.Module = Decoder(kind, int(layers), int(width))
        example = torch.zeros(1, 16, dtype=torch.long)
    else:
        module = zoo.torchvision_models().get_model(name, weights=None)
        example = torch.randn(1, 3, image, image)
    randomise(module)
    return module.eval(), example


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Give norms values of their own: the exporter would merge tensors that are equal, and so tie their channels."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)


def export(name: str, folder: Path, exporter: str = "torchscript", image: int = 224) -> Model:
    """Build a network and write it as ONNX, with BatchNorm kept where the exporter can."""
    module, example = build(name, image)
    path = folder / f"{name}.onnx"
    keeping = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE, "dynamo": False}
    options = keeping if exporter == "torchscript" else {"dynamo": True, "external_data": False, "verbose": False}
    with quiet():
        torch.onnx.export(module, (example,), path, opset_version=zoo.OPSET, **options)
    return Model(f"{name}, {image} x {image}" if example.ndim == 4 else name, module, example, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters and peers print and warn about matters that are not ours."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def seconds(run: Callable[[], object]) -> float:
    """Time of one call, with the rubbish of earlier ones gone."""
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def taking_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Medians of two measurements that take turns; a first round of each warms up."""
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return mine, other


def process(*command: str) -> Callable[[], float]:
    """A measurement: the time of a whole Python process, with byte code cached as in an installed package."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": BYTE_CODE.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    call = partial(subprocess.run, [sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
    return lambda: seconds(call)


def show(title: str, headings: tuple[str, str], rows: Iterable[tuple[str, float, float, float]]) -> None:
    """Print a table of ratios, a line as soon as it is measured.

    Args:
        title: what is compared.
        headings: names of the two sides.
        rows: case, seconds of either side, largest allowed ratio.
    """
    print(f"\n{title}\n{'':<30}{headings[0]:>20}{headings[1]:>24}{'ratio':>9}{'target':>9}")
    for case, ours, theirs, target in rows:
        ratio = ours / theirs
        line = f"{case:<30}{1e3 * ours:>17.1f} ms{1e3 * theirs:>21.1f} ms{ratio:>9.3f}{target:>9.3f}"
        print(line + ("" if ratio <= target else "  MISSED"), flush=True)


def enumerate_groups(module: nn.Module, example: Tensor) -> None:
    """All of Torch-Pruning's groups, from scratch."""
    import torch_pruning

    with quiet():
        graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=example)
        list(graph.get_all_groups())


def against_peer(
    models: Iterable[Model], targets: Iterable[float], rounds: int
) -> Iterator[tuple[str, float, float, float]]:
    """Analysis of a freshly loaded graph against Torch-Pruning's."""
    for model, target in zip(models, targets, strict=True):

        def ours(path: Path = model.path) -> float:
            graph = zig.load(path)
            return seconds(lambda: zig.analyze(graph))

        def theirs(model: Model = model) -> float:
            return seconds(lambda: enumerate_groups(model.module, model.example))

        yield (model.title, *taking_turns(ours, theirs, rounds), target)


def against_reading(models: Iterable[Model], rounds: int) -> Iterator[tuple[str, float, float, float]]:
    """`zig analyze` against reading the file, as processes."""
    for model in models:
        case = f"{model.path.stem}, {model.path.stat().st_size / 1e6:.1f} MB"
        path = str(model.path)
        ours, theirs = process("-m", "zig", "analyze", path), process("-c", READ, path)
        yield (case, *taking_turns(ours, theirs, rounds), TWICE)


def growth(names: Iterable[str], folder: Path, rounds: int) -> list[tuple[float, float, float]]:
    """Print a line for each model: nodes, groups, time to load and to analyse, and memory, each in its own process.

    Returns:
        Nodes, units and seconds of analysis of each model.
    """
    points = []
    print("\ngrowth (weights in a data file; memory above that of the imports)")
    print(f"{'':<20}{'MB':>8}{'nodes':>8}{'groups':>8}{'load ms':>10}{'analyze ms':>12}{'us/node':>9}{'memory MB':>11}")
    for name in names:
        path = export(name, folder).path
        onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{name}.data")
        size = sum(file.stat().st_size for file in (path, path.with_suffix(".data")))
        runs = [subprocess.check_output([sys.executable, "-c", PEAK, path], text=True) for _ in range(rounds)]
        columns = zip(*(map(float, run.split()) for run in runs), strict=True)
        nodes, groups, units, load, analysis, before, after = (statistics.median(column) for column in columns)
        line = f"{name:<20}{size / 1e6:>8.1f}{nodes:>8.0f}{groups:>8.0f}{1e3 * load:>10.1f}{1e3 * analysis:>12.1f}"
        print(line + f"{1e6 * analysis / nodes:>9.0f}{after - before:>11.1f}", flush=True)
        path.with_suffix(".data").unlink()
        points.append((nodes, units, analysis))
    return points


def plot(points: list[tuple[float, float, float]], target: Path) -> None:
    """Draw the seconds for each node and for each unit against the number of nodes."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    nodes, units, seconds = (np.array(column) for column in zip(*sorted(points), strict=True))
    axes.loglog(nodes, 1e6 * seconds / nodes, "o-", label="for each node")
    axes.loglog(nodes, 1e6 * seconds / units, "s--", label="for each unit")
    axes.set(xlabel="nodes", ylabel="analysis, microseconds", ylim=(0.1, 1000))
    axes.legend()
    axes.grid(True, which="both", alpha=0.3)
    figure.savefig(target)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=("peer", "process", "growth"), help="only this table")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the growth with depth (needs matplotlib)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.table in (None, "peer"):
            models = (export(name, place, options.exporter, image) for name, image, _ in PEERS)
            rows = against_peer(models, [target for *_, target in PEERS], options.rounds)
            show("analysis of a loaded graph", ("zig.analyze", "Torch-Pruning 1.6.1"), rows)
        if options.table in (None, "process"):
            models = (export(name, place, options.exporter) for name in ("resnet50", "gpt-2-64"))
            show("whole processes", ("zig analyze", "onnx.load"), against_reading(models, options.rounds))
        if options.table in (None, "growth"):
            depths = [f"gpt-{layers}-64" for layers in (2, 8, 32, 128, 330)]
            points = growth(depths, place, min(options.rounds, 3))
            growth(("gpt-8-256", "gpt-8-1024"), place, min(options.rounds, 3))
            if options.plot:
                plot(points, options.plot)


if __name__ == "__main__":
    main()
