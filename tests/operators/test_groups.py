"""Every row of the dictionary finds the groups that its graphs have."""

import graphs
import pytest

import zig
from operators.cases import ANCIENT, CASES, Case
from operators.known import KNOWN, marked
from zig.operators import OPERATORS


@pytest.mark.parametrize("case", marked("groups"))
def test_groups(case: Case) -> None:
    letters = case.letters()
    partition = zig.analyze(case.model(letters))
    assert graphs.families(partition) == graphs.expected(case.groups, letters)
    assert not partition.unknown_operators


@pytest.mark.parametrize("case", ANCIENT, ids=str)
def test_groups_of_versions_that_nothing_runs(case: Case) -> None:
    test_groups(case)


def test_every_row_has_a_case() -> None:
    rows = {name for name, operator in OPERATORS.items() if not operator.wall}
    assert not rows - {case.operator for case in CASES}


def test_a_wall_fixes_what_reaches_it_and_says_why() -> None:
    model = graphs.build("h = MatMul (x, w)\nz = Unique (h)", x="N 3", w="3 4")
    partition = zig.analyze(model)
    assert not len(partition)
    assert any("Unique" in fixed.reason and "selects by values" in fixed.reason for fixed in partition.fixed)
    assert not partition.unknown_operators


def test_no_two_cases_have_one_name() -> None:
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


def test_only_cases_that_exist_are_known() -> None:
    assert not {name for _, name in KNOWN} - set(map(str, CASES))
