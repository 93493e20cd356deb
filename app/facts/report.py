"""The report: what zig found and did, as JSON and as a page that stands alone."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import zig

from ..opened import Opened
from ..words import count, less, percent, size
from . import compare, groups
from .model import interface, operators, overview, reasons, warnings

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: 13px; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid #ccc; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } .quiet { color: #555; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: #ddd; } td, th { border-color: #444; } .quiet { color: #aaa; }
}
"""

LEGEND = (
    "Fill: the node group that a node writes. Stripe: the groups that it reads. Dashed: all that it makes is fixed."
)


def collect(model: Opened, results: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known of a model, as plain data.

    Args:
        model: The model.
        results: What jobs have found: `prune`, `verify`, `sensitivity`.
    """
    sensitivity = results.get("sensitivity", {}).get("sensitivity")
    pruned = results.get("prune")
    return {
        "zig": zig.__version__,
        "model": overview(model),
        "interface": interface(model),
        "warnings": warnings(model),
        "operators": operators(model),
        "node_groups": groups.table(model, sensitivity),
        "fixed": reasons(model),
        "compress": pruned["report"] | {"source": model.shown, "target": "small.onnx"} if pruned else None,
        "comparison": results.get("verify"),
    }


def as_json(report: Mapping[str, Any]) -> str:
    """The report as JSON text."""
    return json.dumps(report, indent=2, allow_nan=False)


def as_html(report: Mapping[str, Any], picture: str = "") -> str:
    """The report as one HTML page that needs nothing else.

    Args:
        report: What `collect` gives.
        picture: The graph as SVG.
    """
    drawn = f"<h2>The graph</h2>\n<p>{LEGEND}</p>\n{picture}" if picture else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_text(report['model']['file'])}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body(report)}\n{drawn}\n</body></html>\n"
    )


def body(report: Mapping[str, Any]) -> str:
    """The report as HTML without a page around it."""
    model = report["model"]
    parts = [
        f"<h1>{_text(model['file'])}</h1>",
        f'<p class="quiet">zig {_text(report["zig"])}, opset {model["opset"]}</p>',
        _table([{"": name, "value": value} for name, value in _sizes(model)]),
        *(f"<p><b>{_text(warning)}</b></p>" for warning in report["warnings"]),
    ]
    if report["compress"]:
        parts += ["<h2>What was removed</h2>", _table(_change(report["compress"])), *_verdict(report["compress"])]
        widths = [{"node group": name, "before": before, "after": after}
                  for name, before, after in report["compress"]["widths"]]  # fmt: skip
        parts += ["<h3>Widths</h3>", _table(widths)]
    for title, key in (("Node groups", "node_groups"), ("Fixed, and why", "fixed"), ("Operators", "operators"),
                       ("Inputs and outputs", "interface")):  # fmt: skip
        parts += [f"<h2>{title}</h2>", _table(report[key])]
    return "\n".join(parts)


def _sizes(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    total = model["parameters"]
    share = percent(model["prunable_parameters"] / total) if total else "none"
    return [
        ("file", size(model["bytes"])), ("nodes", f"{model['nodes']:,}"),
        ("parameters", f"{count(total)}, {share} in groups"), ("MACs", count(model["macs"])),
        ("groups", f"{model['groups']:,} in {model['node_groups']:,} node groups"),
    ]  # fmt: skip


def _change(done: Mapping[str, Any]) -> list[dict[str, str]]:
    before, after = done["before"], done["after"]
    return [
        {"": name, "before": count(before[key]), "after": count(after[key]), "less": less(before[key], after[key])}
        for key, name in compare.SIZES
    ]


def _verdict(done: Mapping[str, Any]) -> list[str]:
    comparison = done["comparison"]
    if not comparison:
        return []
    words = "equal" if comparison["equal"] else "different"
    return [
        f"<p>{done['removed']} of {done['groups']} groups removed. Outputs of the zeroed and the compressed model: "
        f"{words} on {comparison['samples']} inputs, largest difference {comparison['max_abs']:.2g}.</p>",
        *(f"<p><b>{_text(warning)}</b></p>" for warning in comparison["warnings"]),
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return '<p class="quiet">none</p>'
    head = "".join(f"<th>{_text(name)}</th>" for name in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _text(value: Any) -> str:
    """A value as text in HTML; whole numbers with separators, others with three digits."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return html.escape(f"{value:.3g}" if isinstance(value, float) else str(value))
