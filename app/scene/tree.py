"""The tree of modules over the drawn nodes.

Where exporters left scopes, they are the tree. Where they did not, blocks are cut where a single tensor carries all
that is alive, which is between residual blocks. Alike siblings that follow each other are folded into runs, and what
still has too many children is cut into parts, so that every container can be opened within a budget of boxes.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from .net import Net, tail

RUN = 4  # alike siblings in a row that are folded
WIDE = 32  # children of a container, beyond which they are put into chunks
BLOCK = 40  # nodes of a block, beyond which it is looked into


@dataclass(slots=True)
class Branch:
    """A container: its children are positions of drawn nodes (int) and other containers, in order."""

    key: str
    title: str
    children: list[int | Branch] = field(default_factory=list)
    note: str = ""  # such as "×12" for a run
    leaves: list[int] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The position of its first drawn node."""
        return self.leaves[0]


def grow(net: Net) -> Branch:
    """The tree of a network; the root's key is empty."""
    inner = [index for index, item in enumerate(net.items) if item.index >= 0]
    scoped = sum(bool(net.items[index].path) for index in inner)
    everything = list(range(len(net.items)))
    root = _by_scopes(net, everything, 0, "") if 2 * scoped >= len(inner) else _by_blocks(net)
    _prune(root)
    _fold(root, net)
    _finish(root)
    return root


def _by_scopes(net: Net, leaves: list[int], depth: int, key: str) -> Branch:
    """The container of all these leaves, whose paths agree up to `depth`."""
    parts: dict[str, list[int]] = {}
    order: list[tuple[str, int]] = []
    for leaf in leaves:
        path = net.items[leaf].path
        if len(path) > depth:
            if path[depth] not in parts:
                order.append((path[depth], leaf))
            parts.setdefault(path[depth], []).append(leaf)
        else:
            order.append(("", leaf))
    for name in _circular(net, leaves, parts):
        pieces = _pieces(leaves, parts.pop(name))
        order = [entry for entry in order if entry[0] != name]
        for number, piece in enumerate(pieces):
            title = f"{name} ({number + 1})" if number else name
            parts[title] = piece
            order.append((title, piece[0]))
    branch = Branch(key, tail(key.rsplit("/", 1)[-1]))
    for name, leaf in sorted(order, key=lambda entry: entry[1]):
        below = _by_scopes(net, parts[name], depth + 1, f"{key}/{name}") if name else leaf
        branch.children.append(below)
    return branch


def _circular(net: Net, leaves: list[int], parts: dict[str, list[int]]) -> list[str]:
    """Children that lie in several pieces and on a circle, as a module has that is called again further on."""
    scattered = [name for name, part in parts.items() if part[-1] - part[0] + 1 > len(part)]
    if not scattered:
        return []
    owner = np.full(len(net.items), -1)
    owner[leaves] = np.arange(len(leaves)) + len(parts)
    for number, part in enumerate(parts.values()):
        owner[part] = number
    a, b = owner[net.sources], owner[net.targets]
    inner = (a >= 0) & (b >= 0) & (a != b)
    stuck = _on_circles(np.unique(np.stack([a[inner], b[inner]]), axis=1), len(parts) + len(leaves))
    numbers = {name: number for number, name in enumerate(parts)}
    return [name for name in scattered if numbers[name] in stuck and len(_pieces(leaves, parts[name])) > 1]


def _on_circles(edges: np.ndarray, count: int) -> set[int]:
    """What is left when sources, then sinks, are peeled off again and again."""
    left = set(range(count))
    for a, b in ((edges[0], edges[1]), (edges[1], edges[0])):
        waiting = np.zeros(count, np.int64)
        after: dict[int, list[int]] = {}
        for u, v in zip(a.tolist(), b.tolist(), strict=True):
            if u in left and v in left:
                waiting[v] += 1
                after.setdefault(u, []).append(v)
        ready = [u for u in left if waiting[u] == 0]
        while ready:
            u = ready.pop()
            left.discard(u)
            for v in after.get(u, ()):
                waiting[v] -= 1
                if waiting[v] == 0:
                    ready.append(v)
    return left


def _pieces(leaves: list[int], part: list[int]) -> list[list[int]]:
    """A part cut where other leaves of its container come between."""
    place = {leaf: position for position, leaf in enumerate(leaves)}
    pieces: list[list[int]] = [[part[0]]]
    for a, b in pairwise(part):
        if place[b] == place[a] + 1:
            pieces[-1].append(b)
        else:
            pieces.append([b])
    return pieces


def _by_blocks(net: Net) -> Branch:
    count = len(net.items)
    last = np.arange(count)
    np.maximum.at(last, net.sources, net.targets)  # until when an item's result is needed
    root = Branch("", "")
    root.children = _blocks(last, 0, count, "", count)
    return root


def _blocks(last: np.ndarray, start: int, stop: int, key: str, reach: int) -> list[int | Branch]:
    """Cut [start, stop) where only one result is alive; results that live longer than `reach` don't count."""
    positions = np.arange(start, stop)
    ends = np.minimum(last[start:stop], stop - 1)
    short = ends - positions < reach
    change = np.zeros(stop - start + 1, np.int64)
    np.add.at(change, positions[short] - start, 1)
    np.add.at(change, ends[short] - start, -1)
    alive = np.cumsum(change)[:-1]  # results that are needed after each position
    cuts = np.flatnonzero(alive <= 1)
    children: list[int | Branch] = []
    begin, number = 0, 0
    for cut in [*cuts.tolist(), stop - start - 1]:
        if cut < begin:
            continue
        size = cut - begin + 1
        if size == 1:
            children.append(start + begin)
        else:
            number += 1
            block = Branch(f"{key}/block {number}", f"block {number}")
            whole = size == stop - start
            inside = reach if not whole else max(2, min(reach, size) // 2)
            deeper = size > BLOCK and inside > 2
            low, high = start + begin, start + begin + size
            block.children = _blocks(last, low, high, block.key, inside) if deeper else list(range(low, high))
            if whole and deeper:
                return block.children
            children.append(block)
        begin = cut + 1
    return children


def _prune(branch: Branch) -> None:
    """Let a container with a single child be that child."""
    for place, child in enumerate(branch.children):
        if isinstance(child, Branch):
            _prune(child)
            if len(child.children) == 1:
                branch.children[place] = child.children[0]


def _fold(branch: Branch, net: Net) -> tuple[str, ...]:
    """Fold runs of alike children, bottom up, and chunk what is still too wide; the signature of a branch."""
    marks = [_fold(child, net) if isinstance(child, Branch) else (net.items[child].op,) for child in branch.children]
    signature = tuple(op for mark in marks for op in mark)
    folded: list[int | Branch] = []
    begin = 0
    for end in range(1, len(marks) + 1):
        if end < len(marks) and _alike(net, branch.children[begin], branch.children[end], marks[begin], marks[end]):
            continue
        run = branch.children[begin:end]
        foldable = end - begin >= RUN and end - begin < len(marks)
        folded += [_chunked(_run(run))] if foldable else run
        begin = end
    branch.children = folded
    _chunked(branch)
    return signature


def _alike(net: Net, a: int | Branch, b: int | Branch, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two siblings are the same layers: containers whose operators with weights agree."""
    if not (isinstance(a, Branch) and isinstance(b, Branch)):
        return False
    if one == other:
        return True
    weighted = [Counter(net.items[i].op for i in _leaves(x) if net.items[i].weights) for x in (a, b)]
    return bool(weighted[0]) and weighted[0] == weighted[1]


def _run(children: Sequence[int | Branch]) -> Branch:
    first, last = children[0], children[-1]
    assert isinstance(first, Branch)
    assert isinstance(last, Branch)
    title = _span(first.title, last.title)
    return Branch(f"{first.key}…", title, list(children), f"×{len(children)}")


def _span(first: str, last: str) -> str:
    """`layers.0` and `layers.11` as `layers.0-11`."""
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    while same and first[same - 1].isdigit():
        same -= 1
    return f"{first}-{last[same:]}" if last[same:] else f"{first}-{last}"


def _chunked(branch: Branch) -> Branch:
    """Put the children of a wide container into chunks of about the root of their number."""
    count = len(branch.children)
    if count > WIDE:
        size = max(2, math.ceil(count / math.ceil(math.sqrt(count))))
        chunks = [branch.children[i : i + size] for i in range(0, count, size)]
        branch.children = [
            chunk[0] if len(chunk) == 1 else _chunk(branch, chunk, number) for number, chunk in enumerate(chunks)
        ]
    return branch


def _chunk(branch: Branch, chunk: Sequence[int | Branch], number: int) -> Branch:
    """A part of a wide container; that of a run says how many alike siblings it holds."""
    first, last = chunk[0], chunk[-1]
    title = f"part {number + 1}"
    if isinstance(first, Branch) and isinstance(last, Branch):
        title = _span(first.title, last.title)
    return Branch(f"{branch.key}…{number}", title, list(chunk), f"×{len(chunk)}" if branch.note else "")


def _finish(root: Branch) -> None:
    """Note the leaves of every container and make the keys unique."""
    keys: Counter[str] = Counter()
    stack = [root]
    while stack:
        branch = stack.pop()
        keys[branch.key] += 1
        if keys[branch.key] > 1:
            branch.key += f"#{keys[branch.key]}"
        branch.leaves = sorted(_leaves(branch))
        stack += [child for child in branch.children if isinstance(child, Branch)]


def _leaves(branch: Branch) -> Iterable[int]:
    stack: list[int | Branch] = [branch]
    while stack:
        node = stack.pop()
        if isinstance(node, Branch):
            stack += node.children
        else:
            yield node


def containers(root: Branch) -> dict[str, Branch]:
    """All containers by key, parents before their children."""
    found: dict[str, Branch] = {}
    stack = [root]
    while stack:
        branch = stack.pop()
        found[branch.key] = branch
        stack += [child for child in branch.children if isinstance(child, Branch)]
    return found


def ancestors(root: Branch) -> dict[int, tuple[str, ...]]:
    """For each leaf the keys of its containers, outermost first, without the root."""
    found: dict[int, tuple[str, ...]] = {}
    stack: list[tuple[Branch, tuple[str, ...]]] = [(root, ())]
    while stack:
        branch, above = stack.pop()
        for child in branch.children:
            if isinstance(child, Branch):
                stack.append((child, (*above, child.key)))
            else:
                found[child] = above
    return found


def opened(root: Branch, budget: int) -> frozenset[str]:
    """The containers to open first: level by level, as long as no more than `budget` boxes are to be seen."""
    shown = len(root.children)
    chosen: set[str] = set()
    queue = [(1, b.first, b.key, b) for b in root.children if isinstance(b, Branch)]
    heapq.heapify(queue)
    while queue:
        depth, _, key, branch = heapq.heappop(queue)
        if shown + len(branch.children) - 1 > budget:
            continue
        shown += len(branch.children) - 1
        chosen.add(key)
        for child in branch.children:
            if isinstance(child, Branch):
                heapq.heappush(queue, (depth + 1, child.first, child.key, child))
    return frozenset(chosen)
