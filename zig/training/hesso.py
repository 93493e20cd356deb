"""HESSO: hybrid structured sparse optimizer (Chen et al., arXiv 2409.09085), for those who tune nothing.

With x_g the variables of group g and d_g the direction of the base (SGD, Adam, AdamW):

    step                       what happens
    before start               the base's plain step
    start to start + pruning   P periods; in the first step of each, the least salient groups are chosen, a P-th of the
                               target more each time; every group takes the plain step, then those of this period shrink
                               by (D - k - 1) / (D - k) in step k of the period's D, and are zero in its end
    from then on               the plain step; zero groups stay zero

The saliency of a group is a weighted sum of criteria, each made comparable between groups:

    magnitude  ||x_g||       average  ||x_g|| / |g|       cosine  1 - cos(x_g, d_g): going to zero does not go downhill
    taylor1    |<x_g, d_g>|  taylor2  <x_g, d_g>^2 / 2

Differences from the authors' code: their cosine is 1 + cos, which calls a group redundant when shrinking it goes
uphill; they cut the set of a period by index instead of by score; and criteria are standardised within each node group,
unless `scope="global"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from typing_extensions import Unpack

from zig.errors import PlanError
from zig.training.dhspg import Scope
from zig.training.grouped import GroupOptimizer, Options
from zig.training.groups import GUARD, Floats, GroupTable
from zig.training.step import Step, Sums

CRITERIA = ("magnitude", "average", "cosine", "taylor1", "taylor2")


class HESSO(GroupOptimizer):
    """Hybrid structured sparse optimizer; reaches its target exactly."""

    def __init__(
        self, params: Iterable[Any], groups: GroupTable, *, pruning_periods: int = 1,
        saliency: Mapping[str, float] | None = None, scope: Scope = "local", **options: Unpack[Options],
    ):  # fmt: skip
        """Make the optimizer.

        Args:
            params: Parameters or parameter groups, as for any torch optimizer.
            groups: The groups of the model.
            pruning_periods: In how many portions the groups go.
            saliency: Weight of each criterion; 0.2 for each of the five.
            scope: Whether a criterion is relative to the node group (`local`) or to all groups (`global`).
            **options: See `zig.training.grouped.Options`; there are no `decay_steps`, it decays all the time.

        Raises:
            PlanError: The target can't be reached, or the schedule is none.
        """
        if "decay_steps" in options:
            raise PlanError(f"{type(self).__name__} has no decay_steps; choose pruning_steps and pruning_periods")
        super().__init__(params, groups, **options)
        self.saliency = dict.fromkeys(CRITERIA, 0.2) if saliency is None else dict(saliency)
        if not self.saliency or self.saliency.keys() - set(CRITERIA):
            raise PlanError(f"saliency must weigh some of {', '.join(CRITERIA)}")
        if not 1 <= pruning_periods <= self.schedule.steps:
            raise PlanError(f"pruning_periods is {pruning_periods}; choose 1 to pruning_steps={self.schedule.steps}")
        if scope not in ("local", "global"):
            raise PlanError(f"there is no scope '{scope}'; choose local or global")
        self.pruning_periods, self.scope = pruning_periods, scope

    def _prune(self, step: Step) -> None:
        usual = self.schedule.steps // self.pruning_periods
        period = min((self.steps - self.schedule.start) // usual, self.pruning_periods - 1)
        first = self.schedule.start + period * usual
        if self.steps == first:
            self._choose(-self._salience(step.sums()), (period + 1) / self.pruning_periods)
        self._fade(step, first, self.schedule.end if period == self.pruning_periods - 1 else first + usual)

    def _fade(self, step: Step, first: int, end: int) -> None:
        """The plain step, and after it what is chosen but not zero shrinks linearly to zero at `end`."""
        length, k = end - first, self.steps - first
        chosen = self._progress["chosen"]
        fading = self._zero(chosen if k == length - 1 else torch.zeros_like(chosen))
        step.move(self._scale(fading, (length - k - 1) / (length - k)))

    def _salience(self, sums: Sums) -> Floats:
        """The weighted criteria at the top of this file, float64[G]; low is redundant."""
        x_x, x_d, d_d = (each[:-1].double().cpu().numpy() for each in sums[:3])
        norm, size = np.sqrt(x_x), self.sizes()
        criteria = {
            "magnitude": norm,
            "average": norm / np.maximum(size, 1),
            "cosine": 1 - x_d / np.maximum(norm * np.sqrt(d_d), GUARD),
            "taylor1": np.abs(x_d),
            "taylor2": x_d**2 / 2,
        }
        total = sum(w * self.table.comparable(criteria[name], self.scope) for name, w in self.saliency.items())
        return np.where(norm == 0, -np.inf, total)
