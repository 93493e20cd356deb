"""How long it takes to cut zero groups out of a 100 MB model, beside reading and writing the same file.

    python benchmarks/compress.py             # about half a minute on two cores
    python benchmarks/compress.py --rounds 9

ResNet-50 (25.6 M parameters) has half of its parameters zeroed at random; the file then lies before zig as such. Two
tables, once for weights inside the file and once for weights in a data file beside it:

- in one process: `zig.compress(check=False)` against `onnx.load` + `onnx.save`;
- whole processes: `zig compress --no-verify` against Python doing the same two calls.

Every number is the median of rounds in which the two sides take turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx
import torch
from analyze import export, process, seconds, show, taking_turns

import zig

THREE = 3.0
COPY = """
import sys, onnx
model = onnx.load(sys.argv[1])
onnx.save(model, sys.argv[2], save_as_external_data=len(sys.argv) > 3, location=(sys.argv[3:] or [None])[0])
"""
Case = tuple[str, Path, bool]  # title, model, whether its weights are external
Row = tuple[str, float, float, float]


def cases(name: str, folder: Path) -> Iterator[Case]:
    """The zeroed network as a single file, and with a data file beside it."""
    full, zeroed, external = export(name, folder).path, folder / "zeroed.onnx", folder / "external.onnx"
    zig.zero(zig.prune(zig.analyze(full), ratio=0.5, criterion="random"), zeroed)
    onnx.save(onnx.load(zeroed), external, save_as_external_data=True, location="external.onnx.data")
    size = f"{zeroed.stat().st_size / 1e6:.0f} MB"
    yield f"{name}, {size}", zeroed, False
    yield f"{name}, {size} external", external, True


def copy(source: Path, target: Path, external: bool) -> None:
    """What the baseline does: read the model, weights included, and write it again."""
    target.with_name(f"{target.name}.data").unlink(missing_ok=True)  # onnx appends to what is there
    model = onnx.load(source)
    onnx.save(model, target, save_as_external_data=external, location=f"{target.name}.data" if external else None)


def inside(case: Case, rounds: int) -> Row:
    """In one process, with everything imported."""
    title, path, external = case
    ours = partial(zig.compress, path, path.with_name("small.onnx"), check=False)
    theirs = partial(copy, path, path.with_name("same.onnx"), external)
    return title, *taking_turns(partial(seconds, ours), partial(seconds, theirs), rounds), THREE


def outside(case: Case, rounds: int) -> Row:
    """As whole processes."""
    title, path, external = case
    small, same = path.with_name("small.onnx"), path.with_name("same.onnx")
    data = path.with_name(f"{same.name}.data")
    ours = process("-m", "zig", "compress", str(path), "-o", str(small), "--no-verify")
    theirs = process("-c", COPY, str(path), str(same), *([data.name] if external else []))

    def fresh() -> float:
        data.unlink(missing_ok=True)
        return theirs()

    return title, *taking_turns(ours, fresh, rounds), THREE


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="a torchvision model, or a decoder such as gpt-8-1024")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = list(cases(options.model, Path(folder)))
        baseline = ("zig.compress", "onnx.load + onnx.save")
        show("in one process", baseline, (inside(case, options.rounds) for case in found))
        show("whole processes", ("zig compress", baseline[1]), (outside(case, options.rounds) for case in found))


if __name__ == "__main__":
    main()
