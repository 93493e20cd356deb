"""The learning rate over a training: a function of the step alone, so there is nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable

from zig.runs.config import Schedule

RISE = 0.3  # of a one-cycle schedule (Smith and Topin, 2018)
LOW = 0.04  # where it begins


def factor(section: Schedule, step: int, steps: int) -> float:
    """What the learning rate is multiplied by in a step of so many."""
    done, warmup = step / steps, section.warmup * steps
    return _SHAPES[section.name](section, done) * min(1.0, (step + 1) / max(warmup, 1))


def _one_cycle(_: Schedule, done: float) -> float:
    if done < RISE:
        return LOW + (1 - LOW) * _cosine(1 - done / RISE)
    return _cosine((done - RISE) / (1 - RISE))


def _cosine(done: float) -> float:
    """From 1 to 0."""
    return (1 + math.cos(math.pi * done)) / 2


_SHAPES: dict[str, Callable[[Schedule, float], float]] = {
    "constant": lambda _, done: 1.0,
    "step": lambda section, done: float(section.gamma ** sum(done >= each for each in section.milestones)),
    "cosine": lambda _, done: _cosine(done),
    "linear": lambda _, done: 1 - done,
    "one_cycle": _one_cycle,
}
