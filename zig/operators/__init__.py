"""THE dictionary: one row for each operator, and in it everything zig knows about that operator."""

from __future__ import annotations

import re

from zig.flow.row import Operator
from zig.operators import (
    attention,
    control,
    elementwise,
    index,
    linear,
    move,
    normal,
    pad,
    quantized,
    recurrent,
    reduce,
    sequence,
    walls,
)

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **linear.OPERATORS,
    **attention.OPERATORS,
    **normal.OPERATORS,
    **reduce.OPERATORS,
    **recurrent.OPERATORS,
    **quantized.OPERATORS,
    **move.OPERATORS,
    **index.OPERATORS,
    **pad.OPERATORS,
    **sequence.OPERATORS,
    **control.OPERATORS,
    **walls.OPERATORS,
}

__all__ = ["OPERATORS", "Operator", "table"]


def table() -> list[dict[str, str]]:
    """The dictionary as rows for people.

    Returns:
        For each operator its name (with its domain, unless that is the standard one), the opsets that changed it, its
        rule, and what is fixed and why.
    """
    import onnx  # noqa: PLC0415

    versions: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        name = f"{schema.domain}.{schema.name}" if schema.domain else schema.name
        versions.setdefault(name, set()).add(schema.since_version)
    return [
        {
            "operator": name, "versions": ", ".join(map(str, sorted(versions.get(name, {1})))),
            "rule": _rule(operator), "fixed": _fixed(operator),
        }
        for name, operator in sorted(OPERATORS.items(), key=lambda row: (row[0].rpartition(".")[0], row[0]))
    ]  # fmt: skip


def _rule(operator: Operator) -> str:
    """The rule as it stands, or as the first line of what computes it tells."""
    if operator.wall:
        return "nothing passes"
    if isinstance(operator.rule, str) and operator.rule:
        return operator.rule
    text = ((operator.rule or operator.move).__doc__ or "").partition("\n")[0]
    spelled = re.search(r"`([^`]*->[^`]*)`", text)
    return spelled[1] if spelled else text.rstrip(".")


def _fixed(operator: Operator) -> str:
    """Why everything is fixed, or which axes are and why."""
    if operator.wall:
        return f"all: {operator.wall}"
    bound = dict.fromkeys(re.findall(r"(\w+)!", _rule(operator)))
    freed = " (freed by --allow-rewrite)" if operator.rewrite else ""
    return f"{', '.join(bound)}: {operator.why}{freed}" if bound else ""
