"""All that the canvas needs to draw a model: the scene, colours, search hits, overlay, selection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zig.printable import cell

from ..opened import Opened
from ..scene import overlay, search
from ..scene.palette import PALETTE
from ..scene.view import Scene
from ..session import Look

OVERLAYS = {
    "": "node groups",
    "parameters": "parameters",
    "macs": "MACs",
    "sensitivity": "sensitivity",
    "sparsity": "sparsity in training",
}


def picture(model: Opened, look: Look, height: int, values: Mapping[int, float] | None = None) -> dict[str, Any]:
    """The data of the canvas.

    Args:
        model: What to draw.
        look: How.
        height: In pixels.
        values: A number of each node group, for the overlays `sensitivity` and `sparsity`.
    """
    scene = model.scene(look.expanded, look.flat)
    names = [cell(group.name) for group in model.groups]
    return {
        "scene": scene.columns,
        "sig": f"{model.digest}/{look.flat}/{hash(frozenset(look.expanded))}",
        "file": Path(model.shown).stem,
        "height": height,
        "palette": list(PALETTE),
        "groups": {"hue": model.hues, "name": names, "size": [g.size for g in model.groups]},
        "selected": look.selected,
        "query": look.query,
        "hits": search.hits(model.net, scene, look.query),
        "focus": look.focus,
        "centre": look.centre,
        "overlay": _overlay(scene, look.overlay, values),
    }


def _overlay(scene: Scene, name: str, values: Mapping[int, float] | None) -> dict[str, Any] | None:
    if name in ("parameters", "macs"):
        return overlay.amounts(scene, name)
    if name and values is not None:
        return overlay.of_groups(scene, OVERLAYS[name], values, top=1.0 if name == "sparsity" else None)
    return None
