"""Runs any list of models through zig, and through its peers, and writes one table.

    python benchmarks/zoo.py                                   # the zoo's own rows: about half an hour
    python benchmarks/zoo.py resnet18 'mini_*'                 # some of them
    python benchmarks/zoo.py 'torchvision:*' timm:nfnet_l0     # any architecture of a library
    python benchmarks/zoo.py model.onnx --output table         # a file; writes table.csv and table.md
    python benchmarks/zoo.py @families --peers                 # a list, beside Torch-Pruning, OpenVINO and onnxsim

A model is exported, half of every node group is zeroed at random, the result is compressed, and onnxruntime compares
the two. Each model, and each peer, runs in a process of its own with a limit of time and memory, so that one that
explodes is a row that says so. The exit code is 1 where zig failed on a model or was not exact.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import resource
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import filter as matching
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import lists
import numpy as np
import peers
import torch
import zoo

import zig
from zig.errors import ZigError

EXACT = 1e-5  # of the largest output, in float32
SAMPLES = 3
Row = dict[str, Any]

COLUMNS = {  # key: heading, format
    "model": ("model", "{}"),
    "nodes": ("nodes", "{}"),
    "groups": ("groups", "{}"),
    "node_groups": ("node groups", "{}"),
    "parameters": ("parameters", "{:,}"),
    "prunable_parameters": ("prunable parameters", "{:.1%}"),
    "prunable_macs": ("prunable MACs", "{:.1%}"),
    "kept": ("kept", "{:.3f}"),
    "error": ("error", "{:.0e}"),
    "noise": ("noise", "{:.0e}"),
    "effect": ("effect", "{:.0e}"),
    "sensitivity": ("sensitivity", "{:.0e}"),
    "load": ("load s", "{:.2f}"),
    "analyze": ("analyze s", "{:.3f}"),
    "compress": ("compress s", "{:.2f}"),
    "verify": ("verify s", "{:.2f}"),
    **{f"{peer}_{key}": (f"{peer} {key}", form) for peer in peers.PEERS
       for key, form in (("kept", "{:.3f}"), ("error", "{:.0e}"), ("seconds", "{:.2f}"), ("note", "{}"))},
    "note": ("note", "{}"),
    "fixed": ("what is fixed, mostly", "{}"),
}  # fmt: skip


# --- one model, in a process of its own --------------------------------------------------------------------------


def prepare(name: str, exporter: str, folder: Path) -> tuple[Path, dict[str, np.ndarray] | None]:
    """Exports an architecture, or takes the file as it is; gives its path, and samples of its inputs by name.

    Raises:
        UnavailableError: The architecture can't be exported here.
    """
    if name.endswith(".onnx"):
        return Path(name), None
    try:
        path = zoo.export(name, exporter, folder)
    except torch.onnx.errors.OnnxExporterError as error:
        raise zoo.UnavailableError(root(error)) from error
    draws = [zoo.sample(name, seed) for seed in range(11, 11 + SAMPLES)]
    names = [i.name for i in zoo.architecture(name).inputs]
    return path, dict(zip(names, map(np.stack, zip(*draws, strict=True)), strict=True))


def root(error: BaseException) -> str:
    """The first line of what lies behind an exporter's error."""
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def measure(name: str, exporter: str, folder: Path) -> Row:
    """Takes one model through zig.

    Raises:
        UnavailableError: The architecture can't be exported here.
        ZigError: zig fails on it.
    """
    original, samples = prepare(name, exporter, folder)
    zeroed, small = folder / "zeroed.onnx", folder / "small.onnx"
    watch = Watch()
    graph = zig.load(original)
    watch.lap("load")
    partition = zig.analyze(graph)
    watch.lap("analyze")
    before, bare = zig.cost(partition), zig.cost(partition, np.ones(len(partition), bool))
    plan = zig.prune(partition, 0.5, of="groups", scope="local", criterion="random")
    zig.zero(plan, zeroed)
    watch.lap("")
    report = zig.compress(zeroed, small, check=False)
    watch.lap("compress")
    data = None if samples is None else {n: x for n, x in samples.items() if n in graph.inputs}
    same = zig.verify(zeroed, small, samples=SAMPLES, data=data)
    watch.lap("verify")
    moved = zig.verify(original, zeroed, samples=1, data=data)
    return {
        "nodes": len(graph.nodes),
        "groups": len(partition),
        "node_groups": len(partition.node_groups),
        "parameters": before["parameters"],
        "prunable_parameters": 1 - bare["parameters"] / max(before["parameters"], 1),
        "prunable_macs": 1 - bare["macs"] / max(before["macs"], 1),
        "kept": report.after["parameters"] / max(report.before["parameters"], 1),
        "error": same.max_rel,
        "noise": noise(zeroed, data) if same.max_rel > EXACT and data else None,
        "effect": moved.max_rel,
        "sensitivity": same.sensitivity,
        **watch.laps,
        "note": "; ".join(same.differences[:1]) if same.max_rel > EXACT else "",
        "fixed": mostly_fixed(partition),
        "original": str(original),
    }


def noise(path: Path, samples: Mapping[str, np.ndarray]) -> float:
    """How far the output moves, relative to its size, when the inputs move by a millionth: rounding does as much."""
    shaken = {n: x * (1 + 1e-6 * np.sign(x)) if x.dtype == np.float32 else x for n, x in samples.items()}
    pairs = [{n: x[0].astype(x.dtype) for n, x in data.items()} for data in (samples, shaken)]
    return zoo.apart(*zoo.run(path, pairs))


class Watch:
    """A stopwatch with named laps."""

    def __init__(self) -> None:
        """Starts the first lap."""
        self.laps: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a lap; one without a name is not kept."""
        now = time.perf_counter()
        if name:
            self.laps[name] = now - self._start
        self._start = now


def mostly_fixed(partition: zig.Partition) -> str:
    """The reason that holds the most parameters: those of which no axis can lose anything."""
    fixed = defaultdict[str, dict[int, int]](lambda: defaultdict(int))
    for entry in partition.fixed:
        fixed[entry.tensor][entry.axis] += entry.size
    held: Counter[str] = Counter()
    for entry in partition.fixed:
        dims, axes = partition.graph.initializers[entry.tensor].dims, fixed[entry.tensor]
        if "convolves over this axis" not in entry.reason:  # a kernel's height and width explain nothing
            others = (axes[axis] if size > 1 else 1 for axis, size in enumerate(dims) if axis != entry.axis)
            held[entry.reason] += entry.size * math.prod(others)
    return next((reason for reason, count in held.most_common(1) if count), "")


def child(options: argparse.Namespace) -> Row:
    """What a process of its own does: one model with zig, or with one peer."""
    name, folder = options.names[0], Path(options.child)
    torch.set_num_threads(1)
    if options.tool != "zig":
        return {f"{options.tool}_{key}": value for key, value in peers.PEERS[options.tool](name, folder).items()}
    try:
        return measure(name, options.exporter, folder)
    except zoo.UnavailableError as reason:
        return {"note": f"not exported: {reason}"}
    except (ZigError, AssertionError) as error:
        return {"note": f"{type(error).__name__}: {error}"}


# --- all models --------------------------------------------------------------------------------------------------


def expand(patterns: Iterable[str]) -> list[str]:
    """Names of models: files as they are, `@list`, and wildcards over what the zoo and the libraries know."""
    names: dict[str, None] = {}
    for pattern in patterns:
        library, _, wanted = pattern.rpartition(":")
        if pattern.startswith("@"):
            found = expand(lists.LISTS[pattern[1:]])
        elif pattern.endswith(".onnx") or (library and "*" not in wanted):
            found = [pattern]
        elif library:
            found = [f"{library}:{name}" for name in matching(zoo.names(library), wanted)]
        else:
            found = matching(zoo.ZOO, pattern)
        if not found:
            sys.exit(f"no model is called '{pattern}'")
        names.update(dict.fromkeys(found))
    return list(names)


def run(name: str, tool: str, folder: Path, options: argparse.Namespace) -> Row:
    """One tool on one model, in a process with limits."""
    limits = ("--exporter", options.exporter, "--memory", str(options.memory))
    command = [sys.executable, __file__, name, "--child", str(folder), "--tool", tool, *limits]
    note = "note" if tool == "zig" else f"{tool}_note"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds, check=False)
    except subprocess.TimeoutExpired:
        return {note: f"took more than {options.seconds} s"}
    if done.returncode:
        return {note: complaint(done.stderr) or f"died with code {done.returncode}"}
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def complaint(stderr: str) -> str:
    """The first line that names an error: what came first is what was wrong."""
    return next(
        (line[:200] for line in stderr.splitlines() if re.match(r"[\w.]*(Error|Exception|exception)\b", line)), ""
    )


def take(name: str, options: argparse.Namespace) -> Row:
    """The row of one model."""
    with TemporaryDirectory(dir=options.scratch) as folder:
        row = {"model": name} | run(name, "zig", Path(folder), options)
        for peer in options.peers if "original" in row else ():
            row |= run(name, peer, Path(folder), options)
    return row


def is_exact(row: Row) -> bool:
    """Whether zeroed and compressed agree, but for what rounding does to so nervous a network."""
    return row.get("error", math.inf) <= max(EXACT, row.get("noise") or 0)


def text(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row as people read them."""
    return [form.format(row[key]) if row.get(key) is not None else "" for key, (_, form) in COLUMNS.items()]


def write(rows: list[Row], path: Path) -> None:
    """Writes `path`.csv with plain values and `path`.md with readable ones; columns without an entry are left out."""
    used = [key for key in COLUMNS if any(row.get(key) not in (None, "") for row in rows)]
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, used, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    shown = [list(COLUMNS).index(key) for key in used]
    lines = [[COLUMNS[key][0] for key in used], ["---"] * len(used)]
    lines += [[text(row)[i].replace("|", "/") for i in shown] for row in rows]
    path.with_suffix(".md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def summary(rows: list[Row]) -> str:
    """One line about all rows."""
    exact = [row for row in rows if is_exact(row)]
    absent = sum(str(row.get("note", "")).startswith("not exported") for row in rows)
    kept = np.median([row["kept"] for row in exact]) if exact else math.nan
    prunable = np.median([row["prunable_parameters"] for row in exact]) if exact else math.nan
    return (
        f"{len(rows)} models, {absent} not exported, {len(exact)} of the others exact; median: "
        f"{prunable:.0%} of the parameters can go, {kept:.3f} are left with half of every group"
    )


def main() -> None:
    """Runs the models one after the other, prints a line for each, and writes the table after each."""
    parser = argparse.ArgumentParser(description="Prunes and compresses any list of models.")
    parser.add_argument("names", nargs="*", default=["*"], help="models, wildcards, files or @lists")
    parser.add_argument("--exporter", choices=zoo.EXPORTERS, default="dynamo", help="of torch modules")
    parser.add_argument("--peers", nargs="*", choices=peers.PEERS, help="run peers too; all without a name")
    parser.add_argument("--seconds", type=float, default=600, help="for one model and tool")
    parser.add_argument("--memory", type=float, default=16, help="in GB, for one model and tool")
    parser.add_argument("--scratch", help="a folder with room for the models")
    parser.add_argument("--output", type=Path, default=Path("zoo"), help="the table without its suffix")
    parser.add_argument("--tool", default="zig", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        resource.setrlimit(resource.RLIMIT_DATA, (int(options.memory * 1e9),) * 2)
        print(json.dumps(child(options)))
        return
    options.peers = peers.installed(options.peers)
    rows: list[Row] = []
    for name in expand(options.names):
        rows.append(take(name, options))
        shown = {key: cell for key, cell in zip(COLUMNS, text(rows[-1]), strict=True) if cell}
        print("ok " if is_exact(rows[-1]) else "BAD", "  ".join(f"{k} {c}" for k, c in shown.items()), flush=True)
        write(rows, options.output)
    print(summary(rows))
    sys.exit(not all(is_exact(row) for row in rows if not str(row.get("note", "")).startswith("not exported")))


if __name__ == "__main__":
    main()
