"""Zero-invariant groups as torch optimizers need them: which rows of which parameters belong to which group.

Nothing here or in the optimizers loops over groups. A model's group rows are laid end to end in one vector, so that a
number for each row becomes a number for each group by one `index_add_`, and comes back by one gather:

    parameter rows  --reduce-->  row numbers  --index_add_-->  group numbers  --gather-->  row numbers
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zig.errors import PlanError
from zig.training.link import Links

if TYPE_CHECKING:
    from zig.partition import Partition

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class GroupRows(NamedTuple):
    """The groups along one axis of a parameter: index i of the axis belongs to `groups[i]`, -1 to none."""

    parameter: Tensor
    axis: int
    groups: Ints


@dataclass(frozen=True)
class GroupTable:
    """All rows of all groups of a model.

    Attributes:
        rows: Rows that must be zero for their group to be zero.
        node_group: Node group of each group, int64[G]; at least one group of each node group is always kept.
        prunable: Groups that training can bring to zero, bool[G]; all, unless said otherwise.
    """

    rows: tuple[GroupRows, ...]
    node_group: Ints
    prunable: Bools

    def __init__(self, rows: Sequence[GroupRows], node_group: Ints, prunable: Bools | None = None):
        """See the class; a group without any row can't be pruned."""
        present = np.zeros(len(node_group), bool)
        for row in rows:
            present[row.groups[row.groups >= 0]] = True
        object.__setattr__(self, "rows", tuple(rows))
        object.__setattr__(self, "node_group", np.asarray(node_group, np.int64))
        object.__setattr__(self, "prunable", present if prunable is None else present & prunable)

    @classmethod
    def of(cls, partition: Partition, links: Links, module: nn.Module) -> GroupTable:
        """The table of a partition, for the module that its graph was exported from.

        A group that has a member in a buffer or a frozen weight is not prunable. Members in constants of the graph (the
        ones that exporters multiply a GroupNorm by) stay as they are.
        """
        parameters = dict(module.named_parameters(remove_duplicate=False))
        prunable = np.ones(len(partition), bool)
        rows = []
        for found in links.rows(partition):
            groups = np.where(found.member, found.groups, -1)
            parameter = parameters.get(found.parameter)
            if parameter is None or not parameter.requires_grad:
                prunable[groups[groups >= 0]] = False
            elif (groups >= 0).any():
                rows.append(GroupRows(parameter, found.axis, groups))
        return cls(rows, partition.node_group, prunable)

    def __len__(self) -> int:
        """The number of groups, G."""
        return len(self.node_group)


class Sums(NamedTuple):
    """For each row, or each group, of variables x and their direction d: <x, x>, <x, d> and <d, d>."""

    x_x: Tensor
    x_d: Tensor
    d_d: Tensor


def total(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """Add a number for each row where `index` says, shape (size,).

    On accelerators `index_add_` adds in any order, and processes that train together would disagree about which groups
    are zero; `index_put_` sorts first.
    """
    sums = rows.new_zeros(size)
    return sums.index_add_(0, index, rows) if rows.is_cpu else sums.index_put_((index,), rows, accumulate=True)


class RowVector:
    """The rows of a table, end to end: rows to numbers, row numbers to group numbers, and back.

    Vectors by group have one more entry than there are groups, for the rows that belong to none. Each element of a
    one-dimensional parameter is a row; these come first, so that all of them together are one tensor.
    """

    def __init__(self, table: GroupTable, device: torch.device):
        """Lay out the rows of a table on the device where group numbers are to be computed."""
        self.entries = sorted(table.rows, key=lambda row: row.parameter.ndim > 1)
        self.device, self.count = device, len(table)
        self.lengths = [len(row.groups) for row in self.entries]
        self.vectors = sum(row.parameter.ndim == 1 for row in self.entries)  # entries before this one are vectors
        flat = np.concatenate([row.groups for row in self.entries] or [np.empty(0, np.int64)])
        self.group = torch.from_numpy(np.where(flat < 0, self.count, flat)).to(device)
        self.entry = torch.from_numpy(np.repeat(np.arange(len(self.lengths)), self.lengths)).to(device)
        self.exact = torch.float32  # the precision of sums
        for row in self.entries:
            self.exact = torch.promote_types(self.exact, row.parameter.dtype)
        self._uniform = all(p.dtype == self.exact and p.device == device for p, _, _ in self.entries)
        self._shapes = [[1] * axis + [-1] + [1] * (p.ndim - axis - 1) for p, axis, _ in self.entries[self.vectors :]]
        each = torch.tensor([p.numel() // len(groups) for p, _, groups in self.entries], dtype=self.exact)
        self.sizes = total(each.to(device)[self.entry], self.group, self.count + 1)  # elements in each group

    def reduce(self, entry: int, direction: Tensor | None) -> Sums:
        """Norm, product and norm of each row of an entry that is no vector; no direction counts as zero."""
        parameter, axis, _ = self.entries[entry]
        x = lines(parameter, axis)
        if direction is None:
            norm = torch.linalg.vector_norm(x, dim=1, dtype=self.exact)
            return Sums(norm, torch.zeros_like(norm), torch.zeros_like(norm))
        d = lines(direction, axis)
        norms = [torch.linalg.vector_norm(each, dim=1, dtype=self.exact) for each in (x, d)]
        return Sums(norms[0], torch.linalg.vecdot(x.to(self.exact), d.to(self.exact)), norms[1])

    def join(self, reduced: Sequence[Sums], directions: Sequence[Tensor | None]) -> Sums:
        """The sums of all rows, from what was reduced and from the directions of the vectors."""
        vectors = [row.parameter for row in self.entries[: self.vectors]]
        x = self._joined(vectors)
        d = self._joined([torch.zeros_like(p) if v is None else v for p, v in zip(vectors, directions, strict=False)])
        norms, products, others = zip(*reduced, strict=True) if reduced else ((), (), ())
        return Sums(
            self._joined([x, *norms]).square_(), self._joined([x * d, *products]), self._joined([d, *others]).square_()
        )

    def spread(self, rows: Tensor) -> list[Tensor]:
        """The part of a row vector that belongs to each entry, in a shape that multiplies the parameter's rows."""
        parts = list(torch.split(rows, self.lengths))
        parts[self.vectors :] = [p.view(shape) for p, shape in zip(parts[self.vectors :], self._shapes, strict=True)]
        if self._uniform:
            return parts
        return [part.to(p.device, p.dtype) for part, (p, _, _) in zip(parts, self.entries, strict=True)]

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        if not self._uniform:
            parts = [part.to(self.device, self.exact, non_blocking=True) for part in parts]
        return torch.cat(list(parts)) if parts else torch.zeros(0, device=self.device, dtype=self.exact)


def lines(values: Tensor, axis: int) -> Tensor:
    """The values as a matrix whose rows are the slices along `axis`."""
    return values.movedim(axis, 0).flatten(1) if axis else values.flatten(1)


def choose(scores: NDArray[np.float64], table: GroupTable, count: int, divisible: int = 1) -> Bools:
    """Choose the groups to bring to zero: those of the highest scores, while every node group keeps some.

    With `divisible` d > 1, each node group is left whole or with a multiple of d groups (OTO's `group_divisible`), and
    the total is the nearest to `count` that whole portions of d groups in the order of their mean score give.

    Args:
        scores: Score of each group, high for redundant, float64[G].
        table: The groups.
        count: How many to choose.
        divisible: See above.

    Returns:
        bool[G].
    """
    portion = _portions(scores, table, divisible)
    used = portion >= 0
    sizes = np.bincount(portion[used])
    means = np.bincount(portion[used], scores[used]) / np.maximum(sizes, 1)
    best = np.argsort(-means, kind="stable")
    totals = np.concatenate(([0], np.cumsum(sizes[best])))
    taken = best[: int(np.argmin(np.abs(totals - count)))]
    return used & np.isin(portion, taken)


def capacity(table: GroupTable, divisible: int = 1) -> int:
    """The largest number of groups that `choose` can choose."""
    return int((_portions(np.zeros(len(table)), table, divisible) >= 0).sum())


def check_target(table: GroupTable, target: float, divisible: int) -> int:
    """The number of groups that a target sparsity asks for.

    Raises:
        PlanError: The target is not a share, or more than can go.
    """
    if not 0 <= target < 1:
        raise PlanError(f"target_group_sparsity is {target}; choose a share in [0, 1)")
    if divisible < 1:
        raise PlanError(f"group_divisible is {divisible}; choose 1 or more")
    count, most = round(target * len(table)), capacity(table, divisible)
    if target and not most:
        raise PlanError("no group of this model can be pruned by training; `zig analyze` says what fixes each of them")
    if count > most + divisible // 2:
        raise PlanError(
            f"target_group_sparsity {target} asks for {count} of {len(table)} groups, but only {most} can go "
            f"({int(table.prunable.sum())} are prunable, and each node group keeps {divisible} or more); "
            f"choose {math.floor(1000 * most / len(table)) / 1000} or less"
        )
    return count


def _portions(scores: NDArray[np.float64], table: GroupTable, divisible: int) -> Ints:
    """The portion in which each group would go, int64[G]; -1 for groups that stay.

    A node group of n goes in portions from its highest score down: first n mod d (if any), then d at a time.
    """
    portion = np.full(len(table), -1, np.int64)
    member = np.flatnonzero(table.prunable)
    order = member[np.lexsort((-scores[member], table.node_group[member]))]
    kinds, first, prunable = np.unique(table.node_group[order], return_index=True, return_counts=True)
    size = np.bincount(table.node_group, minlength=len(kinds))[kinds] if len(kinds) else np.zeros(0, np.int64)
    head = np.where(size % divisible, size % divisible, divisible)
    most = np.minimum(prunable, size - divisible)
    fitting = np.where(most >= head, 1 + (most - head) // divisible, 0)  # portions that fit below `most`
    which = np.repeat(np.arange(len(kinds)), prunable)
    position = np.arange(len(order)) - first[which]
    number = np.where(position < head[which], 0, 1 + (position - head[which]) // divisible)
    offset = np.concatenate(([0], np.cumsum(fitting)))[which]
    portion[order] = np.where(number < fitting[which], offset + number, -1)
    return portion
