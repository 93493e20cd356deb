"""The graph as a component of the page: a script and a style of our own, no frame, nothing from the network."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import streamlit as st

_HERE = files("zig.app.canvas")
# As text and not as files of an asset folder: that works in tests of pages too, and from any installation.
_component = st.components.v2.component(
    "zig.graph",
    html='<div class="zig"></div>',
    css=_HERE.joinpath("graph.css").read_text(encoding="utf-8"),
    js=_HERE.joinpath("graph.js").read_text(encoding="utf-8"),
)


def graph(key: str, data: dict[str, Any], on_change: Callable[[str, str], None]) -> None:
    """Show a scene.

    Args:
        key: The widget's key; its zoom and place belong to it.
        data: What `zig.app.facts.picture.picture` makes.
        on_change: Called with what happened (`selected`, `query`, `toggle`, `reveal`, `command`) and its value.
    """

    def happened(what: str) -> Callable[[], None]:
        def call() -> None:
            on_change(what, st.session_state[key].get(what) or "")

        return call

    _component(
        key=key, data=data, height="content",
        on_selected_change=happened("selected"), on_query_change=happened("query"),
        on_toggle_change=happened("toggle"), on_reveal_change=happened("reveal"),
        on_command_change=happened("command"),
    )  # fmt: skip
