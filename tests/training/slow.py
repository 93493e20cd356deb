"""The methods written down plainly: float64, one group at a time, each a list of (parameter, axis, index)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zig.training.groups import GroupTable


class Slow:
    """The base's step, and what all methods need; a method is a function of what to do in step t."""

    def __init__(self, table: GroupTable, options: list[dict[str, Any]], variant: str, **knobs: Any):
        self.variant, self.table, self.t = variant, table, 0
        self.options = {p: group for group in options for p in group["params"]}
        self.knobs = {"start_pruning_steps": 50, "pruning_steps": 150, "scope": "local", **knobs}
        self.start = self.knobs["start_pruning_steps"]
        self.end = self.start + self.knobs["pruning_steps"]
        self.slices: list[list[tuple[Tensor, int, int]]] = [[] for _ in range(len(table))]
        for parameter, axis, groups in table.rows:
            for i, g in enumerate(groups):
                if g >= 0:
                    self.slices[g].append((parameter, axis, i))
        self.goal = round(self.knobs.get("target_group_sparsity", 0.5) * len(table))
        self.chosen: set[int] = set()
        self.zero: set[int] = set()
        self.moments: dict[Tensor, dict[str, Any]] = {}

    def gradient(self, p: Tensor) -> Tensor:
        return p.grad.clone()

    def direction(self, p: Tensor) -> Tensor:
        option, gradient = self.options[p], self.gradient(p)
        state = self.moments.setdefault(p, {"step": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)})
        if self.variant != "adamw":
            gradient = gradient + option["weight_decay"] * p
        if self.variant == "sgd":
            state["m"] = option["momentum"] * state["m"] + gradient
            return gradient + option["momentum"] * state["m"] if option["nesterov"] else state["m"]
        state["step"] += 1
        b1, b2 = option["betas"]
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["v"] = b2 * state["v"] + (1 - b2) * gradient**2
        m, v = state["m"] / (1 - b1 ** state["step"]), state["v"] / (1 - b2 ** state["step"])
        return m / (v.sqrt() + option["eps"])

    def gather(self, g: int, source: dict[Tensor, Tensor] | None = None) -> Tensor:
        return torch.cat([(source[p] if source else p).select(axis, i).reshape(-1) for p, axis, i in self.slices[g]])

    def put(self, g: int, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        for p, axis, i in self.slices[g]:
            p.select(axis, i).copy_(change(p, p.select(axis, i)))

    def set_zero(self, g: int) -> None:
        self.zero.add(g)
        self.put(g, lambda p, row: torch.zeros_like(row))

    @torch.no_grad()
    def step(self) -> None:
        self.x = {p: p.detach().clone() for p in self.options}
        self.d = {p: self.direction(p) for p in self.options}
        decay = {p: o["weight_decay"] if self.variant == "adamw" else 0.0 for p, o in self.options.items()}
        for p, o in self.options.items():
            p.copy_(self.x[p] - o["lr"] * (self.d[p] + decay[p] * self.x[p]))
        self.plain = {p: p.detach().clone() for p in self.options}
        self.method()
        self.t += 1

    def method(self) -> None:
        raise NotImplementedError

    def shrink(self) -> float:
        left = self.end - self.t
        return (left - 1) / left if 0 < left <= self.knobs["decay_steps"] else 1.0

    def choose(self, redundance: Tensor, goal: int) -> None:
        """Add the most redundant groups until there are `goal`; one of each node group stays."""
        left = {n: int((self.table.node_group == n).sum()) for n in self.table.node_group.tolist()}
        for g in self.chosen:
            left[self.table.node_group[g]] -= 1
        for g in redundance.argsort(descending=True, stable=True).tolist():
            node = self.table.node_group[g]
            if len(self.chosen) < goal and left[node] > 1 and g not in self.chosen and self.table.prunable[g]:
                self.chosen.add(g)
                left[node] -= 1

    def normalised(self, values: Tensor) -> Tensor:
        if self.knobs["scope"] == "global":
            return values / values.norm()
        result = values.clone()
        for node in set(self.table.node_group.tolist()):
            here = torch.from_numpy(self.table.node_group == node)
            result[here] = (values[here] - values[here].mean()) / values[here].std(correction=0).clamp_min(
                1e-8 * max(1.0, float(values.abs().max()))
            )
        return result

    def of_groups(self, number: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return torch.stack([number(self.gather(g, self.x), self.gather(g, self.d)) for g in range(len(self.table))])


class SlowDHSPG(Slow):
    def method(self) -> None:
        k = self.knobs
        if self.t == self.start:
            cosine = self.of_groups(lambda x, d: x @ d / (x.norm() * d.norm()).clamp_min(1e-8))
            small = self.of_groups(lambda x, d: 1 / (x.norm() / x.numel() + 1e-6))
            self.choose(0.5 * self.normalised(cosine) + 0.5 * self.normalised(small), self.goal)
        for g in sorted(self.chosen):
            x, d = self.gather(g, self.x), self.gather(g, self.d)
            norm, dot = x.norm(), x @ d
            if g in self.zero or norm == 0 or self.t >= self.end:
                self.set_zero(g)
                continue
            warming = self.t < self.start + k.get("warm_up_steps", 0)
            lmbda = torch.tensor(k["lmbda"], dtype=torch.float64)
            if not warming and dot < 0:
                least, most = -dot / norm, -(d @ d) * norm / dot
                lmbda = (k["lmbda_amplify"] * least).clamp(k["lmbda"], k["lmbda"] * k["hat_lmbda_coeff"])
                if lmbda >= most:
                    lmbda = (least + most) / 2
            trial = {p: self.plain[p] - o["lr"] * lmbda * self.x[p] / norm for p, o in self.options.items()}
            if (not warming and self.gather(g, trial) @ x < k["epsilon"] * norm**2) or self.shrink() == 0:
                self.set_zero(g)
            else:
                lr_shrink = self.shrink()
                self.put(
                    g,
                    lambda p, row, lmbda=lmbda, norm=norm, s=lr_shrink, g=g: (
                        s * (row - self.options[p]["lr"] * lmbda * self.row_of(p, row, g) / norm)
                    ),
                )

    def row_of(self, p: Tensor, row: Tensor, g: int) -> Tensor:
        axis, i = next((a, i) for q, a, i in self.slices[g] if q is p and q.select(a, i).data_ptr() == row.data_ptr())
        return self.x[p].select(axis, i)


class SlowHSPG(Slow):
    def gradient(self, p: Tensor) -> Tensor:
        return p.grad + self.pull(p) if self.variant != "adamw" else p.grad.clone()

    def pull(self, p: Tensor) -> Tensor:
        """The sub-gradient of lmbda sum_g ||x_g|| with respect to a parameter, before pruning is over."""
        added = torch.zeros_like(p)
        if self.t >= self.end:
            return added
        for g in np.flatnonzero(self.table.prunable):
            norm = torch.cat([self.x[q].select(axis, i).reshape(-1) for q, axis, i in self.slices[g]]).norm()
            for q, axis, i in self.slices[g]:
                if q is p and norm > 0:
                    added.select(axis, i).add_(self.knobs["lmbda"] * self.x[p].select(axis, i) / norm)
        return added

    def method(self) -> None:
        if self.variant == "adamw":
            for p, o in self.options.items():
                p.sub_(o["lr"] * self.pull(p))
        if self.t == self.start:
            self.choose(-self.normalised(self.of_groups(lambda x, d: x.norm())), self.goal)
        for g in sorted(self.chosen):
            x = self.gather(g, self.x)
            factor = self.shrink() if self.knobs["exact"] else 1.0
            leaves = self.t < self.end and self.gather(g) @ x < self.knobs["epsilon"] * x.norm() ** 2
            if g in self.zero or leaves or factor == 0:
                self.set_zero(g)
            else:
                self.put(g, lambda p, row, factor=factor: factor * row)


class SlowHESSO(Slow):
    def method(self) -> None:
        periods = self.knobs["pruning_periods"]
        usual = self.knobs["pruning_steps"] // periods
        if self.start <= self.t < self.end:
            period = min((self.t - self.start) // usual, periods - 1)
            first = self.start + period * usual
            last = self.end if period == periods - 1 else first + usual
            if self.t == first:
                self.zero |= self.chosen
                self.choose(-self.salience(), round(self.goal_share() * (period + 1) / periods * len(self.table)))
            for g in self.chosen - self.zero:
                factor = (last - self.t - 1) / (last - self.t)
                self.put(g, lambda p, row, factor=factor: factor * row)
        if self.t >= self.end - 1:
            self.zero |= self.chosen
        for g in self.zero:
            self.set_zero(g)

    def goal_share(self) -> float:
        return self.knobs.get("target_group_sparsity", 0.5)

    def salience(self) -> Tensor:
        criteria = (
            lambda x, d: x.norm(),
            lambda x, d: x.norm() / x.numel(),
            lambda x, d: 1 - x @ d / (x.norm() * d.norm()).clamp_min(1e-8),
            lambda x, d: (x @ d).abs(),
            lambda x, d: (x @ d) ** 2 / 2,
        )
        weights = self.knobs.get("weights", [0.2] * 5)
        return sum(w * self.normalised(self.of_groups(c)) for w, c in zip(weights, criteria, strict=True))


class SlowCRIC(SlowHESSO):
    """The corrective cycle; `loss` evaluates the model again on the batch of this step."""

    decided = math.inf

    def method(self) -> None:
        k, length = self.knobs, self.knobs["sampling_steps"]
        if self.t < self.start:
            return
        if self.t >= self.decided:
            for g in self.chosen:
                factor = max(0, self.end - self.t - 1) / max(1, self.end - self.t)
                self.put(g, lambda p, row, factor=factor: factor * row)
            if self.t >= self.end - 1:
                self.zero |= self.chosen
            return
        salience = self.salience()
        if self.t == self.start:
            self.saved, self.cycle = self.x, 0
            self.recorded = torch.zeros_like(salience)
            self.growth = self.trials(salience)
            self.tried = self.violating = self.least(salience)
        self.recorded += salience
        at = (self.t - self.start) % length
        for g in self.violating:
            factor = (length - at - 1) / (length - at)
            self.put(g, lambda p, row, factor=factor: factor * row)
        if at == length - 1:
            self.cycle += 1
            for p in self.options:
                p.copy_(self.saved[p])
            new = self.least(salience) - self.tried
            if len(new) > k["tolerance"] and self.cycle < k["cycles"]:
                self.violating, self.tried = new, self.tried | new
            else:
                mean = self.recorded / (self.cycle * length)
                self.choose(-(mean + k["loss_weight"] * self.growth), self.goal)
                self.decided = self.t + 1

    def least(self, salience: Tensor) -> set[int]:
        before, self.chosen = self.chosen, set()
        self.choose(-salience, self.goal)
        found, self.chosen = self.chosen, before
        return found

    def trials(self, salience: Tensor) -> Tensor:
        """Loss ratios on the parameters before this step, standardised."""
        after = {p: p.detach().clone() for p in self.options}
        growth = torch.zeros_like(salience)
        for p in self.options:
            p.copy_(self.x[p])
        before = self.knobs["loss"]()
        for node in set(self.table.node_group.tolist()):
            here = [g for g in range(len(self.table)) if self.table.node_group[g] == node]
            here.sort(key=lambda g: float(salience[g]))
            done = 0
            for share in (0.25, 0.5, 0.75):
                for g in here[: round(share * len(here))]:
                    self.put(g, lambda p, row: torch.zeros_like(row))
                growth[here[done:]] = self.knobs["loss"]() / before
                done = round(share * len(here))
                for p in self.options:
                    p.copy_(self.x[p])
        for p in self.options:
            p.copy_(after[p])
        return (growth - growth.mean()) / growth.std(correction=0)
