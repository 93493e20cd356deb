"""Gates on any torch module: its members times the gate of their unit, for the time of a call.

Nothing is put into the module. `torch.func.functional_call` runs it with the products in place of its parameters, so
there is no code for any architecture, and checkpoints and exports see the module as it is. A unit whose gate is 0 gives
what the removed unit gives, BatchNorm included: scale and bias are members, and `0 * (x - mean) / spread + 0` is 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from zig.controller.sites import sites
from zig.groups.partition import Partition
from zig.training.export import evaluation
from zig.training.groups import Bools, GroupRows, Ints
from zig.training.link import Links

Loss = Callable[[nn.Module], Tensor]


class Gates:
    """Where the gates of a module's G groups are.

    Attributes:
        module: The module, on any device and in any mode.
        partition: Its groups.
        rows: For each parameter the groups along its axes that have a gate there.
        members: The same for all members: what is zero once a group is gone.
    """

    def __init__(self, module: nn.Module, partition: Partition, links: Links):
        """Find the places; see `zig.controller.sites`."""
        self.module, self.partition = module, partition
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        self._names = list(dict(module.named_parameters()))
        self.rows: dict[str, list[tuple[int, Ints]]] = defaultdict(list)
        self.members: list[GroupRows] = []
        gated = _by_parameter(sites(partition), links)
        family = np.append(partition.node_group, -1)
        for found in links.rows(partition):
            groups = np.where(found.member, found.groups, -1)
            if found.parameter not in self._parameters or not (groups >= 0).any():
                continue
            self.members.append(GroupRows(self._parameters[found.parameter], found.axis, groups))
            groups = np.where(np.isin(family[groups], gated[found.parameter]), groups, -1)
            if (groups >= 0).any():
                self.rows[found.parameter].append((found.axis, groups))
        self._on: dict[torch.device, dict[str, list[Tensor]]] = {}

    def run(self, loss: Loss, gates: Tensor) -> Tensor:
        """A loss of the gated module, which is in evaluation mode: BatchNorm uses its running statistics.

        Args:
            loss: Computes it, given the module.
            gates: One gate for each group, in [0, 1], shape (G,).

        Returns:
            What `loss` returns; its gradient reaches the gates and nothing else.
        """
        held = {name: self._parameters[name].detach() for name in self._names}
        with evaluation(self.module):
            gated: Any = functional_call(_Call(self.module, loss), _within(held | self.values(gates)), ())
        return gated  # type: ignore[no-any-return]

    def values(self, gates: Tensor) -> dict[str, Tensor]:
        """The gated parameters by name, as functions of the gates, shape (G,)."""
        padded = torch.cat([gates, gates.new_ones(1)])  # index -1, what has no gate, reads the last
        found = {}
        for name, rows in self.rows.items():
            value = self._parameters[name].detach()
            for (axis, _), index in zip(rows, self._indices(name, gates.device), strict=True):
                shape = [-1 if i == axis else 1 for i in range(value.ndim)]
                value = value * padded[index].view(shape).to(value)
            found[name] = value
        return found

    @contextmanager
    def removed(self, remove: Bools) -> Iterator[None]:
        """All members of some groups (bool[G]) are zero meanwhile: the module computes what is left without them."""
        saved = {id(row.parameter): (row.parameter, row.parameter.detach().clone()) for row in self.members}
        with torch.no_grad():
            for parameter, axis, groups in self.members:
                gone = np.flatnonzero(np.append(remove, False)[groups])
                parameter.index_fill_(axis, torch.from_numpy(gone).to(parameter.device), 0)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in saved.values():
                    parameter.copy_(value)

    def _indices(self, name: str, device: torch.device) -> list[Tensor]:
        """The rows of a parameter as indices on the gates' device."""
        here = self._on.setdefault(device, {})
        if name not in here:
            here[name] = [torch.from_numpy(groups).to(device) for _, groups in self.rows[name]]
        return here[name]


class _Call(nn.Module):
    """A loss of a module as a module."""

    def __init__(self, module: nn.Module, loss: Loss):
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self) -> Tensor:
        return self.loss(self.module)


def _within(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in parameters.items()}


def _by_parameter(gated: dict[str, set[int]], links: Links) -> dict[str, list[int]]:
    """The node groups that have gates in each parameter, from those in each initializer."""
    found: dict[str, set[int]] = defaultdict(set)
    for tensor, families in gated.items():
        for link in links.links.get(tensor, ()):
            found[link.parameter] |= families
    return defaultdict(list, {name: sorted(families) for name, families in found.items()})
