"""What a row of the dictionary says about an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call, Tensor


@dataclass(frozen=True)
class Operator:
    """Everything zig knows about one operator."""

    rule: str | Callable[[Call], str] = ""  # how units pass, see zig.rules
    move: Callable[[Call], list[Tensor | None]] | None = None  # or: the operator run on the units themselves
    rest: Callable[..., Any] | None = None  # rest(call, *rests of the operands) -> rest of the result
    why: str = "computes over this whole axis"  # the reason that `!` gives
    sizes: Mapping[str, str] = field(default_factory=dict)  # attribute -> the letter whose size it holds
    letters: Callable[[Call], dict[str, int]] | None = None  # sizes of letters that no attribute holds
    macs: str = ""  # letters whose sizes multiply to the multiply-accumulates, or a sum of such products
    fold: Callable[[Call], bool] | None = None  # whether a constant input folds into the bias
    contracts: bool = False  # multiplies and sums two operands
    feedback: str = ""  # letter of a recurrent state, summed over inside
    data: int = 0  # how many operands are data; the rest set parameters (0: all are data)
    repair: Callable[[Cut], None] | None = None  # what surgery adjusts besides cutting axes
    repairs: tuple[int, ...] = ()  # the operands that `repair` looks after
    wall: str = ""  # why nothing passes


def times(a: Any, b: Any) -> Any:
    """A product in which 0 wins over the unknown (nan)."""
    return np.where((np.asarray(a) == 0) | (np.asarray(b) == 0), 0.0, np.multiply(a, b))


def zero_only(_: Call, x: Any, *others: Any) -> Any:
    """Zero stays zero; any other constant becomes unknown."""
    return np.where(np.asarray(x) == 0, 0.0, np.nan)


def same(_: Call, x: Any, *others: Any) -> Any:
    """A constant stays what it is."""
    return x


def letters(rank: int) -> list[str]:
    """One letter for each axis of a tensor of this rank."""
    return [f"a{i}" for i in range(rank)]
