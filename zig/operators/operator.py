"""What a row of the dictionary says about an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call, Tensor


Side = tuple[int, int, int, int]  # number of the result, axis, where the piece begins and where it ends
_OFF = 1e-2  # by which share a number may be off: in half precision, after a few operations
_TINY = 1e-4  # a number that may be what rounding leaves of zero
ABSENT = 99  # the place of a zero point that no operator has: 0 itself


@dataclass(frozen=True)
class Operator:
    """Everything zig knows about one operator."""

    rule: str | Callable[[Call], str] = ""  # how units pass, see zig.rules
    move: Callable[[Call], list[Tensor | None]] | None = None  # or: the operator run on the units themselves
    rest: Callable[..., Any] | None = None  # rest(call, *rests of the operands) -> rest of the result
    plain: bool = False  # `rest` looks at the rests alone, not at the call
    why: str = "computes over this whole axis"  # the reason that `!` gives
    sizes: Mapping[str, str] = field(default_factory=dict)  # attribute -> the letter whose size it holds
    letters: Callable[[Call], dict[str, int]] | None = None  # sizes of letters that no attribute holds
    macs: str = ""  # letters whose sizes multiply to the multiply-accumulates, or a sum of such products
    fold: Callable[[Call], bool] | None = None  # whether a constant input folds into the bias
    contracts: bool = False  # multiplies and sums two operands
    zero_points: Mapping[int, int] = field(default_factory=dict)  # operand -> the operand that holds what stands for 0
    ranges: bool = False  # quantises its first operand by the largest entry, so that what goes must be zero there
    feedback: str = ""  # letter of a recurrent state, summed over inside
    undefined: Mapping[int, Callable[[Call, Any], Any]] = field(default_factory=dict)  # operand -> which of its entries
    # leave nothing defined, whatever else is zero: a divisor of zero
    data: int = 0  # how many operands are data; the rest set parameters (0: all are data)
    repair: Callable[[Cut], None] | None = None  # what surgery adjusts besides cutting axes
    sides: Callable[[Call], list[Side]] | None = None  # the pieces that it cuts of its first operand
    repairs: tuple[int, ...] = ()  # the operands that `repair` looks after
    rewrite: Operator | None = None  # the row that holds where surgery may write the node anew
    wall: str = ""  # why nothing passes


def times(a: Any, b: Any) -> Any:
    """A product in which 0 wins over the unknown (nan), but not over what is infinite or undefined (both are inf)."""
    zero, endless = (np.asarray(a) == 0) | (np.asarray(b) == 0), np.isinf(a) | np.isinf(b)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(endless, np.inf, np.where(zero, 0.0, np.multiply(a, b)))


def summed(a: Any, b: Any) -> Any:
    """What a sum of products comes to: zero, infinite, or unknown, since how many are added is not for rests to say."""
    product = times(a, b)
    return np.where((product == 0) | np.isinf(product), product, np.nan)


def zero_only(_: Call, x: Any, *others: Any) -> Any:
    """Zero stays zero; any other constant becomes unknown."""
    return np.where(np.asarray(x) == 0, 0.0, np.nan)


def steady(value: Callable[..., Any], *given: Any) -> Any:
    """A function with jumps, unknown near them: rests are computed more exactly than what the model computes.

    Zero is exactly zero; other numbers may be off by a little, which matters to a function with a jump there.
    """
    found = np.asarray(value(*given), np.float64)
    for shares in product((1 - _OFF, 1 + _OFF), repeat=len(given)):
        near = value(*(np.multiply(x, share) for x, share in zip(given, shares, strict=True)))
        found = np.where(np.abs(near - found) <= 2 * _OFF * np.abs(found), found, np.nan)
    tiny = np.logical_or.reduce(np.broadcast_arrays(*((np.abs(x) < _TINY) & (np.asarray(x) != 0) for x in given)))
    return np.where(tiny, np.nan, found)


def defined(value: Any, *given: Any) -> Any:
    """A function's value; where it has none though all operands are known (0 / 0), infinity, which nothing absorbs."""
    known = np.logical_and.reduce(np.broadcast_arrays(*(np.isfinite(x) for x in given)))
    return np.where(np.isnan(value) & known, np.inf, value)


def same(_: Call, x: Any, *others: Any) -> Any:
    """A constant stays what it is."""
    return x


def no_divisor(_: Call, value: Any) -> Any:
    """Which entries nothing can be divided by, not even zero."""
    return (value == 0) | np.isnan(value)


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
        ones = [old is not None and old.tolist()[i] == 1 for i in range(len(want))]
        if given is not None and all(g == w or one for g, w, one in zip(given.tolist(), want, ones, strict=False)):
            return
        entries = [1 if one else (n if isinstance(n, int) else None) for one, n in zip(ones, want, strict=True)]
        cut.set_sizes(index, entries, want)

    return repair
