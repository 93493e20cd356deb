"""The one idea: run the network once, not with numbers but with units.

Each axis of each tensor is a product of **parts**; a part carries, for each of its indices, the unit it belongs to and
the value it rests at when that unit's group is zero. A weight's axes start with fresh units, an operator's rule says
how units pass and which are tied, and what can't be removed is fixed, with a reason. Splitting a live part into rows
and columns is a **fork**: a dense tensor can lose whole rows or whole columns, which `zig.partition` decides.

The same flow serves the analysis (every weight slice is zero once its group is) and surgery (`resting` gives the actual
values), so that what is called removable is judged by the same rules in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zig.dims import Dim, Size, divide, number, product
from zig.errors import RuleError
from zig.rules import Rule, Spelling, Term, parse, spell, spell_result, stem
from zig.units import (
    Axis,
    Call,
    Contraction,
    Fork,
    Part,
    Reason,
    Rest,
    Resting,
    Tensor,
    Units,
    common,
    dead_part,
    first_live,
    is_const,
    is_weight,
    live_parts,
    size,
)  # fmt: skip

if TYPE_CHECKING:
    from zig.graph import Graph, Node
    from zig.operators import Operator


class Flow:
    """Units on their way through a graph; after `run`, the ties, forks, fixes and leaks that it found."""

    def __init__(self, graph: Graph, operators: Mapping[str, Operator], resting: Resting | None = None):
        """Prepare a run.

        Args:
            graph: the model.
            operators: the dictionary.
            resting: the actual values; None for the analysis, where the slices of a zero group are zero.
        """
        self.graph, self.operators, self.resting = graph, operators, resting
        self.count = 1  # the next fresh unit; 0 means fixed
        self.reasons: list[Reason] = [Reason("", "")]
        self.ties: list[tuple[Units, Units]] = []
        self.fixes: list[tuple[Units, int]] = []
        self.leaks: list[tuple[Units, int]] = []  # fixed only by the value they rest at
        self.forks: list[Fork] = []
        self.heads: list[Units] = []  # batch axes of products of two activations
        self.members: list[Units] = []
        self.weights: dict[str, Tensor] = {}
        self.calls: list[Call] = []
        self.contractions: list[Contraction] = []
        self.costs: list[tuple[str, list[Part]]] = []
        self.parts: dict[int, Part] = {}  # every distinct array of units, for node groups
        self.unknown: dict[str, None] = {}
        self._parameters: dict[str, Node] = {}
        self._tensors: dict[str, Tensor | None] = {}
        self._splits: dict[tuple[int, int], tuple[Units, Units]] = {}
        self._joins: dict[tuple[int, int], Units] = {}
        self._reason_ids: dict[Reason, int] = {}

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
        return self

    # -- units ---------------------------------------------------------------------------------------------------

    def fresh(self, count: int, rest: Rest | float = 0.0) -> Part:
        """A part of new units."""
        units = np.arange(self.count, self.count + count)
        self.count += count
        return self.part(units, np.full(count, rest, np.float64))

    def part(self, units: Units, rest: Rest) -> Part:
        """A part that carries these units, registered so that its array stays alive and is counted once."""
        part = Part(len(units), units, rest)
        self.parts[id(units)] = part
        return part

    def dead(self, shape: Iterable[Size], why: int = 0) -> Tensor:
        """A tensor in which nothing can go."""
        return Tensor(tuple(() if n == 1 else (Part(n, why=why),) for n in shape))

    def reason(self, text: str, node: str) -> int:
        """The number of a reason, kept once."""
        reason = Reason(text, node)
        if reason not in self._reason_ids:
            self._reason_ids[reason] = len(self.reasons)
            self.reasons.append(reason)
        return self._reason_ids[reason]

    def fix(self, what: Tensor | Part | Axis | None, why: int) -> None:
        """Nothing along these parts can be removed."""
        for part in live_parts(what):
            self.fixes.append((part.units, why))

    def tie(self, a: Part, b: Part, node: Node) -> None:
        """Index i of both is removed together, or not at all."""
        if a.units is b.units:
            return
        if not (a.live and b.live):
            live, other = (a, b) if a.live else (b, a)
            self.fix(live, other.why or self.reason(f"meets an axis at {node} that no weight makes", node.name))
            return
        whole = (a.units > 0) & (b.units > 0)
        if whole.all():
            self.ties.append((a.units, b.units))
            return
        why = self.reason(f"is joined at {node} with something that can't be removed", node.name)
        self.ties.append((a.units[whole], b.units[whole]))
        self.fixes.append((np.concatenate([a.units[~whole], b.units[~whole]]), why))

    # -- parts ---------------------------------------------------------------------------------------------------

    def split(self, part: Part, outer: Size, node: Node) -> tuple[Part, Part]:
        """Cut a part into rows and columns; a live one becomes a fork."""
        inner = divide(part.size, outer)
        if not part.live or inner is None or not isinstance(outer, int) or not isinstance(inner, int):
            if inner is None:
                raise RuleError(f"an axis of {part.size} can't be split into {outer}")
            self.fix(part, self.reason(f"is split into a dynamic size at {node}", node.name))
            return Part(outer, why=part.why), Part(inner, why=part.why)
        key = (id(part.units), outer)
        if key not in self._splits:
            self._splits[key] = self.fresh(outer).units, self.fresh(inner).units
            self.forks.append(Fork(part.units.reshape(outer, inner), *self._splits[key], False, node.name))
        rows, columns = self._splits[key]
        table = part.rest.reshape(outer, inner)
        return Part(outer, rows, common(table, 1)), Part(inner, columns, common(table, 0))

    def flat(self, axis: Axis, node: Node) -> Part:
        """The axis as a single part; two live ones become a fork the other way round.

        Raises:
            RuleError: a live part stands beside one of dynamic size.
        """
        if len(axis) < 2:
            return axis[0] if axis else Part(1)
        live = [part for part in axis if part.live]
        if not live:
            return Part(product(p.size for p in axis), why=axis[0].why)
        if not all(isinstance(part.size, int) for part in axis):
            raise RuleError("it cuts an axis that is merged with one of dynamic size")
        joined = axis[0]
        for part in axis[1:]:
            joined = self._join(joined, part, node)
        return joined

    def _join(self, outer: Part, inner: Part, node: Node) -> Part:
        m, n = number(outer.size), number(inner.size)
        if not (inner.live or outer.live):
            return Part(m * n, why=outer.why or inner.why)
        key = (id(outer.units) if outer.live else -m, id(inner.units) if inner.live else -n)
        if key not in self._joins:
            if outer.live and inner.live:
                units = self.fresh(m * n).units
                self.forks.append(Fork(units.reshape(m, n), outer.units, inner.units, True, node.name))
            else:
                units = np.repeat(outer.units, n) if outer.live else np.tile(inner.units, m)
            self._joins[key] = units
        rests = [p.rest if p.live else np.full(k, np.nan) for p, k in ((outer, m), (inner, n))]
        if outer.live and inner.live and not self._is_frozen(outer) and not self._is_frozen(inner):
            rest = np.where(rests[0][:, None] == rests[1][None, :], rests[0][:, None], np.nan).reshape(-1)
        else:
            rest = np.repeat(rests[0], n) if outer.live and not self._is_frozen(outer) else np.tile(rests[1], m)
        return self.part(self._joins[key], rest)

    def _is_frozen(self, part: Part) -> bool:
        """Whether the analysis has fixed all of a part, so that the other side of a product decides what is removed."""
        return self.resting is not None and self.resting.is_frozen(part.units)

    def regroup(self, axes: Sequence[Axis], sizes: Sequence[Size], node: Node) -> tuple[Axis, ...]:
        """The same elements in row-major order under other axis sizes: what Reshape does.

        Raises:
            RuleError: a size cuts across the parts.
        """
        todo = [part for axis in reversed(axes) for part in reversed(axis)]
        result = []
        for size_ in sizes:
            axis, left = [], size_
            while left != 1:
                if not todo:
                    raise RuleError(f"sizes {tuple(sizes)} do not match its input")
                part = todo.pop()
                quotient = divide(left, part.size)
                if quotient is None:
                    part, inner = self.split(part, left, node)
                    todo.append(inner)
                    quotient = 1
                axis.append(part)
                left = quotient
            result.append(tuple(axis))
        if todo:
            raise RuleError(f"sizes {tuple(sizes)} do not match its input")
        return tuple(result)

    def align(self, axes: Sequence[Axis], node: Node) -> list[list[Part]]:
        """Cut axes of one size into columns of parts of one size each, and tie the parts of a column."""
        if all(len(axis) == 1 and axis[0].size == axes[0][0].size for axis in axes):
            return [self._tied([axis[0] for axis in axes], node)]
        if not any(part.live for axis in axes for part in axis):
            dead = [dead_part(axis) for axis in axes if axis]
            return [dead] if dead else []  # sizes that the model itself keeps equal
        todo = [list(reversed(axis)) for axis in axes]
        columns = []
        while all(todo):
            first = [stack[-1].size for stack in todo]
            least = next((s for s in sorted(first, key=_order) if all(divide(f, s) is not None for f in first)), None)
            if least is None:
                flat = [self.flat(tuple(reversed(stack)), node) for stack in todo]
                if len({part.size for part in flat}) > 1:
                    raise RuleError("its operands have different sizes")
                columns.append(flat)
                todo = []
                break
            for stack in todo:
                if stack[-1].size != least:
                    stack.extend(reversed(self.split(stack.pop(), least, node)))
            columns.append([stack.pop() for stack in todo])
        if any(todo):
            raise RuleError("its operands have different sizes")
        return [self._tied(column, node) for column in columns]

    def _tied(self, column: list[Part], node: Node) -> list[Part]:
        for other in column[1:]:
            self.tie(column[0], other, node)
        return column

    # -- tensors and nodes ---------------------------------------------------------------------------------------

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of a name; an initializer gets its units when it is first read as data."""
        if name not in self._tensors:
            self._tensors[name] = self._initializer(name) if name in self.graph.initializers else None
        return self._tensors[name]

    def _initializer(self, name: str) -> Tensor:
        dims, weight, number = self.graph.facts(name)
        still = 0.0 if weight else np.nan
        axes = tuple(
            () if n == 1 else (self.fresh(n, self.resting(name, axis) if self.resting else still),)
            for axis, n in enumerate(dims)
        )
        self.weights[name] = Tensor(axes, const=True, weight=weight, number=number)
        return self.weights[name]

    def _visit(self, node: Node) -> None:
        if node.outputs and all(name in self.graph.values for name in node.outputs if name):
            for name in node.outputs:
                self._known(name)
            return
        operator = self.operators.get(node.op)
        data = (operator.data if operator else 0) or len(node.inputs)
        inputs = [self.tensor(name) if name else None for name in node.inputs[:data]]
        call = Call(node, inputs + [self._parameter(name, node) for name in node.inputs[data:]], self)
        for name in node.captured:
            self.fix(self.tensor(name), self.reason(f"is read inside a sub-graph of {node}", node.name))
        try:
            if operator is None or operator.wall:
                call.outputs = self._wall(call, operator)
            else:
                if any(name and t is None for name, t in zip(node.inputs[:data], call.inputs[:data], strict=True)):
                    raise RuleError("the shape of one of its inputs is not known")
                call.outputs = operator.move(call) if operator.move else self._apply(call, operator)
        except RuleError as error:
            why = self.reason(f"can't be followed through {node}: {error}", node.name)
            call.outputs = self._stop(call, why)
        self.calls.append(call)
        self._tensors.update({name: t for name, t in zip(node.outputs, call.outputs, strict=False) if name})

    def _known(self, name: str) -> None:
        value = self.graph.values[name]
        number = value.reshape(-1)[0] if value.size == 1 else np.nan
        tensor = self.dead(value.shape)
        tensor.const, tensor.number = True, np.nan if isinstance(number, Dim) else float(number)
        self._tensors[name] = tensor

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
        text = operator.rule(call) if callable(operator.rule) else operator.rule
        rule = parse(text)
        if rule.passes and not operator.feedback:
            rule.operands[0].expand(len(call.tensor(0).axes))  # a rule for another rank is refused
            return self._pass(call, operator)
        data = call.inputs[: len(rule.operands)]
        spelling = spell(text, tuple(None if tensor is None else len(tensor.axes) for tensor in data))
        columns = self._bind(call, operator, spelling)
        for letter, column in columns.items():
            if letter in spelling.bound:
                why = self.reason(f"{call.node} {operator.why}", call.node.name)
                for part in (part for parts in column for _, part in parts):
                    self.fix(part, why)
            elif letter in spelling.named:
                self._emit(call, rule, column)
                if operator.contracts and self._is_batch(call, column):
                    self.heads.extend(part.units for part in call.letters[letter] if part.live)
            else:
                self._contract(call, operator, column)
        outputs = [self._result(call, operator, text, i, columns, data) for i in range(len(call.node.outputs))]
        if operator.feedback:
            self._feed_back(call, operator, outputs)
        for factors in operator.macs.split("+"):
            axes = [axis for name in factors.split() for x, axis in call.letters.items() if name in ("*", stem(x))]
            if axes:
                self.costs.append((call.node.name, [part for axis in axes for part in axis]))
        return outputs

    @staticmethod
    def _is_batch(call: Call, column: list[list[tuple[int, Part]]]) -> bool:
        """Whether activations are multiplied slice by slice along a letter: attention's heads, if it can be pruned."""
        return bool(column) and len(column[0]) > 1 and not any(is_const(call.inputs[i]) for i, _ in column[0])

    def _pass(self, call: Call, operator: Operator) -> list[Tensor | None]:
        """An elementwise function of one tensor: its axes by reference, each slice at rest at the function's value."""
        x = call.tensor(0)
        if x.weight:
            self.members.extend(part.units for part in x.live)
        axes = tuple(tuple(self._rested(p, call, operator, [p.rest]) if p.live else p for p in axis) for axis in x.axes)
        masks = tuple(tuple(p._replace(rest=p.rest * np.nan) if p.live else p for p in axis) for axis in axes)
        return [Tensor(masks if i else axes, x.const, x.weight) for i in range(len(call.node.outputs))]

    def _rested(self, part: Part, call: Call, operator: Operator, rests: Sequence[Rest | float | None]) -> Part:
        """The part, at rest at what the operator makes of the rests of its operands."""
        rest = np.asarray(operator.rest(call, *rests) if operator.rest else np.nan, np.float64)
        if rest.shape != part.units.shape:
            rest = np.broadcast_to(rest, part.units.shape)
        finite = np.isfinite(rest)
        if not finite.all():
            undefined = np.isinf(rest)
            if undefined.any():  # no later zero can make up for it: 0 * inf is not 0
                why = self.reason(f"would be infinite or undefined after {call.node}", call.node.name)
                self.leaks.append((part.units[undefined], why))
            rest = np.where(finite, rest, np.nan)
        return Part(part.size, part.units, rest)

    def _bind(self, call: Call, operator: Operator, spelling: Spelling) -> dict[str, list[list[tuple[int, Part]]]]:
        """Each letter's parts, column by column: tied, and with the operand that each came from."""
        found: dict[str, list[tuple[int, Axis]]] = {}
        numbers = {letter: int(call.attribute(name, 1)) for name, letter in operator.sizes.items()}
        numbers |= operator.letters(call) if operator.letters else {}
        for i, (axes, tensor) in enumerate(zip(spelling.operands, call.inputs, strict=False)):
            for letters, axis in zip(axes, tensor.axes if tensor else (), strict=True):
                pieces = [(letters[0], axis)] if len(letters) == 1 else self._pieces(letters, axis, numbers, call.node)
                for letter, piece in pieces:
                    found.setdefault(letter, []).append((i, piece))
        columns: dict[str, list[list[tuple[int, Part]]]] = {}
        for letter, uses in found.items():
            wide = [(i, axis) for i, axis in uses if axis]
            aligned = self.align([axis for _, axis in wide], call.node) if wide else []
            columns[letter] = [[(i, part) for (i, _), part in zip(wide, parts, strict=True)] for parts in aligned]
            call.letters[letter] = tuple(first_live(parts) for parts in aligned)
        return columns

    def _pieces(
        self, letters: tuple[str, ...], axis: Axis, numbers: dict[str, int], node: Node
    ) -> Iterable[tuple[str, Axis]]:
        """A product axis, cut into its letters; at most one of their sizes is left open."""
        open_ = [letter for letter in letters if letter not in numbers]
        rest = divide(size(axis), product(numbers[x] for x in letters if x in numbers))
        if len(open_) > 1 or rest is None:
            raise RuleError(f"an axis of {size(axis)} can't be split into ({' '.join(letters)})")
        return zip(letters, self.regroup([axis], [numbers.get(x, rest) for x in letters], node), strict=True)

    def _emit(self, call: Call, rule: Rule, column: list[list[tuple[int, Part]]]) -> None:
        for i, part in (use for parts in column for use in parts):
            if part.live and not rule.operands[i].carried and is_weight(call.inputs[i]):
                self.members.append(part.units)

    def _contract(self, call: Call, operator: Operator, column: list[list[tuple[int, Part]]]) -> None:
        """A sum over these parts: a removed index must have added nothing, or a constant that can be folded."""
        for parts in column:
            uses = [(part, is_const(call.inputs[i])) for i, part in parts if part.live]
            active = [part for part, const in uses if not const]
            weights = [part for part, const in uses if const]
            if all(is_const(call.inputs[i]) for i, _ in parts):  # weights among themselves: zero, as members
                self.members.extend(part.units for part in weights)
            counted = [*active, *weights] if self.resting or not active else active
            if not counted:
                continue
            silent = np.any([part.rest == 0 for part in counted], axis=0)
            foldable = len(active) == 1 and bool(weights) and operator.fold is not None and operator.fold(call)
            value = counted[0].rest
            leaking = ~silent & ~(np.isfinite(value) & foldable)
            if leaking.any():
                self.leaks.append((counted[0].units[leaking], self._leak_reason(call.node, value[leaking])))
            if not active:
                continue
            self.contractions.append(Contraction(call, active[0], weights[0] if weights else None))

    def _leak_reason(self, node: Node, values: Rest) -> int:
        constants = np.unique(values[np.isfinite(values)])
        what = f"rests at {constants[0]:g}" if len(constants) else "does not rest at a constant"
        return self.reason(f"{what} where {node} sums over it, so it would leak into the result", node.name)

    def _feed_back(self, call: Call, operator: Operator, outputs: list[Tensor | None]) -> None:
        """What is summed over inside the operator and comes out too (a recurrent state) must rest at 0."""
        out = next(t for t in outputs if t is not None)
        for axis in out.axes:
            for part in axis:
                state = part.live and any(part.units is p.units for p in call.letters[operator.feedback])
                if state and (part.rest != 0).any():
                    self.leaks.append((part.units[part.rest != 0], self._leak_reason(call.node, part.rest)))

    def _result(
        self, call: Call, operator: Operator, text: str, index: int,
        columns: dict[str, list[list[tuple[int, Part]]]], data: list[Tensor | None],
    ) -> Tensor | None:  # fmt: skip
        if not call.node.outputs[index]:
            return None
        rule = parse(text)
        if index >= len(rule.results):
            shape = self.graph.shapes.get(call.node.outputs[index])
            return None if shape is None else self.dead(shape)
        operand = rule.results[index]
        known = self.graph.shapes.get(call.node.outputs[index])
        spelled = spell_result(text, index, _rank(operand.terms, columns, call, known))
        axes = []
        for place, letters in enumerate(spelled):
            axis: Axis = ()
            for letter in letters:
                if letter in columns:
                    axis += tuple(self._combine(call, operator, rule, parts, data) for parts in columns[letter])
                else:
                    axis += self._new_axis(call, known, place, letter)
            axes.append(axis)
        const = all(t is None or t.const for t in data)
        return Tensor(tuple(axes), const=const, weight=const and any(is_weight(t) for t in data))

    def _new_axis(self, call: Call, known: tuple[Size, ...] | None, place: int, letter: str) -> Axis:
        if known is None:
            raise RuleError(f"the shape of its output '{call.node.outputs[0]}' is not known")
        why = self.reason(f"lies along an axis that {call.node} makes", call.node.name)
        axis = () if known[place] == 1 else (Part(known[place], why=why),)
        call.letters[letter] = axis
        return axis

    def _combine(
        self, call: Call, operator: Operator, rule: Rule, parts: list[tuple[int, Part]], data: list[Tensor | None]
    ) -> Part:
        """The part of a result: units of any operand that has them, at rest at what the operator makes of the rests."""
        part = first_live([part for _, part in parts])
        if not part.live:
            return part
        given: list[Rest | float | None] = [None if t is None else t.number for t in data]
        for i, use in reversed(parts):
            own = all(use.units is not other.units for j, other in parts if j != i)  # x / |x| is zero by zero
            carried = rule.operands[i].carried and is_const(data[i]) and own and not self.resting
            given[i] = np.nan if carried or not use.live else use.rest
        return self._rested(part, call, operator, given)


def _order(size_: Size) -> tuple[bool, Any]:
    return (True, str(size_)) if isinstance(size_, Dim) else (False, size_)


def _rank(terms: tuple[Term, ...], columns: Mapping[str, Any], call: Call, known: tuple[Size, ...] | None) -> int:
    """The rank of a result: its plain letters and as many as its star was given by the operands."""
    star = next((term.letters[0] for term in terms if term.star), None)
    if star is None:
        return len(terms)
    count = max((int(x.partition(".")[2]) for x in call.letters if x.startswith(f"{star}.")), default=None)
    if count is not None:
        return len(terms) - 1 + count
    if known is not None and not any(stem(x) == star for x in columns):
        return len(known)
    return len(terms) - 1
