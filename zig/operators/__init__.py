"""THE dictionary: one row for each operator, and in it everything zig knows about that operator."""

from __future__ import annotations

from zig.operators import attention, elementwise, linear, move, normal, recurrent, reduce
from zig.operators.operator import Operator

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **linear.OPERATORS,
    **attention.OPERATORS,
    **normal.OPERATORS,
    **reduce.OPERATORS,
    **recurrent.OPERATORS,
    **move.OPERATORS,
}

__all__ = ["OPERATORS", "Operator", "table"]


def table() -> list[dict[str, str]]:
    """The dictionary as rows for people: operator, since which opset, rule, and why what is bound is fixed."""
    import onnx  # noqa: PLC0415

    rows = []
    for name, operator in sorted(OPERATORS.items()):
        domain, _, plain = name.rpartition(".")
        schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == plain and s.domain == domain]
        versions = sorted(schema.since_version for schema in schemas)
        rule = operator.rule if isinstance(operator.rule, str) and operator.rule else ""
        if not rule:
            rule = "moves data" if operator.move else "computed from attributes and shapes"
        fixed = operator.wall or (operator.why if "!" in rule or callable(operator.rule) else "")
        rows.append({
            "operator": name, "versions": ", ".join(map(str, versions)), "rule": rule,
            "fixed": fixed,
        })  # fmt: skip
    return rows
