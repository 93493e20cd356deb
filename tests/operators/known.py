"""Cases that are known to fail, with the reason; each line goes once the dictionary is mended."""

from __future__ import annotations

from typing import Any

import pytest

from operators.cases import CASES

# What is shown to be wrong by which check: the groups that are found, what can be cut, what is said without need.
KNOWN: dict[tuple[str, str], str] = {}


def marked(check: str) -> list[Any]:
    """All cases as parameters of one check."""
    return [pytest.param(case, id=str(case), marks=_marks(KNOWN.get((check, str(case))))) for case in CASES]


def _marks(reason: str | None) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
