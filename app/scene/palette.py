"""Colours of node groups: few, told apart by everybody, and different for groups that meet at a node.

Paul Tol's "bright" scheme (Colour Schemes, SRON/EPS/TN/09-002, 2021) without its grey. Every box carries the group's
number too, so no colour is ever the only sign.
"""

from __future__ import annotations

from collections import Counter

from .net import Net

PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def hues(net: Net, groups: int) -> list[int]:
    """The colour of each node group, as a place in `PALETTE`: greedy, in order, so the same in every run.

    Groups that a node writes or reads together get different colours while there are enough.
    """
    meets: list[set[int]] = [set() for _ in range(groups)]
    for item in net.items:
        together = {*item.writes, *item.reads}
        if len(together) <= len(PALETTE):  # what meets everybody tells nobody apart
            for group in together:
                meets[group] |= together - {group}
    chosen: list[int] = []
    used: Counter[int] = Counter()
    for group in range(groups):
        near = Counter(chosen[other] for other in meets[group] if other < group)
        best = min(range(len(PALETTE)), key=lambda hue: (near[hue], used[hue], hue))
        chosen.append(best)
        used[best] += 1
    return chosen
