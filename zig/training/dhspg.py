"""DHSPG: train and prune at once, as in OTOv2 (Chen et al., "OTOv2: Automatic, Generic, User-Friendly", ICLR 2023).

With x_g the variables of group g, d_g the step direction of the variant (SGD, Adam, AdamW) and a the learning rate:

    step                       what happens
    before start               the variant's plain step
    start                      K = round(target * G) groups are chosen to be penalised; the others stay plain for good
    start to start + pruning   x_g <- x_g - a d_g - a l_g x_g / ||x_g||, and x_g <- 0 if that leaves the half-space
                               {z : <z, x_g> >= epsilon ||x_g||^2}; a zero group stays zero
      its last `decay_steps`   what is still penalised also shrinks by (D - k - 1) / (D - k) in step k of D
    from then on               exactly K groups are zero and stay so; the others train plainly

The groups to penalise have the highest score 1/2 n(cos(x_g, d_g)) + 1/2 n(1 / (||x_g|| / |g|)): going to zero goes
downhill, and little is there. l_g is `lmbda`, except where the gradient would grow the group, <x_g, d_g> < 0: there it
lies in (l_min, l_max), in which the step shrinks the group and still descends:

    l_min = -<x_g, d_g> / ||x_g||        l_max = -||d_g||^2 ||x_g|| / <x_g, d_g>
    l_g   = clip(lmbda_amplify * l_min, lmbda, hat_lmbda_coeff * lmbda), or (l_min + l_max) / 2 if that is >= l_max

The paper's method alone stops anywhere short of its target; the linear decay (from HESSO, arXiv 2409.09085) is what
makes the target exact. Differences from the authors' code: the set to penalise is K groups, not K + 5 %; a projection
decides about all parts of a group together, with the learning rate of each part's parameter group; and n standardises
within each node group. Their n divides by the norm over all groups (`scope="global"`), so that wide layers score
highest and lose all channels but one: on scikit-learn's digits at 70 % sparsity, that cost a small residual network up
to 30 points of accuracy, the other less than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from zig.errors import PlanError, UsageError
from zig.training.groups import GroupTable, RowVector, Sums, check_target, choose, total

Variant = Literal["sgd", "adam", "adamw"]

_PROGRESS = "groups"  # the key of `Optimizer.state` under which the state of the groups lies
_CACHE = 2**20  # bytes of parameters that, with gradients and moments, a processor's second cache holds
_GUARD = 1e-8  # keeps a division by a norm finite
_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.1, "weight_decay": 0.0, "lmbda": 1e-3, "lmbda_amplify": 2.0, "hat_lmbda_coeff": 10.0},
    "adam": {"lr": 1e-3, "weight_decay": 0.0, "lmbda": 1e-2, "lmbda_amplify": 20.0, "hat_lmbda_coeff": 1e3},
    "adamw": {"lr": 1e-3, "weight_decay": 1e-2, "lmbda": 1e-2, "lmbda_amplify": 20.0, "hat_lmbda_coeff": 1e3},
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """When what happens, in optimizer steps.

    Attributes:
        start: The step (from 0) in which the groups are chosen and penalised for the first time.
        steps: Length of the pruning phase; the target is reached by its last step.
        warm_up: Steps of the phase with l_g = lmbda and without projection.
        decay: Last steps of the phase, in which what is left is led to zero.
    """

    start: int
    steps: int
    warm_up: int
    decay: int

    def __post_init__(self) -> None:
        """Refuse a phase that can't reach its target.

        Raises:
            PlanError: A number of steps is out of range.
        """
        if self.start < 0 or self.steps < 1 or self.warm_up < 0 or not 1 <= self.decay <= self.steps:
            raise PlanError(
                f"start_pruning_steps={self.start}, pruning_steps={self.steps}, warm_up_steps={self.warm_up}, "
                f"decay_steps={self.decay} is no schedule; pruning needs a step or more, and 1 <= decay_steps <= "
                "pruning_steps"
            )

    @property
    def end(self) -> int:
        """The first step after pruning."""
        return self.start + self.steps

    def shrink(self, step: int) -> float:
        """The factor by which groups that are still penalised shrink: 1 before the decay, then to 0 at its end."""
        left = self.end - step
        return (left - 1) / left if left <= self.decay else 1.0


class Part(NamedTuple):
    """Parameters of one parameter group that are updated together; all have a gradient."""

    group: dict[str, Any]
    params: list[Tensor]
    rows: list[tuple[int, int]]  # position in `params` and entry of the table, for each entry about them
    free: list[int]  # positions of those that the table doesn't name
    single: list[int]  # positions of those with exactly one entry
    entry: list[int]  # these entries


class Odd(NamedTuple):
    """A parameter of the table that has several entries, or no gradient."""

    parameter: Tensor
    group: dict[str, Any]
    entries: list[int]


class Layout(NamedTuple):
    """Who is updated with whom; it holds as long as the same parameters have a gradient.

    Rows of a kind move at the same rate: they belong to one parameter group, and have a gradient or have none.
    """

    graded: list[bool]  # whether each parameter has a gradient
    parts: list[Part]
    odd: list[Odd]
    kinds: list[tuple[int, bool]]  # parameter group, and whether there is a gradient
    flat: Tensor  # group * kinds + kind of each row


@dataclass(frozen=True, slots=True)
class Penalty:
    """The numbers of the penalty and of the half-space; see the top of this file."""

    lmbda: float
    lmbda_amplify: float
    hat_lmbda_coeff: float
    epsilon: float


class DHSPG(Optimizer):
    """Dual half-space projected gradient, with exactly the requested group sparsity.

    Everything that works with a torch optimizer works: schedulers, parameter groups with their own `lr`, `momentum`,
    `betas`, `eps` and `weight_decay`, clipping, `torch.amp`, parameters without gradient. All state is in
    `state_dict()`; training goes on bit for bit in an optimizer made with the same arguments.
    """

    def __init__(  # noqa: PLR0913 - the knobs of the paper and of the three variants
        self,
        params: Iterable[Any],
        groups: GroupTable,
        *,
        variant: Variant = "sgd",
        lr: float | None = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | None = None,
        target_group_sparsity: float = 0.5,
        start_pruning_steps: int = 50,
        pruning_steps: int = 150,
        decay_steps: int | None = None,
        warm_up_steps: int = 0,
        lmbda: float | None = None,
        lmbda_amplify: float | None = None,
        hat_lmbda_coeff: float | None = None,
        epsilon: float = 0.0,
        group_divisible: int = 1,
        scope: Literal["local", "global"] = "local",
    ):
        """Make the optimizer; what is None takes the default of the variant in OTOv2.

        Args:
            params: Parameters or parameter groups, as for any torch optimizer.
            groups: The groups of the model. One with a row in a parameter that is not optimized here is never pruned.
            variant: `sgd`, `adam` or `adamw`.
            lr: Learning rate: 0.1 for sgd, else 1e-3.
            momentum: Of sgd.
            nesterov: Of sgd.
            betas: Of adam and adamw.
            eps: Of adam and adamw.
            weight_decay: Coupled for sgd and adam, decoupled for adamw; 0, 0 and 1e-2.
            target_group_sparsity: The share of all groups that is zero from step start + pruning on.
            start_pruning_steps: Plain steps before pruning starts. In a long training, some epochs.
            pruning_steps: Steps from there until the target is reached. In a long training, a third of it, say.
            decay_steps: The last steps of these, in which penalised groups are led to zero; half of them.
            warm_up_steps: The first steps of these, with a constant penalty and no projection.
            lmbda: Weight of the penalty: 1e-3 for sgd, else 1e-2.
            lmbda_amplify: How far above l_min: 2 for sgd, else 20.
            hat_lmbda_coeff: How far above lmbda at most: 10 for sgd, else 1000.
            epsilon: Of the half-space, in [0, 1); the larger, the sooner groups are projected.
            group_divisible: Leave each node group whole or with a multiple of this many groups; the target is then
                met as nearly as whole multiples can.
            scope: Whether the score of a group is relative to its node group (`local`) or to all groups (`global`).

        Raises:
            PlanError: The target can't be reached, or the schedule is none.
        """
        if variant not in _DEFAULTS:
            raise PlanError(f"there is no variant '{variant}' of DHSPG; choose sgd, adam or adamw")
        if scope not in ("local", "global"):
            raise PlanError(f"there is no scope '{scope}'; choose local or global")
        usual = _DEFAULTS[variant]
        defaults = {
            "lr": usual["lr"] if lr is None else lr,
            "weight_decay": usual["weight_decay"] if weight_decay is None else weight_decay,
            **({"momentum": momentum, "nesterov": nesterov} if variant == "sgd" else {"betas": betas, "eps": eps}),
        }
        super().__init__(params, defaults)
        self.variant: Variant = variant
        self.penalty = Penalty(
            usual["lmbda"] if lmbda is None else lmbda,
            usual["lmbda_amplify"] if lmbda_amplify is None else lmbda_amplify,
            usual["hat_lmbda_coeff"] if hat_lmbda_coeff is None else hat_lmbda_coeff,
            epsilon,
        )
        decay = max(1, pruning_steps // 2) if decay_steps is None else decay_steps
        self.schedule = Schedule(start_pruning_steps, pruning_steps, warm_up_steps, decay)
        self.table = self._optimized(groups)
        self.group_divisible, self.scope = group_divisible, scope
        self.target_groups = check_target(self.table, target_group_sparsity, group_divisible)
        device = next((p.device for g in self.param_groups for p in g["params"]), torch.device("cpu"))
        self._layout_now: Layout | None = None
        self._rates_now: tuple[tuple[list[float], list[float]], Tensor] | None = None
        self._held: list[Tensor] | None = None
        self._rows = RowVector(self.table, device)
        nothing = torch.zeros(len(self.table) + 1, dtype=torch.bool, device=device)
        self.state[_PROGRESS] = {"step": 0, "penalised": nothing, "zero": nothing}  # type: ignore[index]

    # --- what a user may ask -------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return int(self._progress["step"])

    @property
    def finished(self) -> bool:
        """Whether pruning is over, so that exactly the target is zero."""
        return self.steps >= self.schedule.end

    @property
    def zero_groups(self) -> int:
        """The number of groups that are zero and held there."""
        return int(self._progress["zero"].sum())

    @property
    def group_sparsity(self) -> float:
        """The share of all groups that is zero and held there."""
        return self.zero_groups / max(len(self.table), 1)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize more parameters; they belong to no group of the table."""
        super().add_param_group(param_group)
        self._layout_now = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            PlanError: The state is of another set of groups.
        """
        saved = state_dict["state"].get(_PROGRESS)
        if saved is None or len(saved["zero"]) != len(self.table) + 1:
            raise PlanError(f"this state is not of a DHSPG over {len(self.table)} groups; load the one that was saved")
        super().load_state_dict(state_dict)
        self._held = self._layout_now = None
        device = self._rows.device
        self.state[_PROGRESS] = {  # type: ignore[index]
            "step": saved["step"], "penalised": saved["penalised"].to(device), "zero": saved["zero"].to(device)
        }  # fmt: skip

    # --- the step ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` evaluates the model again and returns the loss, as for any torch optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        layout = self._layout()
        if self.table.rows and self.schedule.start <= self.steps < self.schedule.end:
            self._pruning_step(layout)
        else:
            for part in layout.parts:
                self._plain(part.group, part.params, self._directions(part))
                self._hold(part)
        self._progress["step"] += 1
        return loss

    def _pruning_step(self, layout: Layout) -> None:
        """Reduce all rows to numbers by group, decide there, then update all rows."""
        rows = self._rows
        by_entry: list[Tensor | None] = [None] * len(rows.entries)
        sums: list[Sums | None] = [None] * len(rows.entries)
        directions = []
        for part in layout.parts:
            directions.append(self._directions(part))
            for position, i in part.rows:
                by_entry[i] = directions[-1][position]
                if i >= rows.vectors:  # now, while it is in the processor's cache
                    sums[i] = rows.reduce(i, by_entry[i])
        joined = rows.join([s or rows.reduce(i, None) for i, s in enumerate(sums) if i >= rows.vectors], by_entry)
        shape = (rows.count + 1, len(layout.kinds))
        groups = Sums(*(total(each, layout.flat, shape[0] * shape[1]).view(shape) for each in joined))
        if self.steps == self.schedule.start:
            self._progress["penalised"] = self._choose(groups)
        rates = self._rates(layout)
        scale, shrink = self._decide(groups, rates)
        stay = scale.unsqueeze(1) * (1 - rates[0] * (shrink.unsqueeze(1) + rates[1]))
        self._update(layout, directions, scale[rows.group], stay.view(-1)[layout.flat])
        if layout.odd:
            self._update_odd(layout.odd, by_entry, scale[rows.group], shrink[rows.group])

    def _choose(self, groups: Sums) -> Tensor:
        """The groups to penalise, by the score at the top of this file; groups that are zero already come first."""
        x_x, x_d, d_d = (each.sum(1)[:-1].double().cpu().numpy() for each in groups)
        size, norm = self._rows.sizes[:-1].cpu().numpy(), np.sqrt(x_x)
        downhill = x_d / np.maximum(norm * np.sqrt(d_d), _GUARD)
        small = 1 / (norm / np.maximum(size, 1) + 1e-6)
        score = (self._comparable(downhill) + self._comparable(small)) / 2
        score[norm == 0] = np.inf
        chosen = choose(score, self.table, self.target_groups, self.group_divisible)
        return torch.from_numpy(np.append(chosen, False)).to(self._rows.device)

    def _comparable(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values standardised within each node group, or divided by the norm of all that are prunable."""
        if self.scope == "global":
            return values / max(float(np.linalg.norm(values[self.table.prunable])), _GUARD)
        _, kind, count = np.unique(self.table.node_group, return_inverse=True, return_counts=True)
        centred = values - (np.bincount(kind, values) / count)[kind]
        spread = np.sqrt(np.bincount(kind, centred**2) / count)[kind]
        standardised: NDArray[np.float64] = centred / np.maximum(spread, _GUARD * np.abs(values).max(initial=1.0))
        return standardised

    def _decide(self, groups: Sums, rates: Tensor) -> tuple[Tensor, Tensor]:
        """What each group's rows are multiplied by, and l_g / ||x_g||, both of shape (G + 1,).

        The projection needs no trial step: with x^ = x - a d - a l x / ||x||, <x^, x> follows from the sums.
        """
        progress, step = self._progress, self.steps
        lr, decay = rates
        plain = (lr * (groups.x_d + decay * groups.x_x)).sum(1)  # <x, x - plain step>
        slowed = (lr * groups.x_x).sum(1)
        x_x, x_d, d_d = (each.sum(1) for each in groups)
        norm = x_x.sqrt()
        zero = progress["zero"] | (progress["penalised"] & (x_x == 0))
        active = progress["penalised"] & ~zero
        warming = step < self.schedule.start + self.schedule.warm_up
        shrink = (self.penalty.lmbda if warming else self._lambda(norm, x_d, d_d)) / norm.clamp_min(_GUARD)
        if not warming:
            zero = zero | (active & (x_x - plain - shrink * slowed < self.penalty.epsilon * x_x))
        if step == self.schedule.end - 1:
            zero = progress["penalised"]
        progress["zero"], active = zero, active & ~zero
        scale = torch.ones_like(norm).masked_fill_(active, self.schedule.shrink(step)).masked_fill_(zero, 0.0)
        return scale, torch.where(active, shrink, 0.0)

    def _lambda(self, norm: Tensor, x_d: Tensor, d_d: Tensor) -> Tensor:
        """l_g, shape (G + 1,)."""
        penalty = self.penalty
        least, most = -x_d / norm.clamp_min(_GUARD), -d_d * norm / x_d
        raised = (penalty.lmbda_amplify * least).clamp(penalty.lmbda, penalty.lmbda * penalty.hat_lmbda_coeff)
        between = torch.where(raised >= most, (least + most) / 2, raised)
        return torch.where(x_d < 0, between, penalty.lmbda)

    def _update(self, layout: Layout, directions: list[list[Tensor]], scale: Tensor, stay: Tensor) -> None:
        """By rows, x <- stay x - scale a d, the step of the table above; a plain step for parameters outside it."""
        scales, stays = self._rows.spread(scale), self._rows.spread(stay)
        for part, moves in zip(layout.parts, directions, strict=True):
            if part.free:
                self._plain(part.group, [part.params[i] for i in part.free], [moves[i] for i in part.free])
            if part.single:
                params, single = [part.params[i] for i in part.single], [moves[i] for i in part.single]
                torch._foreach_mul_(params, [stays[i] for i in part.entry])
                by = -float(part.group["lr"])
                torch._foreach_addcmul_(params, single, [scales[i] for i in part.entry], value=by)

    def _update_odd(self, odd: list[Odd], by_entry: list[Tensor | None], scale: Tensor, shrink: Tensor) -> None:
        """The same where scales multiply, and penalties add, over the entries of a parameter."""
        scales, shrinks = self._rows.spread(scale), self._rows.spread(shrink)
        for parameter, group, entries in odd:
            direction, lr = by_entry[entries[0]], float(group["lr"])
            decay = 0.0 if direction is None else self._decoupled_decay(group)
            factor = reduce(torch.mul, [scales[i] for i in entries])
            parameter.mul_(factor * (1 - lr * (decay + reduce(torch.add, [shrinks[i] for i in entries]))))
            if direction is not None:
                parameter.addcmul_(direction, factor, value=-lr)

    def _hold(self, part: Part) -> None:
        """Keep the zero groups at zero once pruning is over."""
        if not self.finished:
            return
        if self._held is None:
            self._held = self._rows.spread((~self._progress["zero"])[self._rows.group].to(self._rows.exact))
        for position, i in part.rows:
            part.params[position].mul_(self._held[i])

    # --- the variants --------------------------------------------------------------------------------------------

    def _plain(self, group: dict[str, Any], params: list[Tensor], directions: list[Tensor]) -> None:
        """Subtract a d, after decoupled weight decay."""
        lr, decay = float(group["lr"]), self._decoupled_decay(group)
        if decay:
            torch._foreach_mul_(params, 1 - lr * decay)
        torch._foreach_add_(params, directions, alpha=-lr)

    def _directions(self, part: Part) -> list[Tensor]:
        """The direction d of each parameter, after the moments have taken in its gradient."""
        gradients = [p.grad for p in part.params if p.grad is not None]
        if any(gradient.is_sparse for gradient in gradients):
            raise UsageError("DHSPG can't use sparse gradients; make the embedding with sparse=False")
        coupled = 0.0 if self.variant == "adamw" else part.group["weight_decay"]
        if coupled:
            gradients = list(torch._foreach_add(gradients, part.params, alpha=coupled))
        return self._sgd(part, gradients) if self.variant == "sgd" else self._adam(part, gradients)

    def _sgd(self, part: Part, gradients: list[Tensor]) -> list[Tensor]:
        momentum = part.group["momentum"]
        if not momentum:
            return gradients
        buffers = self._moments(part, "momentum_buffer")
        if len(buffers) == 1:  # one pass over memory instead of two
            torch.add(gradients[0], buffers[0], alpha=momentum, out=buffers[0])
        else:
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum)) if part.group["nesterov"] else buffers

    def _adam(self, part: Part, gradients: list[Tensor]) -> list[Tensor]:
        (beta1, beta2), eps = part.group["betas"], part.group["eps"]
        first, second = self._moments(part, "exp_avg"), self._moments(part, "exp_avg_sq")
        for parameter in part.params:
            self.state[parameter]["step"] = self.state[parameter].get("step", 0) + 1
        steps = [self.state[parameter]["step"] for parameter in part.params]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        below = torch._foreach_sqrt(second)
        torch._foreach_div_(below, [math.sqrt(1 - beta2**step) for step in steps])
        torch._foreach_add_(below, eps)
        directions = torch._foreach_div(first, below)
        torch._foreach_div_(directions, [1 - beta1**step for step in steps])
        return list(directions)

    def _moments(self, part: Part, name: str) -> list[Tensor]:
        """A buffer of each parameter's state, zero at first."""
        for parameter in part.params:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in part.params]

    # --- small parts ---------------------------------------------------------------------------------------------

    @property
    def _progress(self) -> dict[str, Any]:
        """Step number, groups that are penalised, groups that are zero (both bool[G + 1], never changed in place)."""
        progress: dict[str, Any] = self.state[_PROGRESS]  # type: ignore[index]
        return progress

    def _decoupled_decay(self, group: dict[str, Any]) -> float:
        return float(group["weight_decay"]) if self.variant == "adamw" else 0.0

    def _optimized(self, groups: GroupTable) -> GroupTable:
        """The table without parameters that are not optimized here; their groups can't be pruned."""
        here = {p for group in self.param_groups for p in group["params"]}
        prunable = groups.prunable.copy()
        for row in groups.rows:
            if row.parameter not in here:
                prunable[row.groups[row.groups >= 0]] = False
        return GroupTable([row for row in groups.rows if row.parameter in here], groups.node_group, prunable)

    def _layout(self) -> Layout:
        """The layout for the parameters that have a gradient now."""
        every = [p for group in self.param_groups for p in group["params"]]
        graded = [p.grad is not None for p in every]
        if self._layout_now is None or graded != self._layout_now.graded:
            entries: dict[Tensor, list[int]] = {}
            for i, row in enumerate(self._rows.entries):
                entries.setdefault(row.parameter, []).append(i)
            parts = [_part(group, params, entries) for group in self.param_groups for params in _portions(group)]
            owner = {p: i for i, group in enumerate(self.param_groups) for p in group["params"]}
            odd = [
                Odd(p, self.param_groups[owner[p]], found)
                for p, found in entries.items()
                if p.grad is None or len(found) > 1
            ]
            of_entry = [(owner[row.parameter], row.parameter.grad is not None) for row in self._rows.entries]
            kinds = list(dict.fromkeys(of_entry))
            kind = torch.tensor([kinds.index(k) for k in of_entry], dtype=torch.int64, device=self._rows.device)
            index = self._rows.group * len(kinds) + kind[self._rows.entry]
            self._layout_now = Layout(graded, parts, odd, kinds, index)
        return self._layout_now

    def _rates(self, layout: Layout) -> Tensor:
        """Learning rate and decoupled weight decay of each kind of rows, shape (2, kinds); sent anew if they change."""
        groups = [self.param_groups[i] for i, _ in layout.kinds]
        lr = [float(group["lr"]) for group in groups]
        decay = [self._decoupled_decay(g) if moves else 0.0 for g, (_, moves) in zip(groups, layout.kinds, strict=True)]
        if self._rates_now is None or self._rates_now[0] != (lr, decay):
            self._rates_now = (lr, decay), torch.tensor([lr, decay], dtype=self._rows.exact, device=self._rows.device)
        return self._rates_now[1]


def _portions(group: dict[str, Any]) -> Iterator[list[Tensor]]:
    """Parameters that have a gradient: as many at a time as a CPU's cache holds; elsewhere all."""
    portion: list[Tensor] = []
    size = 0
    for parameter in group["params"]:
        if parameter.grad is not None:
            size += parameter.nbytes
            if portion and size > _CACHE and parameter.device.type == "cpu":
                yield portion
                portion, size = [], parameter.nbytes
            portion.append(parameter)
    if portion:
        yield portion


def _part(group: dict[str, Any], params: list[Tensor], entries: dict[Tensor, list[int]]) -> Part:
    rows = [(position, i) for position, p in enumerate(params) for i in entries.get(p, ())]
    free = [position for position, p in enumerate(params) if p not in entries]
    single = [position for position, p in enumerate(params) if len(entries.get(p, ())) == 1]
    return Part(group, params, rows, free, single, [entries[params[position]][0] for position in single])
