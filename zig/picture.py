"""A picture of a partition: the graph, its boxes coloured by the node group that they write.

A box is a node, or a whole module where the graph is big: boxes are merged along the module scopes that exporters leave
behind, and where there are none from one layer's weights to the next, until graphviz can cope. Each box says in words
what its colour says, so nobody needs to tell colours apart. Dashed: the box has weights and all of them are fixed.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from graphviz import Digraph, escape

from zig.atomic import write
from zig.errors import UsageError
from zig.printable import printable

if TYPE_CHECKING:
    from zig.graph import Graph, Node
    from zig.partition import Partition

FORMATS = ("svg", "pdf", "png", "dot")
EDGES = 300  # more than this takes dot too long, and nobody can read it
SECONDS = 10.0
LINES = 4  # of each kind in one box

# Okabe and Ito, "Color Universal Design" (2008), without black: told apart with every kind of colour vision.
PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00")
TINTS = (0.35, 0.6, 0.8)  # white mixed in, so that black text is legible; one for each round through the palette

Key: TypeAlias = Hashable


@dataclass(slots=True)
class Box:
    """Nodes drawn as one: their name, operators, and the node groups whose members and dependents they hold.

    `live` tells whether data flow through it; a box that is not only prepares weights.
    """

    name: str
    live: bool
    operators: Counter[str] = field(default_factory=Counter)
    writes: set[int] = field(default_factory=set)
    reads: set[int] = field(default_factory=set)
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes by key, and the arrows between them."""

    boxes: dict[Key, Box]
    edges: list[tuple[Key, Key]]


def draw(
    partition: Partition, target: str | os.PathLike[str], form: str | None = None,
    sketch: Callable[[Partition], str] | None = None,
) -> str | None:  # fmt: skip
    """Draw the groups of a model into a file, which appears complete or not at all.

    Args:
        partition: What to draw.
        target: The file to write.
        form: One of `FORMATS`; by default the suffix of `target`.
        sketch: What draws an SVG in place of the program `dot`, where that is missing.

    Returns:
        None, or where the program `dot` is missing a line that says what was written and what to install.

    Raises:
        UsageError: The format is unknown, or graphviz fails.
    """
    path = Path(target)
    form = form or path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(f"{path}: zig draws {', '.join(FORMATS)}, not '{form}'; choose one of these as the suffix")
    if form == "dot":
        write(path, _readable(partition).encode())
        return None
    if program := shutil.which("dot"):
        write(path, _render(partition, program, form, path))
        return None
    if form == "svg" and sketch is not None:
        write(path, sketch(partition))
        return f"{path} is drawn without graphviz, which lays larger graphs out more evenly where it is installed"
    fallback = path.with_suffix(".dot")
    write(fallback, _readable(partition))
    return f"no {path} without graphviz: wrote {fallback}; install graphviz, then: dot -T{form} {fallback} -o {path}"


def _readable(partition: Partition) -> str:
    """The most detailed drawing that has few enough arrows, as graphviz text."""
    return next(text for text, edges in _drawings(partition) if edges <= EDGES)


def _render(partition: Partition, program: str, form: str, path: Path) -> bytes:
    """The most detailed drawing that graphviz finishes in time."""
    limit = EDGES
    for text, edges in _drawings(partition):
        if edges > limit:
            continue
        try:
            done = subprocess.run(
                [program, f"-T{form}"], input=text.encode(), capture_output=True, timeout=SECONDS, check=True
            )
        except subprocess.TimeoutExpired:
            limit = edges // 4
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.decode(errors="replace").split())[:200]
            raise UsageError(f"{path}: graphviz fails ({reason}); use --dot and another version of it") from error
        else:
            return done.stdout
    raise UsageError(f"{path}: graphviz took more than {SECONDS:g} s for every drawing; use --dot")


def _drawings(partition: Partition) -> Iterator[tuple[str, int]]:
    """Graphviz text and number of arrows of each drawing, from every node down to a single box."""
    for keys in _levels(partition):
        drawing = _drawing(partition, keys)
        yield _text(partition, drawing), len(drawing.edges)


def _levels(partition: Partition) -> Iterator[list[Key]]:
    """The box of each node: the node itself, then ever larger modules, then ever longer runs of layers."""
    nodes = partition.graph.nodes
    paths = [_scope(node) for node in nodes]
    yield list(range(len(nodes)))
    for depth in range(max(map(len, paths), default=0), 0, -1):
        yield [path[:depth] if len(path) >= depth else index for index, path in enumerate(paths)]
    layers = _layers(partition)
    length = 1
    while length < 2 * (layers[-1] + 1 if layers else 1):
        yield [layer // length for layer in layers]
        length *= 2


def _scope(node: Node) -> tuple[str, ...]:
    """The modules that a node is in, outermost first, as torch's exporters note them."""
    for entry in node.proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # anyone's text
                return tuple(map(str, list(ast.literal_eval(entry.value))[1:-1]))
    return tuple(node.name.strip("/").split("/")[:-1])


def _layers(partition: Partition) -> list[int]:
    """For each node, how many nodes with weights came before it or are it."""
    count, layers = 0, []
    for node in partition.graph.nodes:
        count += any(name in partition.graph.initializers for name in node.inputs)
        layers.append(count)
    return layers


def _drawing(partition: Partition, keys: list[Key]) -> Drawing:
    nodes = partition.graph.nodes
    live = _live(partition.graph)
    keys = _with_their_readers(nodes, keys, live)
    writes, reads, fixed = _roles(partition)
    boxes: dict[Key, Box] = {}
    # Live nodes first: they name the box, those that only prepare its weights don't.
    for index in sorted(range(len(nodes)), key=lambda index: index not in live):
        node, key = nodes[index], keys[index]
        box = boxes.setdefault(key, Box(_name(node, key), index in live))
        if index in live or not box.live:
            box.operators[node.op] += 1
        for tensor in (*node.inputs, *node.captured):
            box.writes |= writes.get(tensor, set())
            box.reads |= reads.get(tensor, set())
            box.fixed |= tensor in fixed
    return Drawing(boxes, _edges(nodes, keys))


def _with_their_readers(nodes: list[Node], keys: list[Key], live: set[int]) -> list[Key]:
    """Put a node that only prepares weights (a Transpose, an Identity) into the box of the first node that reads it."""
    keys = list(keys)
    reader: dict[str, Key] = {}
    for index in reversed(range(len(keys))):
        node = nodes[index]
        if index not in live:
            keys[index] = next((reader[name] for name in node.outputs if name in reader), keys[index])
        reader.update(dict.fromkeys((*node.inputs, *node.captured), keys[index]))
    return keys


def _live(graph: Graph) -> set[int]:
    """The nodes whose outputs depend on an input of the graph."""
    live: set[int] = set()
    moving = set(graph.inputs)
    for index, node in enumerate(graph.nodes):
        if not moving.isdisjoint((*node.inputs, *node.captured)):
            live.add(index)
            moving.update(node.outputs)
    return live


def _roles(partition: Partition) -> tuple[dict[str, set[int]], dict[str, set[int]], set[str]]:
    """Node groups whose members and whose dependents each initializer holds, and initializers that are fixed."""
    writes: dict[str, set[int]] = {}
    reads: dict[str, set[int]] = {}
    for row in partition.rows:
        live = row.groups >= 0
        for role, mask in ((writes, row.member), (reads, live & ~row.member)):
            role.setdefault(row.tensor, set()).update(partition.node_group[row.groups[mask]].tolist())
    return writes, reads, {entry.tensor for entry in partition.fixed}


def _edges(nodes: list[Node], keys: list[Key]) -> list[tuple[Key, Key]]:
    """Arrows between different boxes, each once, in the order in which the graph needs them."""
    maker = {name: key for node, key in zip(nodes, keys, strict=True) for name in node.outputs if name}
    found: dict[tuple[Key, Key], None] = {}
    for node, key in zip(nodes, keys, strict=True):
        for name in (*node.inputs, *node.captured):
            if name in maker and maker[name] != key:
                found[maker[name], key] = None
    return list(found)


def _name(node: Node, key: Key) -> str:
    """A module's path, or the name of the box's first node."""
    if not isinstance(key, tuple):
        return node.name
    # torch's dynamo exporter notes "layer1", "layer1.0": there the last one says it all.
    nested = len(key) > 1 and key[-1].startswith(f"{key[-2]}.")
    return str(key[-1]) if nested else "/".join(key)


def _text(partition: Partition, drawing: Drawing) -> str:
    """The drawing in graphviz's language."""
    sizes = {group.id: group.size for group in partition.node_groups}
    number = {key: f"n{index}" for index, key in enumerate(drawing.boxes)}
    title = f"{printable(Path(partition.graph.name).name)}: {len(partition)} groups in {len(sizes)} node groups"
    graph = Digraph(
        "zig",
        graph_attr={
            "label": _label(title), "labelloc": "t", "fontname": "Helvetica", "ranksep": "0.3", "nodesep": "0.2",
        },
        node_attr={
            "shape": "box", "style": "filled", "fillcolor": "#ffffff", "color": "#777777", "fontname": "Helvetica",
            "fontsize": "10",
        },
        edge_attr={"color": "#777777", "arrowsize": "0.6"},
    )  # fmt: skip
    for key, box in drawing.boxes.items():
        graph.node(number[key], **_attributes(box, sizes))
    graph.edges((number[tail], number[head]) for tail, head in drawing.edges)
    return str(graph.source)


def _attributes(box: Box, sizes: dict[int, int]) -> dict[str, str]:
    named = ((printable(name)[:60], count) for name, count in box.operators.items())
    operators = (f"{count} {name}" if count > 1 else name for name, count in named)
    label = _label(
        printable(box.name[-60:]),
        *_few(operators, ", "),
        *_few((f"group {group} · {sizes[group]}" for group in sorted(box.writes)), "\n"),
        *_few((f"reads group {group}" for group in sorted(box.reads - box.writes)), "\n"),
    )
    if not box.writes:
        return {"label": label} | ({"style": "filled,dashed"} if box.fixed else {})
    fills = [_colour(group) for group in sorted(box.writes)[:LINES]]
    style = "striped" if len(fills) > 1 else "filled"
    border = PALETTE[min(box.writes) % len(PALETTE)]
    return {"label": label, "style": style, "fillcolor": ":".join(fills), "color": border, "penwidth": "2"}


def _few(entries: Iterable[str], separator: str) -> list[str]:
    """The first entries in one text, and how many more there are; nothing for none."""
    entries = list(entries)
    more = [f"+{len(entries) - LINES} more"] if len(entries) > LINES else []
    return [separator.join([*entries[:LINES], *more])] if entries else []


def _colour(group: int) -> str:
    """The fill of a node group; colours repeat after `len(PALETTE) * len(TINTS)` groups, labels do not."""
    base = PALETTE[group % len(PALETTE)]
    white = TINTS[group // len(PALETTE) % len(TINTS)]
    channels = (int(base[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(value + (255 - value) * white):02x}" for value in channels)


def _label(*lines: str) -> str:
    """Lines of text as graphviz takes them: nothing in them is markup, and each new line is a line."""
    return str(escape("\n".join(lines))).replace("\n", "\\n")
