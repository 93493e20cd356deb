"""One optimizer step over grouped rows: numbers by group, and one way to move (see `zig.training.grouped`).

Where no numbers are asked for, one pass over the parameters does it all; else one pass makes them and one moves. On a
CPU, a pass takes tiles: several small parameters, or some rows of a big one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zig.errors import UsageError
from zig.training.bases import Base, Bundle
from zig.training.groups import GroupRows, GroupTable, Piece, Rows

_TILE = 2**22  # bytes of parameters; with gradients and moments, a processor's last cache holds them


class Sums(NamedTuple):
    """Of each group, shape (G + 1,): products of its variables x and directions d, and with rates a and decays w.

    Attributes:
        x_x: <x, x>.
        x_d: <x, d>.
        d_d: <d, d>.
        moved: <x, a (d + w x)>: how far the plain step leads along x.
        slowed: <x, a x>: how far a pull of 1 leads along x.
    """

    x_x: Tensor
    x_d: Tensor
    d_d: Tensor
    moved: Tensor
    slowed: Tensor


@dataclass(slots=True)
class Portion:
    """Parameters of one parameter group that are updated together: whole ones, or some rows of one big one.

    Attributes:
        group: The parameter group.
        params: The parameters.
        rows: The rows, where not all.
        graded: Whether they have gradients; all have, or none.
        pieces: For each parameter, the numbers of its pieces in the row vector.
        kind: Number of this parameter group and `graded`: rows of a kind move at the same rate.
        bundle: Views of the parameters and their moments, while these stay where they are.
    """

    group: dict[str, Any]
    params: list[Tensor]
    rows: slice | None
    graded: bool
    pieces: list[list[int]]
    kind: int
    bundle: Bundle | None = None
    places: list[int] = field(default_factory=list)

    def cut(self, values: list[Tensor]) -> list[Tensor]:
        """The rows of this portion of parameters, gradients or moments."""
        return values if self.rows is None else [value[self.rows] for value in values]

    def views(self, moments: tuple[str, ...], state: dict[Any, Any]) -> Bundle:
        """The parameters and their moments, which are made when they are first needed."""
        places = [p.data_ptr() for p in self.params]
        if self.bundle is None or places != self.places or len(self.bundle.moments) != len(moments):
            states = [state[p] for p in self.params]
            for p, kept in zip(self.params, states, strict=True):
                for name in moments:
                    if name not in kept:
                        kept[name] = torch.zeros_like(p)
            cut = {name: self.cut([kept[name] for kept in states]) for name in moments}
            self.bundle, self.places = Bundle(self.group, self.cut(self.params), cut, states), places
        return self.bundle


class Layout:
    """Who is updated with whom; it holds as long as the same parameters have a gradient."""

    def __init__(self, groups: list[dict[str, Any]], table: GroupTable, graded: list[bool], device: torch.device):
        """Cut the parameters into portions, and lay out the rows of the table."""
        self.graded = graded
        self.portions: list[Portion] = []
        of: dict[Tensor, list[GroupRows]] = {}
        for row in table.rows:
            of.setdefault(row.parameter, []).append(row)
        found: list[tuple[Piece, Portion, int]] = []
        for kind, (group, has) in enumerate(product(groups, (True, False))):
            params = [p for p in group["params"] if (p.grad is not None) is has and (has or p in of)]
            for some, rows in _portions(params):
                portion = Portion(group, some, rows, has, [[] for _ in some], kind)
                self.portions.append(portion)
                pieces = ((i, row) for i, p in enumerate(some) for row in of.get(p, ()))
                found += [(_piece(portion.cut([row.parameter])[0], row, rows), portion, i) for i, row in pieces]
        found.sort(key=lambda each: len(each[0].shape) > 1)
        for number, (_, portion, i) in enumerate(found):
            portion.pieces[i].append(number)
        self.rows = Rows([piece for piece, _, _ in found], len(table), device)
        self.overlaps = any(len(pieces) > 1 for portion in self.portions for pieces in portion.pieces)
        kinds = np.repeat([portion.kind for _, portion, _ in found], self.rows.lengths)
        self._only = int(kinds[0]) if len(kinds) else 0
        self.kind = None if (kinds == self._only).all() else torch.from_numpy(kinds.astype(np.int64)).to(device)
        self._options = [(group, has) for group in groups for has in (True, False)]
        self._rates: tuple[list[list[float]], Tensor] | None = None

    def rates(self, coupled: bool) -> tuple[Tensor, Tensor]:
        """Learning rate and decoupled weight decay: of each row, or of all; parameters without gradient don't decay."""
        rates = [
            [float(group["lr"]) for group, _ in self._options],
            [float(group["weight_decay"]) * (has and not coupled) for group, has in self._options],
        ]
        if self._rates is None or self._rates[0] != rates:
            sent = torch.tensor(rates, dtype=self.rows.exact, device=self.rows.device)
            self._rates = rates, sent[:, self._only] if self.kind is None else sent[:, self.kind]
        return self._rates[1][0], self._rates[1][1]


def _portions(params: list[Tensor]) -> Iterator[tuple[list[Tensor], slice | None]]:
    """On a CPU, as many small parameters at a time as make a tile, or some rows of a big one; elsewhere all."""
    if not all(p.is_cpu for p in params):
        yield params, None
        return
    some: list[Tensor] = []
    for p in params:
        if some and sum(q.nbytes for q in some) + p.nbytes > _TILE:
            yield some, None
            some = []
        if p.nbytes > _TILE and len(p) > 1:
            rows = max(1, len(p) * _TILE // p.nbytes)
            yield from (([p], slice(start, start + rows)) for start in range(0, len(p), rows))
        else:
            some.append(p)
    if some:
        yield some, None


def _piece(tensor: Tensor, row: GroupRows, rows: slice | None) -> Piece:
    groups = row.groups if rows is None or row.axis else row.groups[rows]
    return Piece(tensor.shape, tensor.dtype, tensor.device, row.axis, groups)


class Step:
    """One step on its way. Ask for `sums` first, if at all; `move` ends it."""

    def __init__(self, base: Base, state: dict[Any, Any], layout: Layout):
        """Begin; nothing is computed yet."""
        self._base, self._state, self._layout, self._rows = base, state, layout, layout.rows
        self._looked = False  # whether sums were asked for
        self._advanced: set[int] = set()  # portions whose moments have taken in the gradients
        self._coupled: list[Tensor] | None = None
        self._norms: list[Tensor] | None = None  # of the rows, once somebody has asked for them

    def norms(self) -> Tensor:
        """<x, x> of each group, shape (G + 1,)."""
        rows = self._rows
        norms: list[Tensor] = [torch.empty(0)] * len(rows.pieces)
        for portion in self._layout.portions:
            for x, pieces in zip(portion.cut(portion.params), portion.pieces, strict=True):
                for i in pieces:
                    norms[i] = rows.norm(i, x) if i >= rows.vectors else x
        self._norms = norms
        return rows.total(rows.join(norms).square())

    def couple(self, pull: Tensor) -> None:
        """Add pull_g x_g to the gradient of each group, before the moments see it."""
        self._coupled = self._rows.spread(pull[self._rows.group])

    def sums(self, *, d_d: bool = True) -> Sums:
        """Take in the gradients, and reduce all rows to numbers by group; `d_d` is 0 where it is not asked for."""
        rows, known = self._rows, self._norms
        x, d, products = ([torch.empty(0)] * len(rows.pieces) for _ in range(3))
        self._looked = True
        for number, portion in enumerate(self._layout.portions):
            params, directions = self._directions(number)
            for i, position in ((i, k) for k, found in enumerate(portion.pieces) for i in found):
                here, there = params[position], directions[position] if directions else None
                if i < rows.vectors:
                    x[i], d[i] = here, torch.zeros_like(here) if there is None else there
                else:  # now, while the tile is in the processor's cache
                    x[i] = rows.norm(i, here) if known is None else known[i]
                    d[i] = products[i] = torch.zeros_like(x[i])
                    if there is not None:
                        products[i] = rows.dot(i, here, there)
                        d[i] = rows.norm(i, there) if d_d else d[i]
        by_group = self._by_group(rows.join(x), rows.join(d), rows.join(products[rows.vectors :]))
        return by_group if d_d else by_group._replace(d_d=torch.zeros_like(by_group.d_d))

    def _by_group(self, x: Tensor, d: Tensor, products: Tensor) -> Sums:
        """From elements of vectors and norms of rows."""
        rows, vectors = self._rows, sum(self._rows.lengths[: self._rows.vectors])
        lr, decay = self._layout.rates(self._base.coupled)
        x_d = torch.cat([x[:vectors] * d[:vectors], products])
        x_x, d_d = x.square_(), d.square_()
        by_row = (x_x, x_d, d_d)
        if lr.ndim:
            slowed = lr * x_x
            return Sums(*map(rows.total, (*by_row, lr * x_d + decay * slowed, slowed)))
        x_x, x_d, d_d = map(rows.total, by_row)
        return Sums(x_x, x_d, d_d, lr * (x_d + decay * x_x), lr * x_x)

    def move(self, scale: Tensor | None = None, pull: Tensor | None = None) -> None:
        """x_g <- scale_g (x_g - a d_g - a (w + pull_g) x_g); both of shape (G + 1,), None for 1 and for 0.

        Where a row belongs to several groups, scales multiply and pulls add.
        """
        if scale is None and pull is not None:
            scale = torch.ones_like(pull)
        scales = None if scale is None else self._rows.spread(scale[self._rows.group])
        weights = None if scale is None or pull is None else self._weights(scale, pull)
        numbers = range(len(self._layout.portions))
        for number in reversed(numbers) if self._looked else numbers:  # the last tiles may still be in the cache
            portion, (params, directions) = self._layout.portions[number], self._directions(number)
            if scales is None or weights is None:
                self._plain(portion, params, directions)
                self._scale(portion, params, scales)
            else:
                self._pulled(portion, params, directions, scales, weights)
            if portion.bundle is not None:  # gradients belong to the user, who may free them now
                portion.bundle.grads, portion.bundle.pulls = [], None

    def _weights(self, scale: Tensor, pull: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """By piece: what multiplies x in a step; and how much of x a pull takes."""
        lr, decay = self._layout.rates(self._base.coupled)
        drag = lr * pull[self._rows.group]
        stays = self._rows.spread(scale[self._rows.group] * (1 - lr * decay - drag))
        return stays, self._rows.spread(drag) if self._layout.overlaps else []

    def _directions(self, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters of a portion and where they move (nothing without gradients), moments brought up to date."""
        portion = self._layout.portions[number]
        if not portion.graded:
            return portion.cut(portion.params), []
        bundle = portion.views(self._base.moments(portion.group), self._state)
        decay = float(portion.group["weight_decay"]) if self._base.coupled else 0.0
        if number not in self._advanced:
            self._advanced.add(number)
            grads = [p.grad for p in portion.params if p.grad is not None]
            if any(gradient.is_sparse for gradient in grads):
                raise UsageError("sparse gradients can't be used; make the embedding with sparse=False")
            bundle.grads, bundle.pulls = portion.cut(grads), self._pulls(portion)
            if portion.rows is None or portion.rows.start == 0:
                for state in bundle.states if bundle.moments else ():
                    state["step"] = state.get("step", 0) + 1
            self._base.advance(bundle, decay)
        return bundle.params, self._base.direction(bundle, decay)

    def _pulls(self, portion: Portion) -> list[Tensor | None] | None:
        """What is to be coupled to the gradient of each parameter."""
        if self._coupled is None:
            return None
        found = [[self._coupled[i] for i in pieces] for pieces in portion.pieces]
        return [reduce(torch.add, pulls) if pulls else None for pulls in found]

    def _plain(self, portion: Portion, params: list[Tensor], directions: list[Tensor]) -> None:
        """Subtract a d, after decoupled weight decay."""
        lr = float(portion.group["lr"])
        decay = 0.0 if self._base.coupled else float(portion.group["weight_decay"])
        if directions:
            if decay:
                torch._foreach_mul_(params, 1 - lr * decay)
            torch._foreach_add_(params, directions, alpha=-lr)

    def _scale(self, portion: Portion, params: list[Tensor], scales: list[Tensor] | None) -> None:
        """Multiply rows."""
        if scales is not None:
            for x, pieces in zip(params, portion.pieces, strict=True):
                for i in pieces:
                    x.mul_(scales[i])

    def _pulled(
        self, portion: Portion, params: list[Tensor], directions: list[Tensor], scales: list[Tensor],
        weights: tuple[list[Tensor], list[Tensor]],
    ) -> None:  # fmt: skip
        """The step at the top of this file, for a portion."""
        stays, drags = weights
        held = [k for k, pieces in enumerate(portion.pieces) if pieces]
        free = [k for k, pieces in enumerate(portion.pieces) if not pieces]
        scale, stay = [scales[portion.pieces[k][0]] for k in held], [stays[portion.pieces[k][0]] for k in held]
        for at, k in enumerate(held):
            for i in portion.pieces[k][1:]:
                scale[at], stay[at] = scale[at] * scales[i], scales[i] * (stay[at] - scale[at] * drags[i])
        self._plain(portion, [params[k] for k in free], [directions[k] for k in free if directions])
        if held:
            torch._foreach_mul_([params[k] for k in held], stay)
        if held and directions:
            by = -float(portion.group["lr"])
            torch._foreach_addcmul_([params[k] for k in held], [directions[k] for k in held], scale, value=by)
