"""What pruning is to reach, and the choice of the groups that go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zig.errors import PlanError
from zig.groups.budget import nearest
from zig.plan import portions
from zig.training.groups import Bools, Floats, GroupTable, Ints

Measure = Literal["groups", "macs", "params"]


@dataclass(frozen=True)
class Target:
    """How much goes.

    Attributes:
        table: The groups, G of them.
        share: The share that is to go.
        of: What the share is of.
        round_to: Each node group is left whole, or with a width that is a multiple of this.
    """

    table: GroupTable
    share: float
    of: Measure = "groups"
    round_to: int = 1

    def __post_init__(self) -> None:
        """Refuse what can't be reached.

        Raises:
            PlanError: The share or `round_to` is out of range, or more is asked for than can go.
        """
        if self.round_to < 1:
            raise PlanError(f"round_to is {self.round_to}; choose 1 or more")
        if self.of != "groups" and self.table.price is None:
            raise PlanError(f"the {self.of} of this table of groups are not known; make it by GroupTable.of")
        portion, most = self._portions(np.zeros(len(self.table))), self.most
        if self.share and not most:
            raise PlanError(
                "no group of this model can be pruned by training; `zig analyze` says what fixes each of them"
            )
        widest = np.bincount(portion[portion >= 0]).max(initial=0) if self.of == "groups" else 0
        if self._aim(1.0) > most + widest / 2 / max(len(self.table), 1):
            raise PlanError(self._too_much(most))

    @property
    def most(self) -> float:
        """The largest share that can go."""
        return self._gone(self._portions(np.zeros(len(self.table))) >= 0)

    def _too_much(self, most: float) -> str:
        if self.of != "groups":
            least = math.ceil(1000 * (1 - most)) / 1000
            return f"target_{self.of} {1 - self.share:.3g} can't be reached; the smallest network keeps {least} of them"
        return (
            f"target_group_sparsity {self.share:.3g} asks for {round(self.share * len(self.table))} of "
            f"{len(self.table)} groups, but only {round(most * len(self.table))} can go "
            f"({int(self.table.prunable.sum())} are prunable, and each node group keeps {self.round_to} or more); "
            f"choose {math.floor(1000 * most) / 1000} or less"
        )

    def choose(self, scores: Floats, part: float = 1.0) -> Bools:
        """Choose the groups to bring to zero: those of the highest scores, while every node group keeps some.

        Each node group goes in portions that keep its width a multiple of `round_to`, and portions go in the order of
        their mean score until the share is met as nearly as whole portions can.

        Args:
            scores: Score of each group, high for redundant, inf for those that are gone already, float64[G].
            part: Aim for this part of the share only, in [0, 1].

        Returns:
            bool[G].
        """
        finite = np.isfinite(scores)
        span = np.ptp(scores[finite]) if finite.any() else 0.0
        scores = np.where(finite, scores, scores.max(initial=0.0, where=finite) + len(scores) * (1 + span))
        portion = self._portions(scores)
        used = portion >= 0
        means = np.bincount(portion[used], scores[used]) / np.maximum(np.bincount(portion[used]), 1)
        rank = np.append(np.argsort(np.argsort(-means, kind="stable"), kind="stable"), len(means))[portion]
        rung = nearest(lambda rung: self._gone(rank < rung), self._aim(part), len(means))
        return np.asarray(rank < rung)

    def _aim(self, part: float) -> float:
        """The share to come near to; of groups, a whole number of them."""
        share, count = self.share * part, max(len(self.table), 1)
        return round(share * count) / count if self.of == "groups" else share

    def _gone(self, remove: Bools) -> float:
        """The share that is gone with some groups."""
        if self.of == "groups":
            return float(remove.sum()) / max(len(remove), 1)
        assert self.table.price is not None  # checked when the target was made
        which = ("params", "macs").index(self.of)
        return 1 - self.table.price(remove)[which] / max(self.table.price(np.zeros_like(remove))[which], 1)

    def _portions(self, scores: Floats) -> Ints:
        """The portion in which each group would go, int64[G]; -1 for groups that stay.

        A node group of n goes in portions from its highest score down: first n mod d (if any), then d at a time.
        """
        table = self.table
        portion = np.full(len(table), -1, np.int64)
        member = np.flatnonzero(table.prunable)
        order = member[np.lexsort((-scores[member], table.node_group[member]))]
        kinds, first, prunable = np.unique(table.node_group[order], return_index=True, return_counts=True)
        size = np.bincount(table.node_group, minlength=len(kinds))[kinds] if len(kinds) else np.zeros(0, np.int64)
        step = portions(table, self.round_to)[kinds] if len(kinds) else np.ones(0, np.int64)
        head = np.where(size % step, size % step, step)
        most = np.minimum(prunable, size - step)
        fitting = np.where(most >= head, 1 + (most - head) // step, 0)  # portions that fit below `most`
        which = np.repeat(np.arange(len(kinds)), prunable)
        position = np.arange(len(order)) - first[which]
        number = np.where(position < head[which], 0, 1 + (position - head[which]) // step[which])
        offset = np.concatenate(([0], np.cumsum(fitting)))[which]
        portion[order] = np.where(number < fitting[which], offset + number, -1)
        return portion
