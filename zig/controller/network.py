"""The controller of ATO (Wu et al., "Auto-Train-Once", CVPR 2024): a small network that says which units stay.

It reads nothing: a bidirectional GRU walks over the node groups in the order of the graph, from fixed orthogonal
inputs, and a head for each node group makes a logit o for each of its units. A unit's gate is random:

    w = sigmoid((o + g + b) / T)    g ~ Gumbel(0, 1), b = 3, T = 0.4
    m = 1 where w >= 1/2            with the gradient of w ("straight-through")
    P(m = 1) = 1 - exp(-exp(o + b))

so that with o near 0, as it starts, hardly anything is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["gru", "logits", "none"]
BASE, TEMPERATURE = 3.0, 0.4
MANY = 100_000  # units from which on heads have a low rank, unless said otherwise
RANK = 16


class Controller(nn.Module):
    """Logits of all units from a GRU over node groups.

    A bias-free Linear for each node group is one row of weights for each unit; so all heads are one table.
    """

    group: Tensor
    walk: Tensor

    def __init__(self, widths: Sequence[int], *, inputs: int = 64, hidden: int = 128, rank: int | None = None):
        """Make the controller.

        Args:
            widths: The units of each node group, L of them, N units in all.
            inputs: Size of the fixed inputs.
            hidden: Size of the GRU's state in each direction.
            rank: Heads share a projection of their input to this size, so that a unit costs `rank` weights instead of
                2 `hidden`; None for 16 where there are more than 10^5 units, 0 for heads of full rank.
        """
        super().__init__()
        rank = (RANK if sum(widths) > MANY else 0) if rank is None else rank
        self.register_buffer("walk", nn.init.orthogonal_(torch.empty(len(widths), inputs)))
        self.register_buffer("group", torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(list(widths))))
        self.gru = nn.GRU(inputs, hidden, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.shared = nn.Linear(2 * hidden, rank, bias=False) if rank else nn.Identity()
        size = rank or 2 * hidden
        self.heads = nn.Parameter(torch.empty(sum(widths), size).uniform_(-1 / math.sqrt(size), 1 / math.sqrt(size)))

    def forward(self) -> Tensor:
        """The logits, shape (N,), units of the first node group first."""
        seen, _ = self.gru(self.walk)
        seen = self.shared(self.norm(seen).relu())
        logits: Tensor = (seen[self.group] * self.heads).sum(1)
        return logits


class Logits(nn.Module):
    """A logit for each unit and no network: what the controller is measured against."""

    def __init__(self, widths: Sequence[int]):
        """Start from 0."""
        super().__init__()
        self.heads = nn.Parameter(torch.zeros(sum(widths)))

    def forward(self) -> Tensor:
        """The logits, shape (N,)."""
        return self.heads


def make(kind: Kind, widths: Sequence[int], rank: int | None = None) -> nn.Module:
    """The controller of a kind other than `none`, for node groups of these widths."""
    return Controller(widths, rank=rank) if kind == "gru" else Logits(widths)


def noise(count: int, random: torch.Generator) -> Tensor:
    """Gumbel(0, 1), shape (count,)."""
    return -torch.empty(count).exponential_(generator=random).log()


def soft_gates(logits: Tensor, gumbel: Tensor, base: float = BASE, temperature: float = TEMPERATURE) -> Tensor:
    """The gates w at the top of this file, in (0, 1), shape (N,)."""
    return torch.sigmoid((logits + gumbel + base) / temperature)


def hard_gates(soft: Tensor) -> Tensor:
    """The gates m at the top of this file: 0 or 1, with the gradient of the soft ones, shape (N,)."""
    hard = (soft >= 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())


def probability(logits: Tensor, base: float = BASE) -> Tensor:
    """P(m = 1), shape (N,)."""
    return -torch.expm1(-torch.exp(logits + base))
