"""Zero-invariant groups as torch optimizers need them: which rows of which parameters belong to which group.

Nothing here or in the optimizers loops over groups. The rows of all groups are laid end to end in one vector, so that a
number for each row becomes a number for each group by one `index_add_`, and comes back by one gather:

    parameter rows  --reduce-->  row numbers  --index_add_-->  group numbers  --gather-->  row numbers
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zig.budget import Budget
from zig.errors import UsageError
from zig.training.link import Links

if TYPE_CHECKING:
    from zig.partition import Partition

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
GUARD = 1e-8  # keeps a division by a norm finite
_ROOM = 2**18  # elements that are multiplied at a time on a CPU

Price = Callable[[Bools], tuple[int, int]]


def refuse_sharded(parameters: Iterable[Tensor]) -> None:
    """Refuse parameters of which this process has a part only, as FSDP2 leaves them.

    Raises:
        UsageError: There is one.
    """
    sharding = sys.modules.get("torch.distributed.tensor")  # where it is not loaded, nothing is sharded
    if sharding is not None and any(isinstance(p, sharding.DTensor) for p in parameters):
        raise UsageError(
            "the parameters are DTensors (FSDP2, fully_shard): each process has some rows of them, and groups must be "
            "seen whole; train with DistributedDataParallel instead"
        )


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
        price: Parameters and MACs that are left when the groups of a mask bool[G] are gone, where that is known.
        names: Of the parameters, for messages.
    """

    rows: tuple[GroupRows, ...]
    node_group: Ints
    prunable: Bools
    price: Price | None
    names: Mapping[Tensor, str]

    def __init__(
        self, rows: Sequence[GroupRows], node_group: Ints, prunable: Bools | None = None, price: Price | None = None,
        names: Mapping[Tensor, str] | None = None,
    ):  # fmt: skip
        """See the class; a group without any row can't be pruned."""
        present = np.zeros(len(node_group), bool)
        for row in rows:
            present[row.groups[row.groups >= 0]] = True
        object.__setattr__(self, "rows", tuple(rows))
        object.__setattr__(self, "node_group", np.asarray(node_group, np.int64))
        object.__setattr__(self, "prunable", present if prunable is None else present & prunable)
        object.__setattr__(self, "price", price)
        object.__setattr__(self, "names", names or {})

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
        names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
        return cls(rows, partition.node_group, prunable, Budget(partition).price, names)

    def only(self, parameters: set[Tensor]) -> GroupTable:
        """The table of some parameters; a group that has a row in another one is not prunable."""
        prunable = self.prunable.copy()
        for row in self.rows:
            if row.parameter not in parameters:
                prunable[row.groups[row.groups >= 0]] = False
        rows = [row for row in self.rows if row.parameter in parameters]
        return GroupTable(rows, self.node_group, prunable, self.price, self.names)

    def comparable(self, values: Floats, scope: str) -> Floats:
        """Numbers of groups, standardised within each node group, or (`global`) divided by the norm of all prunable.

        The authors of DHSPG and HESSO divide by the norm. Then wide layers score highest and lose all but one channel.
        """
        if scope == "global":
            return values / max(float(np.linalg.norm(values[self.prunable])), GUARD)
        _, kind, count = np.unique(self.node_group, return_inverse=True, return_counts=True)
        centred = values - (np.bincount(kind, values) / count)[kind]
        spread = np.sqrt(np.bincount(kind, centred**2) / count)[kind]
        standardised: Floats = centred / np.maximum(spread, GUARD * np.abs(values).max(initial=1.0))
        return standardised

    def __len__(self) -> int:
        """The number of groups, G."""
        return len(self.node_group)


class Piece(NamedTuple):
    """What there is to know about some rows of a parameter: the tensor that they are, and their groups on an axis."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    axis: int
    groups: Ints


class Rows:
    """The rows of all pieces, end to end: rows to numbers, row numbers to group numbers, and back.

    Vectors by group have one more entry than there are groups, for the rows that belong to none. Each element of a
    one-dimensional piece is a row; these pieces come first, so that all of them together are one tensor.
    """

    def __init__(self, pieces: Sequence[Piece], count: int, device: torch.device):
        """Lay out the rows of pieces (vectors first) of `count` groups, on the device where groups are decided."""
        self.pieces, self.count, self.device = pieces, count, device
        self.lengths = [len(piece.groups) for piece in pieces]
        self.vectors = sum(len(piece.shape) == 1 for piece in pieces)
        flat = np.concatenate([piece.groups for piece in pieces] or [np.empty(0, np.int64)])
        self.group = torch.from_numpy(np.where(flat < 0, count, flat)).to(device)
        self.exact = torch.float32  # the precision of sums
        for piece in pieces:
            self.exact = torch.promote_types(self.exact, piece.dtype)
        self._uniform = all(piece.dtype == self.exact and piece.device == device for piece in pieces)
        self._others = [tuple(i for i in range(len(p.shape)) if i != p.axis) for p in pieces]
        self._shapes = [[-1 if i == p.axis else 1 for i in range(len(p.shape))] for p in pieces]
        self._cuts = [max(1, _ROOM * p.shape[p.axis] // max(p.shape.numel(), 1)) for p in pieces]
        self._room = torch.empty(0, dtype=self.exact)

    def sizes(self) -> Tensor:
        """The number of elements in each group, shape (G + 1,)."""
        each = [torch.full((len(p.groups),), p.shape.numel() // len(p.groups), dtype=self.exact) for p in self.pieces]
        return self.total(torch.cat(each).to(self.device))

    def total(self, rows: Tensor) -> Tensor:
        """Numbers of groups from numbers of rows, shape (G + 1,).

        On accelerators `index_add_` adds in any order, and processes that train together would disagree about which
        groups are zero; `index_put_` sorts first.
        """
        sums = rows.new_zeros(self.count + 1)
        if rows.is_cpu:
            return sums.index_add_(0, self.group, rows)
        return sums.index_put_((self.group,), rows, accumulate=True)

    def norm(self, i: int, values: Tensor) -> Tensor:
        """The norm of each row of piece i, or of values of its shape."""
        norms: Tensor = torch.linalg.vector_norm(values, dim=self._others[i], dtype=self.exact)
        return norms

    def dot(self, i: int, x: Tensor, d: Tensor) -> Tensor:
        """The product of each row of piece i and that of d."""
        others, axis, few = self._others[i], self.pieces[i].axis, self._cuts[i]
        if not x.is_cpu or x.dtype != self.exact:
            return (x.to(self.exact) * d.to(self.exact)).sum(others)
        if few >= x.shape[axis]:
            return self._product(x, d).sum(others)
        pairs = zip(torch.split(x, few, axis), torch.split(d, few, axis), strict=True)
        return torch.cat([self._product(a, b).sum(others) for a, b in pairs])

    def _product(self, x: Tensor, d: Tensor) -> Tensor:
        """X * d in room that is kept: allocating it in every step takes longer than the product."""
        if len(self._room) < x.numel():
            self._room = torch.empty(x.numel(), dtype=self.exact)
        return torch.mul(x, d, out=self._room[: x.numel()].view(x.shape))

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """One row vector from the numbers of each piece; of a vector, its elements."""
        if not self._uniform:
            parts = [part.to(self.device, self.exact, non_blocking=True) for part in parts]
        return torch.cat(list(parts)) if parts else torch.zeros(0, device=self.device, dtype=self.exact)

    def spread(self, rows: Tensor) -> list[Tensor]:
        """The part of a row vector that belongs to each piece, in a shape that multiplies the rows of the piece."""
        split = torch.split(rows, self.lengths)
        parts = [*split[: self.vectors], *map(Tensor.view, split[self.vectors :], self._shapes[self.vectors :])]
        if self._uniform:
            return parts
        return [part.to(p.device, p.dtype) for part, p in zip(parts, self.pieces, strict=True)]
