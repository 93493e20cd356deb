"""A search from its file to its report: train, search, prune, retrain, compare; every step goes on after a kill.

Scores lie in records (`zig.search.record`), networks in training in checkpoints, one for each stage and written at each
epoch's end. All that is random is a function of the seed and the step, so what is begun again ends the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from zig.errors import UsageError
from zig.groups.budget import cost
from zig.groups.partition import analyze
from zig.host.locks import alone
from zig.latency import fastest
from zig.proof.session import check_onnxruntime
from zig.runs import checkpoint, data, models
from zig.runs.config import Path_, load
from zig.runs.data import Batch, Examples, Task
from zig.runs.result import measured, onnx_outputs
from zig.runs.schedule import factor
from zig.runs.standin import empty, smoke_folder, stand_in
from zig.runs.tasks import load as load_task
from zig.search.backend import Name, scoring_on
from zig.search.config import Iterative, OnceForAll, OneStep, Search
from zig.search.iterative import IterativePruner
from zig.search.network import Network, recalibrate
from zig.search.ofa import UNITS, Evolution, OFAPruner
from zig.search.onestep import OneStepPruner
from zig.search.pruner import Pruner
from zig.search.record import read, write_json
from zig.search.report import write_report
from zig.surgery.compress import Report, compress
from zig.training.export import export

BEGUN, FULL, SMALL = "search.json", "full.onnx", "compressed.onnx"
_FREE: Any = {
    "out": True,
    "data": {"path"},
    "method": {"jobs", "backend", "address"},
    "training": {"device", "workers"},
}  # may change on resuming
Step = Callable[[int, Batch, torch.optim.Optimizer], None]
Tell = Callable[..., None]


def search(
    config: Path_, *, smoke: bool = False, resume: bool = False, backend: Name | None = None, address: str | None = None
) -> dict[str, Any]:
    """Search, prune and retrain, as a file says.

    Args:
        config: The YAML file; docs/search.md has all keys.
        smoke: Try all of it on a small stand-in for the data, with what the file has under `smoke`.
        resume: Go on with what is in the folder, or begin where there is nothing.
        backend: In place of `method.backend`.
        address: In place of `method.address`.

    Returns:
        The content of `report.json`.

    Raises:
        UsageError: The file is wrong, or something it names is missing, or the folder is of another search.
        PlanError: Nothing can be pruned.
        VerifyError: The small network would not give the same outputs.
    """
    check_onnxruntime()
    run = load(config, Search, smoke=smoke)
    if run.training.mode == "sparse" and isinstance(run.method, OnceForAll) and run.method.kernels:
        raise UsageError(f"{config}: training.mode sparse can't have smaller kernels; set method.kernels to false")
    given = {name: value for name, value in (("backend", backend), ("address", address)) if value is not None}
    run = run.model_copy(update={"method": run.method.model_copy(update=given)})
    folder = smoke_folder(run.out) if smoke else Path(run.out)
    with alone(folder, "search"), scoring_on(run.method.backend, run.method.address):
        if smoke:
            empty(folder)
            run = run.model_copy(update={"out": str(folder), "data": stand_in(run.data, folder / "data")})
        _begin(run, resume or smoke)
        return _Run(run, Console(stderr=True)).go()


def _begin(run: Search, resume: bool) -> None:
    """Note what is searched; refuse a folder of another search."""
    file, said = Path(run.out, BEGUN), json.loads(run.model_dump_json(exclude=_FREE))
    if file.exists():
        if not resume:
            raise UsageError(f"{run.out} holds a search already; go on with --resume, or choose another out")
        if read(file, "method") != said:
            raise UsageError(f"{run.out} holds a search by other settings; choose another out")
    write_json(file, said)


@dataclass(frozen=True)
class Scorer:
    """The mean loss of a network on some examples: what candidates are scored by."""

    task: Task
    examples: Examples
    batch_size: int
    device: torch.device

    def __call__(self, model: nn.Module) -> float:
        """The loss, in evaluation mode."""
        total = 0.0
        model.eval()
        with torch.no_grad():
            for batch in data.in_order(self.examples, self.batch_size):
                here = _moved(batch, self.device)
                total += float(self.task.loss(self.task.forward(model, here), here)) * len(next(iter(here.values())))
        return total / len(self.examples)


@dataclass(frozen=True)
class Calibrator:
    """Takes a network's BatchNorm statistics anew from some training examples."""

    task: Task
    examples: Examples
    batch_size: int
    batches: int
    device: torch.device

    def __call__(self, model: nn.Module) -> None:
        """See `zig.search.recalibrate`."""
        found = (_moved(batch, self.device) for batch in data.in_order(self.examples, self.batch_size))
        recalibrate(model, found, self.batches, self.task.forward)


class _Run:
    """A search on its way."""

    def __init__(self, run: Search, say: Console):
        """Make everything that a search needs, and check it."""
        training, method = run.training, run.method
        self.run, self.say, self.folder = run, say, Path(run.out)
        self.device = torch.device(_device(training.device))
        self.task = load_task(run.data, run.seed)
        self.train, kept = data.split(self.task.train, method.held_back, run.seed)
        some = data.Some(kept, np.arange(min(method.examples, len(kept))))
        self.model = models.build(run.model, run.seed)
        models.check(self.model, self.task, run.model.name)
        self.model.to(self.device)
        self.inputs = self.task.arguments(next(data.in_order(self.task.held_out, 2)))
        self.score = Scorer(self.task, some, training.batch_size, self.device)
        calibrator = Calibrator(
            self.task, self.train, training.batch_size, method.calibration_batches, self.device
        )  # fmt: skip
        self.calibrate = calibrator if method.calibration_batches else None

    def go(self) -> dict[str, Any]:
        """All of it; what is there already is not done again."""
        self.fit("trained", self.model, self.run.training.before)
        self.model.eval()
        export(self.model, self.inputs, self.folder / FULL)
        pruner, model, report = self._searched()
        self.fit("retrained", model, self.run.training.epochs)
        comparison = self._written(model, report)
        content = self._measured(pruner, comparison)
        write_json(self.folder / "report.json", content)
        page = write_report(self.folder, content)
        self.say.print(f"{FULL}, {SMALL}, report.json and {page.name} are in {self.folder}", soft_wrap=True)
        return content

    # --- methods ---------------------------------------------------------------------------------------------------

    def _searched(self) -> tuple[Pruner, nn.Module, Report | None]:
        method = self.run.method
        if isinstance(method, Iterative):
            return self._iterative(method)
        return self._one_step(method) if isinstance(method, OneStep) else self._once_for_all(method)

    def _pruner(self, kind: type[Pruner]) -> Any:
        made = kind(self.model, self.inputs, folder=self.folder / "search")
        if self.run.method.of == "latency" and kind is not OFAPruner:
            self._measure_latency(made)
        return made

    def _measure_latency(self, pruner: Pruner) -> None:
        with self._telling("layers measured") as tell:
            pruner.measure_latency(self.run.method.provider, progress=tell)

    def _iterative(self, method: Iterative) -> tuple[Pruner, nn.Module, Report | None]:
        pruner: IterativePruner = self._pruner(IterativePruner)
        with self._telling("sensitivity") as tell:
            pruner.analyze(
                self.score, best="min", ratios=method.ratios, excludes=method.excludes, calibration_fn=self.calibrate,
                jobs=method.processes, progress=tell,
            )  # fmt: skip
        chosen: dict[str, Any] = {"of": method.of, "excludes": method.excludes, "round_to": method.round_to}
        for number in range(1, method.rounds):
            model = pruner.prune(1 - (1 - method.removal_ratio) ** (number / method.rounds), **chosen)
            self.fit(f"round {number}", model, self.run.training.epochs)
            self.model.load_state_dict(model.state_dict())
        pruner.decide(method.removal_ratio, **chosen)
        return self._made(pruner)

    def _one_step(self, method: OneStep) -> tuple[Pruner, nn.Module, Report | None]:
        pruner: OneStepPruner = self._pruner(OneStepPruner)
        with self._telling("candidates") as tell:
            pruner.search(
                self.calibrate, self.score, num_subnets=method.num_subnets, removal_ratio=method.removal_ratio,
                of=method.of, best="min", excludes=method.excludes, round_to=method.round_to, seed=self.run.seed,
                jobs=method.processes, progress=tell,
            )  # fmt: skip
        pruner.decide()
        return self._made(pruner)

    def _once_for_all(self, method: OnceForAll) -> tuple[Pruner, nn.Module, Report | None]:
        pruner: OFAPruner = self._pruner(OFAPruner)
        supernet = pruner.ofa_model(
            method.ratios, kernels=method.kernels, excludes=method.excludes, auto_excludes=method.auto_excludes,
            round_to=method.round_to, seed=self.run.seed,
        )  # fmt: skip
        if method.of == "latency":
            self._measure_latency(pruner)

        def step(number: int, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
            pruner.random = np.random.default_rng([self.run.seed, number])
            pruner.train_step(
                batch, batch, optimizer, random_subnets=method.random_subnets, loss=self.task.training_loss,
                forward=self.task.forward, clip=1.0,
            )  # fmt: skip

        self.fit("supernet", supernet, method.epochs, step)
        whole, most = supernet.space.whole[method.of] / UNITS[method.of], 1 - method.removal_ratio
        with self._telling("subnets") as tell:
            found = pruner.run_evolutionary_search(
                self.calibrate, self.score, min_macs=max(0.0, most - method.within) * whole, max_macs=most * whole,
                step=method.within * whole, of=method.of, best="min", jobs=method.processes, progress=tell,
                evolution=Evolution(
                    method.population, method.generations, method.mutations, method.crossovers, seed=self.run.seed
                ),
            )  # fmt: skip
        best = min(found.values(), key=lambda subnet: subnet.score)
        if self.run.training.mode == "slim":
            static = pruner.get_static_subnet(best.values, calibration_fn=self.calibrate)
            return pruner, static.module, static.report
        pruner.choose(best.values, method.of)
        self.model.load_state_dict(supernet.network.state_dict())
        return self._made(pruner)

    def _made(self, pruner: Pruner) -> tuple[Pruner, nn.Module, Report | None]:
        """What is to be retrained, and how the cut was checked where it is made already."""
        assert isinstance(pruner.network, Network)
        if self.run.training.mode == "slim":
            return pruner, *pruner.network.slim(pruner.plan().remove)
        return pruner, pruner.network.pruned(pruner.plan().remove, "sparse"), None

    # --- training --------------------------------------------------------------------------------------------------

    def fit(self, stage: str, model: nn.Module, epochs: int, step: Step | None = None) -> None:
        """Train for some epochs, from the stage's checkpoint on where there is one."""
        training, file = self.run.training, self.folder / f"{stage}.pt"
        within = data.steps_in_epoch(len(self.train), training.batch_size)
        optimizer = _optimizer(training.variant, model, training.lr, training.weight_decay)
        checkpoint.seed_all(self.run.seed)

        def go_on(saved: dict[str, Any]) -> int:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            checkpoint.set_random_state(saved["random"])
            return int(saved["epochs"])

        done = checkpoint.resume(file, go_on, self._say) or 0
        with self._telling(f"{stage}: epochs") as tell:
            for epoch in range(done, epochs):
                self._epoch(model, optimizer, range(epoch * within, (epoch + 1) * within), epochs * within, step)
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
                checkpoint.write(file, {**state, "random": checkpoint.random_state()})
                tell(epoch + 1, epochs)

    def _epoch(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, total: int, step: Step | None
    ) -> None:
        training = self.run.training
        chosen = data.keys(len(self.train), training.batch_size, self.run.seed, steps)
        model.train()
        for number, batch in zip(steps, data.batches(self.train, chosen, training.workers), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = training.lr * factor(training.schedule, number, total)
            here = self.task.prepared(_moved(batch, self.device), data.of_step(self.run.seed, number))
            if step is not None:
                step(number, here, optimizer)
                continue
            optimizer.zero_grad()
            torch.autograd.backward(self.task.training_loss(self.task.forward(model, here), here))
            optimizer.step()

    def _say(self, line: str) -> None:
        self.say.print(line, highlight=False, soft_wrap=True)

    # --- the end ---------------------------------------------------------------------------------------------------

    def _written(self, model: nn.Module, report: Report | None) -> Report:
        """Write the small file, and say how small and large were compared."""
        model.eval()
        if report is not None:
            export(model, self.inputs, self.folder / SMALL)
            return report
        sparse = self.folder / "sparse.onnx"
        export(model, self.inputs, sparse)
        return compress(sparse, self.folder / SMALL)

    def _measured(self, pruner: Pruner, comparison: Report) -> dict[str, Any]:
        """What both networks reach: metrics and time under onnxruntime, sizes; in the form of a run's report."""
        method, batch_size = self.run.method, self.run.training.batch_size
        assert comparison.comparison is not None  # it was not told to be skipped
        assert pruner.choice is not None  # a method ends with a choice
        content: dict[str, Any] = {}
        for kind, name in (("full", FULL), ("compressed", SMALL)):
            file = self.folder / name
            content[kind] = {
                "file": name, **cost(analyze(file)), "bytes": file.stat().st_size,
                "milliseconds": fastest(file, 30, method.provider),
                **measured(self.task, onnx_outputs(self.task, file), batch_size, self.run.training.workers),
            }  # fmt: skip
        predicted = {"predicted_milliseconds": pruner.predicted_and_measured()} if pruner.latency else {}
        return content | {
            "method": method.name, "of": method.of, "asked": method.removal_ratio, "reached": pruner.choice.reached,
            "said": pruner.choice.sentence, **predicted, "metrics": list(self.task.metrics),
            "groups": comparison.groups, "removed": comparison.removed, "held_out": len(self.task.held_out),
            "largest_difference": comparison.comparison.max_abs,
            "largest_relative_difference": comparison.comparison.max_rel,
            "warnings": [] if pruner.choice.met or method.name == "once_for_all" else [pruner.choice.sentence],
        }  # fmt: skip

    @contextmanager
    def _telling(self, what: str) -> Iterator[Tell]:
        """A line of progress: how much is done, and the last score."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.say, disable=not self.say.is_terminal) as progress:
            line = progress.add_task(what, total=None)
            yield lambda done, of, *score: progress.update(
                line, completed=done, total=max(of, done), description=" ".join([what, *(f"{s:.4g}" for s in score)])
            )


def _optimizer(variant: str, model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    if variant == "sgd":
        return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _moved(batch: Batch, device: torch.device) -> Batch:
    return {name: value.to(device) for name, value in batch.items()}


__all__ = ["Calibrator", "Scorer", "search"]
