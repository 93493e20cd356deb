"""Where gates go: the fewest members of a group that silence it.

Multiplying *all* members of a unit by its gate is right for a gate of 0 or 1, but not for one between: a convolution of
half its size before a BatchNorm whose mean stays, or queries of half their size before a Softmax, are other functions
than half the channel. So a gate goes where it multiplies once on each path: a walk against the order of the graph asks
at each node which operands must be at rest for the result to be, and follows only these. Whether the others are needed
is told by the operator's own rule for rest values (`0 * x` is 0 whatever x is), so no architecture and no operator is
named here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from zig.partition import Partition
from zig.units import Call, Part, Tensor, Units

Families = dict[str, set[int]]


def sites(partition: Partition) -> Families:
    """The node groups whose units need a gate in each initializer that has members of them."""
    return _Walk(partition).run()


class _Walk:
    """The walk from the model's outputs to its weights; `wanted` is what must be at rest in each tensor."""

    def __init__(self, partition: Partition):
        self.flow, self.owners = partition.flow, partition.owners
        self.node_group = np.append(partition.node_group, -1)  # the last entry is read by what is fixed
        self.members: Families = defaultdict(set)
        for row in partition.rows:
            self.members[row.tensor].update(self.node_group[row.groups[row.member]].tolist())
        self.wanted: Families = defaultdict(set)
        self._found: dict[int, set[int]] = {}

    def run(self) -> Families:
        summed: dict[int, set[int]] = defaultdict(set)
        for found in self.flow.contractions:
            summed[id(found.call)] |= self.of_part(found.part)
        for call in reversed(self.flow.calls):
            inputs = [self.of(tensor) for tensor in call.inputs]
            passed = _union(self.of(tensor) for tensor in call.outputs) - summed[id(call)]
            wanted = _union(self.wanted[name] for name in call.node.outputs)
            for family in _union(inputs) - (passed - wanted):
                operands = [i for i, families in enumerate(inputs) if family in families]
                for i in self.fewest(call, operands, family) if family in passed else operands:
                    self.wanted[call.node.inputs[i]].add(family)
        return {name: self.wanted[name] & families for name, families in self.members.items()}

    def fewest(self, call: Call, operands: list[int], family: int) -> list[int]:
        """Those of some operands that bring the result to rest, whatever the others are; the last if any would."""
        operator = self.flow.operators.get(call.node.op)
        if len(operands) < 2 or operator is None or operator.rest is None:
            return operands
        given = [None if tensor is None else tensor.number for tensor in call.inputs]
        for i in operands:
            given[i] = self.rest(call, i, family)
        whole = np.asarray(operator.rest(call, *given))
        if not np.isfinite(whole).all():
            return operands
        needed = []
        for i in operands:
            without = [np.nan if k == i else value for k, value in enumerate(given)]
            if np.array_equal(operator.rest(call, *without), whole):
                given = without
            else:
                needed.append(i)
        return needed

    def rest(self, call: Call, index: int, family: int) -> float:
        """The value at which the slices of an operand rest; nan where it is none, or not the same for all."""
        name, tensor = call.node.inputs[index], call.inputs[index]
        assert tensor is not None  # it carries units
        if name in self.flow.weights:
            return 0.0 if family in self.members[name] else np.nan
        values = np.concatenate([part.rest[found == family] for part in tensor.live for found in self.families(part)])
        return float(values[0]) if (values == values[0]).all() else np.nan

    def of(self, tensor: Tensor | None) -> set[int]:
        """The node groups whose units a tensor carries."""
        return _union(self.of_part(part) for part in tensor.live) if tensor else set()

    def of_part(self, part: Part) -> set[int]:
        """The node groups of a part."""
        key = id(part.units)
        if key not in self._found:
            self._found[key] = _union(set(np.unique(found).tolist()) for found in self.families(part)) - {-1}
        return self._found[key]

    def families(self, part: Part) -> list[Units]:
        """The node groups of each index of a part, -1 where it is fixed; more than one where it is a product's."""
        return [self.node_group[own] for own in self.owners(part.units)]


def _union(sets: Iterable[set[int]]) -> set[int]:
    return set().union(*sets)
