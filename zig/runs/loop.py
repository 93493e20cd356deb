"""The training loop: one optimizer step after the other, and everything that must survive the end of the process.

The state of a run is its step, the model, the optimizer, the scaler of fp16 and the random numbers; order and
augmentation of the data and the learning rate are functions of the step. So a run that goes on from a checkpoint ends
with the same bits as one that was never stopped.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from zig.errors import RunError, UsageError
from zig.process import ASKING, Terminated
from zig.runs import checkpoint, data, methods, models
from zig.runs.config import Run
from zig.runs.data import Batch
from zig.runs.log import Log, check_tensorboard
from zig.runs.processes import Processes, synchronised
from zig.runs.result import measured, torch_outputs
from zig.runs.schedule import factor
from zig.training.oto import OTO

CHECKPOINT = "checkpoint.pt"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FREE = ("out", "training.device", "training.compile", "training.workers", "training.checkpoint_steps", "data.path",
         "training.evaluation_epochs", "training.tensorboard")  # fmt: skip  # what may change when a run goes on


class Trainer:
    """A run on its way.

    Attributes:
        run: What the file says.
        task: The data.
        oto: The model and its groups.
        optimizer: What trains and prunes.
        step: Optimizer steps taken.
        total: Optimizer steps of the whole training.
    """

    def __init__(self, run: Run, processes: Processes, say: Console):
        """Make everything that a run needs, and check it; nothing is trained yet.

        Raises:
            UsageError: Something is missing, or does not fit together.
            PlanError: The target can't be reached.
        """
        training = run.training
        self.run, self.processes, self.say, self.folder = run, processes, say, Path(run.out)
        if training.tensorboard:
            check_tensorboard()
        if training.precision == "fp16" and run.method.name == "hesso_cric":
            raise UsageError(
                "method hesso_cric evaluates the loss anew, which scaled gradients can't; use bf16 or fp32"
            )
        self.task = data.load(run.data, run.seed)
        self.train, held_back = data.split(self.task.train, run.method.held_back, run.seed)
        self.epoch_steps = data.steps_in_epoch(len(self.train), training.batch_size)
        self.step, self.total = 0, self.epoch_steps * training.epochs
        model = models.build(run.model, run.seed)
        models.check(model, self.task, run.model.name)
        model.to(processes.device).train()
        self.oto = OTO(model, self.task.arguments(next(data.in_order(self.task.held_out, 2))))
        setting = methods.Setting(
            self.task, self.total, held_back, processes.device, run.seed, training.batch_size, self.loss
        )
        self.optimizer = methods.build(self.oto, run.method, setting)
        self.pruner = methods.pruner(self.optimizer)
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=training.precision == "fp16")
        self._model = processes.wrapped(model, training.compile)
        self._losses = (0.0, 0)  # their sum and number since the last line of the log
        self._asked, self._stopping = False, False  # to stop: this process, and all of them
        self._end: BaseException = KeyboardInterrupt()  # by what
        checkpoint.seed_all(run.seed + processes.rank)

    # --- training ------------------------------------------------------------------------------------------------

    def fit(self, until: int | None = None) -> None:
        """Train until a step, or the end; save at the end of each epoch and as often as the file says.

        Raises:
            RunError: The loss is no number.
            KeyboardInterrupt: The process was told to stop; a checkpoint is written first. SystemExit, if by a signal
                other than that of Ctrl-C.
        """
        steps, training = range(self.step, self.total if until is None else until), self.run.training
        chosen = data.keys(
            len(self.train), training.batch_size, self.run.seed, steps, self.processes.share(training.batch_size)
        )
        log = self._log()
        with self._stoppable(), synchronised(self.oto.model, self.processes), self._progress(steps) as progress:
            for _, batch in zip(steps, data.batches(self.train, chosen, training.workers), strict=True):
                loss = self._advance({name: value.to(self.processes.device) for name, value in batch.items()})
                progress.update(progress.task_ids[0], advance=1, loss=loss)
                if self.step % self.epoch_steps == 0:
                    self._end_of_epoch(log, progress)
                if self._stopping or self.step in (steps.stop, self.total) or self._due():
                    self.save()
                if self._stopping:
                    log.close()
                    self.say.print(
                        f"stopped after step {self.step} of {self.total}; go on with --resume", soft_wrap=True
                    )
                    raise self._end
        log.close()
        if self.step == self.total and not self.pruner.finished:
            raise RunError(
                f"the training is over after {self.step} steps, but pruning is not: fp16 has skipped some of them; "
                "leave more of the training after method.start and method.pruning"
            )

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a training batch, with the run's precision."""
        precision, kind = self.run.training.precision, self.processes.device.type
        with torch.autocast(kind, _DTYPES[precision], enabled=precision != "fp32"):
            outputs = self.task.forward(self._model, batch)
        return self.task.training_loss(outputs, batch)

    def _advance(self, batch: Batch) -> float:
        """One optimizer step; returns the mean loss over all processes."""
        rate = factor(self.run.training.schedule, self.step, self.total)
        for group, usual in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = usual * rate
        random = data.of_step(self.run.seed, self.step, self.processes.rank)
        parts = _parts(self.task.prepared(batch, random), self.run.training.accumulate)
        if self._scaler.is_enabled():
            loss = self._gradients(parts)
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            loss = self.optimizer.step(lambda: self._gradients(parts))
        self.step += 1
        self._losses = (self._losses[0] + loss, self._losses[1] + 1)
        return loss

    def _gradients(self, parts: list[Batch]) -> float:
        """Loss and gradients of a batch, part by part."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.processes.device)
        for part in parts:
            with self._alone() if part is not parts[-1] else contextlib.nullcontext():
                loss = self.loss(part) / len(parts)
                torch.autograd.backward(self._scaler.scale(loss))
            total += loss.detach()
        found, stop = self.processes.mean(torch.stack([total, torch.full_like(total, self._asked)])).tolist()
        self._stopping = stop > 0
        self._check(found)
        if self.run.training.clip is not None:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.oto.model.parameters(), self.run.training.clip)
        return float(found)

    def _alone(self) -> contextlib.AbstractContextManager[Any]:
        """Gradients that the other processes are not told of yet."""
        model = self._model
        return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} in step {self.step + 1} (epoch {self.step // self.epoch_steps + 1}); nothing was "
                f"saved since then: lower method.lr, set training.clip, or compute in bf16 or fp32, and go on from "
                f"{self.folder / CHECKPOINT} by --resume or begin anew"
            )

    # --- what is seen of it --------------------------------------------------------------------------------------

    def _log(self) -> Log | _Silence:
        if self.processes.rank:
            return _Silence()
        columns = ["step", "epoch", "lr", "loss", *self.task.metrics, "group_sparsity", "macs"]
        self._history = self.oto.log(self.folder / "log.jsonl")
        return Log(self.folder, columns, self.step, self.run.training.tensorboard)

    def _progress(self, steps: range) -> Progress:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[reached]}"),
        )  # fmt: skip
        hidden = self.processes.rank > 0 or not self.say.is_terminal
        progress = Progress(*columns, console=self.say, disable=hidden)
        progress.add_task("training", total=self.total, completed=steps.start, loss=math.nan, reached="")
        return progress

    def _say(self, line: str) -> None:
        self.say.print(line, highlight=False, soft_wrap=True)

    def _end_of_epoch(self, log: Log | _Silence, progress: Progress) -> None:
        """Measure, log, and say what is reached."""
        epoch = self.step // self.epoch_steps
        if epoch % self.run.training.evaluation_epochs and self.step < self.total:
            return
        if self.processes.rank == 0:
            row = self._reached(epoch)
            log.write(row)
            self._history.write(**{name: row[name] for name in ("epoch", "loss", *self.task.metrics)})
            said = [f"{name} {row[name]:.2%}" for name in (*self.task.metrics, "group_sparsity")]
            reached = f"{'  '.join(said)}  MACs left {row['macs']:.1%}".replace("_", " ")
            progress.update(progress.task_ids[0], reached=reached)
            if not self.say.is_terminal:
                self._say(f"epoch {epoch}  loss {row['loss']:.4f}  {reached}")
        self._losses = (0.0, 0)
        self.processes.wait()

    def _reached(self, epoch: int) -> dict[str, float]:
        """A line of the log."""
        total, count = self._losses
        outputs = torch_outputs(self.task, self.oto.model, self.processes.device)
        numbers = measured(self.task, outputs, self.run.training.batch_size, self.run.training.workers)
        left = self.oto.compute_macs(compressed=True) / max(self.oto.compute_macs(), 1)
        return {
            "step": self.step,
            "epoch": epoch,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "loss": total / max(count, 1),
            **numbers,
            "group_sparsity": self.pruner.group_sparsity,
            "macs": left,
        }

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        return self.step % (self.run.training.checkpoint_steps or self.epoch_steps) == 0

    def save(self) -> None:
        """Write a checkpoint."""
        states = self.processes.gathered(checkpoint.random_state())
        if self.processes.rank == 0:
            checkpoint.write(self.folder / CHECKPOINT, {**self._state(), "random": states})
        self.processes.wait()

    def _state(self) -> dict[str, Any]:
        return {
            "run": self.run.model_dump(mode="json"),
            "step": self.step,
            "model": self.oto.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "losses": self._losses,
        }

    def resume(self) -> bool:
        """Go on from the checkpoint of this run; False where there is none yet.

        Raises:
            UsageError: It can't be read, or is of another run.
        """
        return checkpoint.resume(self.folder / CHECKPOINT, self._go_on, self._say) or False

    def _go_on(self, state: dict[str, Any]) -> bool:
        """Take over what a checkpoint holds."""
        path = self.folder / CHECKPOINT
        if missing := sorted({*self._state(), "random"} - state.keys()):
            raise UsageError(
                f"{path} is no checkpoint of a run: it has no '{missing[0]}'; choose another folder by out"
            )
        for key, (before, now) in _differing(state["run"], self.run.model_dump(mode="json")).items():
            if key not in _FREE:
                raise UsageError(
                    f"{path} is of a run with {key} {before!r}, not {now!r}; set it back or choose another out"
                )
        self.oto.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.step, self._losses = int(state["step"]), (float(state["losses"][0]), int(state["losses"][1]))
        states = state["random"]
        checkpoint.set_random_state(states[self.processes.rank % len(states)])
        return True

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """The first signal to stop ends training after this step; the second ends the process as usual."""
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, *ASKING)}
        usual = {number: handler for number, handler in usual.items() if handler is not signal.SIG_IGN}  # `nohup`

        def stop(number: int, _: FrameType | None) -> None:
            self._asked = True
            self._end = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
            signal.signal(number, usual[signal.Signals(number)])

        for each in usual:
            signal.signal(each, stop)
        try:
            yield
        finally:
            for each, before in usual.items():
                signal.signal(each, before)


class _Silence:
    """The log of a process that is not the first."""

    def write(self, row: dict[str, float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _parts(batch: Batch, count: int) -> list[Batch]:
    """A batch cut into equal parts."""
    cut = {name: torch.chunk(values, count) for name, values in batch.items()}
    return [{name: values[i] for name, values in cut.items()} for i in range(count)]


def _differing(before: Any, now: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """The values of two nested mappings that are not equal, by their place."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return {} if before == now else {place: (before, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*before, *now}):
        found |= _differing(before.get(key), now.get(key), f"{place}.{key}" if place else key)
    return found
