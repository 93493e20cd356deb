"""All that a flow found, spelled out, so that two flows over one model can be compared."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

import zig
from zig import recipes
from zig.flow import Flow
from zig.operators import OPERATORS
from zig.units import Axis, Part, Tensor, Units


def check_recipes(graph: zig.Graph) -> int:
    """A flow that follows recipes finds what one finds that works every node out; how often it followed one."""
    plain, flow = Flow(graph, OPERATORS), Flow(graph, OPERATORS)
    plain._recipes.apply = plain.apply  # type: ignore[method-assign]
    wanted, followed = spelled_out(plain.run()), 0
    follow = recipes._follow

    def counted(*given: Any) -> list[Tensor | None]:
        nonlocal followed
        followed += 1
        return follow(*given)

    with mock.patch.object(recipes, "_follow", counted):
        found = spelled_out(flow.run())
    for what, value in wanted.items():
        assert found[what] == value, what
    return followed


def spelled_out(flow: Flow) -> dict[str, Any]:
    """Everything that a flow found, with reasons as texts and arrays as bytes."""

    def units(of: Units) -> bytes:
        return np.asarray(of, np.int64).tobytes()

    def part(of: Part | None) -> Any:
        if of is None:
            return None
        return (str(of.size), units(of.units), of.rest.tobytes()) if of.live else (str(of.size), flow.reasons[of.why])

    def axes(of: tuple[Axis, ...]) -> Any:
        return [[part(each) for each in axis] for axis in of]

    def tensor(of: Tensor | None) -> Any:
        return None if of is None else (axes(of.axes), of.const, of.weight, repr(of.number))

    return {
        "units": flow.count,
        "ties": [(units(a), units(b), node) for a, b, node in flow.ties],
        "fixes": [(units(fixed), flow.reasons[why]) for fixed, why in flow.fixes],
        "leaks": [(units(leaking), flow.reasons[why]) for leaking, why in flow.leaks],
        "members": [units(each) for each in flow.members],
        "heads": [units(each) for each in flow.heads],
        "blocks": [units(each) for each in flow.blocks],
        "contractions": [(c.call.node.name, part(c.part), part(c.weight)) for c in flow.contractions],
        "costs": [(node, axes((tuple(parts),))) for node, parts in flow.costs],
        "stored": [(call.node.name, axes((axis,))) for call, axis in flow.stored],
        "forks": [(units(f.flat), units(f.rows), units(f.columns), f.joined, f.node) for f in flow.forks],
        "calls": [(c.node.name, [*map(tensor, c.inputs)], [*map(tensor, c.outputs)]) for c in flow.calls],
    }
