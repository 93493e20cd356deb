"""Model: open a file, see what it is."""

from __future__ import annotations

import streamlit as st

from ..facts import model as facts
from ..opened import Opened
from ..session import Session
from ..words import count, percent, plain, size
from ..workspace import UPLOAD_LIMIT, UPLOADED
from .shared import saying_errors, session, table


def show() -> None:
    """The page."""
    here = session()
    with st.expander("Open a model", expanded=here.model is None, icon=":material/folder_open:"):
        _ways(here)
    if here.model is None:
        st.info("No model is open. Choose one of the three ways above; the sample takes a second.")
    else:
        _overview(here.model)


def _ways(here: Session) -> None:
    folder, upload, sample = st.tabs(["From the folder", "Upload", "Sample"])
    with folder:
        _from_folder(here)
    with upload:
        st.caption(
            f"An .onnx file, with its external data if it has some; up to {UPLOAD_LIMIT >> 20} MB a file. "
            "Larger ones open by their path."
        )
        kinds = [suffix.removeprefix(".") for suffix in UPLOADED]
        files = st.file_uploader("Files", accept_multiple_files=True, type=kinds, label_visibility="collapsed")
        if st.button("Open upload", disabled=not files):
            with saying_errors(), st.spinner("Reading and analysing"):
                here.open_upload([(file.name, file) for file in files])
                st.rerun()
    with sample:
        st.caption("A small residual network with random weights, made on the spot.")
        if st.button("Open the sample"):
            with saying_errors():
                here.open_sample()
                st.rerun()


def _from_folder(here: Session) -> None:
    st.caption(f"Models in {plain(str(here.workspace.root))}")
    models = [here.workspace.shown(path) for path in here.workspace.models()]
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    given = left.selectbox(
        "Model", models, index=None, placeholder="Choose, or type a path", accept_new_options=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if right.button("Open model", disabled=not given, width="stretch") and given:
        with saying_errors(), st.spinner("Reading and analysing"):
            here.open_text(given)
            st.rerun()
    if not models:
        st.caption("This folder has no .onnx files. Start `zig view` with another folder, or upload a file.")


def _overview(model: Opened) -> None:
    found = facts.overview(model)
    st.subheader(plain(model.shown))
    parameters = found["parameters"]
    numbers = (
        ("File", size(found["bytes"])),
        ("Nodes", f"{found['nodes']:,}"),
        ("Parameters", count(parameters)),
        ("in groups", percent(found["prunable_parameters"] / parameters) if parameters else "none"),
        ("MACs", count(found["macs"])),
        ("Groups", f"{found['groups']:,}"),
        ("Node groups", f"{found['node_groups']:,}"),
        ("Analysed in", f"{1000 * found['seconds']:.0f} ms"),
    )
    for column, (name, value) in zip(st.columns(len(numbers)), numbers, strict=True):
        column.metric(name, value)
    for warning in facts.warnings(model):
        st.warning(plain(warning))
    made_by = f" by {plain(found['producer'])}" if found["producer"] else ""
    st.caption(f"Opset {found['opset']}{made_by}. MACs count symbolic sizes, such as the batch, as 1.")
    left, right = st.columns(2)
    with left:
        st.markdown("**Inputs and outputs**")
        table(facts.interface(model), 5)
        st.markdown("**What is fixed, and why**")
        table(facts.reasons(model), 7)
    with right:
        st.markdown("**Operators**")
        table(facts.operators(model), 13)
