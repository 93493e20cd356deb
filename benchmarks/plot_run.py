"""The picture of a run, from the log.csv that `zig train` leaves: accuracy, zero groups, MACs left, loss.

Usage:

python benchmarks/plot_run.py runs/digits/log.csv -o docs/images/run-digits.svg
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

KNOWN = ("step", "epoch", "lr", "loss", "group_sparsity", "macs")  # what every log has; the rest are metrics


def draw(log: Path, out: Path) -> None:
    """Shares above, the loss below."""
    rows = list(csv.DictReader(log.read_text().splitlines()))
    epochs = [int(row["epoch"]) for row in rows]
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 4.2), sharex=True, height_ratios=(3, 1))
    metrics = [name for name in rows[0] if name not in KNOWN]
    for name in (*metrics, "group_sparsity", "macs"):
        label = {"group_sparsity": "groups that are zero", "macs": "MACs left"}.get(name, name.replace("_", " "))
        above.plot(epochs, [100 * float(row[name]) for row in rows], label=f"{label}: {float(rows[-1][name]):.1%}")
    above.set_ylabel("%")
    above.legend(fontsize=8)
    below.semilogy(epochs, [float(row["loss"]) for row in rows], color="grey")
    below.set(xlabel="epoch", ylabel="loss")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    mpl.rcParams.update({"svg.hashsalt": "zig", "font.size": 9})
    draw(options.log, options.out)


if __name__ == "__main__":
    main()
