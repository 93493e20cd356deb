"""HSPG: half-space projected gradient, as in OTO (Chen et al., "Only Train Once", NeurIPS 2021).

It minimises f(x) + lmbda sum_g ||x_g||. With d_g the direction of the base (SGD, Adam, AdamW) and a the learning rate:

    step                       what happens
    before start               the base's step on the sub-gradient grad f + lmbda x_g / ||x_g||, for every group
    start to start + pruning   the same trial step x^, then x_g <- 0 if <x^_g, x_g> < epsilon ||x_g||^2, else x^_g;
                               a zero group stays zero
      its last `decay_steps`   with a target: what is chosen and not yet zero shrinks by (D - k - 1) / (D - k)
    from then on               the base's plain step; zero groups stay zero

As weight decay does, the penalty goes through the moments of sgd and adam, and beside them in adamw.

The authors' method reaches whatever sparsity lmbda and epsilon lead to, up to `upper_group_sparsity`, and which groups
a cap spares is random. Here the groups of the smallest ||x_g|| in their node group are chosen when the half-space stage
starts, and only they are projected: with a target as many as it asks for, and the decay makes it exact; with
`upper_group_sparsity` as many as that, and there is no decay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack

from zig.errors import PlanError
from zig.training.grouped import GroupOptimizer, Options
from zig.training.groups import GUARD, GroupTable
from zig.training.step import Step


class HSPG(GroupOptimizer):
    """Half-space projected gradient; reaches its target exactly, or goes as far as its penalty leads."""

    def __init__(
        self, params: Iterable[Any], groups: GroupTable, *, lmbda: float = 1e-3, epsilon: float = 0.0,
        adapt_epsilon_steps: int | None = None, upper_group_sparsity: float | None = None, **options: Unpack[Options],
    ):  # fmt: skip
        """Make the optimizer.

        Args:
            params: Parameters or parameter groups, as for any torch optimizer.
            groups: The groups of the model.
            lmbda: Weight of the penalty.
            epsilon: Of the half-space, in [0, 1); the larger, the sooner groups are projected.
            adapt_epsilon_steps: Every so many steps in which sparsity has grown by less than 0.01, epsilon grows by
                0.1, up to 0.999.
            upper_group_sparsity: In place of a target, the largest share of groups that may become zero.
            **options: See `zig.training.grouped.Options`.

        Raises:
            PlanError: The target can't be reached, or the schedule is none.
        """
        exact = upper_group_sparsity is None
        if not exact:
            if {"target_group_sparsity", "target_macs", "target_params"} & options.keys():
                raise PlanError("choose a target or upper_group_sparsity")
            options["target_group_sparsity"] = upper_group_sparsity
        if adapt_epsilon_steps is not None and adapt_epsilon_steps < 1:
            raise PlanError(f"adapt_epsilon_steps is {adapt_epsilon_steps}; choose 1 or more")
        super().__init__(params, groups, **options)
        self.exact, self.lmbda, self.adapt_epsilon_steps = exact, lmbda, adapt_epsilon_steps
        self._progress.update(epsilon=epsilon, sparsity=0.0)

    def _train(self, step: Step) -> None:
        pull = self._penalty(step.norms())
        if self.base.coupled:
            step.couple(pull)
        step.move(pull=None if self.base.coupled else pull)

    def _prune(self, step: Step) -> None:
        x_x = step.norms()
        if self.steps == self.schedule.start:
            norm = np.sqrt(x_x[:-1].double().cpu().numpy())
            self._choose(-self.table.comparable(norm, "local"))
        pull, coupled, chosen = self._penalty(x_x), self.base.coupled, self._progress["chosen"]
        if coupled:
            step.couple(pull)
        sums = step.sums(d_d=False)
        trial = sums.x_x - sums.moved - (0 if coupled else pull * sums.slowed)  # <x^, x>
        leaves = trial < self._epsilon() * sums.x_x
        resisting = self._zero(chosen & (leaves | (sums.x_x == 0)))
        factor = self.schedule.shrink(self.steps) if self.exact else 1.0
        step.move(self._scale(resisting, factor), None if coupled else pull)

    def _penalty(self, x_x: Tensor) -> Tensor:
        """The pull lmbda / ||x_g||, shape (G + 1,); nothing pulls at what can't go."""
        prunable = torch.from_numpy(np.append(self.table.prunable, False)).to(x_x.device)
        return torch.where(prunable & (x_x > 0), self.lmbda / x_x.sqrt().clamp_min(GUARD), 0.0)

    def _epsilon(self) -> float:
        """Epsilon, after it has grown where sparsity does not."""
        progress, wait = self._progress, self.adapt_epsilon_steps
        since = self.steps - self.schedule.start
        if wait is not None and since > 0 and since % wait == 0:
            if self.group_sparsity - progress["sparsity"] < 0.01:
                progress["epsilon"] = min(progress["epsilon"] + 0.1, 0.999)
            progress["sparsity"] = self.group_sparsity
        return float(progress["epsilon"])
