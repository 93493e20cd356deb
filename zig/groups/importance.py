"""Scores: how much each ZIG matters to the network, from its members alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.flow.units import Units

if TYPE_CHECKING:
    from zig.groups.partition import Partition

Scores = np.ndarray[Any, np.dtype[np.float64]]
MemberRow = tuple[np.ndarray[Any, Any], int, Units]


def magnitude(partition: Partition, *, p: int = 2, seed: int = 0) -> Scores:
    """The Lp norm over all members of a group, relative to the mean of its node group.

    The mean makes layers comparable: without it a whole layer of small weights would go first.

    Args:
        partition: G groups.
        p: 1 or 2.
        seed: not used; all criteria are called alike.

    Returns:
        float64[G], higher is more important.
    """
    rows = (
        (_numbers(partition, row.tensor), row.axis, np.where(row.member, row.groups, -1))
        for row in partition.rows
        if row.member.any()
    )
    return relative_norms(rows, partition.node_group, p=p)


def _numbers(partition: Partition, name: str) -> np.ndarray[Any, Any]:
    """The values of an initializer; of a quantised one the numbers that its integers stand for."""
    values, flow = np.asarray(partition.graph.array(name)), partition.flow
    if name not in flow.zeros:
        return values
    scale = partition.graph.array(flow.scales[name]) if name in flow.scales else np.ones(1)
    axis = values.shape.index(scale.size) if scale.size in values.shape else 0  # one for each channel
    factors = scale.reshape([-1] + [1] * (values.ndim - axis - 1)) if scale.size in (1, values.shape[axis]) else 1.0
    return np.asarray((values.astype(np.float32) - flow.zeros[name]) * factors)


def relative_norms(rows: Iterable[MemberRow], node_group: Units, *, p: int = 2) -> Scores:
    """The Lp norm over all rows of a group, relative to the mean of its node group.

    Args:
        rows: For each tensor with members its values, the axis, and the group of each index (-1: none).
        node_group: Node group of each group, int64[G].
        p: 1 or 2.

    Returns:
        float64[G], higher is more important.
    """
    sums = np.zeros(len(node_group))
    for values, axis, groups in rows:
        flat = np.moveaxis(values, axis, 0).reshape(len(groups), -1).astype(np.float32, copy=False)
        norms = np.abs(flat).sum(axis=1) if p == 1 else np.einsum("ij,ij->i", flat, flat)
        sums += np.bincount(groups[groups >= 0], norms[groups >= 0], minlength=len(node_group))
    scores = sums if p == 1 else np.sqrt(sums)
    means = np.bincount(node_group, scores) / np.maximum(np.bincount(node_group), 1)
    with np.errstate(invalid="ignore"):  # a weight may hold NaN or infinity
        return np.asarray(scores / np.where(means > 0, means, 1.0)[node_group])


def random(partition: Partition, *, p: int = 2, seed: int = 0) -> Scores:
    """Uniform scores in [0, 1): the baseline, and the test of exactness."""
    return np.random.default_rng(seed).random(len(partition))


CRITERIA: dict[str, Callable[..., Scores]] = {"magnitude": magnitude, "random": random}
