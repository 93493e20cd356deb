"""Finding nodes by name, operator, tensor or group."""

from __future__ import annotations

import re
from typing import Any

from zig.printable import cell

from .net import Item, Net
from .view import Scene

LISTED = 20


def find(net: Net, query: str) -> list[int]:
    """Positions of the items that match: `g7` means node group 7, all else is looked for in names, letter case aside.

    Several words must all match.
    """
    words = query.lower().split()
    if not words:
        return []
    return [position for position, item in enumerate(net.items) if all(_matches(item, word) for word in words)]


def _matches(item: Item, word: str) -> bool:
    if re.fullmatch(r"g\d+", word):
        group = int(word[1:])
        return group in item.writes or group in item.reads
    return any(word in text.lower() for text in (item.op, item.name, *item.outputs, *item.weights))


def hits(net: Net, scene: Scene, query: str) -> dict[str, Any]:
    """What the canvas shows of a search: the boxes that hold hits, and the first hits by name."""
    found = find(net, query)
    return {
        "total": len(found),
        "boxes": sorted({int(scene.box_of[position]) for position in found}),
        "list": [(net.items[position].key, cell(net.items[position].op), cell(net.items[position].name))
                 for position in found[:LISTED]],
    }  # fmt: skip
