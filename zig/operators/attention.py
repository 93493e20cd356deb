"""Attention as one operator: heads go whole; a head's size enters the scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zig.errors import RuleError
from zig.operators.operator import Operator, zero_only

if TYPE_CHECKING:
    from zig.units import Call

_MASK = {2: "s t", 3: "h s t", 4: "b h s t"}


def _attention(call: Call) -> str:
    """Queries, keys and values as (batch, head, place, size), or with heads and size merged into one axis."""
    if any(call.has(i) for i in (4, 5)) or len([name for name in call.node.outputs if name]) > 1:
        raise RuleError("it keeps keys and values from earlier steps")
    d = "d" if call.attribute("scale") else "d!"  # without a scale, the root of the head size is divided by
    shared = call.attribute("q_num_heads", 0) == call.attribute("kv_num_heads", 0)
    if len(call.tensor(0).axes) == 3:
        if not shared:
            raise RuleError("its queries have more heads than its keys")
        q, k, v, out = f"b s (h {d})", f"b t! (h {d})", "b t! (h e)", "b s (h e)"
    else:
        heads = "(h r)" if call.tensor(0).sizes[1] != call.tensor(1).sizes[1] else "h"
        q, k, v, out = f"b {heads} s {d}", f"b h t! {d}", "b h t! e", f"b {heads} s e"
    mask = f", {_MASK[len(call.tensor(3).axes)]}" if call.has(3) else ""
    return f"{q}, {k}, {v}{mask} -> {out}"


def _letters(call: Call) -> dict[str, int]:
    if len(call.tensor(0).axes) == 3:
        return {}
    queries, keys = call.tensor(0).sizes[1], call.tensor(1).sizes[1]
    return {"r": queries // keys} if isinstance(queries, int) and isinstance(keys, int) else {}


def _rest(call: Call, q: Any, k: Any, v: Any, *_: Any) -> Any:
    """A weighted mean of zeros is zero."""
    return zero_only(call, v)


OPERATORS: dict[str, Operator] = {
    "Attention": Operator(
        _attention, rest=_rest, why="divides by the root of this size, or takes a softmax along it",
        sizes={"q_num_heads": "h", "kv_num_heads": "h"}, letters=_letters, macs="b h r s t d", contracts=True,
    ),
}  # fmt: skip
