"""Damaged ONNX files: whole ones, then bytes or fields of theirs changed at random.

A case is a number: `damaged(number, folder)` always writes the same file. Most of the whole models are tiny, so that
thousands of damaged ones go through the command in a minute; between them they hold every row of the dictionary.
"""

from __future__ import annotations

import copy
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import test_random_networks
from conftest import parse
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from operators.cases import CASES

from zig.operators import OPERATORS

Random = np.random.Generator
NUMBERS = (0, 1, -1, 2, 3, 7, 255, -128, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63))
STRINGS = ("", "x", "../x", "/", ".", "\0", "a" * 5000, "é", "{}", "%s", "[red]x[/red]", "a\nb", "NOTSET", "SAME_UPPER",
           "\x1b[31mred\x1b[0m", "a\b\b", "\u202eabc", "a\u200bb", "[/]", "\x9b2J", "a\rb", "n" * 200_000)  # fmt: skip
CONTROL: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "if": (
        """g (float[N, 4] x, bool c) => (float[N, 2] y) {
        h = MatMul (x, w)
        r = If (c) <then_branch = a () => (float[N, 3] p) { p = Relu (h) },
                    else_branch = b () => (float[N, 3] q) { q = Neg (h) }>
        y = MatMul (r, v) }""",
        {"w": (4, 3), "v": (3, 2)},
    ),
    "loop": (
        """g (float[N, 3] x) => (float[N, 2] y) {
        n = Constant <value = int64 {3}> ()
        t = Constant <value = bool {1}> ()
        a = MatMul (x, u)
        h = Loop (n, t, a) <body = b (int64 i, bool c, float[N, 4] s) => (bool d, float[N, 4] r) {
            d = Identity (c)
            p = MatMul (s, w)
            r = Tanh (p) }>
        y = MatMul (h, v) }""",
        {"u": (3, 4), "w": (4, 4), "v": (4, 2)},
    ),
    "scan": (
        """g (float[5, 3] x, float[4] s) => (float[4] last, float[5, 2] y) {
        h = MatMul (x, w)
        last, all = Scan <num_scan_inputs = 1, body = b (float[4] old, float[4] now) => (float[4] new, float[4] out) {
            new = Add (old, now)
            out = Relu (new) }> (s, h)
        y = MatMul (all, v) }""",
        {"w": (3, 4), "v": (4, 2)},
    ),
    "function": (
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[N, 4] x) => (float[N, 2] y) {
        h = local.layer (x, w, b)
        y = MatMul (h, v) }
        <domain: "local", opset_import: ["" : 20]>
        layer (a, k, c) => (r) { p = MatMul (a, k) q = Add (p, c) r = Relu (q) }""",
        {"w": (4, 3), "b": (3,), "v": (3, 2)},
    ),
}


# -- whole models -----------------------------------------------------------------------------------------------------


@functools.cache
def families() -> tuple[tuple[Callable[[Random], bytes], float], ...]:
    """Where whole models come from, with how often."""
    return ((_case, 0.35), (_network, 0.3), (_exported, 0.2), (_control, 0.15))


def whole(random: Random, more: tuple[Path, ...] = ()) -> bytes:
    """The bytes of a model without damage; half of them from the files `more`, if there are any."""
    if more and random.random() < 0.5:
        return _pick(random, more).read_bytes()
    makers, weights = zip(*families(), strict=True)
    return makers[random.choice(len(makers), p=weights)](random)


def _case(random: Random) -> bytes:
    case = _pick(random, CASES)
    return case.model(case.letters(random), seed=int(random.integers(100))).SerializeToString()


def _network(random: Random) -> bytes:
    maker = _pick(random, tuple(test_random_networks.MAKERS.values()))
    return maker(int(random.integers(1000))).SerializeToString()


def _exported(random: Random) -> bytes:
    return _pick(random, _of_onnx()).read_bytes()


@functools.cache
def _of_onnx() -> tuple[Path, ...]:
    """Models that onnx brings along for its tests, most of them exported by an early torch."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    found = sorted(data.glob("pytorch-*/*/model.onnx")) + sorted(data.glob("simple/*/model.onnx"))
    return tuple(path for path in found if path.stat().st_size < 100_000)


def _control(random: Random) -> bytes:
    text, sizes = _pick(random, tuple(CONTROL.values()))
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}
    return parse(text, **weights).SerializeToString()


# -- damage to bytes --------------------------------------------------------------------------------------------------


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.integers(1, 9)):
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))


def _overwrite(data: bytearray, random: Random) -> None:
    start = random.integers(len(data))
    data[start : start + 16] = random.bytes(len(data[start : start + 16]))


def _cut_off(data: bytearray, random: Random) -> None:
    del data[random.integers(len(data)) :]


def _cut_out(data: bytearray, random: Random) -> None:
    start = random.integers(len(data))
    del data[start : start + random.integers(1, 200)]


def _repeat(data: bytearray, random: Random) -> None:
    start = random.integers(len(data))
    data[start:start] = data[start : start + random.integers(1, 200)]


def _insert(data: bytearray, random: Random) -> None:
    start = random.integers(len(data))
    data[start:start] = random.bytes(int(random.integers(1, 20)))


BYTES = (_flip, _flip, _overwrite, _cut_off, _cut_out, _repeat, _insert)


# -- damage to any field of any message -------------------------------------------------------------------------------


def messages(root: Message) -> Iterator[Message]:
    """A message and all that lie in it."""
    yield root
    for field, value in root.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                yield from messages(part)


def _any_field(model: onnx.ModelProto, random: Random) -> None:
    """Change one field of one message, whatever it is."""
    everything = list(messages(model))
    message = _pick(random, everything)
    field = _pick(random, message.DESCRIPTOR.fields)
    alike = [other for other in everything if field.message_type and other.DESCRIPTOR is field.message_type]
    if field.is_repeated:
        _change_list(getattr(message, field.name), field, alike, random)
    elif random.random() < 0.2:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if alike:
            getattr(message, field.name).CopyFrom(copy.deepcopy(_pick(random, alike)))
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), random, model))


def _change_list(values: Any, field: FieldDescriptor, alike: list[Message], random: Random) -> None:
    """Take out, repeat or exchange entries, or bring one in from elsewhere."""
    kept = [copy.deepcopy(value) for value in values]
    change = random.integers(5)
    if change == 0 and kept:
        del kept[random.integers(len(kept))]
    elif change == 1 and kept:
        kept.insert(int(random.integers(len(kept))), _pick(random, kept))
    elif change == 2 and kept:
        i, j = random.integers(len(kept), size=2)
        kept[i], kept[j] = kept[j], kept[i]
    elif change == 3:
        kept = kept[: len(kept) // 2]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        kept.append(_pick(random, alike)) if alike else None
    else:
        kept.append(_scalar(field, kept[-1] if kept else None, random, None))
    del values[:]
    values.extend(kept)


def _scalar(field: FieldDescriptor, old: Any, random: Random, model: onnx.ModelProto | None) -> Any:
    """Another value for a field that is no message."""
    if field.enum_type:
        return _pick(random, [value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_STRING:
        return _pick(random, [*STRINGS, *(_names(model) if model else [])])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _other_bytes(old or b"", random)
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return _pick(random, (0.0, -1.0, 1e-30, 3e38, float("nan"), float("inf"), -float("inf")))
    number = _number(random, int(old or 0))
    return np.int64(number).astype(np.int32).item() if field.type == FieldDescriptor.TYPE_INT32 else number


def _number(random: Random, old: int) -> int:
    return int(np.clip(_pick(random, (*NUMBERS, old + 1, old - 1, -old, 2 * old)), -(2**63), 2**63 - 1))


def _other_bytes(old: bytes, random: Random) -> bytes:
    data = bytearray(old or b"\0")
    _pick(random, BYTES)(data, random)
    return bytes(data)


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    return [name for node in graph.node for name in (*node.input, *node.output)] + [t.name for t in graph.initializer]


# -- damage that a person or a tool might do --------------------------------------------------------------------------


def _cycle(model: onnx.ModelProto, random: Random) -> None:
    first, last = sorted(random.integers(len(model.graph.node), size=2))
    names = [name for name in model.graph.node[last].output if name]
    inputs = model.graph.node[first].input
    if names and inputs:
        inputs[random.integers(len(inputs))] = _pick(random, names)


def _missing(model: onnx.ModelProto, random: Random) -> None:
    del model.graph.initializer[random.integers(len(model.graph.initializer))]


def _renamed(model: onnx.ModelProto, random: Random) -> None:
    tensor = _pick(random, model.graph.initializer)
    tensor.name = _pick(random, [*_names(model), "nobody"])


def _sizes(model: onnx.ModelProto, random: Random) -> None:
    dims = _pick(random, [tensor for tensor in model.graph.initializer if tensor.dims]).dims
    axis = random.integers(len(dims))
    dims[axis] = _number(random, dims[axis])


def _turned(model: onnx.ModelProto, random: Random) -> None:
    dims = _pick(random, model.graph.initializer).dims
    dims[:] = dims[::-1]


def _type(model: onnx.ModelProto, random: Random) -> None:
    _pick(random, model.graph.initializer).data_type = int(random.integers(27))


def _retyped(model: onnx.ModelProto, random: Random) -> None:
    """A weight in another type, its data too."""
    tensor = _pick(random, model.graph.initializer)
    kind = _pick(random, ("float16", "float64", "int64", "int8", "bool", "uint8"))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))


def _constants(model: onnx.ModelProto, random: Random) -> None:
    """Another entry in an integer constant: a size, an axis, a bound, an index."""
    found = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    found += [a.t for node in model.graph.node for a in node.attribute if a.t.data_type == TensorProto.INT64]
    tensor = _pick(random, found)
    values = np.array(numpy_helper.to_array(tensor))
    values.reshape(-1)[random.integers(values.size)] = _number(random, int(values.reshape(-1)[0]))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _weights(model: onnx.ModelProto, random: Random) -> None:
    tensor = _pick(random, [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT])
    values = np.array(numpy_helper.to_array(tensor))
    value = _pick(random, (0.0, -0.0, float("nan"), float("inf"), 3e38, 1e-40))
    values[random.random(values.shape) < random.random()] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _operator(model: onnx.ModelProto, random: Random) -> None:
    node = _pick(random, model.graph.node)
    node.domain, _, node.op_type = _pick(random, sorted(OPERATORS)).rpartition(".")


def _operands(model: onnx.ModelProto, random: Random) -> None:
    node = _pick(random, model.graph.node)
    names = _pick(random, ([*node.input], [*node.input, ""], ["", *node.input], [*node.input[1:]], [*node.input[:-1]]))
    random.shuffle(names)
    if names and random.random() < 0.5:
        names[random.integers(len(names))] = _pick(random, [*_names(model), "nobody", ""])
    del node.input[:]
    node.input.extend(names)


def _attribute(model: onnx.ModelProto, random: Random) -> None:
    node = _pick(random, [node for node in model.graph.node if node.attribute])
    attribute = _pick(random, node.attribute)
    if attribute.type == AttributeProto.INTS and attribute.ints:
        i = random.integers(len(attribute.ints))
        attribute.ints[i] = _number(random, attribute.ints[i])
    elif attribute.type == AttributeProto.INT:
        attribute.i = _number(random, attribute.i)
    else:
        node.attribute.remove(attribute)


def _results(model: onnx.ModelProto, random: Random) -> None:
    """Two nodes that write the same tensor, or one that writes nothing."""
    node = _pick(random, [node for node in model.graph.node if node.output])
    node.output[random.integers(len(node.output))] = _pick(random, [*_names(model), ""])


def _declared(model: onnx.ModelProto, random: Random) -> None:
    """Another size of an input, an output or a tensor between."""
    graph = model.graph
    shape = _pick(random, [*graph.input, *graph.output, *graph.value_info]).type.tensor_type.shape
    dim = _pick(random, shape.dim)
    if random.random() < 0.3:
        dim.dim_param = _pick(random, ("N", "N + 1", "2*N", "-N", "N*", "(", "N//0", "1e9", "", "(" * 900 + "N" + ")" * 900, "-" * 5000 + "N",
                                        "*".join(["(a+b+c+d)"] * 100), "9" * 5000, "1 is N"))  # fmt: skip
    else:
        dim.dim_value = _number(random, dim.dim_value)


def _opset(model: onnx.ModelProto, random: Random) -> None:
    if random.random() < 0.2:
        del model.opset_import[:]
        return
    _pick(random, model.opset_import).version = int(_pick(random, (0, -1, 1, 5, 6, 9, 11, 13, 17, 21, 99, 2**40)))


def _ends(model: onnx.ModelProto, random: Random) -> None:
    """Without one of its inputs or outputs, or with a tensor from inside as one."""
    values = _pick(random, (model.graph.input, model.graph.output))
    if random.random() < 0.5:
        del values[random.integers(len(values))]
    else:
        values.add().CopyFrom(
            helper.make_tensor_value_info(_pick(random, _names(model)), int(random.integers(1, 17)), None)
        )


def _nested(model: onnx.ModelProto, random: Random) -> None:
    """A node inside an If, which is inside an If, ... deeper than most code would go."""
    node = _pick(random, model.graph.node)
    inner, outputs = copy.deepcopy(node), list(node.output)
    for _ in range(
        int(_pick(random, (1, 2, 10, 30, 45)))
    ):  # protobuf itself reads no more than a hundred messages deep
        ends = [onnx.ValueInfoProto(name=name) for name in outputs if name]
        graph = helper.make_graph([inner], "branch", [], ends)
        inner = helper.make_node("If", [_pick(random, _names(model))], outputs, then_branch=graph, else_branch=graph)
        if inner.ByteSize() > 100_000:
            break
    node.CopyFrom(inner)


def _recursive(model: onnx.ModelProto, random: Random) -> None:
    """A function that calls itself, in the place of a node."""
    node = _pick(random, model.graph.node)
    call = helper.make_node("again", list(node.input), list(node.output), domain="local")
    inside = [copy.deepcopy(node)] if random.random() < 0.3 else [call]
    names = [name for name in dict.fromkeys(node.input) if name]
    results = [name for name in node.output if name]
    model.functions.append(helper.make_function("local", "again", names, results, inside, list(model.opset_import)))
    if not any(o.domain == "local" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("local", 1))
    node.CopyFrom(call)


def _called(model: onnx.ModelProto, random: Random) -> None:
    """Another name for a tensor, everywhere; or for a node, an operator, a domain."""
    name = _pick(random, STRINGS)
    if random.random() < 0.3:
        node = _pick(random, model.graph.node)
        setattr(node, _pick(random, ("name", "op_type", "domain")), name)
        return
    old = _pick(random, _names(model))
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [name if value == old else value for value in values]
    for each in (*model.graph.initializer, *model.graph.input, *model.graph.output, *model.graph.value_info):
        each.name = name if each.name == old else each.name


def _doubling(model: onnx.ModelProto, random: Random) -> None:
    """Functions that call the next one twice, in the place of a node."""
    node = _pick(random, [node for node in model.graph.node if len(node.input) == len(node.output) == 1])
    levels, opsets = int(_pick(random, (3, 10, 40, 500))), [*model.opset_import, helper.make_opsetid("twice", 1)]
    for i in range(levels):
        body = [helper.make_node(f"f{i + 1}", [a], [b], domain="twice") for a, b in (("a", "b"), ("b", "c"))]
        last = [helper.make_node("Relu", ["a"], ["c"])]
        model.functions.append(
            helper.make_function("twice", f"f{i}", ["a"], ["c"], body if i < levels - 1 else last, opsets)
        )
    model.opset_import.append(opsets[-1])
    node.op_type, node.domain = "f0", "twice"
    del node.attribute[:]


def _segment(model: onnx.ModelProto, random: Random) -> None:
    _pick(random, model.graph.initializer).segment.end = int(random.integers(100))


def _sparse(model: onnx.ModelProto, random: Random) -> None:
    """A weight as a sparse constant, or as a sparse initializer."""
    tensor = _pick(random, [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT])
    model.graph.initializer.remove(tensor)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor(tensor.name, TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("at", TensorProto.INT64, [1], [_number(random, 0)]), list(tensor.dims),
    )  # fmt: skip
    if random.random() < 0.3:
        model.graph.sparse_initializer.append(sparse)
    else:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], sparse_value=sparse))


def _emptied(model: onnx.ModelProto, random: Random) -> None:
    """A weight with an axis of size 0, and nothing in it."""
    tensor = _pick(random, [tensor for tensor in model.graph.initializer if tensor.dims])
    dims = list(tensor.dims)
    dims[random.integers(len(dims))] = 0
    tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, dims, b"", raw=True))


def _texts(model: onnx.ModelProto, random: Random) -> None:
    """A weight that holds texts."""
    tensor = _pick(random, model.graph.initializer)
    data = [_pick(random, (b"a", b"\xff", b"\x1b[31m"))] * int(np.prod(tensor.dims))
    tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.STRING, list(tensor.dims), data))


FIELDS = (
    _any_field, _any_field, _any_field, _any_field, _cycle, _missing, _renamed, _sizes, _turned, _type, _retyped, _constants,
    _constants, _constants, _weights, _operator, _operator, _operands, _operands, _attribute, _attribute, _results, _declared,
    _declared, _opset, _ends, _nested, _recursive, _called, _called, _doubling, _segment, _sparse, _emptied, _texts,
)  # fmt: skip


# -- damage to data beside the model ----------------------------------------------------------------------------------


def _outside(model: onnx.ModelProto, random: Random, folder: Path) -> None:
    """Move the weights to a file of their own, and damage the file or what the model says of it."""
    data = bytearray()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            raw = numpy_helper.to_array(tensor).tobytes()
            entries = {"location": "bad.onnx.data", "offset": str(len(data)), "length": str(len(raw))}
            _damage_entries(entries, random)
            for name in ("float_data", "raw_data"):
                tensor.ClearField(name)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items())
            data += raw
    if data and random.random() < 0.5:
        _pick(random, (_cut_off, _cut_out, _flip))(data, random)
    _lay(folder / "bad.onnx.data", data, random)


def _lay(path: Path, data: bytes, random: Random) -> None:
    """Write a data file; sometimes it is a link."""
    way = random.integers(12)
    beside = path.with_name("beside")
    for old in (path, beside):
        old.unlink(missing_ok=True)
    if way == 0:
        path.symlink_to(path.name)
    elif way == 1:
        os.mkfifo(path)
    elif way == 2:
        path.symlink_to("/dev/zero")
    elif way == 3:
        beside.write_bytes(data)
        path.symlink_to(beside.name)
    else:
        path.write_bytes(data)
    if way == 4:
        beside.hardlink_to(path)


def _damage_entries(entries: dict[str, str], random: Random) -> None:
    if random.random() < 0.7:
        return
    key = _pick(random, list(entries))
    if key == "location":
        entries[key] = _pick(random, ("", ".", "..", "none", "../bad.onnx.data", "/etc/hostname", "bad.onnx", "a\0b"))
    elif random.random() < 0.2:
        del entries[key]
    else:
        entries[key] = _pick(
            random, ("", "-1", "x", "1e3", "0x10", "3", "999999999999999999999", " 8", "\uff14", "1" * 5000, "0" * 6000)
        )


# -- a case -----------------------------------------------------------------------------------------------------------


def damaged(number: int, folder: Path, more: tuple[Path, ...] = ()) -> str:
    """Write damaged model `number` as `bad.onnx` (with `bad.onnx.data`, for some); what was done to it, in words."""
    random = np.random.default_rng(number)
    data = bytearray(whole(random, more))
    done = []
    if random.random() < 0.75:
        model = onnx.ModelProto.FromString(bytes(data))
        for _ in range(random.geometric(0.6)):
            damage = _pick(random, FIELDS)
            if _possible(damage, model, random):
                done.append(damage.__name__.strip("_"))
        if random.random() < 0.15 and _possible(functools.partial(_outside, folder=folder), model, random):
            done.append("outside")
        data = bytearray(model.SerializeToString())
    if not done:
        damage = _pick(random, BYTES)
        damage(data, random)
        done.append(damage.__name__.strip("_"))
    (folder / "bad.onnx").write_bytes(data)
    return ", ".join(done)


def _possible(damage: Callable[..., None], model: onnx.ModelProto, random: Random) -> bool:
    """Do it, unless the model has nothing that could be damaged in this way (or is damaged too much for it)."""
    try:
        damage(model, random)
    except (ValueError, TypeError, KeyError, IndexError, onnx.checker.ValidationError):
        return False
    return True


def _pick(random: Random, values: Any) -> Any:
    """One of the values.

    Raises:
        IndexError: there are none.
    """
    if not len(values):
        raise IndexError("there is nothing to choose from")
    return values[int(random.integers(len(values)))]
