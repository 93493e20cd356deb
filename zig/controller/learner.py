"""The controller at work: it learns which units to keep from the loss of the gated model, and is asked for masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed

from zig.controller import network
from zig.controller.gates import Gates, Loss
from zig.controller.resource import Resource
from zig.controller.settings import Settings
from zig.training.groups import Bools, Floats, GroupTable, Ints

_DECAY = 1e-2  # of AdamW, for matrices


class Lesson(NamedTuple):
    """What the controller saw in a step of its own.

    Attributes:
        loss: Of the model with soft gates.
        penalty: How far the sampled network is from the budget.
    """

    loss: float
    penalty: float


class Learner:
    """A controller, its optimizer and its noise.

    Attributes:
        units: The group that each of N logits is of, node group by node group, int64[N].
        network: The controller.
    """

    def __init__(self, settings: Settings, gates: Gates, table: GroupTable, device: torch.device):
        """Make the controller for the prunable groups of a table."""
        self.settings, self.gates, self.table = settings, gates, table
        family, alone = table.node_group, np.bincount(table.node_group) < 2
        open_ = np.flatnonzero(table.prunable & ~alone[family])
        self.units: Ints = open_[np.argsort(family[open_], kind="stable")]
        self._at = torch.from_numpy(self.units).to(device)
        widths = np.unique(family[self.units], return_counts=True)[1].tolist()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = network.make(settings.controller, widths, settings.rank).to(device)
        self._random = torch.Generator().manual_seed(settings.seed)
        matrices, others = ([p for p in self.network.parameters() if (p.ndim > 1) is many] for many in (True, False))
        self._adamw = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": _DECAY}, {"params": others, "weight_decay": 0.0}], settings.rate
        )

    def learn(self, loss: Loss, resource: Resource, p: float, rate: float = 1.0) -> Lesson:
        """Take one step down loss(soft gates) + 2 weight R(hard gates), each with noise of its own.

        Args:
            loss: Of the model, given the module; it should be on examples that the model does not train on.
            resource: Prices the hard gates.
            p: The share of the prunable part that is to be left.
            rate: Multiplies the learning rate.
        """
        with torch.enable_grad():
            logits: Tensor = self.network()
            value = self.gates.run(loss, self._by_group(self._soft(logits)))
            penalty = resource.penalty(self._by_group(network.hard_gates(self._soft(logits))), p)
            parameters = list(self.network.parameters())
            slopes = torch.autograd.grad(value + 2 * self.settings.weight * penalty, parameters)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = _mean(slope)
        for group in self._adamw.param_groups:
            group["lr"] = rate * self.settings.rate
        self._adamw.step()
        self._adamw.zero_grad()
        return Lesson(float(value.detach()), float(penalty.detach()))

    @torch.no_grad()
    def sample(self) -> Bools:
        """The groups that a random mask removes, bool[G]; each node group keeps at least one."""
        gates = np.ones(len(self.table))
        gates[self.units] = self._soft(self.network()).cpu().numpy()
        family = self.table.node_group
        best = np.zeros(len(gates), bool)
        order = np.lexsort((gates, family))
        best[order[np.append(np.diff(family[order]) > 0, True)]] = True
        removed: Bools = (gates < 0.5) & ~best
        return removed

    @torch.no_grad()
    def logits(self) -> Floats:
        """The logit of each group, float64[G]; 0 for those that no mask takes."""
        logits = np.zeros(len(self.table))
        logits[self.units] = self.network().double().cpu().numpy()
        return logits

    def probabilities(self) -> Floats:
        """The probability that each group stays, float64[G]."""
        found = np.ones(len(self.table))
        found[self.units] = network.probability(torch.from_numpy(self.logits()[self.units]), self.settings.base).numpy()
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that it takes to go on: weights, moments, noise."""
        return {
            "network": self.network.state_dict(), "adamw": self._adamw.state_dict(), "noise": self._random.get_state()
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(state["network"])
        self._adamw.load_state_dict(state["adamw"])
        self._random.set_state(state["noise"].cpu())

    def _soft(self, logits: Tensor) -> Tensor:
        gumbel = network.noise(len(self.units), self._random).to(logits.device)
        return network.soft_gates(logits, gumbel, self.settings.base, self.settings.temperature)

    def _by_group(self, gates: Tensor) -> Tensor:
        """Gates of units as gates of groups, shape (G,); 1 for all others."""
        return gates.new_ones(len(self.table)).index_put((self._at,), gates)


def _mean(value: Tensor) -> Tensor:
    """The mean over the processes of a distributed training."""
    if not _together():
        return value
    value = value.contiguous()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def agreed(mask: Bools, device: torch.device) -> Bools:
    """The mask of the first process of a distributed training."""
    if not _together():
        return mask
    sent = torch.from_numpy(mask).to(device, torch.uint8)
    distributed.broadcast(sent, 0)
    return sent.cpu().numpy().astype(bool)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
