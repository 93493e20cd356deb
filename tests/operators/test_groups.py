"""Every row of the dictionary finds the groups that its graphs have."""

import graphs
import pytest

import zig
from operators.cases import CASES, Case
from operators.known import KNOWN, marked
from zig.operators import OPERATORS


@pytest.mark.parametrize("case", marked("groups"))
def test_groups(case: Case) -> None:
    letters = case.letters()
    partition = zig.analyze(case.model(letters))
    assert graphs.families(partition) == graphs.expected(case.groups, letters)
    assert not partition.unknown_operators


def test_every_row_has_a_case() -> None:
    assert not set(OPERATORS) - {case.operator for case in CASES}


def test_no_two_cases_have_one_name() -> None:
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


def test_only_cases_that_exist_are_known() -> None:
    assert not {name for _, name in KNOWN} - set(map(str, CASES))
