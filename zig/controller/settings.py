"""What ATO can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from zig.controller.network import BASE, TEMPERATURE, Kind
from zig.controller.resource import Measure
from zig.errors import PlanError
from zig.latency import Latency

Projection = Literal["lasso", "half_space"]

_RATES = {"gru": 1e-3, "logits": 0.1}
_LESSONS = 2000  # so many make a controller


@dataclass(frozen=True)
class Settings:
    """The options of `ATOOptimizer` beyond those of every method; what is missing or None takes the default.

    Attributes:
        keep: The share of everything that is left in the end; or
        p: the share of the prunable part, as ATO's settings have it.
        of: What these are shares of: `macs`, `params` or `latency`.
        latency: For the last, the measured tables: `zig.latency.Latency.measure(oto.partition)`.
        controller: `gru`; or `logits`, free numbers without a network; or `none`: the groups of the least norms in
            their node group go, chosen when pruning starts.
        rank: Of the controller's heads, see `zig.controller.network.Controller`.
        controller_lr: Of AdamW, which trains the controller; 1e-3, and 0.1 for `logits`.
        weight: Of R, the distance from the budget.
        base: b, how much units stay at first.
        temperature: T, how soft gates are.
        every: The controller learns in every so many steps; if not given, in so many that it has some 2,000 lessons,
            but at least in every 20th.
        steps: Length of the whole training. It sets the phases that are not given in the proportions of the paper: the
            controller starts after a tenth, projection after a fifth, and the mask is final after half. It is zero
            after three quarters.
        epoch_steps: A new mask is sampled after so many steps; if not given, a hundredth of pruning.
        start_controller_steps: Steps before the controller learns; half of `start_pruning_steps`.
        freeze_steps: The step in which the mask becomes final; in the middle of pruning, or after half of `steps`.
        lmbda: Strength of the projection before and after that.
        projection: `lasso`; or `half_space`, in which a group also becomes zero when its step leaves the half-space
            {z : <z, x_g> >= 0}.
        seed: Of the controller's weights and noise; all processes of a distributed training need the same.
    """

    keep: float | None = None
    p: float | None = None
    of: Measure = "macs"
    latency: Latency | None = None
    controller: Kind = "gru"
    rank: int | None = None
    controller_lr: float | None = None
    weight: float = 4.0
    base: float = BASE
    temperature: float = TEMPERATURE
    every: int | None = None
    steps: int | None = None
    epoch_steps: int | None = None
    start_controller_steps: int | None = None
    freeze_steps: int | None = None
    lmbda: tuple[float, float] = (10.0, 1000.0)
    projection: Projection = "lasso"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            PlanError: A name is unknown, or a number out of range.
        """
        for name, value, known in (
            ("controller", self.controller, ("gru", "logits", "none")),
            ("projection", self.projection, ("lasso", "half_space")),
            ("measure", self.of, ("macs", "params", "latency")),
        ):
            if value not in known:
                raise PlanError(f"there is no {name} '{value}'; choose one of {', '.join(known)}")
        for name, least in _LEAST.items():
            number = getattr(self, name)
            if number is not None and not number >= least:
                raise PlanError(f"{name} is {number:g}; choose {least:g} or more")

    @property
    def rate(self) -> float:
        """The controller's learning rate."""
        return _RATES.get(self.controller, 0.0) if self.controller_lr is None else self.controller_lr

    def usual(self) -> dict[str, int]:
        """The phases of pruning that follow from `steps`."""
        if self.steps is None:
            return {}
        return {"start_pruning_steps": self.steps // 5, "pruning_steps": 3 * self.steps // 4 - self.steps // 5}


_LEAST = {
    "rank": 0, "controller_lr": 0, "weight": 0, "temperature": 1e-3, "every": 1, "steps": 5, "epoch_steps": 1,
    "start_controller_steps": 0, "freeze_steps": 0,
}  # fmt: skip


class Lessons(NamedTuple):
    """When the controller does something, in steps of the optimizer.

    Attributes:
        first: The first lesson.
        freeze: The mask becomes final.
        every: A lesson in every so many steps.
        epoch: A new mask in every so many steps.
    """

    first: int
    freeze: int
    every: int
    epoch: int

    @classmethod
    def of(cls, settings: Settings, start: int, length: int) -> Lessons:
        """Of settings, for a pruning phase of this start and length."""
        freeze = settings.freeze_steps
        if freeze is None:
            freeze = start + length // 2 if settings.steps is None else min(settings.steps // 2, start + length - 1)
        if settings.controller == "none":
            freeze = start
        first = start // 2 if settings.start_controller_steps is None else settings.start_controller_steps
        every = settings.every or min(20, max(1, (freeze - first) // _LESSONS))
        return cls(first, freeze, every, settings.epoch_steps or max(1, length // 100))

    def check(self, start: int, decay: int) -> None:
        """Refuse a schedule in which the controller has no time, or its mask none to become zero.

        Raises:
            PlanError: It is one.
        """
        if not self.first < self.freeze or not start <= self.freeze <= decay:
            raise PlanError(
                f"start_controller_steps={self.first}, freeze_steps={self.freeze} is no schedule; the controller must "
                f"start before the mask is final, and that be in steps {start} to {decay}, between the start of "
                "pruning and that of the decay"
            )
