"""ATO's controller: the accuracy of what it leaves beside other methods, and what it adds to a training step.

    python benchmarks/controller.py [--seeds 5] [--epochs 20] [--shares 0.5 0.3] [--only "ATO, GRU" ...]
    python benchmarks/controller.py --overhead [--device cuda] [--batch 16] [--rounds 5]

The first trains the demo's network (32 channels) on scikit-learn's digits for the same epochs with the same batches,
AdamW and one-cycle learning rate, and prints the accuracy on held-out digits of what is left. ATO keeps a twentieth of
the training digits for its controller, so it trains on fewer; its other rows put plain logits, or no controller at all,
in place of the GRU.

The second times the kinds of steps of ResNet-50 (224 x 224) in turn, in one process, and tells from their medians what
ATO adds to a whole training with torch's AdamW at the published schedule: 245 epochs, a lesson in every 20th step of
epochs 25 to 125, projection from epoch 50 on. Larger batches make the optimizer's part smaller.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from zig import OTO
from zig.training.demo import BATCH, LEARNING_RATE, DigitNet, Digits, shifted

WIDTH, APART = 32, 0.05
EPOCHS, EVERY = 245, 20  # the published schedule
PHASES = {"before projection": 50, "mask of the epoch": 75, "final mask": 71, "zero": 49}  # epochs; zero from 196 on
Result = tuple[float, float]  # accuracy, share of MACs left


def accuracy(model: nn.Module, digits: Digits) -> float:
    """On held-out digits."""
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(digits.held_out)).argmax(1).numpy()
    return float((found == digits.truth).mean())


def run(method: str, options: dict[str, Any], digits: Digits, epochs: int, share: float) -> Result:
    """Train one network; a quarter of the steps plain, half pruning, a quarter to recover, for the others than ATO."""
    model, order = DigitNet(WIDTH), torch.randperm(len(digits.labels))
    cut = round(APART * len(order)) if method == "ato" else 0
    apart, learned = order[: abs(cut)], order[max(cut, 0) :]
    total = epochs * (len(learned) // BATCH)
    phases = {"keep": share, "steps": total} if method == "ato" else {
        "target_macs": share, "start_pruning_steps": total // 4, "pruning_steps": total // 2
    }  # fmt: skip
    oto = OTO(model, digits.images[:1])
    optimizer = getattr(oto, method)("adamw", lr=LEARNING_RATE, **phases, **options)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=total, cycle_momentum=False)

    def loss(net: nn.Module, chosen: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(shifted(digits.images[chosen])), digits.labels[chosen])

    model.train()
    for _ in range(epochs):
        for batch in torch.split(learned[torch.randperm(len(learned))][: total // epochs * BATCH], BATCH):
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            schedule.step()
            if method == "ato":
                optimizer.learn(lambda net: loss(net, apart[torch.randint(len(apart), (BATCH,))]))
    return accuracy(model, digits), oto.compute_macs(compressed=True) / oto.compute_macs()


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "ATO, GRU": ("ato", {}),
    "ATO, plain logits": ("ato", {"controller": "logits"}),
    "ATO, no controller": ("ato", {"controller": "none"}),
    "DHSPG": ("dhspg", {}),
    "HESSO, 5 periods": ("hesso", {"pruning_periods": 5}),
}


def compare(options: argparse.Namespace) -> Table:
    """Accuracies by method and share, mean and standard deviation over seeds."""
    digits = Digits.load()
    found: dict[str, dict[float, list[Result]]] = {}
    for name in options.only or METHODS:
        for share in options.shares:
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                found.setdefault(name, {}).setdefault(share, []).append(
                    run(*METHODS[name], digits, options.epochs, share)
                )
            points = found[name][share]
            Console(stderr=True).print(name, share, [f"{100 * a:.2f} at {100 * m:.1f}" for a, m in points])
    table = Table(title=f"accuracy in %, {options.epochs} epochs, {options.seeds} seeds")
    table.add_column("method")
    for share in options.shares:
        table.add_column(f"{share:.0%} of MACs", justify="right")
    for name, by_share in found.items():
        table.add_row(name, *(_cell(np.array(points)) for points in by_share.values()))
    return table


def _cell(points: np.ndarray) -> str:
    spread = points[:, 0].std(ddof=1) if len(points) > 1 else 0.0
    return f"{100 * points[:, 0].mean():.1f} ± {100 * spread:.1f} at {100 * points[:, 1].mean():.1f}"


def seconds(run: Callable[[], object], device: str) -> float:
    """Time of one call."""
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def overhead(options: argparse.Namespace) -> Table:
    """Times of steps, and what they add up to."""
    from dhspg import resnet50

    net = resnet50()[0].to(options.device)
    oto = OTO(net, torch.zeros(1, 3, 224, 224, device=options.device), keep=("0.1.*", "*.c.1.*", "*.skip.1.*"))
    x = torch.randn(options.batch, 3, 224, 224, device=options.device)
    y = torch.randint(0, 1000, (options.batch,), device=options.device)
    far = 10**6
    made = {
        name: oto.ato("adamw", p=0.193, lr=1e-6, start_pruning_steps=start, pruning_steps=length, freeze_steps=freeze,
                      start_controller_steps=0, decay_steps=1, epoch_steps=far, every=1)
        for name, start, length, freeze in (
            ("before projection", far, far, far + 1), ("mask of the epoch", 1, far, far - 1),
            ("final mask", 1, far, 1), ("zero", 1, 2, 2),
        )
    }  # fmt: skip
    plain = torch.optim.AdamW(net.parameters(), lr=1e-6, foreach=True)
    learner = made["mask of the epoch"]

    def passes() -> None:
        net.zero_grad()
        functional.cross_entropy(net(x), y).backward()

    def lesson() -> None:
        learner.state["groups"]["step"] = 2
        assert learner.learn(lambda net: functional.cross_entropy(net(x), y))

    runs = {"forward and backward pass": passes, "AdamW of torch": plain.step}
    runs |= {f"ATO, {name}": optimizer.step for name, optimizer in made.items()} | {"lesson": lesson}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(options.rounds + 3):
        for name, timed in runs.items():
            if i >= 3 or name not in ("forward and backward pass", "lesson") or not i:  # the first rounds make buffers
                taken = seconds(timed, options.device)
                times[name] += [taken] if i >= 3 else []
    median = {name: statistics.median(each) for name, each in times.items()}
    base = median["forward and backward pass"] + median["AdamW of torch"]
    table = Table(title=f"ResNet-50, AdamW, batch {options.batch}, {options.device}, median of {options.rounds}")
    for heading in ("", "ms", "of a step"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, value in median.items():
        table.add_row(name, f"{1e3 * value:.0f}", f"{value / base:.1%}")
    extra = sum(epochs * (median[f"ATO, {name}"] - median["AdamW of torch"]) for name, epochs in PHASES.items())
    lessons = 100 / EVERY * median["lesson"]
    for name, value in (("lessons", lessons), ("steps of the optimizer", extra), ("both", lessons + extra)):
        table.add_row(f"added to the whole training: {name}", "", f"{value / EPOCHS / base:.1%}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--shares", type=float, nargs="+", default=(0.5, 0.3))
    parser.add_argument("--only", nargs="+", choices=list(METHODS))
    parser.add_argument("--overhead", action="store_true", help="time steps instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    Console().print(overhead(options) if options.overhead else compare(options))


if __name__ == "__main__":
    main()
