"""What gates cost, as a differentiable function of them, and how far that is from the budget.

Multiply-accumulates and parameters are the budget's products of sizes, where a size is the sum of the gates along an
axis: linear in a depthwise convolution's channels, bilinear in those of a dense one, as the rules of the operators say.
Milliseconds are those of `zig.latency`'s tables, interpolated at such sizes. For gates of 0 and 1 each is the cost of
the removed network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zig.budget import Budget, Products
from zig.errors import PlanError
from zig.latency import Latency, Table
from zig.partition import Partition
from zig.training.groups import Bools, Floats, GroupTable
from zig.training.target import Target

Measure = Literal["macs", "params", "latency"]
SLACK = 0.005  # of p: so near to it nothing pulls
_HALVINGS = 24  # of the share of MACs that meets a latency


class Resource(ABC):
    """The cost of a partition's G groups.

    Attributes:
        whole: Of all of them.
        prunable: Of the nodes (or weights) in which a gate takes part: ATO's "prunable FLOPs".
    """

    whole: float
    prunable: float

    @abstractmethod
    def cost(self, remove: Bools) -> float:
        """What is left when the groups in `remove` (bool[G]) are gone."""

    @abstractmethod
    def gated(self, gates: Tensor) -> Tensor:
        """The cost of the prunable part, of gates in [0, 1], shape (G,)."""

    @abstractmethod
    def target(self, table: GroupTable, share: float, round_to: int) -> Any:
        """What chooses groups so that a share of the whole cost is gone; see `zig.training.target.Target`."""

    def left(self, gates: Floats) -> float:
        """The share of the whole cost that is left with these gates, float64[G]."""
        return 1 - (self.prunable - float(self.gated(torch.from_numpy(gates)))) / self.whole

    def goal(self, keep: float | None, p: float | None, least: float) -> tuple[float, float]:
        """What is to be left: as a share of everything, and as a share of the prunable part.

        Args:
            keep: The first, if that is given.
            p: The second, if that is given.
            least: What the smallest network keeps of everything.

        Raises:
            PlanError: Both or none are given, or one that no network has.
        """
        if (keep is None) == (p is None):
            raise PlanError("give keep, the share of everything that is left, or p, that of the prunable part")
        rest = self.prunable / self.whole  # 1 - keep = rest * (1 - p)
        if keep is not None:
            name, share, whole, part, low = "keep", keep, keep, 1 - (1 - keep) / rest, least
        else:
            assert p is not None  # one of them is given
            name, share, whole, part, low = "p", p, 1 - rest * (1 - p), p, 1 - (1 - least) / rest
        if not low <= share <= 1:
            raise PlanError(
                f"{name} is {share:g}; choose {math.ceil(1000 * low) / 1000:g} to 1: {rest:.1%} of the cost can be "
                "pruned, and each node group keeps a unit or more"
            )
        return whole, part

    def penalty(self, gates: Tensor, p: float) -> Tensor:
        """How far the share r of the prunable part is from p: log(max(r, p + .005) / p), or log(p / min(r, p - .005)).

        Args:
            gates: Shape (G,).
            p: The share to come to.

        Returns:
            A number > 0, whose gradient is 0 where r is within .005 of p.
        """
        r = self.gated(gates) / self.prunable
        low = max(p - SLACK, p / 2)
        return torch.where(r > p, r.clamp_min(p + SLACK) / p, p / r.clamp(1e-6, low)).log()


def resource(partition: Partition, prunable: Bools, of: Measure, latency: Latency | None = None) -> Resource:
    """The resource of a name.

    Args:
        partition: G groups.
        prunable: Those that have a gate, bool[G].
        of: `macs`, `params` or `latency`.
        latency: The tables, for the last.

    Raises:
        PlanError: Its tables are missing or of another partition, or nothing can be pruned.
    """
    if (of == "latency") is not (latency is not None):
        raise PlanError("of='latency' and latency=Latency.measure(partition) go together; give both or neither")
    if latency is not None and latency.partition is not partition:
        raise PlanError("these latency tables are of another partition; measure that of the model, `oto.partition`")
    made = Counted(partition, prunable, of) if latency is None else Timed(latency, prunable)
    made.prunable = float(made.gated(torch.ones(len(partition), dtype=torch.float64)))
    if not made.prunable:
        raise PlanError("no group of this model can be pruned by training; `zig analyze` says what fixes each")
    return made


class Counted(Resource, Products):
    """Multiply-accumulates or parameters."""

    def __init__(self, partition: Partition, prunable: Bools, of: Measure):
        """Lay out the products."""
        flow = partition.flow
        weights = [[part for axis in t.axes for part in axis] for t in flow.weights.values() if t.weight]
        super().__init__(partition, [parts for _, parts in flow.costs] if of == "macs" else weights)
        self.of, self._budget = of, Budget(partition)
        owners = np.stack(self._owners)
        has_gate = np.append(prunable, False)[owners]
        gated = has_gate.any(axis=0)
        column = np.repeat(np.arange(len(self._lengths)), self._lengths)
        live = np.append(np.bincount(column, gated, len(self._lengths)) > 0, False)[self.table].any(axis=1)
        source = np.where(has_gate, owners, len(partition))
        layout = (source, column, self.table[live], self.factors[live])
        self._layout = tuple(torch.from_numpy(each) for each in layout)
        self.whole = self.cost(np.zeros(len(partition), bool))

    def cost(self, remove: Bools) -> float:
        """See `Resource`."""
        return self._budget.price(remove)[("params", "macs").index(self.of)]

    def gated(self, gates: Tensor) -> Tensor:
        """See `Resource`."""
        source, column, table, factors = (each.to(gates.device) for each in self._layout)
        values = torch.cat([gates, gates.new_ones(1)])[source].prod(
            0
        )  # an index of a product has a gate of each factor
        sizes = gates.new_zeros(len(self._lengths)).index_add(0, column, values)
        sizes = torch.cat([sizes, sizes.new_ones(1)])  # what rows are padded with
        return (sizes[table].prod(1) * factors.to(gates.dtype)).sum()

    def target(self, table: GroupTable, share: float, round_to: int) -> Target:
        """See `Resource`."""
        return Target(table, share, "params" if self.of == "params" else "macs", round_to)


class Timed(Resource):
    """Milliseconds."""

    def __init__(self, latency: Latency, prunable: Bools):
        """Look up the tables of the layers in which a gate takes part."""
        self.latency = latency
        live = [layer for layer in latency.layers if any(prunable[own].any() for own in layer.groups)]
        self._layers = [(layer, _Surface(latency.tables[layer.key(None)])) for layer in live]
        self.whole = self.cost(np.zeros(len(prunable), bool))

    def cost(self, remove: Bools) -> float:
        """See `Resource`."""
        return self.latency(remove)

    def gated(self, gates: Tensor) -> Tensor:
        """See `Resource`."""
        times = [surface([gates[own].sum() for own in layer.groups]) for layer, surface in self._layers]
        return self.latency.scale * torch.stack(times).sum() if times else gates.new_zeros(())

    def target(self, table: GroupTable, share: float, round_to: int) -> TimedTarget:
        """See `Resource`."""
        return TimedTarget(self, table, share, round_to)


class _Surface:
    """A layer's time between the points of its table, with a gradient."""

    def __init__(self, table: Table):
        self.grids = [torch.tensor(grid, dtype=torch.float64) for grid in table.widths]
        self.times = torch.from_numpy(table.times)

    def __call__(self, widths: list[Tensor]) -> Tensor:
        times = self.times.to(widths[0])
        for width, grid in zip(widths, self.grids, strict=True):
            if len(grid) == 1:
                times = times[0]
                continue
            low = int(torch.searchsorted(grid, float(width.detach()), right=True).clamp(1, len(grid) - 1)) - 1
            start, end = grid[low : low + 2].tolist()
            rest = ((width - start) / (end - start)).clamp(0, 1)
            times = (1 - rest) * times[low] + rest * times[low + 1]
        return times


class TimedTarget:
    """Chooses groups so that a share of the milliseconds is gone: in the order in which MACs would go, by bisection."""

    def __init__(self, resource: Timed, table: GroupTable, share: float, round_to: int):
        """See `zig.training.target.Target`."""
        none = Target(table, 0.0, "macs", round_to)
        self.resource, self.share, self.round_to = resource, share, round_to
        self._macs = Target(table, none.most, "macs", round_to)
        self.most = self._gone(self._macs.choose(np.zeros(len(table))))

    def choose(self, scores: Floats) -> Bools:
        """The groups of the highest scores, bool[G]."""
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._gone(self._macs.choose(scores, middle)) < self.share else (low, middle)
        plans = [self._macs.choose(scores, part) for part in (low, high)]
        return min(plans, key=lambda plan: abs(self._gone(plan) - self.share))

    def _gone(self, remove: Bools) -> float:
        return 1 - self.resource.cost(remove) / self.resource.whole
