"""ATO in one piece: a torch model, its groups, and the optimizer with the controller.

ato = ATO(model, images[:1], keep=0.5, variant="adamw", lr=1e-3, steps=epochs * len(loader))
for x, y in loader:                                         # as usual, and one line more
    ato.optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    ato.optimizer.step()
    ato.optimizer.learn(lambda net: cross_entropy(net(apart_x), apart_y))
ato.compress()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from zig.training.bases import Variant
from zig.training.export import DynamicAxes, Inputs
from zig.training.oto import OTO


class ATO(OTO):
    """A model and the optimizer that prunes it under a controller.

    Attributes:
        optimizer: See `ATOOptimizer`.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, *, keep: float | None = None, variant: Variant = "sgd",
        unprunable: Iterable[str] = (), keywords: Mapping[str, Any] | None = None,
        dynamic_axes: DynamicAxes | None = None, forks: str = "heads", **options: Any,
    ):  # fmt: skip
        """Find the groups and make the optimizer.

        Args:
            model: The model, on any device, wrapped or not.
            inputs: What it reads, see `OTO`.
            keep: The share of all multiply-accumulates that is left in the end; or give p, that of the prunable ones.
            variant: `sgd`, `adam` or `adamw`.
            unprunable: Patterns of parameter names that are never pruned, as `head.*`.
            keywords: See `OTO`.
            dynamic_axes: See `OTO`.
            forks: See `OTO`.
            **options: Of `OTO.ato`.

        Raises:
            PlanError: The budget can't be reached, or the schedule is none.
            ExportError: The model can't be exported without loss.
            LinkError: A trainable parameter can't be found in the graph.
        """
        super().__init__(model, inputs, keywords=keywords, dynamic_axes=dynamic_axes, forks=forks, keep=unprunable)
        self.optimizer = self.ato(variant, keep=keep, **options)
