"""A partition as one still picture: for the command, where graphviz is missing."""

from __future__ import annotations

from zig.partition import Partition

from . import net as nets
from .palette import hues
from .svg import svg
from .tree import grow, opened
from .view import scene

BOXES = 80  # that are open at most: what one still reads


def sketch(partition: Partition) -> str:
    """The graph of a model as SVG, as many modules open as one can read; no program is needed."""
    net = nets.build(partition)
    tree = grow(net)
    return svg(scene(net, partition.graph, tree, opened(tree, BOXES)), hues(net, len(partition.node_groups)))
