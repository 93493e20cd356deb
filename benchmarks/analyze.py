"""How long zig's analysis takes, beside Torch-Pruning's on the same architectures and beside reading the file.

    python benchmarks/analyze.py                    # three tables: about three minutes on two cores
    python benchmarks/analyze.py --table peer       # one of them: peer, process or growth
    python benchmarks/analyze.py --exporter dynamo  # the graphs of torch's other exporter (BatchNorm folded)

- `peer`: `zig.analyze` of a loaded graph against Torch-Pruning's graph build and group enumeration.
- `process`: `zig analyze MODEL` against `python -c "import onnx; onnx.load(MODEL)"`, both as whole processes.
- `growth`: load, analysis and peak memory against the size of the model.

Every number is the median of rounds in which the two sides take turns. Torch-Pruning traces a forward pass; it gets the
smallest image that the networks take (`--image 224` for the usual one), so that its own work is what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import onnx
import torch
import zoo
from torch import Tensor, nn

import zig

TARGETS = {"densenet121": 1 / 10, "decoder32": 1 / 10, "resnet50": 1 / 3}
TWICE = 2.0  # a whole `zig analyze` against reading the file
READ = "import sys, onnx; onnx.load(sys.argv[1])"
PEAK = """
import resource, sys, time, zig
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
zig.analyze, start, before = zig.analyze, time.perf_counter(), peak()
graph = zig.load(sys.argv[1])
loaded = time.perf_counter()
partition = zig.analyze(graph)
print(len(graph.nodes), len(partition), loaded - start, time.perf_counter() - loaded, before, peak())
"""


class Block(nn.Module):
    """A pre-norm decoder block: causal self-attention, then an MLP of four times the width."""

    def __init__(self, width: int, heads: int, length: int):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("future", torch.full((length, length), -1e4).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        normal = self.before(x)
        q, k, v = (
            linear(normal).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(2, 3)) * (width // self.heads) ** -0.5 + self.future
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.project(mixed)
        return x + self.narrow(nn.functional.gelu(self.widen(self.between(x))))


class Decoder(nn.Module):
    """A language model of `layers` blocks over 16 tokens."""

    def __init__(self, layers: int, width: int, words: int = 100, length: int = 16):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(torch.zeros(1, length, width))
        self.blocks = nn.Sequential(*(Block(width, max(4, width // 64), length) for _ in range(layers)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.words(tokens) + self.places)))


class Model(NamedTuple):
    """A torch network, an input for it, and the ONNX file that it was exported to."""

    name: str
    module: nn.Module
    example: Tensor
    path: Path


def build(name: str, image: int) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with random weights, and an input for it; `decoder32` has 32 layers of width 64."""
    torch.manual_seed(0)
    if name.startswith("decoder"):
        layers, _, width = name.removeprefix("decoder").partition("x")
        return Decoder(int(layers), int(width or 64)).eval(), torch.zeros(1, 16, dtype=torch.long)
    return zoo.torchvision_models().get_model(name, weights=None).eval(), torch.randn(1, 3, image, image)


def export(name: str, folder: Path, exporter: str = "torchscript", image: int = 32) -> Model:
    """Build a network and write it as ONNX, with BatchNorm kept where the exporter can."""
    module, example = build(name, image)
    path = folder / f"{name}.onnx"
    keeping = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE, "dynamo": False}
    options = keeping if exporter == "torchscript" else {"dynamo": True, "external_data": False, "verbose": False}
    with quiet():
        torch.onnx.export(module, (example,), path, opset_version=zoo.OPSET, **options)
    return Model(name, module, example, path)


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
    """A measurement: the time of a whole Python process."""
    return lambda: seconds(lambda: subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL))


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


def against_peer(models: Iterable[Model], rounds: int) -> Iterator[tuple[str, float, float, float]]:
    """Analysis of a freshly loaded graph against Torch-Pruning's."""
    for model in models:

        def ours(path: Path = model.path) -> float:
            graph = zig.load(path)
            return seconds(lambda: zig.analyze(graph))

        def theirs(model: Model = model) -> float:
            return seconds(lambda: enumerate_groups(model.module, model.example))

        yield (model.name, *taking_turns(ours, theirs, rounds), TARGETS[model.name])


def against_reading(models: Iterable[Model], rounds: int) -> Iterator[tuple[str, float, float, float]]:
    """`zig analyze` against reading the file, as processes."""
    for model in models:
        case = f"{model.name} ({model.path.stat().st_size / 1e6:.0f} MB)"
        path = str(model.path)
        ours, theirs = process("-m", "zig", "analyze", path), process("-c", READ, path)
        yield (case, *taking_turns(ours, theirs, rounds), TWICE)


def growth(names: Iterable[str], folder: Path, rounds: int) -> None:
    """Print a line for each model: nodes, groups, time to load and to analyse, and memory, each in its own process."""
    print("\ngrowth (external data; memory above that of `import zig`)")
    print(f"{'':<20}{'MB':>8}{'nodes':>8}{'groups':>8}{'load ms':>10}{'analyze ms':>12}{'us/node':>9}{'memory MB':>11}")
    for name in names:
        path = export(name, folder).path
        onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{name}.data")
        size = sum(file.stat().st_size for file in (path, path.with_suffix(".data")))
        runs = [subprocess.check_output([sys.executable, "-c", PEAK, path], text=True) for _ in range(rounds)]
        columns = zip(*(map(float, run.split()) for run in runs), strict=True)
        nodes, groups, load, analysis, before, after = (statistics.median(column) for column in columns)
        line = f"{name:<20}{size / 1e6:>8.1f}{nodes:>8.0f}{groups:>8.0f}{1e3 * load:>10.1f}{1e3 * analysis:>12.1f}"
        print(line + f"{1e6 * analysis / nodes:>9.0f}{after - before:>11.1f}", flush=True)
        path.with_suffix(".data").unlink()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=("peer", "process", "growth"), help="only this table")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    parser.add_argument("--image", type=int, default=32, help="side of the image that Torch-Pruning traces")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:

        def models(*names: str) -> Iterator[Model]:
            return (export(name, Path(folder), options.exporter, options.image) for name in names)

        if options.table in (None, "peer"):
            rows = against_peer(models(*TARGETS), options.rounds)
            show("analysis of a loaded graph", ("zig.analyze", "Torch-Pruning 1.6.1"), rows)
        if options.table in (None, "process"):
            rows = against_reading(models("resnet50", "decoder2"), options.rounds)
            show("whole processes", ("zig analyze", "onnx.load"), rows)
        if options.table in (None, "growth"):
            names = ("decoder8", "decoder32", "decoder128", "decoder8x256", "decoder8x1024")
            growth(names, Path(folder), min(options.rounds, 3))


if __name__ == "__main__":
    main()
