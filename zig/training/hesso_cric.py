"""HESSO-CRIC: HESSO whose redundant groups are found by trying what happens to them (arXiv 2409.09085, section 3.3).

A group that looks redundant now may turn out to matter once it shrinks. So the choice is made in cycles, before HESSO's
decay:

    step                       what happens
    start                      loss trials: of each node group, the least salient 25, 50 and 75 % are zeroed and the
                               loss is measured again on the same batch; then V = the least salient groups, as many as
                               must go
    cycle of `sampling_steps`  the plain step, after which V shrinks linearly to zero; saliency is recorded in each step
      its end                  parameters return to what they were at start; V = groups that are now among the least
                               salient and never were in a V. Once there are at most `tolerance`, or after `cycles`:
                               the groups of the least mean saliency (with the loss trials' part) are chosen
    to start + pruning         they shrink linearly to zero, as in HESSO
    from then on               the plain step; zero groups stay zero

The loss trials need `optimizer.step(closure)`, at least in the step in which pruning starts. The copy of the parameters
that the cycles return to takes as much memory as the parameters, until the cycles are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from zig.errors import PlanError, UsageError
from zig.training.grouped import Options
from zig.training.groups import GUARD, Bools, Floats, GroupTable
from zig.training.hesso import HESSO
from zig.training.step import Step

_TRIALS = (0.25, 0.5, 0.75)
_SAVED = "saved"  # the key of a parameter's state under which its copy lies


class HESSOCRIC(HESSO):
    """HESSO with the corrective redundancy identification cycle; reaches its target exactly."""

    def __init__(
        self, params: Iterable[Any], groups: GroupTable, *, sampling_steps: int | None = None, cycles: int = 10,
        tolerance: int = 0, loss_weight: float = 1.0, **options: Unpack[Options],
    ):  # fmt: skip
        """Make the optimizer.

        Args:
            params: Parameters or parameter groups, as for any torch optimizer.
            groups: The groups of the model.
            sampling_steps: Length of a cycle; a twentieth of `pruning_steps`.
            cycles: How many cycles there may be.
            tolerance: How few new candidates end the cycles.
            loss_weight: Weight of the loss trials in the saliency; 0 leaves them out, and no closure is needed.
            **options: See `HESSO` and `zig.training.grouped.Options`.

        Raises:
            PlanError: The target can't be reached, or the cycles leave no step of pruning.
        """
        super().__init__(params, groups, **options)
        steps = max(1, self.schedule.steps // 20) if sampling_steps is None else sampling_steps
        if steps < 1 or cycles < 1 or steps * cycles >= self.schedule.steps:
            raise PlanError(
                f"{cycles} cycles of {steps} steps leave nothing of {self.schedule.steps} pruning_steps; choose more "
                "pruning_steps, fewer cycles or fewer sampling_steps"
            )
        if self.pruning_periods != 1:
            raise PlanError("HESSO-CRIC prunes in one period")
        self.sampling_steps, self.cycles, self.tolerance, self.loss_weight = steps, cycles, tolerance, loss_weight
        none, zeros = self._progress["zero"], torch.zeros(len(self.table), dtype=torch.float64)
        self._progress.update(cycle=0, decided=-1, violating=none, tried=none, recorded=zeros, loss=zeros)
        self._closure: Callable[[], Any] | None = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; the one in which pruning starts evaluates `closure` once for each loss trial.

        Raises:
            UsageError: Pruning starts, and there is no closure to measure the loss with.
        """
        if closure is None and self.steps == self.schedule.start and self.loss_weight and self.table.rows:
            raise UsageError("HESSO-CRIC measures the loss when pruning starts; call optimizer.step(closure)")
        self._closure = closure
        loss = super().step(closure)
        self._closure = None
        return loss

    def _prune(self, step: Step) -> None:
        if self._progress["decided"] >= 0:
            self._fade(step, self._progress["decided"], self.schedule.end)
        else:
            self._sample(step)

    def _sample(self, step: Step) -> None:
        """One step of a cycle."""
        progress, k = self._progress, (self.steps - self.schedule.start) % self.sampling_steps
        sums = step.sums()
        salience = self._salience(sums)
        if self.steps == self.schedule.start:
            self._begin(salience)
        progress["recorded"] = progress["recorded"] + torch.from_numpy(np.maximum(salience, _floor(salience)))
        step.move(self._scale(progress["violating"], 1 - 1 / (self.sampling_steps - k)))
        if k == self.sampling_steps - 1:
            self._end_of_cycle(salience)

    def _begin(self, salience: Floats) -> None:
        """Copy the parameters, run the loss trials, and suspect the least salient groups."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p][_SAVED] = p.clone()
        if self.loss_weight:
            self._progress["loss"] = torch.from_numpy(self._loss_trials(salience))
        self._suspect(self.target.choose(-salience))

    def _end_of_cycle(self, salience: Floats) -> None:
        """Go back; suspect others, or choose."""
        progress = self._progress
        progress["cycle"] += 1
        self._restore()
        new = self.target.choose(-salience) & ~progress["tried"][:-1].cpu().numpy()
        if new.sum() > self.tolerance and progress["cycle"] < self.cycles:
            self._suspect(new)
            return
        mean = progress["recorded"].numpy() / (progress["cycle"] * self.sampling_steps)
        self._choose(-(mean + self.loss_weight * progress["loss"].numpy()))
        progress["decided"] = self.steps + 1
        for state in self.state.values():
            state.pop(_SAVED, None)

    def _suspect(self, groups: Bools) -> None:
        violating = torch.from_numpy(np.append(groups, False)).to(self._progress["tried"].device)
        self._progress["violating"] = violating
        self._progress["tried"] = self._progress["tried"] | violating

    def _loss_trials(self, salience: Floats) -> Floats:
        """How much the loss grows by the smallest trial that takes a group along, standardised, float64[G]."""
        before, table = self._loss(), self.table
        growth = np.zeros(len(table))
        for node in np.unique(table.node_group[table.prunable]):
            here = np.flatnonzero((table.node_group == node) & table.prunable)
            here = here[np.argsort(salience[here], kind="stable")]
            ends = [round(share * len(here)) for share in _TRIALS]
            for start, end in zip([0, *ends], ends, strict=False):
                self._zero_rows(here[:end])
                growth[here[start:]] = self._loss() / max(abs(before), GUARD)
                self._restore()
        self._loss()  # the gradients of this step again
        mean, spread = growth[table.prunable].mean(), growth[table.prunable].std()
        return np.asarray((growth - mean) / max(float(spread), GUARD))

    def _loss(self) -> float:
        assert self._closure is not None  # checked in `step`
        with torch.enable_grad():
            loss = self._closure()
        return float(loss.detach() if isinstance(loss, Tensor) else loss)

    def _zero_rows(self, groups: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        gone = np.append(np.isin(np.arange(len(self.table)), groups), False)
        for parameter, axis, of in self.table.rows:
            rows = torch.from_numpy(np.flatnonzero(gone[of])).to(parameter.device)
            parameter.index_fill_(axis, rows, 0)

    def _restore(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                saved: Tensor = self.state[p][_SAVED]
                p.copy_(saved)


def _floor(salience: Floats) -> float:
    """The least saliency of a group that is not zero: a group that is zero counts as that."""
    return float(salience[np.isfinite(salience)].min(initial=0.0))
