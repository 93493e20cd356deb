"""Graph: the model on the canvas, and a panel for what is selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from ..facts import drawing, node, training
from ..facts.picture import OVERLAYS
from ..opened import Opened
from ..session import Session
from ..words import count, plain
from .shared import ask_group, opened_model, saying_errors, show_graph, table

HEIGHT = 695


def show() -> None:
    """The page."""
    found = opened_model()
    if found:
        _show(*found)


@st.fragment
def _show(here: Session, model: Opened) -> None:
    canvas, panel = st.columns([3.1, 1])
    with panel:
        _controls(here, model)
    with canvas:
        show_graph("graph", model, here.looks["graph"], HEIGHT, values=overlay_values(here))
    with panel, st.container(height=HEIGHT - 225, border=False):
        _panel(here, model)


def overlay_values(here: Session) -> dict[int, float] | None:
    """The numbers of the overlays that come from work that was done: sensitivity, sparsity in training."""
    look = here.looks["graph"]
    if look.overlay == "sensitivity" and "sensitivity" in here.results:
        return {int(group): value for group, value in here.results["sensitivity"]["sensitivity"].items()}
    if look.overlay == "sparsity" and "log" in here.results and here.model:
        return training.last_sparsity(here.results["log"], here.model.groups)
    return None


def _controls(here: Session, model: Opened) -> None:
    look = here.looks["graph"]
    names = list(OVERLAYS)
    look.overlay = st.selectbox(
        "Colour by", names, format_func=OVERLAYS.__getitem__, index=names.index(look.overlay), key="overlay"
    )
    if look.overlay in ("sensitivity", "sparsity") and overlay_values(here) is None:
        where = {
            "sensitivity": "Measure it on the **Groups** page.",
            "sparsity": "Open a log on the **Training** page.",
        }
        st.caption(f"There are no numbers yet. {where[look.overlay]}")
    groups = [group.id for group in model.groups]
    look.focus = st.multiselect(
        "Show groups", groups, default=[g for g in look.focus if g in groups], placeholder="all",
        format_func=lambda g: f"g{g} {model.groups[g].name}", max_selections=6,
    )  # fmt: skip
    left, right = st.columns(2)
    look.flat = left.toggle("Flat", value=look.flat, help="Every node, without modules.")
    with right:
        _exports(here, model)


def _exports(here: Session, model: Opened) -> None:
    with st.popover("Export", width="stretch"):
        st.caption("The buttons SVG and PNG above the graph save this picture. Graphviz draws a smaller one.")
        form = st.radio("Format", ["svg", "pdf", "dot"], horizontal=True, label_visibility="collapsed")
        if st.button("Draw with graphviz"):
            with saying_errors(), st.spinner("Drawing"):
                here.results["drawing"] = drawing.draw(model, here.workspace.folder("drawing"), form)
        made = here.results.get("drawing")
        if made:
            path = Path(made["file"])
            if made["note"]:
                st.caption(plain(made["note"]))
            st.download_button(f"Save {plain(path.name)}", path.read_bytes, path.name)


def _panel(here: Session, model: Opened) -> None:
    what = node.describe(model, here.looks["graph"].selected)
    if what is None:
        st.markdown("**Nothing selected**")
        st.caption(
            "Click a box to see what it is. Double-click a module to open or close it. Drag to move, scroll to zoom. "
            "With the keyboard: arrows follow edges, Enter opens, Backspace closes, / searches, f fits."
        )
        return
    st.markdown(f"**{plain(what['title'])}**")
    st.caption(plain(what["name"]).replace("/", "/\u200b"))
    if what["fixed"]:
        st.warning(f"Fixed: {plain(what['fixed'])}", icon=":material/lock:")
    _group_buttons(model, what)
    amounts = [f"{count(what[name])} {title}" for name, title in (("parameters", "parameters"), ("macs", "MACs"))
               if what[name]]  # fmt: skip
    if what["kind"] == "module":
        amounts.insert(0, f"{what['nodes']} nodes")
    if amounts:
        st.markdown(" · ".join(amounts))
    for title in ("inputs", "outputs", "weights", "attributes"):
        _titled(title, what[title])


def _group_buttons(model: Opened, what: dict[str, Any]) -> None:
    for role in ("writes", "reads"):
        shown = what[role][:4]
        for group in shown:
            name = f"{role} g{group} · {model.groups[group].size} of {plain(model.groups[group].name)}"
            st.button(name, key=f"{role}{group}", on_click=ask_group, args=(group,), width="stretch",
                      help="Show this group alone, and on the Groups page.")  # fmt: skip
        if len(what[role]) > len(shown):
            st.caption(f"{role} {len(what[role]) - len(shown)} more groups")


def _titled(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        st.markdown(f"**{title.capitalize()}**")
        table(rows)
