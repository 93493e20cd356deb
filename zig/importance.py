"""Scores: how much each ZIG matters to the network, from its members alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from zig.partition import Partition

Scores = np.ndarray[Any, np.dtype[np.float64]]


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
    sums = np.zeros(len(partition))
    for row in partition.rows:
        if row.member.any():
            weight = np.moveaxis(np.asarray(partition.graph.array(row.tensor)), row.axis, 0)
            flat = weight.reshape(len(row.groups), -1).astype(np.float32, copy=False)
            norms = np.abs(flat).sum(axis=1) if p == 1 else np.einsum("ij,ij->i", flat, flat)
            sums += np.bincount(row.groups[row.member], norms[row.member], minlength=len(partition))
    scores = sums if p == 1 else np.sqrt(sums)
    totals = np.bincount(partition.node_group, scores)
    means = totals / np.maximum(np.bincount(partition.node_group), 1)
    return np.asarray(scores / np.where(means > 0, means, 1.0)[partition.node_group])


def random(partition: Partition, *, p: int = 2, seed: int = 0) -> Scores:
    """Uniform scores in [0, 1): the baseline, and the test of exactness."""
    return np.random.default_rng(seed).random(len(partition))


CRITERIA: dict[str, Callable[..., Scores]] = {"magnitude": magnitude, "random": random}
