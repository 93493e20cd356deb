"""The one idea: run the network once, not with numbers but with units.

A weight's axes start with fresh units, an operator's rule says how units pass and which are tied, and what can't be
removed is fixed, with a reason.

The same flow serves the analysis (every weight slice is zero once its group is) and surgery (`resting` gives the actual
values), so that what is called removable is judged by the same rules in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.errors import RuleError
from zig.flow.axes import Parts, computed_over, leaked
from zig.flow.call import Call, Contraction
from zig.flow.measured import fix_measured
from zig.flow.rules import Letter, Operand, Rule, Spelling, parse, products, spell, spell_result, stem
from zig.flow.units import (  # fmt: skip
    Axis,
    Part,
    Rest,
    Resting,
    Tensor,
    Units,
    first_live,
    is_const,
    is_live,
    is_weight,
    size,
)
from zig.flow.zero_points import quantised
from zig.model.dims import Dim, Size, divide, number, product, symbol
from zig.model.shapes import anonymous

_LARGEST = float(np.finfo(np.float32).max)  # what is larger is infinite when the model runs
UNFIT = (LookupError, TypeError, ValueError, ArithmeticError)
Column = list[tuple[int, Part]]  # parts of one size that are tied, with the operand that each came from
Columns = list[Column]
WeightAxis = tuple[str, int]

if TYPE_CHECKING:
    from zig.flow.row import Operator
    from zig.model.graph import Graph
    from zig.model.node import Node


def flown(graph: Graph, operators: Mapping[str, Operator], held: frozenset[WeightAxis] = frozenset()) -> Flow:
    """The flow of an analysis in which no weight is zeroed that something is divided by, nor what is to be held."""
    flow = Flow(graph, operators, held=held).run()
    while more := flow.normalised():
        flow = Flow(graph, operators, held=flow.held | more).run()
    return flow


class Flow(Parts):
    """Units on their way through a graph; after `run`, the ties, forks, fixes and leaks that it found."""

    def __init__(
        self, graph: Graph, operators: Mapping[str, Operator], resting: Resting | None = None,
        held: frozenset[WeightAxis] = frozenset(),
    ):  # fmt: skip
        """Prepare a run.

        Args:
            graph: the model.
            operators: the dictionary.
            resting: the actual values; None for the analysis, where the slices of a zero group are zero.
            held: axes of weights whose slices keep their values when their group is zero, and may only be cut along.
        """
        super().__init__(graph, operators, resting)
        self.held = held
        self.divided: list[Units] = []  # something is divided by these slices, and they would be zero
        self.divisors: list[Units] = []  # initializers that something is divided by as they are
        self.heads: list[Units] = []  # batch axes of products of two activations
        self.blocks: list[Units] = []  # blocks of block-diagonal weights
        self.stored: list[tuple[Call, Axis]] = []  # axes of weights that a call on weights alone computes over
        self.weights: dict[str, Tensor] = {}
        self.contractions: list[Contraction] = []
        self.costs: list[tuple[str, list[Part]]] = []
        self.unknown: dict[str, None] = {}
        self.zeros, self.scales = quantised(graph, operators)
        self.lent: list[tuple[Call, int]] = []  # operands that are constants which others read too
        self._lent: dict[tuple[int, int], Tensor] = {}
        self._parameters: dict[str, Node] = {}
        self._tensors: dict[str, Tensor | None] = {"": None}
        self._outcomes: dict[tuple[Any, ...], float] = {}

    def run(self) -> Flow:
        """Send units through every node, then fix what reaches the model's outputs."""
        for name in self.graph.inputs:
            why = self.reason(f"is part of the model's input '{name}'", "")
            shape = self.graph.shapes.get(name)
            self._tensors[name] = None if shape is None else self.dead(shape, why)
        with np.errstate(all="ignore"):  # rest values may well be those of a logarithm of zero
            for node in self.graph.nodes:
                self._visit(node)
        for name in self._parameters.keys() & self.weights.keys():  # read as data after it was read as a parameter
            node = self._parameters[name]
            self.fix(self.weights[name], self.reason(f"sets a parameter of {node}", node.name))
        for name in self.graph.outputs:
            self.fix(self.tensor(name), self.reason(f"is part of the model's output '{name}'", ""))
        if self.resting is None:
            fix_measured(self, self.tensor)
        return self

    # -- tensors and nodes ---------------------------------------------------------------------------------------

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of a name; an initializer gets its units when it is first read as data."""
        if name not in self._tensors:
            if name in self.graph.initializers:
                self._tensors[name] = self._initializer(name)
            else:
                self._tensors[name] = self._known(name) if name in self.graph.values else None
        return self._tensors[name]

    def _initializer(self, name: str) -> Tensor:
        dims, weight, number = self.graph.facts(name)
        if name in self.graph.overridable:
            return self._default(name, dims)
        weight, still = weight or name in self.zeros, 0.0 if weight else self.zeros.get(name, np.nan)
        axes = []
        for axis, n in enumerate(dims):
            usual = np.nan if (name, axis) in self.held else still
            axes.append(() if n == 1 else (self.fresh(n, self.resting(name, axis) if self.resting else usual),))
        self.weights[name] = Tensor(tuple(axes), const=True, weight=weight, number=number)
        return self.weights[name]

    def normalised(self) -> frozenset[WeightAxis]:
        """Axes of weights whose slices must not be zero, since something is divided by them, or by what they make.

        The direction of a weight normalisation, g v / |v|, is one: with v at zero, this is zero by zero. They are to be
        held in another run, in which the group is free all the same where something else (here g) makes it zero.
        """
        member, divided = np.zeros(self.count, bool), np.zeros(self.count, bool)
        for mask, arrays in ((member, self.members), (divided, self.divisors)):
            for units in arrays:
                mask[units] = True
        divided &= member
        for units in self.divided:
            divided[units] = True
        found = [
            (name, axis)
            for name, tensor in self.weights.items()
            for axis, parts in enumerate(tensor.axes)
            if any(part.live and divided[part.units].any() for part in parts)
        ]
        return frozenset(found) - self.held

    def _default(self, name: str, dims: tuple[int, ...]) -> Tensor:
        """What is but the default of an input: whoever gives another one gives one of this shape."""
        why = self.reason(
            f"can be overridden by whoever runs the model, since '{name}' is an input too (--freeze-inputs says that "
            "nobody does)", "",
        )  # fmt: skip
        self.weights[name] = Tensor(tuple(() if n == 1 else (self.fresh(n, np.nan),) for n in dims))
        self.fix(self.weights[name], why)
        return self.weights[name]

    def _visit(self, node: Node) -> None:
        values = self.graph.values
        if node.outputs and node.outputs[0] in values and all(name in values for name in node.outputs if name):
            return  # known before the model runs
        operator = self.operators.get(node.op)
        data = (operator.data if operator else 0) or len(node.inputs)
        known = self._tensors
        inputs = [known[name] if name in known else self.tensor(name) for name in node.inputs[:data]]
        call = Call(node, inputs + [self._parameter(name, node) for name in node.inputs[data:]], self)
        for i, tensor in enumerate(inputs):
            if tensor is not None and tensor.const and tensor.number == tensor.number:
                self._lend(call, i, tensor)
        for name in node.captured:
            self.fix(self.tensor(name), self.reason(f"is read inside a sub-graph of {node}", node.name))
        try:
            if operator is None or operator.wall:
                call.outputs = self._wall(call, operator)
            else:
                missing = [name for name, tensor in zip(node.inputs[:data], inputs, strict=True) if tensor is None]
                if any(missing) and node.body is None:
                    raise RuleError("the shape of one of its inputs is not known")
                call.outputs = operator.move(call) if operator.move else self._apply(call, operator)
        except RuleError as error:
            why = self.reason(f"can't be followed through {node}: {error}", node.name)
            call.outputs = self._stop(call, why)
        except UNFIT as error:  # operands that no such operator takes; whether the model runs is onnxruntime's to say
            what = f"its operands do not fit it ({type(error).__name__}: {error})"
            call.outputs = self._stop(call, self.reason(f"can't be followed through {node}: {what}", node.name))
        self.calls.append(call)
        for name, tensor in zip(node.outputs, call.outputs, strict=False):
            if name:
                known[name] = tensor

    def _lend(self, call: Call, i: int, tensor: Tensor) -> None:
        """One number all over, read by several nodes, ties them to nothing: each takes as much of it as it needs."""
        node = call.node
        name = node.inputs[i]
        readers = [reader for reader in self.graph.readers[name] if not reader.is_entry]
        alone = len(readers) < 2 and name not in self.graph.outputs
        if alone or not tensor.live or i >= len(node.proto.input):
            return
        key = id(node.proto), i  # a node with a body reads before and after it
        if key not in self._lent:
            axes = (tuple(self.fresh(number(p.size), p.rest) if p.live else p for p in axis) for axis in tensor.axes)
            self._lent[key] = replace(tensor, axes=tuple(axes))
        call.inputs[i] = self._lent[key]
        self.lent.append((call, i))

    def _known(self, name: str) -> Tensor:
        value = self.graph.values[name]
        number = value.reshape(-1)[0] if value.size == 1 else np.nan
        tensor = self.dead(value.shape)
        tensor.const, tensor.number = True, np.nan if isinstance(number, Dim) else float(number)
        return tensor

    def _wall(self, call: Call, operator: Operator | None) -> list[Tensor | None]:
        node = call.node
        if operator is None:
            self.unknown[node.op] = None
            text = (
                f"reaches operator {node}, which zig does not know; register a rule for it with analyze(operators=...)"
            )
        else:
            text = f"reaches {node}, which {operator.wall}"
        return self._stop(call, self.reason(text, node.name))

    def _stop(self, call: Call, why: int) -> list[Tensor | None]:
        for tensor in call.inputs:
            self.fix(tensor, why)
        shapes = (self.graph.shapes.get(name) for name in call.node.outputs)
        return [None if shape is None else self.dead(shape, why) for shape in shapes]

    def _parameter(self, name: str, node: Node) -> Tensor | None:
        """An operand that is no data (a shape, indices, limits) must stay as it is."""
        if name in self.graph.initializers and name not in self.weights:
            self._parameters[name] = node
            return None
        tensor = self.tensor(name) if name else None
        self.fix(tensor, self.reason(f"sets a parameter of {node}", node.name))
        return tensor

    # -- rules ---------------------------------------------------------------------------------------------------

    def _apply(self, call: Call, operator: Operator) -> list[Tensor | None]:
        for index, odd in operator.undefined.items():
            self._look(call, index, odd)
        return self._follow(call, operator, operator.rule(call) if callable(operator.rule) else operator.rule)

    def _look(self, call: Call, index: int, odd: Callable[[Call, Any], Any]) -> None:
        """Slices of a stored operand with entries that leave nothing defined must stay: 0 / 0 is not 0."""
        tensor, value = call.inputs[index] if call.has(index) else None, None
        if tensor is not None and tensor.const and not call.node.body:
            value = call.constant(index)
        if value is None or value.dtype == object or not (found := odd(call, value)).any():
            return
        why = self.reason(f"would be infinite or undefined after {call.node}", call.node.name)
        for axis, parts in enumerate(tensor.axes if tensor else ()):
            hit = found.any(axis=tuple(i for i in range(found.ndim) if i != axis))
            if len(parts) == 1 and parts[0].live:
                self.leaks.append((parts[0].units[hit], why))

    def _follow(self, call: Call, operator: Operator, text: str) -> list[Tensor | None]:
        """What comes of a node whose operator's rule is `text`."""
        if (rule := parse(text)).passes and not operator.feedback:
            rule.operands[0].expand(len(call.tensor(0).axes))  # a rule for another rank is refused
            return self._pass(call, operator)
        if operator.ranges and call.has(0):
            why = self.reason(f"sets the range by which {call.node} quantises", call.node.name)
            self.must_rest(call.tensor(0), why)
        for i, zero in operator.zero_points.items():
            if call.has(i):
                call.inputs[i] = self._from_zero(call, i, zero)
        data = call.inputs[: len(rule.operands)]
        spelling = spell(text, tuple([None if tensor is None else len(tensor.axes) for tensor in data]))
        columns = self._bind(call, operator, spelling)
        stored = all(is_const(tensor) for tensor in data if tensor is not None) and not operator.contracts
        for letter in spelling.letters:
            if letter.name in columns:
                columns[letter.name] = self._settle(call, operator, spelling, letter, columns[letter.name], stored)
        outputs = [self._result(call, operator, spelling, i, columns) for i in range(len(call.node.outputs))]
        if operator.feedback:
            self._feed_back(call, operator, outputs)
        for factors in products(operator.macs, tuple(call.letters)) if operator.macs else ():
            self.costs.append((call.node.name, [part for letter in factors for part in call.letters[letter]]))
        return outputs

    def _settle(
        self, call: Call, operator: Operator, spelling: Spelling, letter: Letter, column: Columns, stored: bool
    ) -> Columns:
        """What an operator does to the units of one letter; the letter's parts as they come out."""
        if stored and (letter.bound or not letter.named):
            self.stored.append((call, call.letters[letter.name]))
            return [[(i, self._unknown(part)) for i, part in parts] for parts in column]
        if letter.bound:
            why = self.reason(*computed_over(call.node, operator.why))
            for parts in column:
                self.fix(tuple([part for _, part in parts]), why)
            return [[(i, self.ended(part, why)) for i, part in parts] for parts in column]
        if not letter.named:
            self._contract(call, operator, column)
            return column
        self._emit(call, spelling, column, stored)
        if operator.contracts:
            self._mark(call, spelling, letter, column)
        return column

    def ended(self, part: Part, why: int) -> Part:
        """What comes out of a part that is bound: nothing along it can go."""
        return Part(part.size, why=why) if part.live else part

    def _mark(self, call: Call, spelling: Spelling, letter: Letter, column: Columns) -> None:
        """Note slices that are multiplied one by one: attention's heads, or the blocks of a block-diagonal weight."""
        summed = [other for other in spelling.letters if other.bound or not other.named]
        factors = {use.operand for other in summed for use in other.uses}  # all but a bias
        multiplied = [i for i, _ in column[0] if i in factors] if column else []
        if len(multiplied) < 2:
            return
        live = [part.units for part in call.letters[letter.name] if part.live]
        if not any(is_const(call.inputs[i]) for i in multiplied):
            self.heads.extend(live)
        else:
            tables = [set(letters) - {letter.name} for _, _, letters in spelling.products if letter.name in letters]
            if tables and all(any(call.letters[x] for x in table) for table in tables):  # each has several positions
                self.blocks.extend(live)

    def _pass(self, call: Call, operator: Operator) -> list[Tensor | None]:
        """An elementwise function of one tensor: its axes by reference, each slice at rest at the function's value."""
        x = call.tensor(0)  # whether its slices are members is for those to say who read the result
        axes = tuple(
            tuple(self._rested(p, call, operator, [p.rest], is_const(x)) if p.live else p for p in axis)
            for axis in x.axes
        )
        masks = [tuple(tuple(self._unknown(p) for p in axis) for axis in axes) for _ in call.node.outputs[1:]]
        number = _number(call, operator, [x]) if x.const else np.nan
        return [Tensor(axes, x.const, x.weight, number), *(Tensor(mask, x.const, x.weight) for mask in masks)]

    def _from_zero(self, call: Call, index: int, zero: int) -> Tensor | None:
        """An operand whose rest values are counted from its zero point."""
        x, point = call.inputs[index], call.inputs[zero] if call.has(zero) else None
        if x is None or point is None:
            return x
        at = self.zeros.get(call.node.inputs[index], point.number)
        axes = tuple(tuple(p._replace(rest=p.rest - at) if p.live else p for p in axis) for axis in x.axes)
        return replace(x, axes=axes, number=x.number - at)

    def _unknown(self, part: Part) -> Part:
        return Part(part.size, part.units, self.level(np.nan, len(part.units))) if part.live else part

    def _rested(
        self, part: Part, call: Call, operator: Operator, rests: Sequence[Rest | float | None], alone: bool = False
    ) -> Part:
        """The part, at rest at what the operator makes of the rests of its operands.

        It comes `alone` out of a weight if nothing else along it has a part in the result.
        """
        if operator.rest is None:
            return self._unknown(part)
        if operator.plain:
            key = (operator.rest, *[self._level(rest) for rest in rests])
            if key not in self._outcomes and ... not in key:
                self._outcomes[key] = float(operator.rest(call, *key[1:]))
            value = self._outcomes.get(key, np.inf)
            if not abs(value) > _LARGEST:
                rest = self.level(value, len(part.units))
                return part if rest is part.rest else Part(part.size, part.units, rest)
        rest = np.asarray(operator.rest(call, *rests), np.float64)
        rest = np.where(np.abs(rest) > _LARGEST, np.inf, rest)
        if rest.shape != part.units.shape:
            rest = np.broadcast_to(rest, part.units.shape)
        finite = np.isfinite(rest)
        if not finite.all():
            undefined = np.isinf(rest)
            if undefined.any():  # no later zero can make up for it: 0 * inf is not 0
                why = self.reason(f"would be infinite or undefined after {call.node}", call.node.name)
                self.leaks.append((part.units[undefined], why))
                if alone:
                    self.divided.append(part.units[undefined])
            rest = np.where(finite, rest, np.nan)
        return Part(part.size, part.units, self._leveled(rest))

    def _bind(self, call: Call, operator: Operator, spelling: Spelling) -> dict[str, Columns]:
        """Tie the parts of each letter, column by column; the columns of letters that carry units are returned."""
        pieces: dict[tuple[int, int], tuple[Axis, ...]] = {}
        if spelling.products:
            numbers = {letter: int(call.attribute(name, 1)) for name, letter in operator.sizes.items()}
            numbers |= operator.letters(call) if operator.letters else {}
            for i, place, letters in spelling.products:
                pieces[i, place] = self._pieces(letters, call.tensor(i).axes[place], numbers, call.node)
        columns: dict[str, Columns] = {}
        for letter in spelling.letters:
            wide = []
            for i, place, piece in letter.uses:
                axis = call.tensor(i).axes[place] if piece is None else pieces[i, place][piece]
                if axis:
                    wide.append((i, axis))
            if len(wide) == 1:  # nothing to tie
                (i, axis), *_ = wide
                call.letters[letter.name] = axis
                if is_live(axis):
                    columns[letter.name] = [[(i, part)] for part in axis]
                continue
            aligned = self.align([axis for _, axis in wide], call.node) if wide else []
            call.letters[letter.name] = axis = tuple([first_live(parts) for parts in aligned])
            if is_live(axis):
                operands = [i for i, _ in wide]
                columns[letter.name] = [list(zip(operands, parts, strict=True)) for parts in aligned]
        return columns

    def _pieces(self, letters: tuple[str, ...], axis: Axis, numbers: dict[str, int], node: Node) -> tuple[Axis, ...]:
        """A product axis, cut into its letters; at most one of their sizes is left open."""
        open_ = [letter for letter in letters if letter not in numbers]
        rest = divide(size(axis), product(numbers[x] for x in letters if x in numbers))
        if len(open_) > 1 or rest is None:
            raise RuleError(f"an axis of {size(axis)} can't be split into ({' '.join(letters)})")
        return self.regroup([axis], [numbers.get(x, rest) for x in letters], node)

    def _emit(self, call: Call, spelling: Spelling, column: Columns, stored: bool) -> None:
        """Slices of weights along an axis that comes out are members; who reads what weights alone make says the same.

        Of these the units that come out are left to the reader, who may only be cut along them.
        """
        for parts in column:
            passed = first_live([part for _, part in parts]).units if stored else None
            for i, part in parts:
                known = not part.live or part.units is passed or spelling.rule.operands[i].carried
                if not known and is_weight(call.inputs[i]):
                    self.members.append(part.units)

    def _contract(self, call: Call, operator: Operator, column: Columns) -> None:
        """A sum over these parts: a removed index must have added nothing, or a constant that can be folded.

        Where it would leak into the result, the slices of the weight that reads it are members of its group too.
        """
        for parts in column:
            uses = [(part, is_const(call.inputs[i])) for i, part in parts if part.live]
            active = [part for part, const in uses if not const]
            weights = [part for part, const in uses if const]
            if all(is_const(call.inputs[i]) for i, _ in parts):  # weights among themselves: zero, as members
                self.members.extend(part.units for part in weights)
            counted = [*active, *weights] if self.resting or not active else active
            if not counted:
                continue
            if not any(self._level(part.rest) == 0 for part in counted):
                silent = np.any([part.rest == 0 for part in counted], axis=0)
                foldable = len(active) == 1 and bool(weights) and operator.fold is not None and operator.fold(call)
                value = counted[0].rest
                leaking = ~silent & ~(np.isfinite(value) & foldable)
                for reader in (part for part in weights if active and not self.resting):
                    quiet = leaking & (reader.rest == 0)  # zero as well, they silence whatever they read
                    self.members.append(reader.units[quiet])
                    leaking &= ~quiet
                if leaking.any():
                    units = counted[0].units if leaking.all() else counted[0].units[leaking]
                    self.leaks.append((units, self.reason(*leaked(call.node, value[leaking]))))
            if not active:
                continue
            self.contractions.append(Contraction(call, active[0], weights[0] if weights else None))

    def _feed_back(self, call: Call, operator: Operator, outputs: list[Tensor | None]) -> None:
        """What is summed over inside the operator and comes out too (a recurrent state) must rest at 0."""
        fed = [axis for letter, axis in call.letters.items() if stem(letter) == operator.feedback]
        states = [part.units for axis in fed for part in axis]
        out = next(t for t in outputs if t is not None)
        for axis in out.axes:
            for part in axis:
                state = part.live and any(part.units is own for own in states)
                if state and (part.rest != 0).any():
                    self.leaks.append((part.units[part.rest != 0], self.reason(*leaked(call.node, part.rest))))

    def _result(
        self, call: Call, operator: Operator, spelling: Spelling, index: int, columns: dict[str, Columns]
    ) -> Tensor | None:
        name = call.node.outputs[index]
        if not name:
            return None
        known, rule = self.graph.shapes.get(name), spelling.rule
        if index >= len(rule.results):
            raise RuleError(f"its rule does not tell of result {index}")
        data = call.inputs[: len(rule.operands)]
        axes = []
        rank = _rank(rule.results[index], spelling, known)
        for place, letters in enumerate(spell_result(spelling.text, index, rank)):
            axis: Axis = ()
            for letter in letters:
                if letter in columns:
                    axis += tuple([self._combine(call, operator, rule, parts, data) for parts in columns[letter]])
                elif letter in call.letters:
                    axis += call.letters[letter]
                else:
                    axis += self._new_axis(call, known, place, letter)
            axes.append(axis)
        if rule.results[index].carried:  # indices, masks, statistics: cut along, but at rest at nothing known
            axes = [tuple(map(self._unknown, axis)) for axis in axes]
        const = all(t is None or t.const for t in data)
        number = _number(call, operator, data) if const and not rule.results[index].carried else np.nan
        return Tensor(tuple(axes), const, const and any(is_weight(t) for t in data), number)

    def _new_axis(self, call: Call, known: tuple[Size, ...] | None, place: int, letter: str) -> Axis:
        why = self.reason(f"lies along an axis that {call.node} makes", call.node.name)
        made = symbol(anonymous(call.node.outputs[0], place)) if known is None else known[place]
        axis = () if made == 1 else (Part(made, why=why),)
        call.letters[letter] = axis
        return axis

    def _combine(self, call: Call, operator: Operator, rule: Rule, parts: Column, data: list[Tensor | None]) -> Part:
        """The part of a result: units of any operand that has them, at rest at what the operator makes of the rests."""
        part = first_live([part for _, part in parts])
        if not part.live:
            return part
        given: list[Rest | float | None] = [None if t is None else t.number for t in data]
        for i, use in reversed(parts):
            given[i] = use.rest if use.live and not self._is_carried(call, rule, parts, i, use) else np.nan
        alone = all(is_const(t) for t in data if t) and len({id(p.units) for _, p in parts if p.live}) == 1
        return self._rested(part, call, operator, given, alone)

    def _is_carried(self, call: Call, rule: Rule, parts: Column, i: int, use: Part) -> bool:
        """Whether a slice is only cut along, so that nothing is known of it; but x / |x| is zero by zero."""
        if self.resting or not rule.operands[i].carried or not is_const(call.inputs[i]):
            return False
        if any(use.units is other.units for j, other in parts if j != i):
            return False
        if call.node.inputs[i] in self.graph.initializers:
            self.divisors.append(use.units)
            return True
        zero = use.rest == 0
        if zero.any():
            self.divided.append(use.units[zero])
        return not zero.any()


def _number(call: Call, operator: Operator, data: Sequence[Tensor | None]) -> float:
    """The one value that a result holds all over, where all operands hold one."""
    given = [None if tensor is None else tensor.number for tensor in data]
    if operator.rest is None or any(number is not None and not np.isfinite(number) for number in given):
        return np.nan
    value = float(operator.rest(call, *given))
    return value if np.isfinite(value) else np.nan


def _rank(operand: Operand, spelling: Spelling, known: tuple[Size, ...] | None) -> int:
    """The rank of a result: its plain letters and as many as its star was given by the operands."""
    for term in operand.terms:
        if term.star:
            given = spelling.stars.get(term.letters[0])
            if given is None and known is not None:
                return len(known)
            if given is None:  # a window slides over as many axes as there are
                given = max(spelling.stars.values(), default=0)
            return len(operand.terms) - 1 + given
    return len(operand.terms)
