"""Training: the curves of a training log, and the sparsity and gates of each node group over time."""

from __future__ import annotations

import streamlit as st

from ..facts import charts
from ..facts import training as facts
from ..session import Session
from ..words import percent
from .shared import saying_errors, session

FIRST = ("loss", "accuracy")


def show() -> None:
    """The page."""
    here = session()
    _choose(here)
    log = here.results.get("log")
    if not log:
        st.info(
            "No log is open. Choose a folder that holds a .jsonl file with one JSON object a step, such as "
            '`{"step": 120, "loss": 0.41, "accuracy": 0.87, "sparsity": {"conv1": 0.25}}`.'
        )
        return
    _last(log)
    curves = facts.curves(log)
    _curves(curves, [name for name in FIRST if name in curves])
    _shares(log)
    _curves(curves, sorted(name for name in curves if name not in FIRST))


def _choose(here: Session) -> None:
    folders = [here.workspace.shown(path) for path in here.workspace.log_folders()]
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    given = left.selectbox(
        "Log folder", folders, index=0 if folders else None, accept_new_options=True,
        placeholder="Type the path of a folder with a training log",
    )  # fmt: skip
    if right.button("Open log", disabled=not given, width="stretch") and given:
        with saying_errors():
            here.results["log"] = facts.read(here.workspace.resolve(given))


def _last(log: facts.Log) -> None:
    last = facts.last(log)
    shown = [name for name in ("step", "epoch", "loss", "accuracy") if name in last]
    sparsity: dict[str, float] = next((step["sparsity"] for step in reversed(log) if step.get("sparsity")), {})
    columns = st.columns(len(shown) + bool(sparsity))
    for column, name in zip(columns, shown, strict=False):
        value = last[name]
        column.metric(name, percent(value) if name == "accuracy" else f"{value:,.4g}")
    if sparsity:
        columns[-1].metric("node groups with zeros", f"{sum(v > 0 for v in sparsity.values())} of {len(sparsity)}")


def _curves(curves: dict[str, list[dict[str, float]]], names: list[str]) -> None:
    for begin in range(0, len(names), 2):
        for column, name in zip(st.columns(2), names[begin : begin + 2], strict=False):
            column.vega_lite_chart(charts.curve(name, curves[name]), width="stretch")


def _shares(log: facts.Log) -> None:
    for field in facts.SHARES:
        if rows := facts.shares(log, field):
            st.vega_lite_chart(charts.heat(rows, field), width="stretch")
