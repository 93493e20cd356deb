"""How long it takes to cut zero groups out of a 100 MB model, beside reading and writing the same file.

    python benchmarks/compress.py             # about a minute on two cores
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
from collections.abc import Iterable, Iterator
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
Case = tuple[str, Path, bool]


def cases(name: str, folder: Path) -> Iterator[Case]:
    """The zeroed network as a single file, and with external data: (title, path, whether its data are external)."""
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


def inside(found: Iterable[Case], rounds: int) -> Iterator[tuple[str, float, float, float]]:
    """In one process, with everything imported."""
    for title, path, external in found:
        small, same = path.with_name("small.onnx"), path.with_name("same.onnx")
        ours, theirs = taking_turns(
            lambda: seconds(lambda: zig.compress(path, small, check=False)),
            lambda: seconds(lambda: copy(path, same, external)),
            rounds,
        )
        yield title, ours, theirs, THREE


def outside(found: Iterable[Case], rounds: int) -> Iterator[tuple[str, float, float, float]]:
    """As whole processes."""
    for title, path, external in found:
        small, same = path.with_name("small.onnx"), path.with_name("same.onnx")
        command = process("-m", "zig", "compress", str(path), "-o", str(small), "--no-verify")
        copying = process("-c", COPY, str(path), str(same), *([f"{same.name}.data"] if external else []))

        def theirs(same: Path = same) -> float:
            same.with_name(f"{same.name}.data").unlink(missing_ok=True)
            return copying()

        yield (title, *taking_turns(command, theirs, rounds), THREE)


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
        show("in one process", baseline, inside(found, options.rounds))
        show("whole processes", ("zig compress", baseline[1]), outside(found, options.rounds))


if __name__ == "__main__":
    main()
