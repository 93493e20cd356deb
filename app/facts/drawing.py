"""Pictures by graphviz, for files: `zig.picture` merges boxes until few enough arrows are left, with a time limit."""

from __future__ import annotations

from pathlib import Path

from zig.picture import draw as picture

from ..opened import Opened
from ..scene.sketch import sketch


def draw(model: Opened, folder: Path, form: str) -> dict[str, str]:
    """Draw a model's groups into a folder.

    Args:
        model: What to draw.
        folder: Where to.
        form: `svg`, `pdf` or `dot`.

    Returns:
        The file, and a note where it is another than was asked for.

    Raises:
        UsageError: graphviz fails or takes too long.
    """
    target = folder / f"{Path(model.shown).stem}.{form}"
    note = picture(model.partition, target, sketch=sketch)
    return {"file": str(target if target.exists() else target.with_suffix(".dot")), "note": note or ""}
