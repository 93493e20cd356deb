"""The three searches and uniform magnitude side by side: accuracy on held-out digits at equal MACs and retraining.

The same real data (scikit-learn's handwritten digits), the same trained residual network, the same retraining of what
is left (AdamW, one-cycle learning rate), over several seeds. A fifth of the training digits is kept from all training:
searches score candidates by their loss on it.

    python benchmarks/search.py [--seeds 5] [--width 8] [--epochs 6] [--shares 0.5 0.3] [--only one-step ...]
    python benchmarks/search.py --overhead     what a sensitivity analysis of ResNet-50 costs beside its evaluations
    python benchmarks/search.py --latency      predicted against measured latency of ResNet-18 and MobileNetV2

Once-for-all trains its supernet before a budget is known, and all others do not: `magnitude, longer` is retrained for
as many more forward passes as that took, to tell what the search gives from what the training gives.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
import zoo
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from zig.search import Evolution, IterativePruner, OFAPruner, OneStepPruner, recalibrate
from zig.training.demo import DigitNet, Digits, shifted

BATCH = 64
RATE = 3e-3
RATIOS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
SUBNETS = 4  # a step of the supernet trains so many
Run = Callable[["Bench", int, float], tuple[nn.Module, float]]


class Bench:
    """The data in three parts, and how networks are trained and judged."""

    def __init__(self, width: int, epochs: int, folder: Path):
        """Keep a fifth of the training digits for searches."""
        digits = Digits.load()
        kept = len(digits.labels) // 5
        order = torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(0))
        self.images, self.labels = digits.images[order[kept:]], digits.labels[order[kept:]]
        self.kept = digits.images[order[:kept]], digits.labels[order[:kept]]
        self.held_out = torch.from_numpy(digits.held_out), torch.from_numpy(digits.truth)
        self.width, self.epochs, self.folder = width, epochs, folder
        self._trained: dict[int, nn.Module] = {}
        self._supernets: dict[int, OFAPruner] = {}

    @property
    def supernet_epochs(self) -> int:
        """How long a supernet trains."""
        return 2 * self.epochs

    def trained(self, seed: int) -> nn.Module:
        """The network of a seed, trained plainly; a copy."""
        if seed not in self._trained:
            torch.manual_seed(seed)
            model = DigitNet(self.width)
            self.train(model, 2 * self.epochs)
            self._trained[seed] = model.eval()
        return copy.deepcopy(self._trained[seed])

    def train(self, model: nn.Module, epochs: int, step: Callable[[Tensor, Tensor, Any], Any] | None = None) -> None:
        """Train for some epochs, plainly or by another step."""
        steps = epochs * (len(self.labels) // BATCH)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, cycle_momentum=False)
        for _ in range(epochs):
            model.train()
            order = torch.randperm(len(self.labels))[: steps // epochs * BATCH]
            for batch in torch.split(order, BATCH):
                images, labels = shifted(self.images[batch]), self.labels[batch]
                if step is not None:
                    step(images, labels, optimizer)
                else:
                    optimizer.zero_grad()
                    functional.cross_entropy(model(images), labels).backward()
                    optimizer.step()
                schedule.step()

    def loss(self, model: nn.Module) -> float:
        """On what is kept for searches."""
        with torch.no_grad():
            return float(functional.cross_entropy(model.eval()(self.kept[0]), self.kept[1]))

    def accuracy(self, model: nn.Module) -> float:
        """On held-out digits."""
        with torch.no_grad():
            return float((model.eval()(self.held_out[0]).argmax(1) == self.held_out[1]).float().mean())

    def batches(self) -> list[Tensor]:
        """What BatchNorm statistics are taken from."""
        return list(self.images[: 8 * BATCH].split(BATCH))

    def supernet(self, seed: int) -> OFAPruner:
        """The trained supernet of a seed; one for all budgets."""
        if seed not in self._supernets:
            pruner = OFAPruner(self.trained(seed), self.images[:1], folder=self.folder / f"{seed}")
            supernet = pruner.ofa_model(RATIOS, auto_excludes=False, seed=seed)
            torch.manual_seed(seed)
            self.train(supernet, self.supernet_epochs, lambda x, y, o: pruner.train_step(x, y, o, random_subnets=2))
            self._supernets[seed] = pruner
        return self._supernets[seed]


def magnitude(bench: Bench, seed: int, share: float) -> tuple[nn.Module, float]:
    """The same share of every node group, by magnitude."""
    pruner = OneStepPruner(bench.trained(seed), bench.images[:1], folder=bench.folder / f"magnitude{seed}")
    pruner.search(None, bench.loss, num_subnets=1, removal_ratio=1 - share, best="min", forced=True)
    return pruner.prune(), 1 - pruner.candidates[0].choice.reached


def iterative(bench: Bench, seed: int, share: float) -> tuple[nn.Module, float]:
    """Sensitivity analysis, one round."""
    pruner = IterativePruner(bench.trained(seed), bench.images[:1], folder=bench.folder / f"iterative{seed}")
    pruner.analyze(bench.loss, best="min", calibration_fn=recalibrate, calib_args=(bench.batches(),))
    model = pruner.prune(1 - share, mode="slim")
    assert pruner.choice is not None
    return model, 1 - pruner.choice.reached


def one_step(bench: Bench, seed: int, share: float) -> tuple[nn.Module, float]:
    """The best of 60 candidates."""
    pruner = OneStepPruner(bench.trained(seed), bench.images[:1], folder=bench.folder / f"one-step{seed}")
    pruner.search(
        recalibrate, bench.loss, calib_args=(bench.batches(),), num_subnets=60, removal_ratio=1 - share, best="min",
        seed=seed, forced=True,
    )  # fmt: skip
    return pruner.prune(), 1 - pruner.candidates[0].choice.reached


def once_for_all(bench: Bench, seed: int, share: float) -> tuple[nn.Module, float]:
    """The best subnet within 2 % of the budget, of a supernet that serves all budgets."""
    pruner = bench.supernet(seed)
    whole = pruner.supernet.space.whole["macs"] / 1e6
    found = pruner.run_evolutionary_search(
        recalibrate, bench.loss, calib_args=(bench.batches(),), min_macs=(share - 0.02) * whole, max_macs=share * whole,
        step=whole, best="min", evolution=Evolution(population=16, generations=4, mutations=7, crossovers=4, seed=seed),
        forced=True,
    )  # fmt: skip
    best = min(found.values(), key=lambda subnet: subnet.score)
    static = pruner.get_static_subnet(best.values)
    return static.module, static.costs["macs"] / pruner.supernet.space.whole["macs"]


METHODS: dict[str, tuple[Run, Callable[[Bench], int]]] = {
    "magnitude": (magnitude, lambda bench: bench.epochs),
    "iterative": (iterative, lambda bench: bench.epochs),
    "one-step": (one_step, lambda bench: bench.epochs),
    "once-for-all": (once_for_all, lambda bench: bench.epochs),
    "magnitude, longer": (magnitude, lambda bench: bench.epochs + SUBNETS * bench.supernet_epochs),
}


def compare(options: argparse.Namespace, say: Console) -> None:
    """The table of accuracies."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.width, options.epochs, Path(folder))
        whole = [bench.accuracy(bench.trained(seed)) for seed in range(options.seeds)]
        table = Table("method", "left", "before retraining", "after", "by seed")
        table.add_row("not pruned", "100 %", "", _spread(whole), _each(whole))
        for share in options.shares:
            for name in options.only or METHODS:
                make, epochs = METHODS[name]
                before, after, left = [], [], []
                for seed in range(options.seeds):
                    model, kept = make(bench, seed, share)
                    left.append(kept)
                    recalibrate(model, bench.batches())
                    before.append(bench.accuracy(model))
                    torch.manual_seed(1000 + seed)
                    bench.train(model, epochs(bench))
                    after.append(bench.accuracy(model))
                say.print(f"{share:.0%} {name}: {_spread(after)}", highlight=False)
                table.add_row(name, f"{statistics.mean(left):.1%}", _spread(before), _spread(after), _each(after))
    Console(width=110).print(table)


def _spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.2f} ± {100 * spread:.2f}"


def _each(values: list[float]) -> str:
    return " ".join(f"{100 * value:.1f}" for value in values)


def overhead(say: Console) -> None:
    """ResNet-50 at 64 x 64: the analysis with and without its masks, as a ratio of CPU time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = zoo.torchvision_models().resnet50().eval(), torch.zeros(64, 3, 64, 64)
    spent = [0.0]

    def evaluate(candidate: nn.Module) -> float:
        start = time.process_time()
        with torch.no_grad():
            score = float(candidate(x).sum())
        spent[0] += time.process_time() - start
        return score

    with tempfile.TemporaryDirectory() as folder:
        pruner = IterativePruner(model, x[:1], folder=folder)
        start = time.process_time()
        found = pruner.analyze(evaluate)
        total = time.process_time() - start
    count = 1 + int(np.isfinite(found.metrics).sum())
    say.print(
        f"ResNet-50: {count} evaluations of 64 images of 64 x 64 in {spent[0]:.1f} s of CPU, the rest of the analysis "
        f"{total - spent[0]:.2f} s: {(total - spent[0]) / count * 1e3:.1f} ms each, {(total / spent[0] - 1):.2%}",
        highlight=False,
    )


def latencies(say: Console) -> None:
    """Predicted and measured latency of MobileNetV2 and ResNet-18 at shares of their time, in multiples of 8."""
    torch.set_num_threads(1)
    for name in ("resnet18", "mobilenet_v2"):
        torch.manual_seed(0)
        model, x = getattr(zoo.torchvision_models(), name)().eval(), torch.zeros(1, 3, 96, 96)
        with tempfile.TemporaryDirectory() as folder:
            pruner = OneStepPruner(model, x, folder=folder)
            pruner.measure_latency()
            for ratio in (0.3, 0.5):
                pruner.search(
                    None, lambda _: 0.0, num_subnets=4, removal_ratio=ratio, of="latency", round_to=8, forced=True
                )
                for i in range(len(pruner.candidates)):
                    pruner.decide(i)
                    assert pruner.choice is not None
                    predicted, real = pruner.predicted_and_measured()
                    say.print(f"{name} {pruner.choice.sentence}: predicted {predicted:.3f} ms, measured {real:.3f}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6, help="of retraining; the network itself trains twice as long")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--only", nargs="+", choices=METHODS)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--latency", action="store_true")
    options = parser.parse_args()
    say = Console(stderr=True)
    if options.overhead:
        overhead(say)
    elif options.latency:
        latencies(say)
    else:
        compare(options, say)


if __name__ == "__main__":
    sys.exit(main())
