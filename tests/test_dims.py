"""Sizes with symbols compute what numbers compute."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zig.errors import RuleError
from zig.model.dims import Dim, Size, at_least_one, divide, number, product, symbol

VALUES = {"n": 3, "m": 5, "batch": 7}
N, M = symbol("n"), symbol("m")


class Computed:
    """A size, and the number that it stands for when the symbols have values.

    What can't be divided becomes a new symbol, whose value is remembered in `values`.
    """

    def __init__(self, size: Size, value: int, values: dict[str, int]):
        self.size, self.value, self.values = size, value, values

    def apply(self, function: Callable[[Size, Size], Size], other: Computed) -> Computed:
        values = {**self.values, **other.values}
        size, value = function(self.size, other.size), int(function(self.value, other.value))  # type: ignore[call-overload]
        for monomial, _ in size.terms if isinstance(size, Dim) else ():
            for name in monomial:
                values.setdefault(name, value)  # only a symbol that was just made is missing
        return Computed(size, value, values)

    def is_right(self) -> bool:
        return evaluated(self.size, self.values) == self.value


def evaluated(size: Size, values: dict[str, int]) -> int:
    if isinstance(size, int):
        return size
    return sum(k * math.prod(values[name] for name in monomial) for monomial, k in size.terms)


@st.composite
def computed(draw: st.DrawFn, operations: tuple[Callable[[Size, Size], Size], ...]) -> Computed:
    values = {name: draw(st.integers(1, 9)) for name in ("n", "m", "batch")}
    leaves = st.one_of(
        st.integers(-6, 6).map(lambda k: Computed(k, k, values)),
        st.sampled_from(sorted(values)).map(lambda name: Computed(symbol(name), values[name], values)),
    )
    result = draw(leaves)
    for _ in range(draw(st.integers(0, 6))):
        other = draw(leaves)
        function = draw(st.sampled_from(operations))
        if function in (operator.floordiv, operator.mod) and (other.value == 0 or isinstance(result.size, int)):
            continue
        left, right = (
            (result, other) if draw(st.booleans()) or function in (operator.floordiv, operator.mod) else (other, result)
        )
        result = left.apply(function, right)
    return result


@settings(deadline=None)
@given(computed((operator.add, operator.sub, operator.mul)))
def test_polynomials_agree_with_their_values(result: Computed) -> None:
    assert result.is_right()


@settings(deadline=None)
@given(computed((operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)))
def test_divisions_agree_with_their_values(result: Computed) -> None:
    assert result.is_right()


@settings(deadline=None)
@given(computed((operator.add, operator.mul)), computed((operator.add, operator.mul)))
def test_a_product_divided_by_a_factor_is_the_other_factor(a: Computed, b: Computed) -> None:
    whole = a.size * b.size
    quotient = divide(whole, b.size) if b.size != 0 else None
    assert quotient is None or quotient == a.size or quotient * b.size == whole


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50))
def test_a_monomial_always_divides(a: int, b: int) -> None:
    assert divide(a * b * N * M, b * M) == a * N


@settings(deadline=None)
@given(computed((operator.add, operator.sub, operator.mul)), computed((operator.add, operator.sub, operator.mul)))
def test_equal_polynomials_are_equal_and_have_one_hash(a: Computed, b: Computed) -> None:
    assert a.size + b.size == b.size + a.size
    assert a.size * b.size == b.size * a.size
    assert hash(a.size + b.size) == hash(b.size + a.size)
    assert a.size - a.size == 0


@pytest.mark.parametrize(
    ("size", "by", "quotient"),
    [
        (12, 4, 3), (12, 5, None), (12, 0, None), (6 * N, 3, 2 * N), (6 * N, 4, None), (6 * N * M, 2 * N, 3 * M),
        (N, N, 1), (N, M, None), (N, 2, None), (4, N, None), (2 * N + 4, 2, N + 2), (N + 1, N + 1, 1), (N * N, N, N),
        (N * M + N, N, M + 1), (N, N + 1, None),
    ],
)  # fmt: skip
def test_division_is_exact_or_not_at_all(size: Size, by: Size, quotient: Size | None) -> None:
    assert divide(size, by) == quotient


def test_what_cannot_be_divided_is_a_symbol_that_stays_equal_to_itself() -> None:
    assert N // 2 == N // 2
    assert N // 2 != N // 3
    assert (N + 1) // 2 == (1 + N) // 2
    assert 7 // N == 7 // N
    assert (N % 2) == (N % 2)
    assert (4 * N) % 2 == 0


def test_sizes_that_cancel_are_plain_numbers() -> None:
    assert isinstance(N - N + 3, int)
    assert isinstance(0 * N, int)
    assert N - N + 3 == 3
    assert 0 - (-N) == N
    assert 3 - N == -1 * (N - 3)


def test_a_symbol_is_never_a_number() -> None:
    assert N != 1
    assert number(4) == 4
    with pytest.raises(RuleError, match="dynamic size n"):
        number(N)


def test_products_and_text() -> None:
    assert product([]) == 1
    assert product([2, N, 3]) == 6 * N
    assert str(2 * N * M + 1) in {"1 + 2*m*n", "2*m*n + 1"}


def test_counting_takes_a_symbol_for_one() -> None:
    assert [at_least_one(size) for size in (7, N, 3 * N, 2 * N + 1, N - N)] == [7, 1, 3, 3, 0]
