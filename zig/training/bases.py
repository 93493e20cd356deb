"""The steps that pruning optimizers build on: SGD (momentum, Nesterov), Adam and AdamW, as in torch.

Each is two functions of a bundle of tensors: `advance` takes the gradients into the moments, `direction` says where the
parameters move, from the moments alone. So a direction can be asked for twice instead of being kept: no optimizer here
holds a temporary of the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from zig.errors import PlanError

Variant = Literal["sgd", "adam", "adamw"]


@dataclass(slots=True)
class Bundle:
    """Tensors of one parameter group that are updated together: whole parameters, or some rows of one.

    Attributes:
        group: The options of the parameter group.
        params: The parameters.
        moments: The moments of each, by name.
        states: The whole state of each; it counts the steps.
        grads: Their gradients.
        pulls: For each parameter what multiplies its rows and is added to the gradient, or None.
    """

    group: dict[str, Any]
    params: list[Tensor]
    moments: dict[str, list[Tensor]]
    states: list[dict[str, Any]]
    grads: list[Tensor] = field(default_factory=list)
    pulls: list[Tensor | None] | None = None

    def gradients(self, decay: float) -> list[Tensor]:
        """The gradients, with coupled weight decay and pulls."""
        if not decay and self.pulls is None:
            return self.grads
        found = [gradient.clone() for gradient in self.grads]
        self.couple(found, decay)
        return found

    def couple(self, values: list[Tensor], decay: float) -> None:
        """Add weight decay and pulls to gradients, or to what holds them."""
        if decay:
            torch._foreach_add_(values, self.params, alpha=decay)
        for value, x, pull in zip(values, self.params, self.pulls or (), strict=False):
            if pull is not None:
                value.addcmul_(x, pull)


class Base(NamedTuple):
    """One of the steps.

    Attributes:
        defaults: Its options.
        moments: What it keeps for each parameter, by the options of a parameter group.
        coupled: Whether weight decay is part of the gradient.
        advance: Take in the gradients.
        direction: Where the parameters move.
    """

    defaults: dict[str, Any]
    moments: Callable[[dict[str, Any]], tuple[str, ...]]
    coupled: bool
    advance: Callable[[Bundle, float], None]
    direction: Callable[[Bundle, float], list[Tensor]]


def base(variant: str) -> Base:
    """The step of a name.

    Raises:
        PlanError: There is none.
    """
    if variant not in _BASES:
        raise PlanError(f"there is no variant '{variant}'; choose sgd, adam or adamw")
    return _BASES[variant]


def _sgd_moments(group: dict[str, Any]) -> tuple[str, ...]:
    return ("momentum_buffer",) if group["momentum"] else ()


def _sgd_advance(bundle: Bundle, decay: float) -> None:
    momentum = bundle.group["momentum"]
    if momentum:
        buffers = bundle.moments["momentum_buffer"]
        for gradient, buffer in zip(bundle.grads, buffers, strict=True):
            torch.add(gradient, buffer, alpha=momentum, out=buffer)  # one pass over memory instead of two
        bundle.couple(buffers, decay)


def _sgd_direction(bundle: Bundle, decay: float) -> list[Tensor]:
    momentum = bundle.group["momentum"]
    if not momentum:
        return bundle.gradients(decay)
    buffers = bundle.moments["momentum_buffer"]
    if not bundle.group["nesterov"]:
        return buffers
    return list(torch._foreach_add(bundle.gradients(decay), buffers, alpha=momentum))


def _adam_moments(group: dict[str, Any]) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq")


def _adam_advance(bundle: Bundle, decay: float) -> None:
    (beta1, beta2), gradients = bundle.group["betas"], bundle.gradients(decay)
    first, second = bundle.moments["exp_avg"], bundle.moments["exp_avg_sq"]
    torch._foreach_lerp_(first, gradients, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)


def _adam_direction(bundle: Bundle, decay: float) -> list[Tensor]:
    (beta1, beta2), steps = bundle.group["betas"], [state["step"] for state in bundle.states]
    below = torch._foreach_sqrt(bundle.moments["exp_avg_sq"])
    torch._foreach_div_(below, [math.sqrt(1 - beta2**step) / (1 - beta1**step) for step in steps])
    torch._foreach_add_(below, [bundle.group["eps"] * (1 - beta1**step) for step in steps])
    return list(torch._foreach_div(bundle.moments["exp_avg"], below))


_SGD = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
_ADAM = {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}
_BASES = {
    "sgd": Base(_SGD, _sgd_moments, True, _sgd_advance, _sgd_direction),
    "adam": Base(_ADAM, _adam_moments, True, _adam_advance, _adam_direction),
    "adamw": Base({**_ADAM, "weight_decay": 1e-2}, _adam_moments, False, _adam_advance, _adam_direction),
}
