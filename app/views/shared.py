"""What all pages share: the session, errors in plain words, the empty state, the graph."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import streamlit as st

from zig.errors import ZigError

from ..canvas import graph
from ..facts.picture import picture
from ..launch import START
from ..opened import Opened
from ..session import Look, Session
from ..words import cells, plain
from ..workspace import Workspace, start

STYLE = """<style>
.block-container { padding: 4.4rem 1.6rem 1.5rem; max-width: 1500px; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
h2 { padding-top: 0; }
</style>"""


def session() -> Session:
    """The session of this browser tab; the model that the app was started with is opened in it."""
    if "zig" not in st.session_state:
        root, first = start(os.environ.get(START))
        st.session_state["zig"] = opened = Session(Workspace(root))
        if first is not None:
            with saying_errors():
                opened.open(first)
    found: Session = st.session_state["zig"]
    return found


@contextlib.contextmanager
def saying_errors() -> Iterator[None]:
    """Show what zig raises on purpose, and what the disk refuses, as one sentence on the page."""
    try:
        yield
    except ZigError as error:
        st.error(plain(str(error)))
    except OSError as error:
        st.error(plain(f"{error.filename}: {error.strerror}" if error.filename else str(error)))


def opened_model() -> tuple[Session, Opened] | None:
    """The session and its model; where none is open, the page says what to do."""
    here = session()
    if here.model is None:
        st.info("No model is open. Open one, or try the sample, on the **Model** page.")
        return None
    return here, here.model


def model_with_groups() -> tuple[Session, Opened] | None:
    """The session and its open model; None where there is none, or nothing in it can go, which the page then says."""
    found = opened_model()
    if found and not found[1].groups:
        st.info("This model has no groups: nothing in it can be removed. The Model page says what is fixed, and why.")
        return None
    return found


def show_graph(
    key: str, model: Opened, look: Look, height: int, *,
    values: dict[int, float] | None = None, also: Callable[[str, str], None] | None = None,
) -> None:  # fmt: skip
    """The canvas of a model; what is clicked changes `look`.

    Args:
        key: The widget's key.
        model: What to show.
        look: How it is looked at.
        height: In pixels.
        values: A number of each node group for the overlay.
        also: Called after `look` has changed, with what happened and its value.
    """

    def change(what: str, value: str) -> None:
        if what == "selected":
            look.selected = value
        elif what == "query":
            look.query = value
        elif what == "toggle":
            look.toggle(model, value)
        elif what == "reveal" and value:
            look.reveal(model, value)
        elif what == "command" and value:
            look.flat = False
            look.expanded = set(model.all_open()) if value == "open" else set()
        if also:
            also(what, value)

    graph(key, picture(model, look, height, values), change)


def table(rows: Sequence[Mapping[str, Any]], most: int = 10) -> None:
    """A table as high as its rows, up to `most` of them."""
    st.dataframe(cells(rows), hide_index=True, height="content" if len(rows) <= most else 35 * (most + 1) + 3)


def ask_group(group: int) -> None:
    """Choose a node group for the Groups page."""
    here = session()
    here.group, here.unit = group, 0
    if here.model:
        for name in ("graph", "groups"):
            here.looks[name].show_group(here.model, group)
