"""How long a training is, and the phases that follow from that."""

from __future__ import annotations

import math
from typing import Any

from zig.errors import PlanError, UsageError

START, PRUNING = 0.25, 0.5  # shares of a training: HSPG's 75 of 300 epochs, and a quarter that is left for recovery

_SENSIBLE = (
    "sensible is to start after a tenth to a quarter of all steps and to prune over a third to a half of them, so that "
    "the rest recovers"
)


def total_steps(given: dict[str, Any]) -> int | None:
    """The optimizer steps of the whole training, by `steps`, or `epochs` and `batches`; these are taken out of `given`.

    Raises:
        UsageError: Half of it is given, or too much, or a number that is none.
    """
    numbers = {name: given.pop(name, None) for name in ("steps", "epochs", "batches")}
    known = {name: number for name, number in numbers.items() if number is not None}
    for name, number in known.items():
        if not isinstance(number, int) or number < 1:
            raise UsageError(f"{name} is {number!r}; give a whole number, 1 or more")
    if known.keys() not in ({*()}, {"steps"}, {"epochs", "batches"}):
        raise UsageError(
            f"the length of the training is given by {' and '.join(known)}; give steps alone, or epochs and batches "
            "(the steps of an epoch, as len(loader))"
        )
    return math.prod(known.values()) if known else None


def phases(given: dict[str, Any], method: str) -> tuple[int, int]:
    """`start_pruning_steps` and `pruning_steps`, or what follows from the length; all are taken out of `given`.

    Raises:
        PlanError: Pruning would not be over when the training is.
        UsageError: Neither they nor the length of the training are known.
    """
    total = total_steps(given)
    start, pruning = given.pop("start_pruning_steps", None), given.pop("pruning_steps", None)
    if total is None:
        check_known(start, pruning, method)
        return int(start), int(pruning)
    if pruning is None:
        pruning = max(1, int(min(PRUNING * total, total - (START * total if start is None else start))))
    if start is None:
        start = max(0, int(min(START * total, total - pruning)))
    if start + pruning > total:
        raise PlanError(
            f"start_pruning_steps={start} and pruning_steps={pruning} are more than the {total} steps of the training; "
            f"{_SENSIBLE}"
        )
    return int(start), int(pruning)


def check_known(start: int | None, pruning: int | None, method: str) -> None:
    """Ask for the length of the training where there is no schedule.

    Raises:
        UsageError: There is none.
    """
    if start is None or pruning is None:
        raise UsageError(
            f"{method} must know how long the training is: give steps (all of them), or epochs and batches, or "
            f"start_pruning_steps and pruning_steps; {_SENSIBLE}"
        )
