"""Compare: two models side by side."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ..facts import compare as facts
from ..jobs import Job
from ..opened import Opened
from ..session import Look, Session
from ..words import cells, plain
from .running import follow
from .shared import opened_model, saying_errors, show_graph

HEIGHT = 480


def show() -> None:
    """The page."""
    found = opened_model()
    if not found:
        return
    here, model = found
    _choose(here)
    if here.smaller is None:
        st.info("Choose a second model: the result of the **Prune** page, or a file of the folder.")
        return
    _graphs(here, model, here.smaller)
    _tables(here, model, here.smaller)


def _choose(here: Session) -> None:
    done = here.results.get("prune")
    left, middle, right = st.columns([2, 3, 1], vertical_alignment="bottom")
    if left.button("Compare with the pruned model", disabled=not done, width="stretch",
                   help=None if done else "Prune on the Prune page first.") and done:  # fmt: skip
        with saying_errors():
            here.compare_with(Path(done["small"]))
            here.results.pop("verify", None)
    models = [here.workspace.shown(path) for path in here.workspace.models()]
    given = middle.selectbox("Or with a file of the folder", models, index=None, accept_new_options=True,
                             label_visibility="collapsed", placeholder="Or choose a file, or type a path")  # fmt: skip
    if right.button("Compare", disabled=not given, width="stretch") and given:
        with saying_errors():
            here.compare_with(here.workspace.resolve(given))
            here.results.pop("verify", None)


@st.fragment
def _graphs(here: Session, model: Opened, other: Opened) -> None:
    def link(source: Look, target: Look, there: Opened) -> None:
        if source.selected in there.positions or source.selected in there.containers:
            target.reveal(there, source.selected)
        else:
            target.selected = ""

    before, after = here.looks["before"], here.looks["after"]
    sides = (("before", model, before, after, other), ("after", other, after, before, model))
    for column, (name, shown, look, linked, there) in zip(st.columns(2), sides, strict=True):

        def change(what: str, value: str, look: Look = look, linked: Look = linked, there: Opened = there) -> None:
            del value
            if what in ("selected", "reveal"):
                link(look, linked, there)

        with column:
            st.caption(f"**{name}**: {plain(shown.shown)}. What you select on one side is selected on the other.")
            show_graph(f"graph {name}", shown, look, HEIGHT, also=change)


def _tables(here: Session, model: Opened, other: Opened) -> None:
    left, right = st.columns(2)
    with left:
        st.markdown("**Sizes**")
        st.dataframe(cells(facts.sizes(model, other)), hide_index=True, height="content")
        st.markdown("**Outputs**")
        if st.button("Compare the outputs", disabled=here.job is not None,
                     help="Runs both on the same random inputs under onnxruntime."):  # fmt: skip
            here.results.pop("verify", None)
            here.job = Job(here.workspace.folder("verify"), "verify", a=str(model.path), b=str(other.path), samples=3,
                           seed=0)  # fmt: skip
        follow(here, "verify")
        _outputs(here)
    with right:
        st.markdown("**Weights whose shape differs**")
        rows = facts.widths(model, other)
        if rows:
            st.dataframe(cells(rows), hide_index=True, height=330)
        else:
            st.caption("None: all weights have the same shapes.")


def _outputs(here: Session) -> None:
    comparison = here.results.get("verify")
    if not comparison:
        done = here.results.get("prune")
        if done:
            st.caption("The Prune page has compared the zeroed with the small model. The original differs from both, "
                       "since groups that were not zero are gone.")  # fmt: skip
        return
    (st.success if comparison["equal"] else st.warning)(
        "The outputs are equal."
        if comparison["equal"]
        else f"The outputs differ: {plain(comparison['differences'][0])}"
    )
    for warning in comparison["warnings"]:
        st.caption(plain(warning))
    if comparison["outputs"]:
        st.dataframe(cells(facts.outputs(comparison)), hide_index=True, height="content")
