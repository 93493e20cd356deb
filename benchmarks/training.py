"""Training and pruning methods side by side: accuracy on held-out digits against the MACs that are left.

The same real data (scikit-learn's handwritten digits), the same residual network, the same epochs, batches, AdamW and
one-cycle learning rate for all, over several seeds. Ours prune while they train. The peers train for half of the
epochs, prune, and fine-tune for the other half: magnitude (one-shot, all layers ranked together, as `zig prune`), and
Torch-Pruning's GroupNorm pruner, whose sparse learning runs in the first half. OTO's own HESSO trains as ours does.

    python benchmarks/training.py [--seeds 3] [--epochs 20] [--only HESSO ...] [--oto FOLDER] [--plot FILE.svg]

`--oto` names a checkout of github.com/microsoft/only_train_once: no release of it trains on a CPU. It has no MACs
target, so it gets the group sparsity 1 - sqrt(share), and its MACs are where that led.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from zig import OTO, prune
from zig.training.demo import BATCH, LEARNING_RATE, DigitNet, Digits, shifted

SHARES = (0.7, 0.5, 0.3, 0.15)
WIDTH = 32
Result = tuple[float, float]  # accuracy, share of MACs left


def macs(model: nn.Module) -> int:
    """Multiply-accumulates of convolutions and matrices for one image."""
    found: list[int] = []

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        found.append(output.numel() * module.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    return sum(found)


def accuracy(model: nn.Module, digits: Digits) -> float:
    """On held-out digits."""
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(digits.held_out)).argmax(1).numpy()
    return float((found == digits.truth).mean())


def steps(digits: Digits, epochs: int) -> int:
    """Optimizer steps in some epochs."""
    return epochs * (len(digits.labels) // BATCH)


def train(
    model: nn.Module, optimizer: Any, digits: Digits, epochs: int, before_step: Callable[[], Any] = lambda: None
) -> None:
    """Train as usual."""
    total = steps(digits, epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=total, cycle_momentum=False)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(digits.labels))[: total // epochs * BATCH]
        for batch in torch.split(order, BATCH):

            def closure(batch: Tensor = batch) -> Tensor:
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(shifted(digits.images[batch])), digits.labels[batch])
                loss.backward()
                return loss

            closure()
            before_step()
            optimizer.step(closure) if getattr(optimizer, "measures", False) else optimizer.step()
            schedule.step()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The plain optimizer."""
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)


def ours(method: str, **options: Any) -> Callable[..., Result]:
    """One of zig's optimizers: a quarter of the steps plain, half pruning, a quarter to recover."""

    def run(digits: Digits, epochs: int, share: float) -> Result:
        model = DigitNet(WIDTH)
        oto, total = OTO(model, digits.images[:1]), steps(digits, epochs)
        optimizer = getattr(oto, method)(
            "adamw", lr=LEARNING_RATE, target_macs=share, start_pruning_steps=total // 4, pruning_steps=total // 2,
            **options,
        )  # fmt: skip
        optimizer.measures = method == "hesso_cric"
        train(model, optimizer, digits, epochs)
        return accuracy(model, digits), oto.compute_macs(compressed=True) / oto.compute_macs()

    return run


def magnitude(digits: Digits, epochs: int, share: float) -> Result:
    """Train, cut the groups of the least magnitude at once, fine-tune what is left."""
    model = DigitNet(WIDTH)
    train(model, adamw(model), digits, epochs // 2)
    oto = OTO(model, digits.images[:1])
    oto.zero(prune(oto.partition, 1 - share, of="macs").remove)
    with tempfile.TemporaryDirectory() as folder:
        oto.compress(folder)
    small = oto.compressed
    train(small, adamw(small), digits, epochs - epochs // 2)
    return accuracy(small, digits), macs(small) / macs(model)


def group_norm(digits: Digits, epochs: int, share: float) -> Result:
    """Torch-Pruning's GroupNorm pruner: sparse learning, cut in small steps until the budget is met, fine-tune."""
    model = DigitNet(WIDTH)
    whole = macs(model)
    pruner = torch_pruning.pruner.GroupNormPruner(
        model, torch.zeros(1, 1, 8, 8), importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True, pruning_ratio=0.95, max_pruning_ratio=0.95, iterative_steps=200,
        ignored_layers=[model.head],
    )  # fmt: skip
    pruner.update_regularizer()
    train(model, adamw(model), digits, epochs // 2, lambda: pruner.regularize(model))
    while macs(model) > share * whole and pruner.current_step < pruner.iterative_steps:
        pruner.step()
    train(model, adamw(model), digits, epochs - epochs // 2)
    return accuracy(model, digits), macs(model) / whole


def dense(digits: Digits, epochs: int, share: float) -> Result:
    """Train without pruning."""
    model = DigitNet(WIDTH)
    train(model, adamw(model), digits, epochs)
    return accuracy(model, digits), 1.0


def theirs(folder: str) -> Callable[..., Result]:
    """OTO's own HESSO, with the two names that its tracer knows from an older torch."""
    from torch.onnx._internal.torchscript_exporter import _globals, utils

    sys.path.insert(0, folder)
    sys.modules["torch.onnx._globals"] = _globals
    torch.onnx._optimize_graph = utils._optimize_graph
    import only_train_once

    def run(digits: Digits, epochs: int, share: float) -> Result:
        model, total = DigitNet(WIDTH), steps(digits, epochs)
        with contextlib.redirect_stdout(io.StringIO()):
            oto = only_train_once.OTO(model, digits.images[:1])
            optimizer = oto.hesso(
                variant="adamw", lr=LEARNING_RATE, weight_decay=1e-2, first_momentum=0.9, second_momentum=0.999,
                target_group_sparsity=1 - share**0.5, start_pruning_step=total // 4, pruning_steps=total // 2,
                pruning_periods=5, device="cpu",
            )  # fmt: skip
            train(model, optimizer, digits, epochs)
            with tempfile.TemporaryDirectory() as made:
                oto.construct_subnet(out_dir=made)
                small = torch.load(oto.compressed_model_path, weights_only=False)
        return accuracy(small, digits), macs(small) / macs(DigitNet(WIDTH))

    return run


def plot(results: dict[str, dict[float, list[Result]]], whole: list[Result], file: str) -> None:
    """Mean accuracy against MACs left, with the standard deviation over seeds as bars."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "zig", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    axes.axhline(100 * float(np.mean([a for a, _ in whole])), color="grey", linestyle=":", label="not pruned")
    for (name, points), marker in zip(results.items(), "osD^vPX", strict=False):
        of = [np.array(p) for p in points.values()]
        x, y, spread = ([100 * f(p) for p in of] for f in (_left, _mean, _spread))
        axes.errorbar(x, y, spread, marker=marker, markersize=4, linewidth=1.2, capsize=2, label=name)
    axes.set(xlabel="multiply-accumulates left, %", ylabel="accuracy on held-out digits, %")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.endswith("svg") else None)


def _left(of: Any) -> float:
    return float(of[:, 1].mean())


def _mean(of: Any) -> float:
    return float(of[:, 0].mean())


def _spread(of: Any) -> float:
    return float(of[:, 0].std(ddof=1)) if len(of) > 1 else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--only", nargs="+", help="run these methods only")
    parser.add_argument("--oto", help="a checkout of only_train_once")
    parser.add_argument("--plot", help="draw the table into this file")
    options = parser.parse_args()
    methods: dict[str, Callable[..., Result]] = {
        "HSPG": ours("hspg"),
        "DHSPG": ours("dhspg"),
        "HESSO": ours("hesso", pruning_periods=5),
        "HESSO-CRIC": ours("hesso_cric"),
        "magnitude + fine-tuning": magnitude,
        "Torch-Pruning GroupNorm": group_norm,
    }
    if options.oto:
        methods["OTO's HESSO"] = theirs(options.oto)
    methods = {name: run for name, run in methods.items() if not options.only or name in options.only}
    digits, results = Digits.load(), {name: {share: [] for share in options.shares} for name in methods}
    whole: list[Result] = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        whole.append(dense(digits, options.epochs, 1.0))
        for share in options.shares:
            for name, run in methods.items():
                torch.manual_seed(seed)
                results[name][share].append(run(digits, options.epochs, share))
                print(seed, share, name, *(f"{x:.4f}" for x in results[name][share][-1]), file=sys.stderr, flush=True)
    table = Table(title=f"accuracy on held-out digits, %, mean and deviation of {options.seeds} seeds; not pruned "
                        f"{100 * statistics.mean(a for a, _ in whole):.1f}", title_justify="left")  # fmt: skip
    table.add_column("method")
    for share in options.shares:
        table.add_column(f"{share:.0%} of MACs", justify="right")
    for name, points in results.items():
        of = [np.array(p) for p in points.values()]
        table.add_row(name, *(f"{100 * _mean(p):.1f} ± {100 * _spread(p):.1f} at {100 * _left(p):.1f}" for p in of))
    Console(width=130).print(table)
    if options.plot:
        plot(results, whole, options.plot)


if __name__ == "__main__":
    main()
