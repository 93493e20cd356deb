"""What a node did once, done again: the layers of a deep network repeat, so their rules are worked out a single time.

What a rule does to units follows from its **situation** alone: the rule, the sizes of the parts of its operands, the
levels at which these rest, and which of them are the same. A **recipe** says what came of a situation in terms of the
operands' parts, by their places. Of some situations there is none, and each of their nodes is worked out anew: where
rests are not level, where parts are joined or were cut before, where more than the operands was looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zig.parts import computed_over, leaked, unmade
from zig.rules import parse, spell
from zig.units import Contraction, Fork, Part, Reason, Rest, Tensor

if TYPE_CHECKING:
    from zig.flow import Flow
    from zig.graph import Node
    from zig.operators import Operator
    from zig.units import Axis, Call, Units

NODE, UNMADE = -1, -2  # for reasons of the node itself: it computes over a part, or ties it to what no weight makes
MARKS = ("members", "heads", "blocks", "divisors")  # lists of a flow that hold units
LISTS = (*MARKS, "ties", "fixes", "leaks", "forks", "stored", "contractions", "costs")  # all that a node may add to
Made = tuple[int, "Rest | None"]  # a part of a result: the place of its units and its rest (None: the part itself)


class Recipe(NamedTuple):
    """What came of a situation. Numbers are places of parts: the operands', what is cut out of these, the ended."""

    splits: list[tuple[int, int]]  # place, number of rows
    ended: list[Any]  # sizes
    results: list[tuple[list[int | list[Made]], Tensor]]  # each axis: the place of an operand's, or its parts
    ties: list[tuple[int, int]]
    fixes: list[tuple[int, int]]  # place; the place of what gives the reason, or NODE or UNMADE
    own: list[int]  # which of these two there are
    leaks: list[int]  # of parts that nothing constant is known of
    marks: list[tuple[str, list[int]]]  # what goes to the lists of `MARKS`
    contractions: list[tuple[int, int | None]]
    costs: list[list[int]]


class Recipes:
    """The recipes of one flow, by their situations."""

    def __init__(self, flow: Flow):
        """Begin with none."""
        self.flow = flow
        self._known: dict[tuple[Any, ...], Recipe | None] = {}
        self._forms: dict[tuple[Any, ...], int] = {}

    def apply(self, call: Call, operator: Operator, text: str) -> list[Tensor | None]:
        """As `Flow.apply`, which works the rule `text` out; here it is only done where it is known what comes of it."""
        flow = self.flow
        if not operator.recurs or flow.resting or not all(call.node.outputs):
            return flow.apply(call, operator, text)
        forms = [-1 if tensor is None else self._form(tensor) for tensor in call.inputs]
        if ... in forms:
            return flow.apply(call, operator, text)
        axes = [axis for tensor in call.inputs if tensor is not None for axis in tensor.axes]
        parts = [part for axis in axes for part in axis]
        marks = [id(part.units) if part.live else -part.why for part in parts]
        if not flow.recut.isdisjoint(marks):  # cut again, it would become what it became before
            return flow.apply(call, operator, text)
        situation = (call.node.op, text, len(call.node.outputs), *forms, *_pattern(marks))
        if situation not in self._known:
            writer = Writer(flow, call, operator, axes)
            outputs = flow.apply(call, operator, text)
            self._known[situation] = writer.recipe(text, outputs)
            return outputs
        recipe = self._known[situation]
        if recipe is None:
            return flow.apply(call, operator, text)
        _follow(flow, recipe, call, operator, parts)
        return [_made(made, like, axes, parts) for made, like in recipe.results]

    def _form(self, tensor: Tensor) -> Any:
        """A number for all that counts of a tensor besides its units; `...` where some part has rests of its own."""
        if tensor.form is None:
            kinds = [self.flow.kind(part) for axis in tensor.axes for part in axis]
            number = tensor.number if tensor.number == tensor.number else None
            key = (*map(len, tensor.axes), *kinds, tensor.const, tensor.weight, number)
            tensor.form = ... if None in kinds else self._forms.setdefault(key, len(self._forms))
        return tensor.form


def _pattern(marks: Sequence[int]) -> list[int]:
    """Which parts carry the same units, and which that can't go have the same reason; 0 for those without any."""
    first = {0: 0}
    return [first.setdefault(mark, len(first)) for mark in marks]


def _follow(flow: Flow, recipe: Recipe, call: Call, operator: Operator, parts: list[Part]) -> None:
    """Do to these parts what the recipe says; those that are cut out of them, or ended, are added."""
    node = call.node
    for place, outer in recipe.splits:
        parts += flow.split(parts[place], outer, node)
    for a, b in recipe.ties:
        flow.ties.append((parts[a].units, parts[b].units, node.name))
    own = {why: flow.reason(*own_reason(why, node, operator)) for why in recipe.own}
    for place, why in recipe.fixes:
        flow.fixes.append((parts[place].units, own[why] if why < 0 else parts[why].why))
    for place in recipe.leaks:
        flow.leaks.append((parts[place].units, flow.reason(*leaked(node, parts[place].rest))))
    parts += [Part(size, why=own[NODE]) for size in recipe.ended]
    for name, places in recipe.marks:
        getattr(flow, name).extend([parts[i].units for i in places])
    for place, weight in recipe.contractions:
        flow.contractions.append(Contraction(call, parts[place], None if weight is None else parts[weight]))
    for places in recipe.costs:
        flow.costs.append((node.name, [parts[i] for i in places]))


def _made(made: list[int | list[Made]], like: Tensor, axes: Sequence[Axis], parts: Sequence[Part]) -> Tensor:
    """A tensor as the one that came of the same situation, with these parts."""
    tensor = Tensor(
        tuple([
            axes[axis]
            if isinstance(axis, int)
            else tuple([parts[i] if rest is None else Part(rest.size, parts[i].units, rest) for i, rest in axis])
            for axis in made
        ]),
        like.const, like.weight, like.number,
    )  # fmt: skip
    tensor.form = like.form
    return tensor


def own_reason(which: int, node: Node, operator: Operator) -> Reason:
    """The reason of the node itself."""
    return computed_over(node, operator) if which == NODE else unmade(node)


class Writer:
    """Notes where a flow stands before a node, so as to write down afterwards what came of it."""

    def __init__(self, flow: Flow, call: Call, operator: Operator, axes: Sequence[Axis]):
        """Begin before the node is worked out."""
        self.flow, self.call, self.operator = flow, call, operator
        self.parts = parts = [part for axis in axes for part in axis]
        self.axes = {tuple(map(id, axis)): i for i, axis in enumerate(axes)}
        self.before = {name: len(getattr(flow, name)) for name in LISTS}
        self.units, self.given = flow.count, len(parts)
        self.places = {id(part): i for i, part in reversed(list(enumerate(parts)))}
        self.places |= {id(part.units): i for i, part in reversed(list(enumerate(parts))) if part.live}
        self.whys = {part.why: i for i, part in enumerate(parts) if not part.live}
        self.ended: list[Any] = []

    def recipe(self, text: str, outputs: Sequence[Tensor | None]) -> Recipe | None:
        """What came of it, or None where no recipe can say that."""
        flow, new = self.flow, self._new
        if new("stored") or not self._is_all_told(text):
            return None
        try:
            splits = [self._split(fork) for fork in new("forks")]
            if flow.count > self.units:
                return None
            results = [([self._axis(axis) for axis in t.axes], t) for t in outputs if t is not None]
            fixes = [(self.places[id(units)], self._why(why)) for units, why in new("fixes")]
            return Recipe(
                splits, self.ended, results,
                ties=[(self.places[id(a)], self.places[id(b)]) for a, b, _ in new("ties")],
                fixes=fixes,
                own=sorted({why for _, why in fixes if why < 0} | ({NODE} if self.ended else set())),
                leaks=[self._leak(units, why) for units, why in new("leaks")],
                contractions=[self._contraction(found) for found in new("contractions")],
                costs=[[self._place(part) for part in parts] for _, parts in new("costs")],
                marks=[(name, [self.places[id(units)] for units in new(name)]) for name in MARKS if new(name)],
            )  # fmt: skip
        except KeyError:  # something that is no part of an operand
            return None

    def _new(self, name: str) -> list[Any]:
        """What the node added to one of the flow's lists."""
        return list(getattr(self.flow, name)[self.before[name] :])

    def _is_all_told(self, text: str) -> bool:
        """Whether the parts of the operands alone say what each letter is."""
        rule = parse(text)
        ranks = [None if tensor is None else len(tensor.axes) for tensor in self.call.inputs[: len(rule.operands)]]
        spelling = spell(text, tuple(ranks))
        stars = {term.letters[0] for result in rule.results for term in result.terms if term.star}
        known = {letter.name for letter in spelling.letters}
        return not spelling.products and stars <= spelling.stars.keys() and self.call.letters.keys() <= known

    def _axis(self, axis: Axis) -> int | list[Made]:
        place = self.axes.get(tuple(map(id, axis)))
        return [self._made(part) for part in axis] if place is None else place

    def _made(self, part: Part) -> Made:
        if id(part) in self.places:
            return self.places[id(part)], None
        if part.live:
            return self.places[id(part.units)], part.rest
        if self._why(part.why) != NODE:
            raise KeyError(part)
        self.ended.append(part.size)
        return self.given + len(self.ended) - 1, None

    def _why(self, number: int) -> int:
        reason, node = self.flow.reasons[number], self.call.node
        own = [which for which in (NODE, UNMADE) if reason == own_reason(which, node, self.operator)]
        if own and number in self.whys:  # of another node of the same name
            raise KeyError(number)
        return own[0] if own else self.whys[number]

    def _split(self, fork: Fork) -> tuple[int, int]:
        """A part that is cut, whose rows and columns take places of their own."""
        places = [i for i, part in enumerate(self.parts) if part.live and np.shares_memory(part.units, fork.flat)]
        if fork.joined or not places:
            raise KeyError(fork)
        for units in (fork.rows, fork.columns):
            self.places[id(units)] = self.given
            self.given, self.units = self.given + 1, self.units + len(units)
        return places[0], len(fork.rows)

    def _place(self, part: Part) -> int:
        if id(part) in self.places:
            return self.places[id(part)]
        place = self.places[id(part.units)]
        if place < len(self.parts):  # another part of the same units may rest elsewhere
            raise KeyError(place)
        return place

    def _leak(self, units: Units, why: int) -> int:
        place = self.places[id(units)]
        if self.flow.reasons[why] != leaked(self.call.node, self.parts[place].rest):
            raise KeyError(why)
        return place

    def _contraction(self, found: Contraction) -> tuple[int, int | None]:
        _, level, _ = self.flow.kind(found.part) or (0, ..., True)
        if level not in (0, np.nan):  # whether a constant can be folded is for each node to say
            raise KeyError(level)
        return self._place(found.part), None if found.weight is None else self._place(found.weight)
