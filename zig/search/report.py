"""The report of a search: one HTML page with its charts drawn in, from the files that the search left."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from zig.atomic import write
from zig.search.plots import Series, chart

PAGE = "report.html"
_STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;"
    "padding:0 1rem}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{width:100%}"
)
_ROWS = (("parameters", "parameters", "{:,.0f}"), ("multiply-adds", "macs", "{:,.0f}"),
         ("file, bytes", "bytes", "{:,.0f}"), ("onnxruntime, ms", "milliseconds", "{:.3f}"))  # fmt: skip
Content = dict[str, Any]


def write_report(folder: Path, content: Content) -> Path:
    """Write `report.html` into the folder of a search.

    Args:
        folder: The folder; its records lie in `search`.
        content: The content of `report.json`.
    """
    records = [read_any(file) for file in sorted((folder / "search").glob("*.json"))]
    parts = [_summary(content)]
    for kind, draw in _CHARTS.items():
        parts += [draw(record) for record in records if record.get("zig") == kind]
    title = f"{escape(content['method'].replace('_', '-'))} search"
    page = folder / PAGE
    write(
        page,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1>{''.join(parts)}</html>\n",
    )
    return page


def read_any(file: Path) -> Content:
    """The content of a record, or of another file of a search."""
    content: Content = json.loads(file.read_text())
    return content


def _summary(content: Content) -> str:
    full, small = content["full"], content["compressed"]
    lines = [(f"{name}, held-out", f"{full[name]:.2%}", f"{small[name]:.2%}") for name in content["metrics"]]
    lines += [(name, form.format(full[key]), form.format(small[key])) for name, key, form in _ROWS]
    if "predicted_milliseconds" in content:
        predicted, now = content["predicted_milliseconds"]
        lines.append(("predicted, then measured, ms", "", f"{predicted:.3f}, {now:.3f}"))
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    head = "<tr><th></th><th>full</th><th>compressed</th></tr>"
    return f"<p>{escape(content['said'])}.</p><table>{head}{rows}</table>"


def sensitivity(record: Content) -> str:
    """The curve of each node group: the metric, when it alone loses a share."""
    curves = [
        Series(group["name"], points, labels=[f"{group['name']}: {x:.0%} removed, {y:.4g}" for x, y in points])
        for group in record.get("node_groups", ())
        if (points := _known(zip(group["ratios"], group["metrics"], strict=True)))
    ]
    drawn = chart(curves, "share of the node group that is removed", "score", "sensitivity of each node group")
    less = "less" if record["best"] == "min" else "more"
    return f"<h2>Sensitivity</h2><p>One line for each node group; {less} is better.</p>{drawn}"


def candidates(record: Content) -> str:
    """The score of each candidate over its parameters."""
    lines = record.get("candidates", ())
    points = _known((line["params"] / 1e6, line["score"]) for line in lines)
    labels = [f"candidate {line['number']}: {line['score']:.4g}" for line in lines if line["score"] is not None]
    series = [Series("candidates", points, line=False, labels=labels)]
    if points:
        series.append(Series("best", points[:1], line=False, labels=[f"best: {labels[0]}"]))
    drawn = chart(series, "million parameters", "score", "score of each candidate")
    less = "less" if record["best"] == "min" else "more"
    said = f"All remove {record['removal_ratio']:.1%} of {escape(record['of'])}; {less} is better."
    return f"<h2>Candidates</h2><p>{said}</p>{drawn}"


def pareto(record: Content) -> str:
    """The score of each subnet over its MACs, and those that no cheaper one beats."""
    of, lines = record["of"], [line for line in record.get("subnets", ()) if line["score"] is not None]
    unit = 1.0 if of == "latency" else 1e6
    points = [(line[of] / unit, line["score"]) for line in lines]
    labels = [f"{line['born']}: {line['score']:.4g}, keeps {line['setting']}" for line in lines]
    front = _front(points, record["best"])
    series = [Series("subnets", points, line=False, labels=labels), Series("Pareto front", front)]
    name = "milliseconds" if of == "latency" else f"million {of}"
    drawn = chart(series, name, "score", "score of each subnet and the Pareto front")
    less = "less" if record["best"] == "min" else "more"
    return f"<h2>Subnets</h2><p>The line joins those that no cheaper one beats; {less} is better.</p>{drawn}"


def _front(points: list[tuple[float, float]], best: str) -> list[tuple[float, float]]:
    """The points that none with a smaller first number beats in the second."""
    sign = 1 if best == "max" else -1
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * y > sign * front[-1][1]:
            front.append((x, y))
    return front


def _known(points: Any) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None]


_CHARTS: dict[str, Callable[[Content], str]] = {
    "sensitivity": sensitivity, "one-step": candidates, "once-for-all": pareto,
}  # fmt: skip
__all__ = ["PAGE", "candidates", "pareto", "sensitivity", "write_report"]
