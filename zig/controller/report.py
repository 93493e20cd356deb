"""What a controller did over a training, from its log: a table for spreadsheets and a picture.

    oto.log("runs/first/log.jsonl")           # or `zig train`, whose folder has the log
    report("runs/first/log.jsonl")            # runs/first/controller.csv and controller.svg

The picture has a row for each node group, dark where its units stay, and below it the share of the cost that is left.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from zig.errors import UsageError
from zig.host.atomic import write

_LEFT, _WIDTH, _ROW, _CURVE, _FONT = 170, 520, 14, 110, 11  # pixels
_COLUMNS = 130  # measurements that the picture shows
_INK, _BLUE = "#333333", (0x33, 0x66, 0x99)

Lines = list[dict[str, Any]]


def report(log: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> tuple[Path, Path]:
    """Write `controller.csv` and `controller.svg`.

    Args:
        log: A training log of ATO, as `OTO.log` and `zig train` write it.
        folder: Where to; that of the log, if not given.

    Returns:
        Both files.

    Raises:
        UsageError: The log can't be read, or is not of ATO.
    """
    source = Path(log)
    lines = _read(source)
    out = source.parent if folder is None else Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    table, picture = out / "controller.csv", out / "controller.svg"
    write(table, _table(lines))
    write(picture, _picture(lines))
    return table, picture


def _table(lines: Lines) -> str:
    """The measurements as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "resource", "node_group", "probability", "kept"])
    for line in lines:
        for name, probability in line["gates"].items():
            writer.writerow([line["step"], f"{line['resource']:.6g}", name, probability, line["widths"][name]])
    return text.getvalue()


def _read(log: Path) -> Lines:
    try:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{log} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{log} is no training log: {error}") from error
    told = [line for line in lines if isinstance(line, dict) and {"step", "resource", "gates", "widths"} <= line.keys()]
    if not told:
        raise UsageError(f"{log} tells of no controller; give the log of a training with ATO")
    return told


def _picture(lines: Lines) -> str:
    """The picture as SVG."""
    count = min(len(lines), _COLUMNS)
    lines = [lines[i * (len(lines) - 1) // max(count - 1, 1)] for i in range(count)]
    names, column = list(lines[-1]["gates"]), _WIDTH / len(lines)
    below = 30 + _ROW * len(names) + 30
    parts = [_text(_LEFT, 18, "probability that units stay: white 0, blue 1", "start")]
    for row, name in enumerate(names):
        y = 30 + _ROW * row
        parts.append(_text(_LEFT - 6, y + _ROW - 3, name if len(name) < 28 else f"...{name[-25:]}", "end"))
        parts += [
            f'<rect x="{_LEFT + i * column:.1f}" y="{y}" width="{column + 0.3:.1f}" height="{_ROW - 1}" '
            f'fill="{_colour(line["gates"].get(name, 1.0))}"/>'
            for i, line in enumerate(lines)
        ]
    places = [(_LEFT + (i + 0.5) * column, below + _CURVE * (1 - line["resource"])) for i, line in enumerate(lines)]
    points, last = " ".join(f"{x:.1f},{y:.1f}" for x, y in places), lines[-1]["resource"]
    parts.append(_text(_LEFT, below - 8, f"share of the cost that is left: {last:.1%} in the end", "start"))
    parts.append(f'<rect x="{_LEFT}" y="{below}" width="{_WIDTH}" height="{_CURVE}" fill="none" stroke="#cccccc"/>')
    parts.append(f'<polyline points="{points}" fill="none" stroke="{_colour(1.0)}" stroke-width="1.5"/>')
    parts += [_text(_LEFT - 6, below + _CURVE * (1 - share) + 4, f"{share:.0%}", "end") for share in (0, 0.5, 1)]
    foot = below + _CURVE + 16
    parts += [_text(_LEFT, foot, f"step {lines[0]['step']}", "start")]
    parts += [_text(_LEFT + _WIDTH, foot, f"step {lines[-1]['step']}", "end")]
    size = f'width="{_LEFT + _WIDTH + 10}" height="{foot + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{_FONT}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(said)}</text>'


def _colour(share: float) -> str:
    """From white to blue."""
    return "#" + "".join(f"{round(255 + (to - 255) * min(max(share, 0.0), 1.0)):02x}" for to in _BLUE)
