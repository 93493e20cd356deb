"""A run from its file to its report, and the way from a checkpoint to a pruned model."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from zig.errors import UsageError
from zig.host.locks import alone
from zig.proof.session import check_onnxruntime
from zig.runs import checkpoint, data, models
from zig.runs.config import Run, load
from zig.runs.loop import CHECKPOINT, Trainer
from zig.runs.processes import join
from zig.runs.result import finish
from zig.runs.standin import empty, smoke_folder, stand_in
from zig.runs.tasks import load as load_task
from zig.training.oto import OTO

Path_ = str | os.PathLike[str]


def train(config: Path_, *, smoke: bool = False, resume: bool = False) -> dict[str, Any]:
    """Train, prune, compress, verify and measure, as a file says.

    Args:
        config: The YAML file; docs/runs.md has all keys.
        smoke: Try all of it on a small stand-in for the data, with what the file has under `smoke`: train half of it,
            save, go on from the checkpoint.
        resume: Go on from the last checkpoint in the run's folder, or begin where there is none.

    Returns:
        The content of `report.json`; empty in a process that is not the first.

    Raises:
        UsageError: The file is wrong, or something it names is missing.
        PlanError: The target can't be reached.
        RunError: The loss is no number.
        VerifyError: The compressed model would not give the same outputs.
        KeyboardInterrupt, SystemExit: The process was told to stop; a checkpoint is written first.
    """
    check_onnxruntime()
    run = load(config, Run, smoke=smoke)
    with join(run.training) as processes, _alone(run, smoke, processes.rank):
        say = Console(stderr=True, quiet=processes.rank > 0)
        if smoke:
            run = small(run, write=processes.rank == 0)
            processes.wait()
            first = Trainer(run, processes, say)
            first.fit(first.total // 2)
            say.print("half of it is done; going on from its checkpoint")
        elif not resume and checkpoint.exists(Path(run.out) / CHECKPOINT):
            raise UsageError(f"{run.out} holds a checkpoint already; go on with --resume, or choose another out")
        trainer = Trainer(run, processes, say)
        if trainer.resume():
            say.print(f"going on from step {trainer.step} of {trainer.total}")
        trainer.fit()
        return _finished(run, trainer.oto, trainer.task, say) if processes.rank == 0 else {}


def _alone(run: Run, smoke: bool, rank: int) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of the folder; the first of several processes does."""
    return contextlib.nullcontext() if rank else alone(smoke_folder(run.out) if smoke else run.out)


def prune_checkpoint(config: Path_, saved: Path_, *, out: Path_ | None = None, smoke: bool = False) -> dict[str, Any]:
    """Cut the zero groups out of a trained model, and measure it before and after.

    Args:
        config: The file of the run: its model and data are used.
        saved: A checkpoint of a run, a state dict, or a folder of `save_pretrained`.
        out: Folder of the files; that of the run, if not given.
        smoke: Measure on a small stand-in for the data.

    Returns:
        The content of `report.json`.

    Raises:
        UsageError: Something is missing, or does not fit together.
        VerifyError: The compressed model would not give the same outputs.
    """
    check_onnxruntime()
    run = load(config, Run, smoke=smoke)
    home = smoke_folder(run.out) if smoke else Path(run.out)
    with contextlib.ExitStack() as stack:
        for folder in {Path(out or home).resolve(), *([home.resolve()] if smoke else [])}:
            stack.enter_context(alone(folder))
        run = small(run, write=True) if smoke else run
        return _pruned(run.model_copy(update={"out": os.fspath(out or home)}), saved)


def _pruned(run: Run, saved: Path_) -> dict[str, Any]:
    task = load_task(run.data, run.seed)
    model = models.build(run.model.model_copy(update={"weights": os.fspath(saved)}), run.seed).eval()
    models.check(model, task, run.model.name)
    oto = OTO(model, task.arguments(next(data.in_order(task.held_out, 2))))
    return _finished(run, oto, task, Console(stderr=True))


def small(run: Run, *, write: bool) -> Run:
    """The run on a stand-in for its data, in a folder of its own, which is emptied and filled by one process."""
    folder = smoke_folder(run.out)
    if write:
        empty(folder)
    section = stand_in(run.data, folder / "data", write=write)
    return run.model_copy(update={"out": str(folder), "data": section})


def _finished(run: Run, oto: OTO, task: data.Task, say: Console) -> dict[str, Any]:
    report = finish(oto, task, Path(run.out), run.training.batch_size, run.training.workers)
    say.print(f"{', '.join(_left(Path(run.out)))} are in {run.out}", soft_wrap=True, highlight=False)
    return report


def _left(out: Path) -> list[str]:
    return sorted(file.name for file in out.iterdir() if file.is_file() and not file.name.startswith("."))
