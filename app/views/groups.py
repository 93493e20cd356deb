"""Groups: the node groups, their slices, norms and savings, group by group."""

from __future__ import annotations

import streamlit as st

from ..facts import charts
from ..facts import groups as facts
from ..jobs import Job
from ..opened import Opened
from ..session import Session
from ..words import cells, count, plain
from .running import follow
from .shared import ask_group, model_with_groups, show_graph, table

HEIGHT = 470


def show() -> None:
    """The page."""
    found = model_with_groups()
    if not found:
        return
    here, model = found
    here.group = min(here.group, len(model.groups) - 1)
    left, right = st.columns([1.15, 1])
    with left:
        _table(here, model)
        _sensitivity(here, model)
    with right:
        _one(here, model)


def _table(here: Session, model: Opened) -> None:
    measured = here.results.get("sensitivity", {}).get("sensitivity")
    st.caption(
        f"{len(model.partition):,} groups in {len(model.groups)} node groups. Select a row; the graph on the right "
        "fades all else. Columns 'of one' say what a single group costs, the last two what all but one cost."
    )
    rows = facts.table(model, measured)
    config = {name: st.column_config.NumberColumn(format="compact") for name in
              ("params of one", "MACs of one", "params", "MACs")}  # fmt: skip
    if measured:
        config["sensitivity"] = st.column_config.NumberColumn(
            format="percent", help="How far the outputs move when half of the node group is zeroed."
        )
    chosen = st.dataframe(
        cells(rows), hide_index=True, height=330, column_config=config, on_select="rerun", selection_mode="single-row",
        key="groups",
    )  # fmt: skip
    picked = chosen["selection"]["rows"]
    if picked and picked[0] != here.group:
        ask_group(picked[0])
    elif here.looks["groups"].focus != [here.group]:
        here.looks["groups"].show_group(model, here.group)


def _sensitivity(here: Session, model: Opened) -> None:
    what = "Zeroes half of each node group in turn, and measures with onnxruntime how far the outputs move."
    if st.button("Measure sensitivity", disabled=here.job is not None, help=what):
        here.job = Job(here.workspace.folder("sensitivity"), "sensitivity", model=str(model.path), share=0.5, seed=0)
    follow(here, "sensitivity")


def _one(here: Session, model: Opened) -> None:
    group = model.groups[here.group]
    st.markdown(f"**g{group.id} · {plain(group.name)}**, {group.size} groups")
    graph, slices, norms, units = st.tabs(["Graph", "Slices", "Norms", "One by one"])
    with graph:
        _graph(here, model)
    with slices:
        st.caption("Members must be zero for a group to go; dependents are only cut along with them.")
        table(facts.slices(model, group.id), 13)
    with norms:
        _norms(model, group.id)
    with units:
        _units(here, model)


@st.fragment
def _graph(here: Session, model: Opened) -> None:
    show_graph("group graph", model, here.looks["groups"], HEIGHT)


def _norms(model: Opened, group: int) -> None:
    st.caption("How many groups have which norm (L2, all members together, relative to the mean).")
    st.vega_lite_chart(charts.histogram(facts.norms(model, group)), width="stretch")


@st.fragment
def _units(here: Session, model: Opened) -> None:
    group = model.groups[here.group]

    def step(by: int) -> None:
        here.unit = (here.unit + by) % group.size

    back, where, on = st.columns([1, 3, 1], vertical_alignment="bottom")
    back.button("Previous", on_click=step, args=(-1,), width="stretch")
    on.button("Next", on_click=step, args=(1,), width="stretch")
    here.unit = int(where.number_input(
        f"Group 0 to {group.size - 1}", 0, group.size - 1, min(here.unit, group.size - 1)
    ))  # fmt: skip
    found = facts.unit(model, group.id, here.unit)
    st.markdown(
        f"Removing it saves **{count(found['parameters'])}** parameters and **{count(found['macs'])}** MACs; "
        f"its norm is **{found['score']:.2f}** of the mean."
    )
    st.dataframe(cells(found["slices"]), hide_index=True, height="content",
                 column_config={"norm": st.column_config.NumberColumn(format="%.3g")})  # fmt: skip
