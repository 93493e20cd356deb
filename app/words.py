"""Numbers and names as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zig.printable import cell


def count(number: float) -> str:
    """A count: 11.7 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def percent(share: float) -> str:
    """A share: 49.8 %; small ones keep two digits."""
    value = 100 * share
    return f"{value:.1f} %" if value >= 1 or value == 0 else f"{value:.2g} %"


def less(before: float, after: float) -> str:
    """By which share a number has shrunk."""
    return percent(1 - after / before) if before else ""


def size(number: float) -> str:
    """Bytes: 46.8 MB."""
    for one, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= one:
            return f"{number / one:.1f} {unit}"
    return f"{number:g} B"


def plain(text: str) -> str:
    """A text of a model so that Markdown takes nothing in it for markup: no picture of elsewhere is ever fetched."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~$:&-])", r"\\\1", cell(text))


def cells(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table, their texts printable."""
    return [{key: cell(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]


def indices(values: np.ndarray, shown: int = 6) -> str:
    """Indices in short: `0-3, 8, 12-15`."""
    if not len(values):
        return "none"
    breaks = np.flatnonzero(np.diff(values) != 1) + 1
    runs = np.split(values, breaks)
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:shown]]
    return ", ".join(parts) + (f", … {len(values)} in all" if len(runs) > shown else "")
