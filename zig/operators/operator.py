"""What a row of the dictionary says about an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call, Tensor


Side = tuple[int, int, int, int]  # number of the result, axis, where the piece begins and where it ends
ABSENT = 99  # the place of a zero point that no operator has: 0 itself


@dataclass(frozen=True)
class Operator:
    """Everything zig knows about one operator."""

    rule: str | Callable[[Call], str] = ""  # how units pass, see zig.rules
    move: Callable[[Call], list[Tensor | None]] | None = None  # or: the operator run on the units themselves
    rest: Callable[..., Any] | None = None  # rest(call, *rests of the operands) -> rest of the result
    plain: bool = False  # `rest` looks at the rests alone, not at the call
    spelled: bool = False  # `rest` looks at the rests and at what the rule spells out, but at nothing else
    why: str = "computes over this whole axis"  # the reason that `!` gives
    sizes: Mapping[str, str] = field(default_factory=dict)  # attribute -> the letter whose size it holds
    letters: Callable[[Call], dict[str, int]] | None = None  # sizes of letters that no attribute holds
    macs: str = ""  # letters whose sizes multiply to the multiply-accumulates, or a sum of such products
    fold: Callable[[Call], bool] | None = None  # whether a constant input folds into the bias
    contracts: bool = False  # multiplies and sums two operands
    zero_points: Mapping[int, int] = field(default_factory=dict)  # operand -> the operand that holds what stands for 0
    ranges: bool = False  # quantises its first operand by the largest entry, so that what goes must be zero there
    feedback: str = ""  # letter of a recurrent state, summed over inside
    data: int = 0  # how many operands are data; the rest set parameters (0: all are data)
    repair: Callable[[Cut], None] | None = None  # what surgery adjusts besides cutting axes
    sides: Callable[[Call], list[Side]] | None = None  # the pieces that it cuts of its first operand
    repairs: tuple[int, ...] = ()  # the operands that `repair` looks after
    rewrite: Operator | None = None  # the row that holds where surgery may write the node anew
    wall: str = ""  # why nothing passes

    @cached_property
    def recurs(self) -> bool:
        """Whether what it does follows from its rule and its operands alone, see `zig.recipes`."""
        looks = self.feedback or self.zero_points or self.ranges or self.sizes or self.letters
        return not looks and (self.plain or self.spelled or self.rest in (None, same, zero_only))


def times(a: Any, b: Any) -> Any:
    """A product in which 0 wins over the unknown (nan), but not over what is known to be infinite."""
    zero = (np.asarray(a) == 0) | (np.asarray(b) == 0)
    with np.errstate(invalid="ignore"):
        return np.where(zero & ~np.isinf(a) & ~np.isinf(b), 0.0, np.multiply(a, b))


def zero_only(_: Call, x: Any, *others: Any) -> Any:
    """Zero stays zero; any other constant becomes unknown."""
    return np.where(np.asarray(x) == 0, 0.0, np.nan)


def same(_: Call, x: Any, *others: Any) -> Any:
    """A constant stays what it is."""
    return x


def letters(rank: int) -> list[str]:
    """One letter for each axis of a tensor of this rank."""
    return [f"a{i}" for i in range(rank)]


def repair_sizes(index: int) -> Callable[[Cut], None]:
    """What surgery adjusts where an operand lists the sizes of the result (of some axes, by an attribute `axes`)."""

    def repair(cut: Cut) -> None:
        want, old, given = cut.sizes(cut.call.outputs[0]), cut.call.constant(index), cut.operand(index)
        if not cut.call.has(index):
            return
        short = len(want) - (len(want) if old is None else len(old))
        which = cut.call.attribute("axes") or range(short, len(want))
        want = tuple(want[a] for a in which)
        if given is not None and all(g in (1, w) for g, w in zip(given.tolist()[::-1], want[::-1], strict=False)):
            return
        ones = [old is not None and old.tolist()[i] == 1 for i in range(len(want))]
        entries = [1 if one else (n if isinstance(n, int) else None) for one, n in zip(ones, want, strict=True)]
        cut.set_sizes(index, entries, want)

    return repair
