"""The parser of rule strings."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zig.errors import RuleError
from zig.flow.rules import Operand, Rule, Term, Use, parse, products, spell
from zig.operators import OPERATORS


def test_a_rule_has_operands_results_and_bound_letters() -> None:
    rule = parse("n (g c) *s!, ~c -> n c *t")
    n, c, product = Term(("n",)), Term(("c",)), Term(("g", "c"))
    assert rule == Rule(
        (Operand((n, product, Term(("s",), star=True))), Operand((c,), carried=True)),
        (Operand((n, c, Term(("t",), star=True))),),
        frozenset("s"),
    )


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("a b! -> a b", {"b"}),
        ("(a! b) c! -> c", {"a", "c"}),
        ("*s! -> *s", {"s"}),
        ("a -> a!", {"a"}),
        ("a -> a", set()),
    ],
)
def test_bound_letters(text: str, bound: set[str]) -> None:
    assert parse(text).bound == bound


def test_operands_and_results_may_be_many_or_empty() -> None:
    assert [len(side) for side in (parse("a, b, c -> a, b").operands, parse("a, b, c -> a, b").results)] == [3, 2]
    assert parse("-> a").operands == (Operand(()),)
    assert parse("a ->").results == (Operand(()),)


def test_one_is_an_axis_without_a_letter() -> None:
    assert parse("a 1 -> 1 a").operands[0].terms == (Term(("a",)), Term(()))


@pytest.mark.parametrize(
    ("operand", "rank", "letters"),
    [
        ("a b", 2, ["a", "b"]),
        ("*s", 3, ["s.3", "s.2", "s.1"]),
        ("*s", 0, []),
        ("a *s b", 2, ["a", "b"]),
        ("a *s b", 4, ["a", "s.2", "s.1", "b"]),
        ("(a b) *s", 2, ["a b", "s.1"]),
    ],
)
def test_a_star_is_numbered_from_the_right(operand: str, rank: int, letters: list[str]) -> None:
    assert [" ".join(t.letters) for t in parse(f"{operand} -> a").operands[0].expand(rank)] == letters


@pytest.mark.parametrize(("operand", "rank"), [("a b", 1), ("a b", 3), ("a *s b", 1), ("1", 0)])
def test_a_rank_that_does_not_fit_is_an_error(operand: str, rank: int) -> None:
    with pytest.raises(RuleError, match=f"rank {rank} does not fit"):
        parse(f"{operand} -> a").operands[0].expand(rank)


def test_spelling_numbers_stars_of_all_operands_alike() -> None:
    spelling = spell("n *s!, *s -> n *s", (3, 1))
    assert [letter.name for letter in spelling.letters] == ["n", "s.2", "s.1"]
    assert {letter.name for letter in spelling.letters if letter.bound} == {"s.1", "s.2"}
    assert all(letter.named for letter in spelling.letters)
    assert spelling.letters[2].uses == (Use(0, 2, None), Use(1, 0, None))
    assert spelling.stars == {"s": 2}


def test_an_absent_operand_has_no_letters() -> None:
    letters = spell("a, b, c -> a", (1, None, 1)).letters
    assert [(letter.name, letter.uses[0].operand) for letter in letters] == [("a", 0), ("c", 2)]


def test_product_axes_are_spelled_piece_by_piece() -> None:
    spelling = spell("n (g c) -> n g", (2,))
    assert spelling.products == ((0, 1, ("g", "c")),)
    assert [letter.uses for letter in spelling.letters[1:]] == [(Use(0, 1, 0),), (Use(0, 1, 1),)]


def test_products_of_letters_are_costs() -> None:
    assert products("b k + *", ("b.1", "m", "k")) == (("b.1", "k"), ("b.1", "m", "k"))
    assert products("x", ("m",)) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "has no '->'"),
        ("a , (b -> a", "can't be read at '\\(b'"),
        ("a ? -> a", "can't be read at ' ?\\?'"),
        ("*a *b -> *a", "two stars"),
        ("a! ! -> a", "can't be read at ' ?!'"),
        ("(*a b) -> b", "can't be read"),
        ("() -> a", "can't be read"),
        ("2 -> a", "can't be read at '2'"),
    ],
)
def test_errors_name_the_rule(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        parse(text)


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,2}", fullmatch=True)
PLAIN = st.one_of(
    st.just(Term(())),
    NAMES.map(lambda x: Term((x,))),
    st.lists(NAMES, min_size=2, max_size=3).map(lambda x: Term(tuple(x))),
)
STARS = NAMES.map(lambda x: Term((x,), star=True))


@st.composite
def operands(draw: st.DrawFn) -> Operand:
    terms = draw(st.lists(PLAIN, max_size=4))
    if draw(st.booleans()):
        terms.insert(draw(st.integers(0, len(terms))), draw(STARS))
    return Operand(tuple(terms), carried=draw(st.booleans()))


def written(operand: Operand, bound: frozenset[str]) -> str:
    """An operand as a person writes it."""

    def term(one: Term) -> str:
        names = [x + "!" * (x in bound) for x in one.letters]
        return "1" if not names else "*" * one.star + (names[0] if len(names) == 1 else f"({' '.join(names)})")

    return "~" * operand.carried + " ".join(map(term, operand.terms))


@settings(deadline=None)
@given(st.lists(operands(), min_size=1, max_size=3), st.lists(operands(), min_size=1, max_size=2), st.data())
def test_round_trip(left: list[Operand], right: list[Operand], data: st.DataObject) -> None:
    letters = sorted({x for operand in (*left, *right) for term in operand.terms for x in term.letters})
    bound = frozenset(data.draw(st.sets(st.sampled_from(letters)))) if letters else frozenset()
    sides = (", ".join(written(operand, bound) for operand in side) for side in (left, right))
    assert parse(" -> ".join(sides)) == Rule(tuple(left), tuple(right), bound)


@settings(deadline=None)
@given(operands(), st.integers(0, 6))
def test_expanding_gives_as_many_axes_as_the_rank(operand: Operand, rank: int) -> None:
    plain = sum(not term.star for term in operand.terms)
    fits = rank == plain or (rank > plain and plain < len(operand.terms))
    if fits:
        assert len(operand.expand(rank)) == rank
        assert not any(term.star for term in operand.expand(rank))
    else:
        with pytest.raises(RuleError):
            operand.expand(rank)


@settings(deadline=None)
@given(st.text(alphabet="ab1*!()~,-> ", max_size=20))
def test_any_text_is_a_rule_or_an_error_that_zig_raises(text: str) -> None:
    with contextlib.suppress(RuleError):
        parse(text)


def test_all_rules_of_the_dictionary_can_be_read() -> None:
    for name, operator in OPERATORS.items():
        if isinstance(operator.rule, str) and operator.rule:
            rule = parse(operator.rule)
            assert rule.operands, name
            assert rule.results, name
