"""What the optimizers and their settings do to a run: the pictures of docs/training.md.

Each picture has one curve for each setting, over the steps of a short training of the demo's network on scikit-learn's
digits: the share of groups that is zero above, and the mean norm of the groups that go below (that of all prunable
groups until they are chosen).

    python benchmarks/training_settings.py [--out docs/images] [--epochs 10] [--only methods ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch.nn import functional

from zig import OTO
from zig.training.demo import BATCH, DigitNet, Digits, shifted
from zig.training.grouped import GroupOptimizer

mpl.use("Agg")
from matplotlib import pyplot

Run = tuple[str, str, dict[str, Any]]  # label, method, options
COMMON = {"variant": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "target_group_sparsity": 0.7}
PICTURES: dict[str, list[Run]] = {
    "methods": [
        ("HSPG", "hspg", {}),
        ("DHSPG", "dhspg", {}),
        ("HESSO, 1 period", "hesso", {}),
        ("HESSO, 5 periods", "hesso", {"pruning_periods": 5}),
    ],
    "hspg-lambda": [
        (f"λ = {value:g}", "hspg", {"lmbda": value, "upper_group_sparsity": 0.7, "target_group_sparsity": None})
        for value in (1e-3, 1e-2, 3e-2, 1e-1)
    ],
    "dhspg-epsilon": [
        (f"ε = {value:g}", "dhspg", {"epsilon": value, "lmbda": 1e-2}) for value in (0, 0.9, 0.99, 0.999)
    ],
    "decay-steps": [(f"{share:.0%} of pruning_steps", "dhspg", {"decay": share}) for share in (0.1, 0.5, 1.0)],
}


def mean_norm(optimizer: GroupOptimizer) -> float:
    """The mean norm of the groups that are to go; of all prunable ones until they are chosen."""
    squares = np.zeros(len(optimizer.table) + 1)
    for parameter, axis, groups in optimizer.table.rows:
        rows = parameter.detach().movedim(axis, 0).reshape(len(groups), -1).square().sum(1).numpy()
        np.add.at(squares, groups, rows)  # -1, no group, adds to the last
    chosen = optimizer.state["groups"]["chosen"][:-1].numpy()
    return float(np.sqrt(squares[:-1])[chosen if chosen.any() else optimizer.table.prunable].mean())


def run(digits: Digits, epochs: int, method: str, options: dict[str, Any]) -> tuple[list[float], list[float], float]:
    """Sparsity and norm after each step, and the accuracy on held-out digits."""
    torch.manual_seed(0)
    model = DigitNet(32)
    total = epochs * (len(digits.labels) // BATCH)
    options = {**COMMON, "start_pruning_steps": total // 4, "pruning_steps": total // 2, **options}
    if "decay" in options:
        options["decay_steps"] = max(1, round(options.pop("decay") * options["pruning_steps"]))
    options = {name: value for name, value in options.items() if value is not None}
    optimizer = getattr(OTO(model, digits.images[:1]), method)(**options)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, COMMON["lr"], total_steps=total, cycle_momentum=False)
    sparsity, norms = [], []
    model.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(digits.labels))[: total // epochs * BATCH], BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(shifted(digits.images[batch])), digits.labels[batch]).backward()
            optimizer.step()
            schedule.step()
            sparsity.append(optimizer.group_sparsity)
            norms.append(mean_norm(optimizer))
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(digits.held_out)).argmax(1).numpy()
    return sparsity, norms, float((found == digits.truth).mean())


def draw(name: str, runs: list[Run], digits: Digits, epochs: int, out: Path) -> None:
    """Run each setting and draw both curves."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 4.6), sharex=True)
    for label, method, options in runs:
        sparsity, norms, accuracy = run(digits, epochs, method, options)
        print(f"{name}: {label}: {sparsity[-1]:.1%} of groups zero, accuracy {accuracy:.1%}", flush=True)
        above.plot(100 * np.array(sparsity), label=f"{label}: {accuracy:.1%} accurate", linewidth=1.2)
        below.plot(norms, linewidth=1.2)
    above.axhline(70, color="grey", linestyle=":", linewidth=1)
    above.set_ylabel("groups that are zero, %")
    above.legend(fontsize=8, loc="upper left")
    below.set(xlabel="step", ylabel="mean norm of what goes")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out / f"training-{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Run and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    options = parser.parse_args()
    mpl.rcParams.update({"svg.hashsalt": "zig", "font.size": 9})
    options.out.mkdir(parents=True, exist_ok=True)
    digits = Digits.load()
    for name in options.only:
        draw(name, PICTURES[name], digits, options.epochs, options.out)


if __name__ == "__main__":
    main()
