"""A job that runs: progress, log, cancel."""

from __future__ import annotations

import streamlit as st

from ..session import Session
from ..words import plain


def follow(here: Session, task: str) -> None:
    """Show the job of this task until it is done, then keep its result and draw the page again."""
    if here.job is not None and here.job.task == task:
        _watch(here)
    elif here.job is not None:
        st.caption(f"Another job runs ({here.job.task}); wait for it or cancel it on its page.")
    elif here.results.get("error", {}).get("task") == task:
        st.error(plain(here.results["error"]["text"]))


@st.fragment(run_every=0.5)
def _watch(here: Session) -> None:
    job = here.job
    if job is None:
        return
    log = job.log
    st.progress(job.progress, text=plain(log[-1]) if log else "starting")
    if st.button("Cancel", key=f"cancel {job.task}"):
        here.cancel()
        st.rerun()
    if job.running:
        return
    here.results.pop("error", None)
    if job.result is not None:
        here.results[job.task] = job.result | {"log": log}
    elif job.error:
        here.results["error"] = {"task": job.task, "text": job.error}
    here.job = None
    st.rerun()
