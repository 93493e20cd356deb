"""The app's entrance: `streamlit run` gets this file from `zig view`."""

from pathlib import Path

import streamlit as st
from zig.app.views import compare, graph, groups, model, prune, report, training
from zig.app.views.shared import STYLE, session

st.set_page_config(page_title="zig", page_icon=str(Path(__file__).with_name("icon.svg")), layout="wide")
st.html(STYLE)
PAGES = (
    (model, "Model", "folder_open"),
    (graph, "Graph", "account_tree"),
    (groups, "Groups", "palette"),
    (prune, "Prune", "content_cut"),
    (compare, "Compare", "compare"),
    (training, "Training", "monitoring"),
    (report, "Report", "description"),
)
here = session()
pages = [
    st.Page(page.show, title=title, icon=f":material/{icon}:", url_path=title.lower(), default=page is model)
    for page, title, icon in PAGES
]
st.navigation(pages, position="top").run()
