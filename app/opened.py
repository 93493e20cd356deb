"""One opened model and what is computed of it, once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

import zig
from zig.budget import Budget
from zig.graph import Graph
from zig.importance import CRITERIA, Scores
from zig.partition import Mask, NodeGroup, Partition
from zig.units import Units

from .scene import net as nets
from .scene.palette import hues
from .scene.sketch import BOXES
from .scene.tree import Branch, ancestors, containers, grow, opened
from .scene.view import Scene, scene

MOST = 3000  # boxes that "open all" may show
_KEPT = 4  # scenes


@dataclass(frozen=True)
class Savings:
    """Parameters and MACs that go with one group of each node group, and with all of them but one: int[g, 2]."""

    one: list[tuple[int, int]]
    most: list[tuple[int, int]]


class Opened:
    """A model as the pages see it."""

    def __init__(self, path: Path, shown: str):
        """Load and analyse a model.

        Args:
            path: The file.
            shown: What to call it.

        Raises:
            ModelError: The model can't be read, or one of its weights is damaged.
        """
        self.path, self.shown = path, shown
        self.partition: Partition = zig.analyze(path)
        self._scenes: OrderedDict[tuple[frozenset[str], bool], Scene] = OrderedDict()
        self._scores: dict[tuple[str, int], Scores] = {}

    @property
    def graph(self) -> Graph:
        """The model."""
        return self.partition.graph

    @property
    def groups(self) -> list[NodeGroup]:
        """The node groups."""
        return self.partition.node_groups

    @cached_property
    def net(self) -> nets.Net:
        """The drawn nodes."""
        return nets.build(self.partition)

    @cached_property
    def tree(self) -> Branch:
        """The modules."""
        return grow(self.net)

    @cached_property
    def containers(self) -> dict[str, Branch]:
        """The modules by key."""
        return containers(self.tree)

    @cached_property
    def ancestors(self) -> dict[int, tuple[str, ...]]:
        """The modules that each drawn node is in."""
        return ancestors(self.tree)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of each drawn node by key."""
        return {item.key: position for position, item in enumerate(self.net.items)}

    @cached_property
    def hues(self) -> list[int]:
        """The colour of each node group."""
        return hues(self.net, len(self.groups))

    @cached_property
    def budget(self) -> Budget:
        """Prices of plans."""
        return Budget(self.partition)

    @cached_property
    def savings(self) -> Savings:
        """What removing groups of each node group saves."""
        return Savings(
            [self._saved(g.groups[-1:]) for g in self.groups], [self._saved(g.groups[1:]) for g in self.groups]
        )

    def _saved(self, groups: Units) -> tuple[int, int]:
        remove = self.remove_nothing()
        remove[groups] = True
        parameters, macs = self.budget.price(remove)
        return self.budget.parameters - parameters, self.budget.macs - macs

    @cached_property
    def zero(self) -> Mask:
        """Which groups have nothing but zeros in their members."""
        return np.asarray(self.scores("magnitude") == 0)

    @cached_property
    def digest(self) -> str:
        """A name for the model in this process, for what the browser keeps."""
        stat = self.path.stat()
        return hashlib.sha256(f"{self.path}|{stat.st_mtime_ns}|{stat.st_size}".encode()).hexdigest()[:12]

    def first_open(self) -> frozenset[str]:
        """The modules that are open at first."""
        return opened(self.tree, BOXES)

    def all_open(self) -> frozenset[str]:
        """As many open modules as `MOST` boxes allow."""
        return opened(self.tree, MOST)

    def scene(self, expanded: Iterable[str], flat: bool = False) -> Scene:
        """The scene with some modules open; the last few are kept."""
        key = frozenset(expanded), flat
        if key not in self._scenes:
            self._scenes[key] = scene(self.net, self.graph, self.tree, key[0], flat=flat)
            while len(self._scenes) > _KEPT:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(key)
        return self._scenes[key]

    def above(self, key: str) -> tuple[str, ...]:
        """The modules that must be open for a node or module to be seen."""
        if key in self.positions:
            return self.ancestors[self.positions[key]]
        if key in self.containers:
            chain = self.ancestors[self.containers[key].first]
            return chain[: chain.index(key)]
        return ()

    def scores(self, criterion: str, seed: int = 0) -> Scores:
        """The importance of each group by a criterion, read from the weights once."""
        if (criterion, seed) not in self._scores:
            self._scores[criterion, seed] = CRITERIA[criterion](self.partition, seed=seed)
        return self._scores[criterion, seed]

    def remove_nothing(self) -> Mask:
        """The empty plan's mask."""
        return np.zeros(len(self.partition), bool)
