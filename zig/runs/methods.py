"""The methods that a run can prune with: a name in a file, and what makes the optimizer.

A method is one row here and one section in config.py. What a row makes must be a torch optimizer with the properties
of `Pruner`; the loop calls `step(closure)`, where the closure evaluates loss and gradients of this step's batch. A
method that learns from data of its own says in its section how many (`held_back`) and finds them in `Setting`; it must
draw them by the number of the step, so that a run that goes on sees the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from torch.optim import Optimizer

from zig.runs.ato import build as ato
from zig.runs.config import Method
from zig.runs.setting import Setting
from zig.training.oto import OTO


class Pruner(Protocol):
    """What the loop asks of an optimizer, beyond what torch's have."""

    @property
    def steps(self) -> int:
        """The number of steps taken."""

    @property
    def finished(self) -> bool:
        """Whether the target is reached, so that what is zero now is what goes."""

    @property
    def group_sparsity(self) -> float:
        """The share of all groups that is zero."""


Build = Callable[[OTO, dict[str, Any], Setting], Optimizer]


def build(oto: OTO, section: Method, setting: Setting) -> Optimizer:
    """Make the optimizer that a section describes.

    Raises:
        PlanError: The target can't be reached, or an option is none of this method and variant.
    """
    options = {name: value for name, value in section if value is not None}
    name, decay = options.pop("name"), options.pop("decay", None)
    options["start_pruning_steps"] = round(options.pop("start") * setting.steps)
    options["pruning_steps"] = max(1, round(options.pop("pruning") * setting.steps))
    if decay is not None:
        options["decay_steps"] = max(1, round(decay * options["pruning_steps"]))
    return METHODS[name](oto, options, setting)


def _plainly(make: Callable[..., Optimizer]) -> Build:
    """A method that needs to know nothing of the run."""
    return lambda oto, options, _: make(oto, **options)


def pruner(optimizer: Optimizer) -> Pruner:
    """The same object, as what the loop asks of it."""
    return cast(Pruner, optimizer)


METHODS: dict[str, Build] = {
    "hspg": _plainly(OTO.hspg),
    "dhspg": _plainly(OTO.dhspg),
    "hesso": _plainly(OTO.hesso),
    "hesso_cric": _plainly(OTO.hesso_cric),
    "ato": ato,
}
