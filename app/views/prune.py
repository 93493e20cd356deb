"""Prune: choose how much, see what it would do, do it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from zig.errors import ZigError
from zig.plan import MEASURES, SCOPES, Plan

from ..facts import pruning as facts
from ..facts.pruning import Wish
from ..jobs import Job
from ..opened import Opened
from ..session import Session
from ..words import cells, count, percent, plain
from .running import follow
from .shared import model_with_groups, saying_errors


def show() -> None:
    """The page."""
    found = model_with_groups()
    if not found:
        return
    here, model = found
    left, right = st.columns([1, 2.2])
    with left:
        plan = _wish(here, model)
        _run(here, model, plan)
    with right:
        if plan is None:
            _already_zero(model)
        else:
            _effect(model, plan)
        _done(here)


def _wish(here: Session, model: Opened) -> Plan | None:
    """The plan, or None where only what is zero goes."""
    del here
    choose = st.radio("Remove", ["the least important groups", "only what is zero already"])
    if choose != "the least important groups":
        return None
    ratio = st.slider("Share to remove", 1, 95, 50, format="%d %%")
    of = st.segmented_control("of the", MEASURES, default=MEASURES[0], format_func=facts.MEASURE_NAMES.__getitem__,
                              required=True, width="stretch")  # fmt: skip
    criterion = st.selectbox("Importance", facts.CRITERION_NAMES)
    scope = st.selectbox("Groups compete", SCOPES, format_func={
        "global": "in the whole network", "local": "in their node group"}.__getitem__)  # fmt: skip
    left, right = st.columns(2)
    round_to = left.selectbox("Width multiple of", [1, 2, 4, 8, 16, 32])
    seed = right.number_input("Seed", 0, 10_000, 0, disabled=criterion != "random")
    wish = Wish(ratio / 100, str(of), criterion, scope, round_to, int(seed))
    try:
        plan = facts.plan(model, wish)
    except ZigError as error:
        st.error(plain(str(error)))
        return None
    missed = facts.shortfall(wish, plan)
    if missed:
        st.warning(missed)
    return plan


def _run(here: Session, model: Opened, plan: Plan | None) -> None:
    if st.button("Prune and compress", type="primary", disabled=here.job is not None, width="stretch",
                 help="Zeroes the groups, cuts them out, and compares the outputs with onnxruntime."):  # fmt: skip
        with saying_errors():
            folder = here.workspace.folder("prune")
            mask = facts.save_mask(plan, folder) if plan is not None else ""
            here.results.pop("prune", None)
            here.job = Job(folder, "prune", model=str(model.path), mask=mask, samples=3, seed=0)
    follow(here, "prune")


def _effect(model: Opened, plan: Plan) -> None:
    rows = facts.effect(model, plan)
    for column, row in zip(st.columns(len(rows)), rows, strict=True):
        column.metric(row["name"], row["shown"], delta=f"−{row['less']} of {count(row['before'])}", delta_color="off",
                      delta_arrow="off")  # fmt: skip
    st.markdown("**Widths**")
    st.dataframe(
        cells(facts.widths(model, plan)), hide_index=True, height=330,
        column_config={"kept": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)},
    )  # fmt: skip


def _already_zero(model: Opened) -> None:
    zero = int(model.zero.sum())
    st.metric("groups that are zero", f"{zero:,} of {len(model.partition):,}", percent(zero / len(model.partition)),
              delta_color="off", delta_arrow="off")  # fmt: skip
    if not zero:
        st.info("No group of this model is zero throughout. Dead channels may still be found by their actual values.")


def _done(here: Session) -> None:
    done = here.results.get("prune")
    if not done:
        return
    report, small = done["report"], Path(done["small"])
    comparison = report["comparison"]
    verdict = "equal" if comparison["equal"] else "different"
    st.success(
        f"{report['removed']} of {report['groups']} groups removed. The outputs of the zeroed and the small model are "
        f"{verdict} on {comparison['samples']} inputs (largest difference {comparison['max_abs']:.2g})."
    )
    for warning in comparison["warnings"]:
        st.warning(plain(warning))
    parts = [
        ("Save the small model", small),
        ("Save the zeroed model", Path(done["zeroed"]) if done["zeroed"] else None),
    ]
    parts += [("Save its data", path) for path in sorted(small.parent.glob("*.data"))]
    given = [(title, path) for title, path in parts if path is not None]
    for column, (title, path) in zip(st.columns(len(given) + 1), given, strict=False):
        column.download_button(title, path.read_bytes, path.name, key=str(path), width="stretch")
    with st.expander("Log"):
        st.code("\n".join(done["log"]), language=None)
