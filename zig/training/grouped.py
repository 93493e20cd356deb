"""What HSPG, DHSPG and HESSO share: a torch optimizer whose steps may look at groups of rows, and move them.

With x_g the variables of group g, d_g the direction of the base (SGD, Adam, AdamW), a its learning rate and w its
decoupled weight decay, every step of every method has the form

    x_g <- scale_g (x_g - a d_g - a (w + pull_g) x_g)

A method only says what scale and pull are, from the sums <x_g, x_g>, <x_g, d_g> and <d_g, d_g>; `zig.training.step`
does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Unpack

from zig.errors import PlanError
from zig.training.bases import Base, Variant, base
from zig.training.finite import Watch
from zig.training.groups import GroupTable, refuse_sharded
from zig.training.length import phases
from zig.training.step import Layout, Step
from zig.training.target import Measure, Target

_PROGRESS = "groups"  # the key of `Optimizer.state` under which the state of the groups lies


class Options(TypedDict, total=False):
    """What every method can be told; what is missing or None takes the default.

    Attributes:
        variant: `sgd` (default), `adam` or `adamw`.
        lr: Learning rate: 0.1 for sgd, else 1e-3.
        weight_decay: Coupled for sgd and adam (0), decoupled for adamw (1e-2).
        momentum: Of sgd; 0.
        nesterov: Of sgd; False.
        betas: Of adam and adamw; (0.9, 0.999).
        eps: Of adam and adamw; 1e-8.
        target_group_sparsity: The share of all groups that is zero in the end; 0.5, unless another target is given.
        target_macs: The share of the multiply-accumulates that is left in the end.
        target_params: The share of the parameters that is left in the end.
        round_to: Leave each node group whole, or with a width that is a multiple of this; 1. The target is then met as
            nearly as whole multiples can.
        steps: Optimizer steps of the whole training, from which the next two follow.
        epochs: In its place, with `batches`.
        batches: Steps of an epoch, as `len(loader)`.
        start_pruning_steps: Steps before pruning starts; a quarter of all.
        pruning_steps: Steps from there until the target is reached; half of all, which leaves a quarter for recovery.
        decay_steps: The last steps of these, in which what must still go is led to zero linearly; half of them.
    """

    variant: Variant
    lr: float | None
    weight_decay: float | None
    momentum: float
    nesterov: bool
    betas: tuple[float, float]
    eps: float
    target_group_sparsity: float | None
    target_macs: float | None
    target_params: float | None
    round_to: int
    steps: int | None
    epochs: int | None
    batches: int | None
    start_pruning_steps: int | None
    pruning_steps: int | None
    decay_steps: int | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When what happens, in optimizer steps.

    Attributes:
        start: The step (from 0) in which pruning starts.
        steps: Length of the pruning phase; the target is reached by its last step.
        decay: Last steps of the phase, in which what is left is led to zero.
    """

    start: int
    steps: int
    decay: int

    def __post_init__(self) -> None:
        """Refuse a phase that can't reach its target.

        Raises:
            PlanError: A number of steps is out of range.
        """
        if self.start < 0 or self.steps < 1 or not 1 <= self.decay <= self.steps:
            raise PlanError(
                f"start_pruning_steps={self.start}, pruning_steps={self.steps}, decay_steps={self.decay} is no "
                "schedule; pruning needs a step or more, and 1 <= decay_steps <= pruning_steps"
            )

    @property
    def end(self) -> int:
        """The first step after pruning."""
        return self.start + self.steps

    def shrink(self, step: int) -> float:
        """The factor by which groups that must go shrink: 1 before the decay, then to 0 at its end."""
        left = self.end - step
        return (left - 1) / left if left <= self.decay else 1.0


class GroupOptimizer(Optimizer):
    """Base of the methods. A method overrides `_prune`, and `_train` where it has a phase before pruning.

    Everything that works with a torch optimizer works: schedulers, parameter groups with their own options, clipping,
    `torch.amp`, parameters without gradient. All state is in `state_dict()`; training goes on bit for bit in an
    optimizer made with the same arguments.

    Attributes:
        exact: Whether all groups that are to go are zero when pruning is over.
    """

    exact = True

    def __init__(self, params: Iterable[Any], groups: GroupTable, **options: Unpack[Options]):
        """Make the optimizer.

        Args:
            params: Parameters or parameter groups, as for any torch optimizer.
            groups: The groups of the model. One with a row in a parameter that is not optimized here is never pruned.
            **options: See `Options`.

        Raises:
            PlanError: The target can't be reached, or the schedule is none.
            UsageError: The parameters are sharded, or it is not known how long the training is.
        """
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        self.variant: Variant = given.pop("variant", "sgd")
        self.base: Base = base(self.variant)
        super().__init__(params, {name: given.pop(name, usual) for name, usual in self.base.defaults.items()})
        refuse_sharded(p for group in self.param_groups for p in group["params"])
        self.table = groups.only({p for group in self.param_groups for p in group["params"]})
        self.target = _target(self.table, given)
        start, steps = phases(given, type(self).__name__)
        self.schedule = Schedule(start, steps, given.pop("decay_steps", max(1, steps // 2)))
        if given:
            raise PlanError(f"{type(self).__name__} with {self.variant} has no option {', '.join(map(repr, given))}")
        self._device = next((p.device for g in self.param_groups for p in g["params"]), torch.device("cpu"))
        self._layout_now: Layout | None = None
        self._kept_now: Tensor | None = None
        self._watch_now: Watch | None = None
        nothing = torch.zeros(len(self.table) + 1, dtype=torch.bool, device=self._device)
        self.state[_PROGRESS] = {"step": 0, "chosen": nothing, "zero": nothing}  # type: ignore[index]

    # --- what a user may ask -------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return int(self._progress["step"])

    @property
    def finished(self) -> bool:
        """Whether pruning is over, so that the target is reached."""
        return self.steps >= self.schedule.end

    @property
    def zero_groups(self) -> int:
        """The number of groups that are zero and held there."""
        return int(self._progress["zero"].sum())

    @property
    def group_sparsity(self) -> float:
        """The share of all groups that is zero and held there."""
        return self.zero_groups / max(len(self.table), 1)

    @property
    def node_group_sparsity(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The share of the groups of each node group that is zero and held there, float64[node groups]."""
        zero = self._progress["zero"].cpu().numpy()[: len(self.table)]
        family = self.table.node_group
        return np.bincount(family, weights=zero) / np.maximum(np.bincount(family), 1)

    def facts(self) -> dict[str, float | list[float]]:
        """What else a training log tells of this method: numbers, or lists of one for each node group."""
        return {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize more parameters; they belong to no group of the table."""
        super().add_param_group(param_group)
        self._layout_now = self._watch_now = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            PlanError: The state is of another method or set of groups.
        """
        name, saved = type(self).__name__, state_dict["state"].get(_PROGRESS)
        if saved is None or saved.keys() != self._progress.keys() or len(saved["zero"]) != len(self.table) + 1:
            raise PlanError(f"this state is not of {name} over {len(self.table)} groups; load the one that was saved")
        super().load_state_dict(state_dict)
        self._layout_now = self._kept_now = None
        self.state[_PROGRESS] = {  # type: ignore[index]
            key: value.to(self._device) if isinstance(value, Tensor) else value for key, value in saved.items()
        }

    # --- the step ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` evaluates the model again and returns the loss, as for any torch optimizer.

        Raises:
            RunError: The loss or a parameter is not finite; see `zig.training.finite` for how often that is looked at.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self._watch().check_loss(loss, self.steps)
        step = Step(self.base, self.state, self._layout())
        if self.steps < self.schedule.start or not self.table.rows:
            self._train(step)
        elif self.finished:
            step.move(self._kept())
        else:
            self._prune(step)
        if self._watch().is_due(self.steps) or self.steps in (self.schedule.start, self.schedule.end - 1):
            self._watch().check(self.steps)
        self._progress["step"] += 1
        return loss

    def _train(self, step: Step) -> None:
        """Move before pruning starts: plainly."""
        step.move()

    def _prune(self, step: Step) -> None:
        """Move while pruning: choose groups, decide which become zero now, and `step.move(scale, pull)`."""
        raise NotImplementedError

    # --- for the methods -----------------------------------------------------------------------------------------

    @property
    def _progress(self) -> dict[str, Any]:
        """Step number, groups that are to go and groups that are zero (bool[G + 1]); never changed in place."""
        progress: dict[str, Any] = self.state[_PROGRESS]  # type: ignore[index]
        return progress

    def _choose(self, redundance: Any, part: float = 1.0) -> None:
        """Add to the groups that are to go those of highest redundance, float64[G], up to a part of the target."""
        gone = self._progress["chosen"][:-1].cpu().numpy()
        chosen = self.target.choose(np.where(gone, np.inf, redundance), part) | gone
        self._progress["chosen"] = torch.nn.functional.pad(torch.from_numpy(chosen), (0, 1)).to(self._device)

    def sizes(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The number of elements in each group, shape (G,)."""
        sizes: np.ndarray[Any, np.dtype[np.float64]] = self._layout().rows.sizes()[:-1].double().cpu().numpy()
        return sizes

    def _zero(self, found: Tensor) -> Tensor:
        """Note groups that become zero in this step (in the last, all that are to go); returns those that resist."""
        progress, last = self._progress, self.steps == self.schedule.end - 1
        progress["zero"] = progress["chosen"] if last and self.exact else progress["zero"] | found
        resisting: Tensor = progress["chosen"] & ~progress["zero"]
        return resisting

    def _scale(self, shrinking: Tensor, factor: float) -> Tensor:
        """0 for zero groups, `factor` for those that shrink, 1 for all others."""
        scale = torch.ones(len(self.table) + 1, device=self._device, dtype=self._layout().rows.exact)
        return scale.masked_fill_(shrinking, factor).masked_fill_(self._progress["zero"], 0.0)

    def _kept(self) -> Tensor:
        """The scale that holds zero groups at zero."""
        if self._kept_now is None:
            self._kept_now = self._scale(self._progress["zero"], 0.0)
        return self._kept_now

    def _watch(self) -> Watch:
        if self._watch_now is None:
            self._watch_now = Watch((p for group in self.param_groups for p in group["params"]), self.table.names)
        return self._watch_now

    def _layout(self) -> Layout:
        graded = [p.grad is not None for group in self.param_groups for p in group["params"]]
        if self._layout_now is None or self._layout_now.graded != graded:
            self._layout_now = Layout(self.param_groups, self.table, graded, self._device)
        return self._layout_now


_TARGETS: tuple[tuple[Measure, str, bool], ...] = (  # the share that goes, or the one that is left
    ("groups", "target_group_sparsity", False),
    ("macs", "target_macs", True),
    ("params", "target_params", True),
)


def _target(table: GroupTable, given: dict[str, Any]) -> Target:
    """The one target that is given, or half of the groups."""
    shares: dict[Measure, float] = {}
    for of, name, left in _TARGETS:
        value = given.pop(name, None)
        if value is not None and not (0 < value <= 1 if left else 0 <= value < 1):
            raise PlanError(f"{name} is {value}; choose a share in {'(0, 1]' if left else '[0, 1)'}")
        if value is not None:
            shares[of] = 1 - value if left else value
    if len(shares) > 1:
        raise PlanError("choose one of target_group_sparsity, target_macs and target_params")
    of, share = next(iter(shares.items()), ("groups", 0.5))
    return Target(table, share, of, given.pop("round_to", 1))
