"""Attention as one operator: heads go whole; a head's size enters the scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zig.dims import product
from zig.errors import RuleError
from zig.operators.operator import Operator, summed, zero_only

if TYPE_CHECKING:
    from zig.cut import Cut
    from zig.units import Call


def _refuse_steps(call: Call, *past: int) -> None:
    """Keys and values that come from earlier steps or are handed to later ones are the model's own inputs and outputs.

    Raises:
        RuleError: there are some.
    """
    if any(call.has(i) for i in past) or any(call.node.outputs[1:]):
        raise RuleError("it keeps keys and values from earlier steps")


def _shared(call: Call, queries: str, keys: str) -> dict[str, int]:
    """How many heads keys and values have, and how many heads of queries share each."""
    heads = call.attribute(queries, 1)
    return {"h": call.attribute(keys, heads), "r": heads // call.attribute(keys, heads)}


def _repair_heads(queries: str, keys: str = "") -> Any:
    """The heads of queries are those of keys, times those that share each."""

    def repair(cut: Cut) -> None:
        heads = [cut.size(cut.call.letters[x]) for x in "hr" if x in cut.call.letters]
        for name, count in ((queries, product(heads)), (keys, heads[0] if heads else 0)):
            if cut.call.attribute(name) and heads:
                cut.set_attribute(name, count)

    return repair


def _scores(call: Call, index: int, *axes: str) -> str:
    """What is added to the scores: any of these axes may be left out in front, or be of size one."""
    if not call.has(index):
        return ""
    sizes = call.tensor(index).sizes
    return " ".join("1" if n == 1 else axis for n, axis in zip(sizes, axes[len(axes) - len(sizes) :], strict=True))


def _bound(call: Call, index: int) -> str:
    """A table or a mask of any rank, all of it bound."""
    return " ".join(f"m{index}{i}!" for i in range(len(call.tensor(index).axes))) if call.has(index) else ""


def _head_size(call: Call) -> str:
    return "d" if call.attribute("scale") else "d!"  # without a scale, its root is divided by


def _attention(call: Call) -> str:
    """Queries share keys by r, in one axis or apart: `b s (h r d!), b t! (h d!), b t! (h e), s t! -> b s (h r e)`."""
    _refuse_steps(call, 4, 5)
    d, windows = _head_size(call), (call.attribute(f"{side}_window_size", -1) for side in ("left", "right"))
    s = "s!" if call.attribute("is_causal", 0) or any(window >= 0 for window in windows) else "s"  # counts places
    if len(call.tensor(0).axes) == 3:
        q, k, v, out, heads = f"b {s} (h r {d})", f"b t! (h {d})", "b t! (h e)", "b s (h r e)", "(h r)"
    else:  # g: a number that no attribute holds
        q, k, v, out, heads = f"b (g r) {s} {d}", f"b g t! {d}", "b g t! e", "b (g r) s e", "(g r)"
    return f"{q}, {k}, {v}, {_scores(call, 3, 'b', heads, 's', 't!')}, , , ~b -> {out}"


def _attention_letters(call: Call) -> dict[str, int]:
    if len(call.tensor(0).axes) == 3:
        return _shared(call, "q_num_heads", "kv_num_heads")
    queries, keys = call.tensor(0).sizes[1], call.tensor(1).sizes[1]
    return {"g": keys, "r": queries // keys} if isinstance(queries, int) and isinstance(keys, int) else {}


def _values(call: Call, q: Any, k: Any, v: Any, *_: Any) -> Any:
    """A weighted mean of zeros is zero."""
    return zero_only(call, v)


def _projected(call: Call) -> str:
    """Queries, keys and values from one weight: `b! s! i, i (p! h d!), (p! h d!) -> b s (h d)`."""
    _refuse_steps(call, 4, 6)
    if len(set(call.attribute("qkv_hidden_sizes", ()))) > 1:
        raise RuleError("its queries and values have different sizes")
    d = "d!" if call.attribute("do_rotary", 0) else _head_size(call)
    scores = _scores(call, 5, "b!", "h", "s!", "t!")
    return f"b! s! i, i (p! h {d}), (p! h {d}), {_bound(call, 3)}, , {scores} -> b s (h d)"


def _projected_rest(call: Call, x: Any, w: Any, bias: Any = None, *_: Any) -> Any:
    return zero_only(call, summed(x, w) + (0.0 if bias is None else bias))


def _repair_projected(cut: Cut) -> None:
    if cut.call.attribute("qkv_hidden_sizes"):
        cut.set_attribute("qkv_hidden_sizes", [product(cut.size(cut.call.letters[x]) for x in "hd")] * 3)


def _multi_head(call: Call) -> str:
    """With one bias for all three: `b! s! (h d!), b! t! (h d!), b! t! (h d), (p! h d!) -> b s (h d)`."""
    _refuse_steps(call, 6, 7, 8, 9)
    if not (call.has(1) and call.has(2)) or {len(call.tensor(i).axes) for i in range(3)} != {3}:
        raise RuleError("its queries, keys and values come packed")
    d = _head_size(call)
    e = "d" if call.has(3) else "e"
    scores = _scores(call, 5, "b!", "h", "s!", "t!")
    given = f"b! s! (h {d}), b! t! (h {d}), b! t! (h {e}), (p! h {d}), {_bound(call, 4)}, {scores}"
    return f"{given} -> b s (h {e})"


def _multi_head_rest(call: Call, q: Any, k: Any, v: Any, bias: Any = None, *_: Any) -> Any:
    return zero_only(call, v if bias is None else np.add(v, bias))


def _grouped(call: Call) -> str:
    """Queries share keys by r: `b! s! (h r d!), b! t! (h d!), b! t! (h d!) -> b s (h r d)`."""
    _refuse_steps(call, 3, 4, 12, 13)
    if not call.has(1):
        raise RuleError("its queries, keys and values come packed")
    tables = ", ".join(_bound(call, i) for i in range(3, 10))
    scores, sink = _scores(call, 10, "b!", "(h r)", "s!", "l!"), "(h r)"
    return f"b! s! (h r d!), b! t! (h d!), b! t! (h d!), {tables}, {scores}, {sink}, , , d!, d! -> b s (h r d)"


def _linear(call: Call) -> str:
    """A state of keys by values for each head: `b t! (h r d!), b t! (h d!), b t! (h e) -> b t (h r e), b h d e`."""
    heads = call.attribute("kv_num_heads")
    decay = "h" if call.has(4) and call.tensor(4).sizes[-1] == heads else "(h d!)"
    given = f"b t! (h r d!), b t! (h d!), b t! (h e), b h d! e, b t! {decay}, b t! h"
    return f"{given} -> b t (h r e), b h d e"


def _linear_rest(call: Call, q: Any, k: Any, v: Any, past: Any = None, *_: Any) -> Any:
    return zero_only(call, v if past is None else np.where(np.asarray(past) == 0, v, np.nan))


def _rotary(call: Call) -> str:
    """Pairs within a head turn: `b! s! (h d!) -> b s (h d)`."""
    x = "b! s! (h d!)" if len(call.tensor(0).axes) == 3 else "b! g s! d!"
    tables = ", ".join(_bound(call, i) for i in range(1, len(call.node.inputs)))
    return f"{x}, {tables} -> {x.replace('!', '')}"


def _rotary_letters(call: Call) -> dict[str, int]:
    """In onnxruntime the table of cosines, half as wide as a head, may be all that tells its size."""
    if heads := call.attribute("num_heads", 0):
        return {"h": heads}
    half = call.tensor(2).sizes[-1]
    if len(call.tensor(0).axes) == 3 and (call.attribute("rotary_embedding_dim", 0) or not isinstance(half, int)):
        raise RuleError("its number of heads is not given")
    return {"d": 2 * half} if isinstance(half, int) else {}


_WHY = "divides by the root of this size, or takes a softmax along it"
_GROUPED: dict[str, Any] = {"why": _WHY, "macs": "b h r s t d + b h r s t e", "contracts": True}
_MULTI: dict[str, Any] = {"why": _WHY, "sizes": {"num_heads": "h"}, "letters": lambda _: {"p": 3}, "contracts": True}
_TURNS: dict[str, Any] = {
    "rest": zero_only, "why": "turns pairs along this axis, by where they stand", "letters": _rotary_letters,
    "repair": _repair_heads("num_heads"),
}  # fmt: skip
OPERATORS: dict[str, Operator] = {
    "Attention": Operator(
        _attention, rest=_values, letters=_attention_letters, repair=_repair_heads("q_num_heads", "kv_num_heads"),
        **_GROUPED,
    ),
    "com.microsoft.GroupQueryAttention": Operator(
        _grouped, rest=_values, letters=lambda call: _shared(call, "num_heads", "kv_num_heads"),
        repair=_repair_heads("num_heads", "kv_num_heads"), **_GROUPED,
    ),
    "LinearAttention": Operator(
        _linear, rest=_linear_rest, letters=lambda call: _shared(call, "q_num_heads", "kv_num_heads"),
        repair=_repair_heads("q_num_heads", "kv_num_heads"), why=_WHY, macs="b t h r d e", contracts=True,
    ),
    "com.microsoft.Attention": Operator(
        _projected, rest=_projected_rest, repair=_repair_projected, macs="b s i p h d", **_MULTI
    ),
    "com.microsoft.MultiHeadAttention": Operator(
        _multi_head, rest=_multi_head_rest, macs="b h s t d + b h s t e", **_MULTI
    ),
    "RotaryEmbedding": Operator(_rotary, **_TURNS),
    "com.microsoft.RotaryEmbedding": Operator(_rotary, **_TURNS),
}  # fmt: skip
