"""Report: what zig found and did, to read and to keep."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ..facts import report as facts
from ..scene.svg import svg
from .shared import opened_model

STYLE = """<style>
.report th, .report td { text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid #8884; font-size: .9rem; }
.report table { margin-bottom: 1rem; border-collapse: collapse; }
.report h1 { font-size: 1.6rem; } .report h2 { font-size: 1.25rem; } .report h3 { font-size: 1.05rem; }
</style>"""


def show() -> None:
    """The page."""
    found = opened_model()
    if not found:
        return
    here, model = found
    report = facts.collect(model, here.results)
    stem = Path(model.shown).stem
    left, middle, right = st.columns([1, 1, 3], vertical_alignment="center")
    left.download_button(
        "Save as HTML",
        lambda: facts.as_html(report, svg(model.scene(model.first_open()), model.hues)),
        f"{stem}-report.html",
        "text/html",
        width="stretch",
    )
    middle.download_button("Save as JSON", facts.as_json(report), f"{stem}-report.json", "application/json",
                           width="stretch")  # fmt: skip
    if not report["compress"]:
        right.caption("Nothing has been pruned yet; what the Prune page does is added here.")
    st.html(f"{STYLE}<div class='report'>{facts.body(report)}</div>")
