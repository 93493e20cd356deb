"""Prints what becomes of every architecture of the zoo when half of it is pruned at random and compressed.

    python benchmarks/zoo.py                         # everything: about half an hour on two cores
    python benchmarks/zoo.py resnet18 'mini_*'       # some architectures
    python benchmarks/zoo.py --exporter torchscript  # one exporter

A line for each architecture and exporter: zero-invariant groups and node groups, parameters before and after, the
largest difference between zeroed and compressed (relative to the largest output, over three random inputs), and the
seconds that analyze, prune, zero and compress took together, the export and the comparison apart.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
import zoo

from zig.errors import ZigError

EXACT = 1e-5
TITLE, NUMBERS = "{:<22}{:<21}", "{:>8}{:>7}{:>13,}{:>13,}{:>7.0%}{:>10.1e}{:>8.2f}"
HEADINGS = ("groups", "nodes", "before", "after", "lost", "diff", "s")


def row(name: str, exporter: str) -> tuple[str, zoo.Trip | None]:
    """Makes the round trip and the line about it; the trip is None where there was none."""
    title = TITLE.format(name, exporter)
    with TemporaryDirectory() as folder:
        try:
            trip = zoo.round_trip(name, exporter, Path(folder))
        except zoo.UnavailableError as reason:
            return f"{title}not exported: {reason}", None
        except (ZigError, AssertionError) as error:
            return f"{title}FAILED: {error}", None
    numbers = NUMBERS.format(*trip.groups, *trip.parameters, trip.lost, trip.difference, trip.seconds)
    return title + numbers + ("" if trip.difference <= EXACT else "  WRONG"), trip


def main() -> None:
    """Prints the table and its totals; exits with 1 where a model came out wrong."""
    parser = argparse.ArgumentParser(description="Prunes and compresses the zoo.")
    parser.add_argument("names", nargs="*", default=["*"], help="architectures, with * as a wildcard")
    parser.add_argument("--exporter", choices=zoo.EXPORTERS, help="only this exporter")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(TITLE.format("architecture", "exporter") + "{:>8}{:>7}{:>13}{:>13}{:>7}{:>10}{:>8}".format(*HEADINGS))
    trips: list[zoo.Trip] = []
    failed = 0
    for name, exporter in zoo.pairs():
        if options.exporter in (None, exporter) and any(fnmatch(name, pattern) for pattern in options.names):
            line, trip = row(name, exporter)
            print(line, flush=True)
            failed += trip is None and "FAILED" in line
            trips += [trip] if trip else []
    exact = sum(t.difference <= EXACT for t in trips)
    seconds = sum(t.seconds for t in trips)
    lost = 1 - sum(t.parameters[1] for t in trips) / max(1, sum(t.parameters[0] for t in trips))
    print(f"{len(trips)} models, {exact} exact, {failed} failed; {lost:.0%} of all parameters gone, in {seconds:.1f} s")
    sys.exit(failed > 0 or exact < len(trips))


if __name__ == "__main__":
    main()
