"""Sizes that are not numbers yet: integer polynomials over named symbols.

A dynamic batch, sequence or image size enters as a symbol and stays exact under `+ - *` and exact division, which is
all that the shape arithmetic of exporters needs (`Shape -> Gather -> Mul -> Concat -> Reshape`). What can't be divided
exactly becomes a new symbol that is named by its own expression, so that equal expressions stay equal.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Union

from zig.errors import RuleError

Size = Union[int, "Dim"]
Monomial = tuple[str, ...]
_LONGEST, _TERMS = 1000, 1000  # characters and terms of a size; what has more is a symbol, whatever it says


class Dim:
    """An integer polynomial over symbols, for example `2*batch*heads + 1`; never a plain number."""

    __slots__ = ("terms",)

    def __init__(self, terms: Iterable[tuple[Monomial, int]]):
        """Keep the terms sorted, so that equal polynomials have equal terms."""
        self.terms = tuple(sorted(terms))

    def __add__(self, other: Size) -> Size:
        return _sum([*self.terms, *_terms(other)])

    def __sub__(self, other: Size) -> Size:
        return self + -1 * other

    def __rsub__(self, other: Size) -> Size:
        return other + -1 * self

    def __neg__(self) -> Size:
        return -1 * self

    def __mul__(self, other: Size) -> Size:
        pairs = [(a, x, b, y) for a, x in self.terms for b, y in _terms(other)]
        return _sum([(tuple(sorted(a + b)), x * y) for a, x, b, y in pairs])

    def __floordiv__(self, other: Size) -> Size:
        exact = divide(self, other)
        return symbol(f"({self})//({other})") if exact is None else exact

    def __rfloordiv__(self, other: Size) -> Size:
        return symbol(f"({other})//({self})")

    def __mod__(self, other: Size) -> Size:
        return symbol(f"({self})%({other})") if divide(self, other) is None else 0

    def __rmod__(self, other: Size) -> Size:
        return symbol(f"({other})%({self})")

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __repr__(self) -> str:
        return " + ".join("*".join([str(k)] * (k != 1 or not m) + list(m)) for m, k in self.terms)


def symbol(name: str) -> Dim:
    """The size that is called `name`."""
    return Dim([((name,), 1)])


def divide(size: Size, by: Size) -> Size | None:
    """The exact quotient, or None where it is not known to be exact."""
    if size == by:
        return 1
    if isinstance(size, int) and isinstance(by, int):
        return size // by if by and size % by == 0 else None
    divisor = _terms(by)
    if len(divisor) != 1 or not divisor[0][1]:
        return None
    names, factor = divisor[0]
    quotient = []
    for monomial, coefficient in _terms(size):
        rest = list(monomial)
        if coefficient % factor or not all(_take(rest, name) for name in names):
            return None
        quotient.append((tuple(rest), coefficient // factor))
    return _sum(quotient)


@lru_cache(maxsize=4096)
def parse(text: str) -> Size:
    """The size that a model names, such as `batch` or torch's `4*batch + 1`; what is no arithmetic is a symbol."""
    if len(text) > _LONGEST:
        return symbol(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anyone's text
            return _evaluate(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return symbol(text)


def _evaluate(node: ast.expr) -> Size:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _evaluate(node.left), _evaluate(node.right)
        if len(_terms(left)) * len(_terms(right)) > _TERMS:
            raise ValueError("too many terms")
        return _OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return symbol(node.id)
    raise ValueError("no arithmetic over names")


_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Size]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
}  # fmt: skip


def product(sizes: Iterable[Size]) -> Size:
    """The product of all sizes; 1 for none."""
    return math.prod(sizes, start=1)


def number(size: Size) -> int:
    """The size as a number.

    Raises:
        RuleError: it is dynamic.
    """
    if isinstance(size, Dim):
        raise RuleError(f"it depends on the dynamic size {size}")
    return int(size)


def at_least_one(size: Size) -> int:
    """The size as a number for counting: a symbol counts as 1."""
    return size if isinstance(size, int) else sum(k for _, k in size.terms) or 1


def _take(names: list[str], name: str) -> bool:
    if name in names:
        names.remove(name)
        return True
    return False


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def _sum(terms: Iterable[tuple[Monomial, int]]) -> Size:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = [(m, k) for m, k in total.items() if k]
    if not kept:
        return 0
    return kept[0][1] if len(kept) == 1 and not kept[0][0] else Dim(kept)
