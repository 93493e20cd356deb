"""ATO: a controller learns which groups go while the model trains (Wu et al., "Auto-Train-Once", CVPR 2024).

With x_g the variables of group g, d_g the direction of the base (SGD, Adam, AdamW), a the learning rate, and M the
groups of the mask, masked(l) of them in node group l:

    step                      what happens
    before start              the base's plain step
    start to start + pruning  groups of M take x_g <- x_g - a d_g - a l_g x_g / ||x_g||, l_g = lmbda masked(l) / |M|,
                              and those with a l_g >= ||x_g|| become zero; all others take the plain step
      before `freeze`         M is a sample of the controller, anew after each `epoch_steps`; nothing becomes zero
      from `freeze` on        M is fixed: the units of the least logits, as many as the budget asks for
      its last `decay_steps`  what is left of M also shrinks by (D - k - 1) / (D - k) in step k of D
    from then on              exactly M is zero and stays so; the others train plainly

Meanwhile `learn` trains the controller, every so many steps, on examples that the model does not train on: with soft
gates w and hard gates m (see `zig.controller.network`) it descends loss(w) + 2 weight R(m), R being how far the cost is
from the budget (see `zig.controller.resource`). The model's own forward pass is always that of the whole network.

Differences from the authors' code, all for a result that is exact: the last mask is deterministic and meets the
budget, it is saved, and what it masks is zero by a stated step (theirs shrinks less and less with the learning rate, so
what it masks need not be zero in the end); all members of a group shrink, biases too; the controller's examples can be
kept apart; a depthwise convolution costs what it costs; a step shrinks by the norm before it, not after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zig.controller.gates import Gates, Loss
from zig.controller.learner import Learner, Lesson, agreed
from zig.controller.resource import resource
from zig.controller.settings import Lessons, Settings
from zig.errors import PlanError
from zig.training.grouped import GroupOptimizer
from zig.training.groups import GUARD, Bools, Floats, GroupTable
from zig.training.length import check_known, total_steps
from zig.training.step import Step

_LAST = 0.98  # of its phase: from there it learns at a tenth of its rate


def _translate(given: dict[str, Any]) -> None:
    """Take the budget by the names that it has in the other methods: `target_macs` and `target_params` are `keep`.

    Raises:
        PlanError: There are two budgets, or one that is no cost.
    """
    targets = [name for name in given if name.startswith("target_")]
    if not targets:
        return
    budgets = [*targets, *(name for name in ("keep", "p") if name in given)]
    of = targets[0].removeprefix("target_")
    if of not in ("macs", "params"):
        raise PlanError(f"ATO has no {targets[0]}; give keep, the share that is left, and of='macs' or 'params'")
    if given.get("of", of) != of:
        raise PlanError(f"of is '{given['of']}', but the budget is {targets[0]}; leave one of them out")
    if len(budgets) > 1:
        raise PlanError(f"{' and '.join(budgets)} are two budgets; give one of keep, p, target_macs and target_params")
    given.update(keep=given.pop(targets[0]), of=of)


class ATOOptimizer(GroupOptimizer):
    """Projection under the mask of a controller; reaches its budget exactly. After each `step`, call `learn`.

    Attributes:
        lessons_from: In place of that, what gives the loss to learn from in a step of this number.
        lesson: What the controller saw last.
    """

    lessons_from: Callable[[int], Loss] | None = None
    lesson: Lesson | None = None

    def __init__(self, params: Iterable[Any], groups: GroupTable, *, gates: Gates, **options: Any):
        """Make the optimizer and its controller.

        Args:
            params: Parameters or parameter groups, as for any torch optimizer.
            groups: The groups of the model.
            gates: The same model, with its partition.
            **options: Of `Settings`, and `zig.training.grouped.Options` but for `target_...`.

        Raises:
            PlanError: The budget can't be reached, or the schedule is none.
            UsageError: It is not known how long the training is.
        """
        given = {name: value for name, value in options.items() if value is not None}
        _translate(given)
        if (total := total_steps(given)) is not None:
            given["steps"] = total
        settings = Settings(**{each.name: given.pop(each.name) for each in fields(Settings) if each.name in given})
        given = {"target_group_sparsity": 0.0, **settings.usual(), **given}
        check_known(given.get("start_pruning_steps"), given.get("pruning_steps"), "ATO")
        lessons = Lessons.of(settings, given["start_pruning_steps"], given["pruning_steps"])
        end = given["start_pruning_steps"] + given["pruning_steps"]
        given.setdefault("decay_steps", max(1, (end - lessons.freeze) // 2))
        super().__init__(params, groups, **given)
        self.gates, self.settings, self.lessons = gates, settings, lessons
        self.resource = resource(gates.partition, self.table.prunable, settings.of, settings.latency)
        round_to = self.target.round_to
        least = 1 - self.resource.target(self.table, 0.0, round_to).most
        self.keep, self.p = self.resource.goal(settings.keep, settings.p, least)
        self.target = self.resource.target(self.table, 1 - self.keep, round_to)
        self.learner: Learner | None = None
        if settings.controller != "none":
            lessons.check(self.schedule.start, self.schedule.end - self.schedule.decay)
            self.learner = Learner(settings, gates, self.table, self._device)
        self._progress.update(final=False)
        self._known: tuple[Tensor, Tensor] | None = None  # a mask and its strengths

    # --- what a user may ask -------------------------------------------------------------------------------------

    @property
    def final(self) -> bool:
        """Whether the mask is final."""
        return bool(self._progress["final"])

    @property
    def learning(self) -> bool:
        """Whether `learn` does something now."""
        first, freeze, every, _ = self.lessons
        due = first <= self.steps < freeze and (self.steps - first) % every == 0
        return self.learner is not None and due

    @property
    def probabilities(self) -> Floats:
        """The probability that each group stays, float64[G]: 0 or 1 once the mask is final."""
        if self.final or self.learner is None:
            return 1 - self._masked().astype(np.float64)
        return self.learner.probabilities()

    @property
    def left(self) -> float:
        """The share of the cost that networks of these probabilities keep."""
        return self.resource.left(self.probabilities)

    def plan(self) -> Bools:
        """The groups that go, bool[G]: the final mask, or what it would be if it were final now."""
        if self.final or self.learner is None:
            return self._masked()
        return self.target.choose(-self.learner.logits())

    def removed(self) -> AbstractContextManager[None]:
        """The model without these groups, for a while: what it then computes is what the compressed one will."""
        return self.gates.removed(self.plan())

    def facts(self) -> dict[str, float | list[float]]:
        """For a training log: the share of the cost that is left, `gates` and `widths` of node groups, the last lesson.

        `gates` are the mean probabilities that units stay, `widths` how many of them the plan keeps.
        """
        family = self.table.node_group
        gates = np.bincount(family, self.probabilities) / np.maximum(np.bincount(family), 1)
        widths = np.bincount(family, ~self.plan())
        lesson = {} if self.lesson is None else {"controller_loss": self.lesson.loss, "penalty": self.lesson.penalty}
        return {"resource": self.left, "gates": gates.tolist(), "widths": widths.tolist(), **lesson}

    # --- training ------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, and a lesson from `lessons_from`, where that is set and it is time to."""
        result = super().step(closure)
        if self.lessons_from is not None and self.learning:
            self.learn(self.lessons_from(self.steps))
        return result

    def learn(self, loss: Loss) -> Lesson | None:
        """Let the controller learn, if it is time to; `loss` is not called otherwise.

        Args:
            loss: Computes the loss, given the module, on examples that the model does not train on: for one,
                `lambda net: cross_entropy(net(x), y)`. The module is in evaluation mode and runs with gates.

        Returns:
            What the controller saw, or None.
        """
        if self.learner is None or not self.learning:
            return None
        late = self.steps - self.lessons.first >= _LAST * (self.lessons.freeze - self.lessons.first)
        self.lesson = self.learner.learn(loss, self.resource, self.p, 0.1 if late else 1.0)
        return self.lesson

    def state_dict(self) -> dict[str, Any]:
        """The state of a torch optimizer, with that of the controller."""
        state = super().state_dict()
        return state if self.learner is None else state | {"controller": self.learner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            PlanError: The state is of another method, controller or set of groups.
        """
        kept = state_dict.get("controller")
        if (kept is None) is not (self.learner is None):
            raise PlanError("this state is of another controller; make the optimizer with the arguments it had")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "controller"})
        if self.learner is not None and kept is not None:
            self.learner.load_state_dict(kept)

    def _prune(self, step: Step) -> None:
        sums = step.sums(d_d=False) if self.settings.projection == "half_space" else None
        x_x = step.norms() if sums is None else sums.x_x
        norm, lr = x_x.sqrt(), max(float(group["lr"]) for group in self.param_groups)
        self._choose_mask(norm)
        chosen, strength = self._progress["chosen"], self._strength()
        pull = torch.where(chosen, strength / norm.clamp_min(GUARD), 0.0)
        if not self.final:  # a group whose unit may come back is halved at most
            step.move(pull=pull.clamp_max(0.5 / max(lr, GUARD)))
            return
        leaves = lr * strength >= norm
        if sums is not None:
            leaves |= sums.x_x - sums.moved - pull * sums.slowed < 0
        resisting = self._zero(chosen & leaves)
        pull = torch.where(resisting, pull, 0.0).clamp_max(1 / max(lr, GUARD))
        step.move(self._scale(resisting, self.schedule.shrink(self.steps)), pull)

    def _choose_mask(self, norm: Tensor) -> None:
        """In the first step of an epoch a sample of the controller, in step `freeze` the final mask."""
        if self.final:
            return
        if self.steps >= self.lessons.freeze:
            gone = norm[:-1].double().cpu().numpy()
            scores = -self.table.comparable(gone, "local") if self.learner is None else -self.learner.logits()
            self._set_mask(self.target.choose(np.where(gone == 0, np.inf, scores)))
            self._progress["final"] = True
        elif self.learner is not None and (self.steps - self.schedule.start) % self.lessons.epoch == 0:
            self._set_mask(self.learner.sample())

    def _set_mask(self, mask: Bools) -> None:
        """The same for all processes of a distributed training."""
        mask = np.append(agreed(mask, self._device), False)
        self._progress["chosen"] = torch.from_numpy(mask).to(self._device)

    def _strength(self) -> Tensor:
        """l_g of the groups of the mask, shape (G + 1,); made once for each mask."""
        chosen = self._progress["chosen"]
        if self._known is None or self._known[0] is not chosen:
            mask, family = self._masked(), self.table.node_group
            share = np.bincount(family, mask)[family] * mask / max(int(mask.sum()), 1)
            made = torch.from_numpy(self.settings.lmbda[self.final] * np.append(share, 0.0))
            self._known = chosen, made.to(self._device, self._layout().rows.exact)
        return self._known[1]

    def _masked(self) -> Bools:
        """The groups of the mask, bool[G]."""
        masked: Bools = self._progress["chosen"][:-1].cpu().numpy()
        return masked
