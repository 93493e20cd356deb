"""The rule language: how units pass through an operator, written in one line.

    Gemm      m k, k n, n -> m n
    Conv      n (g c) *s!, (g o) c *k!, (g o) -> n (g o) *t

| in the string | meaning |
| --- | --- |
| `c` | one axis; the same letter on two operands ties them index by index |
| `(g c)` | one axis that is the row-major product of two letters |
| `*s` | any number of axes, right-aligned between operands as in broadcasting |
| `!` | bound: the operator computes something over the whole axis, so nothing along it can go |
| `~` before an operand | its slices are cut along but need not be zero (running statistics, divisors) |
| `1` | an axis of size one |

A letter that no result names is contracted (summed away); on a weight, a letter that a result names is emitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from zig.errors import RuleError

_TOKEN = re.compile(r"\s*(\*?[A-Za-z]\w*!?|1|\((?:\s*[A-Za-z]\w*!?)+\s*\))")


@dataclass(frozen=True)
class Term:
    """One axis of an operand (a letter, or several for a product), or a run of axes for a star."""

    letters: tuple[str, ...]
    star: bool = False


@dataclass(frozen=True)
class Operand:
    """One operand or result of a rule."""

    terms: tuple[Term, ...]
    carried: bool = False  # `~`: cut along, never zeroed

    def expand(self, rank: int) -> tuple[Term, ...]:
        """Replace the star by as many single letters as a tensor of this rank needs, numbered from the right.

        Raises:
            RuleError: where the rank does not fit.
        """
        plain = sum(not term.star for term in self.terms)
        if rank < plain or (rank > plain and plain == len(self.terms)):
            raise RuleError(f"a tensor of rank {rank} does not fit the rule's operand {self}")
        return tuple(one for term in self.terms for one in _numbered(term, rank - plain))

    def stars(self, rank: int) -> Iterator[tuple[str, int]]:
        """The name of the star, if there is one, and how many axes it stands for in a tensor of this rank."""
        return ((term.letters[0], rank - len(self.terms) + 1) for term in self.terms if term.star)

    def __str__(self) -> str:
        names = (
            "*" * t.star + (t.letters[0] if len(t.letters) == 1 else f"({' '.join(t.letters)})") for t in self.terms
        )
        return "~" * self.carried + " ".join(names)


@dataclass(frozen=True)
class Rule:
    """A parsed rule: operands, results, and the letters that are bound."""

    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    bound: frozenset[str]

    @property
    def passes(self) -> bool:
        """Whether the only operand comes out as it went in: an elementwise function."""
        return (
            len(self.operands) == 1 and not self.bound and all(r.terms == self.operands[0].terms for r in self.results)
        )


class Use(NamedTuple):
    """Where a letter stands: an operand's axis (`place`), or one factor (`piece`) of that axis."""

    operand: int
    place: int
    piece: int | None


class Letter(NamedTuple):
    """A letter of a spelling: is it bound, does a result name it, and where the operands have it."""

    name: str
    bound: bool
    named: bool
    uses: tuple[Use, ...]


class Spelling(NamedTuple):
    """A rule for operands of given ranks: its letters, its product axes, and how many letters each star became."""

    text: str
    rule: Rule
    letters: tuple[Letter, ...]
    products: tuple[tuple[int, int, tuple[str, ...]], ...]  # operand, axis, letters
    stars: dict[str, int]


@lru_cache(maxsize=4096)
def parse(text: str) -> Rule:
    """Parse a rule string.

    Raises:
        RuleError: names what can't be read.
    """
    left, arrow, right = text.partition("->")
    if not arrow:
        raise RuleError(f"rule '{text}' has no '->'")
    bound: set[str] = set()
    operands, results = ([_operand(part, bound, text) for part in side.split(",")] for side in (left, right))
    return Rule(tuple(operands), tuple(results), frozenset(bound))


@lru_cache(maxsize=4096)
def spell(text: str, ranks: tuple[int | None, ...]) -> Spelling:
    """Write a rule out for operands of these ranks (None: the operand is absent).

    Raises:
        RuleError: a rank does not fit.
    """
    rule = parse(text)
    results = {letter for result in rule.results for term in result.terms for letter in term.letters}
    uses: dict[str, list[Use]] = {}
    products: list[tuple[int, int, tuple[str, ...]]] = []
    stars: dict[str, int] = {}
    for i, (operand, rank) in enumerate(zip(rule.operands, ranks, strict=False)):
        if rank is None:
            continue
        axes = operand.expand(rank)
        stars.update({x: max(n, stars.get(x, 0)) for x, n in operand.stars(rank)})
        for place, term in enumerate(axes):
            if len(term.letters) > 1:
                products.append((i, place, term.letters))
            for piece, letter in enumerate(term.letters):
                uses.setdefault(letter, []).append(Use(i, place, piece if len(term.letters) > 1 else None))
    letters = (Letter(x, stem(x) in rule.bound, stem(x) in results, tuple(found)) for x, found in uses.items())
    return Spelling(text, rule, tuple(letters), tuple(products), stars)


@lru_cache(maxsize=4096)
def spell_result(text: str, index: int, rank: int) -> tuple[tuple[str, ...], ...]:
    """The letters of every axis of a result of this rank.

    Raises:
        RuleError: the rank does not fit.
    """
    return tuple(term.letters for term in parse(text).results[index].expand(rank))


@lru_cache(maxsize=4096)
def products(macs: str, letters: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The letters of each product of a sum such as `b m k n`, a star as what it became (`*` alone: all letters)."""
    found = (
        tuple(letter for name in factors.split() for letter in letters if name in ("*", stem(letter)))
        for factors in macs.split("+")
    )
    return tuple(factors for factors in found if factors)


def stem(letter: str) -> str:
    """The name of the star that a letter was numbered from, or the letter itself."""
    return letter.partition(".")[0]


def _operand(text: str, bound: set[str], rule: str) -> Operand:
    text = text.strip()
    carried, text = text.startswith("~"), text.removeprefix("~").strip()
    terms, position = [], 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if not token:
            raise RuleError(f"rule '{rule}' can't be read at '{text[position:]}'")
        terms.append(_term(token[1], bound))
        position = token.end()
    if sum(term.star for term in terms) > 1:
        raise RuleError(f"rule '{rule}' has an operand with two stars")
    return Operand(tuple(terms), carried)


def _term(token: str, bound: set[str]) -> Term:
    if token == "1":
        return Term(())
    names = token.strip("()").split()
    bound.update(name.strip("*!") for name in names if name.endswith("!"))
    return Term(tuple(name.strip("*!") for name in names), star=token.startswith("*"))


def _numbered(term: Term, count: int) -> tuple[Term, ...]:
    if not term.star:
        return (term,)
    return tuple(Term((f"{term.letters[0]}.{place}",)) for place in range(count, 0, -1))
