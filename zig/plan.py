"""Which ZIGs to remove: one boolean for each. Every pruning method ends in a plan; every back end starts from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from zig.errors import PlanError
from zig.flow.units import Units
from zig.groups.budget import Budget, nearest
from zig.groups.importance import CRITERIA, Scores
from zig.groups.partition import Mask, Partition
from zig.groups.removable import idle

MEASURES = ("params", "macs", "groups")
SCOPES = ("global", "local")


@dataclass(frozen=True)
class Plan:
    """The groups of a partition that go: `remove` is bool[G]; `idle` of them are known to do nothing as it is."""

    partition: Partition
    remove: Mask
    idle: int = 0

    def __post_init__(self) -> None:
        """Refuse a mask of another model."""
        if self.remove.shape != (len(self.partition),):
            raise PlanError(
                f"a plan for {self.partition.graph.name} needs {len(self.partition)} entries, not {self.remove.shape}"
            )

    @cached_property
    def reached(self) -> dict[str, float]:
        """The share of parameters, MACs and groups that is gone."""
        budget = Budget(self.partition)
        parameters, macs = budget.price(self.remove)
        return {
            "params": 1 - parameters / max(budget.parameters, 1),
            "macs": 1 - macs / max(budget.macs, 1),
            "groups": float(self.remove.mean()) if len(self.remove) else 0.0,
        }


def prune(
    partition: Partition, ratio: float, *, of: str | None = None, criterion: str | Scores = "magnitude",
    scope: str = "global", seed: int = 0, round_to: int = 1,
) -> Plan:  # fmt: skip
    """Plan to remove the least important groups until a share of the network is gone.

    Args:
        partition: G groups.
        ratio: the share to remove, in (0, 1).
        of: what the share is of: `params`, `macs` or `groups`; None means `params`, and with the scope `local`, where
            the same share of every node group goes, `groups`. It is met within one group's share; where even the
            smallest network (one group of each node group) keeps more, that is the plan, and `Plan.reached` tells;
            the plan of a model without groups is empty. By magnitude, groups that add
            nothing to any sum as the weights are go first, and all of them (as far as `round_to` lets).
        criterion: `magnitude`, `random`, or your own scores float[G], higher is more important.
        scope: `global` ranks all groups together; `local` takes the same share of every node group.
        seed: for `random`.
        round_to: kept widths are multiples of this where the width allows.

    Raises:
        PlanError: an argument is out of range.
    """
    of = of or default_measure(scope)
    _check(partition, ratio, of, criterion, scope, round_to)
    if not len(partition):
        return Plan(partition, np.zeros(0, bool))
    scores = (
        CRITERIA[criterion](partition, seed=seed) if isinstance(criterion, str) else np.asarray(criterion, np.float64)
    )
    by_weights = isinstance(criterion, str) and criterion == "magnitude"
    free = idle(partition) if by_weights else np.zeros(len(partition), bool)
    remove = _Ladder(partition, scores, free, scope, round_to).climb(ratio, of)
    return Plan(partition, remove, int((remove & free).sum()))


def default_measure(scope: str) -> str:
    """What a ratio is a share of where nobody says: a local one is that of each node group."""
    return "groups" if scope == "local" else "params"


def _check(partition: Partition, ratio: float, of: str, criterion: str | Scores, scope: str, round_to: int) -> None:
    if not 0 < ratio < 1:
        raise PlanError(f"ratio must lie between 0 and 1, not {ratio:g}")
    if of not in MEASURES:
        raise PlanError(f"'of' must be one of {', '.join(MEASURES)}, not '{of}'")
    if scope not in SCOPES:
        raise PlanError(f"scope must be one of {', '.join(SCOPES)}, not '{scope}'")
    if isinstance(criterion, str) and criterion not in CRITERIA:
        raise PlanError(f"criterion must be one of {', '.join(CRITERIA)}, not '{criterion}'")
    if not isinstance(criterion, str) and np.shape(criterion) != (len(partition),):
        raise PlanError(f"scores must be one number for each of the {len(partition)} groups")
    if round_to < 1:
        raise PlanError(f"round_to must be at least 1, not {round_to}")


def rank(partition: Partition, scores: Scores) -> Units:
    """The place of each group within its node group, 0 for the most important, int64[G]."""
    family = partition.node_group
    order = np.lexsort((-scores, family))
    starts = np.concatenate([[0], np.cumsum(np.bincount(family))])[:-1]
    place = np.empty(len(family), np.int64)
    place[order] = np.arange(len(family)) - starts[family[order]] if len(family) else []
    return place


class Along(Protocol):
    """The groups along one axis: of each index, -1 for none, int64[n]."""

    @property
    def groups(self) -> Units: ...


class Grouped(Protocol):
    """Groups and the axes that they lie along: a partition, or a table that training goes by."""

    @property
    def node_group(self) -> Units: ...

    @property
    def rows(self) -> Sequence[Along]: ...


def portions(partition: Grouped, round_to: int = 1) -> Units:
    """How many groups of each node group make `round_to` indices of its narrowest axis, int64[F].

    Raises:
        PlanError: `round_to` is less than 1.
    """
    if round_to < 1:
        raise PlanError(f"round_to must be at least 1, not {round_to}")
    narrowest = np.full(int(partition.node_group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    for row in partition.rows:
        live = row.groups[row.groups >= 0]
        counts = np.bincount(live, minlength=len(partition.node_group))[live]
        np.minimum.at(narrowest, partition.node_group[live], counts)
    steps: Units = round_to // np.gcd(round_to, narrowest)
    return steps


class _Ladder:
    """Plans from nothing removed (rung 0) to everything that may go, one group more on each rung."""

    def __init__(self, partition: Partition, scores: Scores, free: Mask, scope: str, round_to: int):
        self.partition = partition
        family = partition.node_group
        self.sizes = np.bincount(family)
        self.rank = rank(partition, np.where(free, -np.inf, scores))
        share = (self.sizes[family] - self.rank) / self.sizes[family]  # how much of its family is gone once it goes
        order = np.lexsort((scores if scope == "global" else share, ~free))
        self.order = order[self.rank[order] > 0]  # the best of each node group stays
        self.first = int(free[self.order].sum())  # the rung where all that is free to go is gone
        self.step = portions(partition, round_to)

    def climb(self, ratio: float, of: str) -> Mask:
        """The plan of the rung nearest to the ratio, of those from the first one on."""
        budget = Budget(self.partition)

        def gone(rung: int) -> float:
            remove = self.plan(rung)
            if of == "groups":
                return float(remove.mean())
            parameters, macs = budget.price(remove)
            return 1 - (parameters / budget.parameters if of == "params" else macs / max(budget.macs, 1))

        return self.plan(max(self.first, nearest(gone, ratio, len(self.order))))

    def plan(self, rung: int) -> Mask:
        """The mask of a rung, its kept widths rounded up to multiples."""
        family = self.partition.node_group
        kept = self.sizes - np.bincount(family[self.order[:rung]], minlength=len(self.sizes))
        kept = np.minimum(-(-kept // self.step) * self.step, self.sizes)
        return np.asarray(self.rank >= kept[family])


__all__ = ["MEASURES", "SCOPES", "Plan", "portions", "prune", "rank"]
