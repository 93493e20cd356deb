"""Why something can't be removed, the way from it to the node that fixes it, and what would free it."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from zig.errors import UsageError
from zig.flow.flow import Flow
from zig.flow.units import Units
from zig.groups.budget import Budget
from zig.groups.forks import FORKS, members, settle, sides
from zig.groups.partition import Partition, analyze


class Why(NamedTuple):
    """Indices of one axis that stay: the reason, the nodes on the way to where it arose, and what would free them."""

    tensor: str
    axis: int
    size: int
    reason: str
    node: str
    chain: list[str]
    advice: str


class Change(NamedTuple):
    """A node group whose width differs between two models (0: it is not there)."""

    name: str
    before: int
    after: int


# What a reason says -> what a user can do about it. The first that fits is taken, if anything is free without it.
_ADVICE = (
    (
        "--freeze-inputs",
        "say that nobody overrides it (--freeze-inputs), or export the model without listing it as an input",
    ),
    ("part of the model's input", "nothing: callers rely on the input's size"),
    ("part of the model's output", "nothing: callers rely on the output's size"),
    ("by request", "drop that --keep pattern"),
    ("does not know", "give zig a rule for the operator: analyze(operators=...)"),
    ("dynamic", "export the model with this size fixed"),
    ("run time", "export the model with fixed sizes, so that this is known before it runs"),
    ("is not known", "run onnx's shape inference on the model, or export it with fixed sizes"),
    ("sub-graph", "export the model without control flow"),
    ("leak", "make the value before it rest at zero, for example by another activation"),
    ("batch", "nothing: it runs along the samples"),
)
_NOTHING = "nothing, as long as this node is there"
_NOT_ALONE = "nothing by itself: without this reason others hold it"


def summary(partition: Partition) -> dict[str, Any]:
    """The result as plain data: what `zig analyze --json` prints."""
    budget = Budget(partition)
    return {
        "nodes": len(partition.graph.nodes),
        "parameters": budget.parameters,
        "prunable_parameters": budget.prunable_parameters,
        "macs": budget.macs,
        "groups": len(partition),
        "node_groups": [
            {
                "id": g.id, "name": g.name, "size": g.size,
                "members": [{"tensor": t, "axis": a} for t, a in g.members],
                "dependents": [{"tensor": t, "axis": a} for t, a in g.dependents],
            }
            for g in partition.node_groups
        ],
        "fixed": [vars(f) | {} for f in partition.fixed],
        "unknown_operators": partition.unknown_operators,
        "seconds": round(partition.seconds, 4),
    }  # fmt: skip


def why(partition: Partition, tensor: str) -> list[Why]:
    """Why indices of an initializer can't be removed; empty where all can.

    Args:
        partition: the result of `zig.analyze`.
        tensor: name of an initializer.

    Raises:
        UsageError: the model has no such weight.
    """
    if tensor not in partition.flow.weights:
        raise UsageError(f"{partition.graph.name} has no weight '{tensor}'; `zig analyze --json` lists their names")
    found, trials = [], _Trials(partition, tensor)
    for axis, parts in enumerate(partition.flow.weights[tensor].axes):
        for units in (part.units for part in parts if part.live):
            reasons = partition.labels.why[partition.labels.component[units]]
            for number in np.unique(reasons[reasons > 0]):
                reason, stuck = partition.flow.reasons[number], units[reasons == number]
                chain = _chain(partition, stuck, int(number))
                advice = trials.advice(axis, int(number))
                found.append(Why(tensor, axis, len(stuck), reason.text, reason.node, chain, advice))
    return found


def diff(a: Partition, b: Partition) -> list[Change]:
    """Node groups, by name, whose number of ZIGs differs between two models."""
    widths = [{group.name: group.size for group in partition.node_groups} for partition in (a, b)]
    names = dict.fromkeys([*widths[0], *widths[1]])
    changes = (Change(name, widths[0].get(name, 0), widths[1].get(name, 0)) for name in names)
    return [change for change in changes if change.before != change.after]


class _Trials:
    """What is tried before it is advised: whether more indices along an axis of a weight can go then."""

    def __init__(self, partition: Partition, tensor: str):
        """Begin with nothing tried."""
        self.partition, self.tensor = partition, tensor

    def advice(self, axis: int, reason: int) -> str:
        """What frees some of what a reason holds."""
        text = self.partition.flow.reasons[reason].text
        known = next((advice for mark, advice in _ADVICE if mark in text), "")
        if known:
            helps = known.startswith("nothing") or self._frees(self._without(reason), axis)
            return known if helps else _NOT_ALONE
        if self.rewritten is not None and self._frees(self.rewritten, axis):
            return "allow rewriting (--allow-rewrite)"
        option = next((name for name, other in self.forked.items() if self._frees(other, axis)), "")
        return f"choose the other side of the split (--forks {option})" if option else _NOTHING

    @cached_property
    def rewritten(self) -> Partition | None:
        """The groups where nodes may be written anew; None where none of them has another row."""
        given, flow = self.partition, self.partition.flow
        rows = (flow.operators.get(node.op) for node in given.graph.nodes)
        if not any(row and row.rewrite for row in rows):
            return None
        return analyze(
            given.graph, forks=given.forks or FORKS[0], operators=flow.operators, keep=given.keep, rewrite=True
        )

    @cached_property
    def forked(self) -> dict[str, Partition]:
        """The groups by the other choices at forks."""
        given, flow = self.partition, self.partition.flow
        return {name: _settled(given, flow, name) for name in FORKS if flow.forks and name != given.forks}

    def _without(self, reason: int) -> Partition:
        """The groups where nothing is held for this reason."""
        flow = copy(self.partition.flow)
        for name in ("fixes", "leaks"):
            setattr(flow, name, [entry for entry in getattr(flow, name) if entry[1] != reason])
        return _settled(self.partition, flow, self.partition.forks or FORKS[0])

    def _frees(self, other: Partition, axis: int) -> bool:
        """Whether less of an axis is held than before."""
        return _held(other, self.tensor, axis) < _held(self.partition, self.tensor, axis)


def _settled(given: Partition, flow: Flow, forks: str) -> Partition:
    labels = settle(flow, forks)
    return Partition(given.graph, flow, labels, members(flow, labels), forks)


def _held(partition: Partition, tensor: str, axis: int) -> int:
    """How many indices of an axis have a reason to stay."""
    units = (part.units for part in partition.flow.weights[tensor].axes[axis] if part.live)
    return sum(int((partition.labels.why[partition.labels.component[own]] > 0).sum()) for own in units)


def _chain(partition: Partition, units: Units, reason: int) -> list[str]:
    """The nodes at which one of these units is tied, step by step, to one that the reason names itself: the fewest."""
    a, b, nodes = _edges(partition)
    via = np.full(partition.flow.count, -1)  # the edge that leads towards the reason
    seen = np.zeros(partition.flow.count, bool)
    for fixed, number in (*partition.flow.fixes, *partition.flow.leaks):
        if number == reason:
            seen[fixed] = True
    while not seen[units].any():
        reached = np.concatenate([np.flatnonzero(seen[x] & ~seen[y]) for x, y in ((a, b), (b, a))])
        fresh = np.where(seen[a[reached]], b[reached], a[reached])
        if not len(reached):
            return []  # the side of a fork that was not taken: fixed by that choice itself
        via[fresh], seen[fresh] = reached, True
    chain: list[str] = []
    unit = int(units[np.argmax(seen[units])])
    while (edge := via[unit]) >= 0:
        if not chain or chain[-1] != nodes[edge]:
            chain.append(nodes[edge])
        unit = int(a[edge] + b[edge] - unit)
    return chain


def _edges(partition: Partition) -> tuple[Units, Units, list[str]]:
    """All ties between units, those of decided forks too, and the node of each."""
    ties: list[tuple[Any, Any, str]] = [*partition.flow.ties]
    for fork in partition.flow.forks:
        both = np.broadcast_arrays(fork.rows[:, None], fork.columns)
        for side, taken in zip(both, sides(fork, partition.labels.component), strict=True):
            if taken:
                ties.append((fork.flat.reshape(-1), side.reshape(-1), fork.node))
    a, b = (np.concatenate([np.empty(0, np.int64), *(tie[i] for tie in ties)]) for i in (0, 1))
    nodes = [node for one, _, node in ties for _ in range(len(one))]
    return a, b, nodes
