"""A training whose numbers are none any more is stopped: NaN goes through a whole network in one step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zig.errors import RunError

_SELDOM = 50  # steps between two looks on an accelerator, which has to be waited for
_READ = 1 << 20  # parameters of a processor that may be read for each step
_ADVICE = "lower lr, or clip the gradients, and begin anew or from an earlier state"


class Watch:
    """Looks at the parameters every so many steps."""

    def __init__(self, params: Iterable[Tensor], names: Mapping[Tensor, str]):
        """Note what to look at, and what it is called."""
        self.params = [p for p in params if p.is_floating_point()]
        self.names = names
        self.waits = not all(p.is_cpu for p in self.params)
        count = sum(p.numel() for p in self.params)
        self.every = _SELDOM if self.waits else min(_SELDOM, 1 + count // _READ)

    def is_due(self, step: int) -> bool:
        """Whether to look after this step, the first being 0."""
        return (step + 1) % self.every == 0

    def check_loss(self, loss: Any, step: int) -> None:
        """Refuse to learn from a loss that is no number; on an accelerator it is looked at now and then.

        Raises:
            RunError: It is none; no parameter has moved.
        """
        if loss is None or (isinstance(loss, Tensor) and not loss.is_cpu and not self.is_due(step)):
            return
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        if not math.isfinite(value):
            raise RunError(f"the loss is {value} in step {step + 1}, and the parameters are as before it; {_ADVICE}")

    @torch.no_grad()
    def check(self, step: int) -> None:
        """Look at all parameters.

        Raises:
            RunError: One is not finite.
        """
        if all(math.isfinite(norm) for norm in _norms(self.params)):
            return
        odd = [p for p in self.params if not bool(p.isfinite().all())]
        if odd:
            raise RunError(f"{self._named(odd)} not finite any more after step {step + 1}; {_ADVICE}")

    def _named(self, odd: Sequence[Tensor]) -> str:
        first = self.names.get(odd[0])
        name = f"parameter '{first}'" if first else f"a parameter of shape {tuple(odd[0].shape)}"
        return f"{name} is" if len(odd) == 1 else f"{name} and {len(odd) - 1} more are"


def _norms(params: Sequence[Tensor]) -> list[float]:
    """The largest magnitude of each parameter, waiting once for each device and type."""
    found: list[float] = []
    for kind in {(p.device, p.dtype) for p in params}:
        alike = [p for p in params if (p.device, p.dtype) == kind and p.numel()]
        found += torch.stack(list(torch._foreach_norm(alike, math.inf))).tolist() if alike else []
    return found
