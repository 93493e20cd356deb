"""The `zig` command: every command is a thin call into the library.

Results go to stdout (only JSON with `--json`), everything else to stderr. Exit code 0 is success, 1 a job that failed
(outputs differ, nothing to remove with `--strict`), 2 wrong use or unreadable input; 130 Ctrl-C, 143 SIGTERM and 129
SIGHUP, which leave nothing half-written. A stdout that is closed or full fails only what has no other result, such as
`analyze`; if its reader has had enough, that ends with 141 and without a word. An error is one sentence; `--debug` adds
the traceback. Imports stand inside the functions, so that a command loads only what it needs.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from zig.errors import UsageError, VerifyError, ZigError, ZigWarning
from zig.host.atomic import checked
from zig.host.packages import importing
from zig.host.process import INTERRUPTED, UNREAD, Terminated, ending, kept, streams
from zig.printable import cell, printable, sentence

if TYPE_CHECKING:
    from rich.table import Table

    from zig.groups.explain import Change, Why
    from zig.groups.partition import Partition
    from zig.proof.verify import Comparison
    from zig.surgery.compress import Report

SHOWN = 40  # lines of a table for people; --json has them all


class Forks(str, Enum):
    """How the two sides of a split axis are pruned."""

    heads = "heads"
    head_dims = "head_dims"
    finest = "finest"


class Of(str, Enum):
    """What a ratio is a share of."""

    params = "params"
    macs = "macs"
    groups = "groups"


class Criterion(str, Enum):
    """What makes a group important."""

    magnitude = "magnitude"
    random = "random"


class Backend(str, Enum):
    """Where a search scores its candidates."""

    loky = "loky"
    dask = "dask"
    ray = "ray"


class Scope(str, Enum):
    """Where groups compete."""

    global_ = "global"
    local = "local"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Target = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The file to write.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
Keep = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads the annotation at run time on Python 3.10 too
    typer.Option(
        "--keep", metavar="PATTERN", help="Never prune initializers of this name (* and ? match); repeatable."
    ),
]
Rewrite = Annotated[
    bool,
    typer.Option(
        "--allow-rewrite", help="Free streams under LayerNormalization: each is then written out in ten small nodes."
    ),
]
FreezeInputs = Annotated[
    bool,
    typer.Option(
        "--freeze-inputs",
        help="Nobody overrides a weight that is listed as an input too: prune it, and list it no more.",
    ),
]
ForksOption = Annotated[Forks, typer.Option("--forks", help="What goes together where an axis is split, as for heads.")]
Picture = Optional[Path]  # noqa: UP045 - as above
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Samples = Annotated[int, typer.Option("--samples", min=1, help="How many inputs to run.")]
Rtol = Annotated[
    Optional[float],  # noqa: UP045 - as above
    typer.Option(
        "--rtol",
        min=0,
        help="Allowed difference, as a share of the largest output: 1e-4; 5e-3 in half precision or if quantised.",
    ),
]
Atol = Annotated[float, typer.Option("--atol", min=0, help="Allowed absolute difference.")]
Data = Annotated[
    Optional[Path],  # noqa: UP045 - as above
    typer.Option("--data", metavar="NPZ", help="Real inputs by name, samples along the first axis; else random ones."),
]
Provider = Annotated[str, typer.Option("--provider", help="Where onnxruntime runs: cpu, cuda, ...")]

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of the run.", show_default=False)]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from what the run has saved, or begin where there is nothing.")
]
Smoke = Annotated[bool, typer.Option("--smoke", help="Try it all in a minute, on a small stand-in for the data.")]

app = typer.Typer(
    help="Prunes neural networks exactly, from the ONNX file.",
    epilog="Example: zig compress model.onnx -o small.onnx",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # what is wrong with a model is for zig to say, once
    warnings.filterwarnings("ignore", module="onnx")
    # Taken out here so that it may stand anywhere on the line.
    debug = "--debug" in given
    sys.exit(_ended([argument for argument in given if argument != "--debug"] or ["--help"], debug))


def _ended(arguments: list[str], debug: bool) -> int:
    """Exit code of a command line, by what became of the job and of what it printed."""
    with streams() as out:
        with ending():
            code = _run(arguments, debug)
        out.flush()
        if out.failure is None:
            return code
        if isinstance(out.failure, BrokenPipeError):  # nobody wants to read more
            return code if out.kept or code else UNREAD
        level = "warning" if out.kept else "error"
        print(f"zig: {level}: stdout can't be written: {out.failure.strerror or out.failure}", file=sys.stderr)
        return code if out.kept or code else UsageError.exit_code


def _run(arguments: list[str], debug: bool) -> int:
    """Exit code of a command line; an error becomes one sentence on stderr."""
    # typer carries a copy of click or depends on it, according to its version; this is its usage error in both.
    misuse: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        with importing(f"zig {arguments[0]}"), _warnings_as_sentences():
            return int(app(arguments, prog_name="zig", standalone_mode=False) or 0)
    except Terminated as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except ImportError as error:  # what an interrupt becomes while a compiled module loads
        if isinstance(error.__cause__, Terminated):
            return error.__cause__.exit_code
        if isinstance(error.__cause__, KeyboardInterrupt):
            return INTERRUPTED
        raise
    except (ZigError, OSError, MemoryError, misuse) as error:
        if debug:
            raise
        print(f"zig: error: {_sentence(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, ZigError) else 1 if isinstance(error, MemoryError) else 2
    except Exception as error:
        if debug:
            raise
        what = sentence(f"{type(error).__name__}: {error}")
        print(f"zig: error: this is a fault of zig ({what}); please report it with what --debug adds", file=sys.stderr)
        return 1


def _sentence(error: BaseException) -> str:
    """One plain sentence on one line."""
    if isinstance(error, MemoryError):
        return "not enough memory for this model on this machine"
    if isinstance(error, OSError):
        return sentence(f"{error.filename}: {error.strerror}" if error.filename else error)
    if isinstance(error, ZigError):
        return str(error)
    message = sentence(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    return f"{message[:1].lower()}{message[1:]}; see --help"


def _version(wanted: bool) -> None:
    if wanted:
        import zig

        print(zig.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Prunes neural networks exactly, from the ONNX file."""
    del version, debug  # the one has its callback, main() has taken the other; here they are declared for the help


@app.command(epilog="Example: zig analyze model.onnx --svg groups.svg")
def analyze(
    model: Model,
    as_json: Json = False,
    forks: ForksOption = Forks.heads,
    keep: Keep = None,
    rewrite: Rewrite = False,
    freeze_inputs: FreezeInputs = False,
    why: Annotated[
        Optional[str],  # noqa: UP045 - as above
        typer.Option("--why", metavar="TENSOR", help="Say why this weight can't be pruned, and what would free it."),
    ] = None,
    diff: Annotated[
        Picture,
        typer.Option("--diff", metavar="A", help="Compare with the groups of another model, which comes first."),
    ] = None,
    svg: Annotated[Picture, typer.Option("--svg", metavar="FILE", help="Draw the groups as SVG (graphviz).")] = None,
    pdf: Annotated[Picture, typer.Option("--pdf", metavar="FILE", help="Draw the groups as PDF (graphviz).")] = None,
    dot: Annotated[Picture, typer.Option("--dot", metavar="FILE", help="Write the drawing as graphviz text.")] = None,
) -> None:
    """Show what can be pruned, what can't, and why."""
    with _loading():
        import zig.groups.partition

    if why is not None and diff is not None:
        raise UsageError("--why and --diff are two questions; ask one at a time")
    pictures = [(form, target) for form, target in (("svg", svg), ("pdf", pdf), ("dot", dot)) if target]
    for _, target in pictures:
        checked(target)
    partition = zig.analyze(
        model, forks=forks.value, keep=tuple(keep or ()), rewrite=rewrite, freeze_inputs=freeze_inputs
    )
    if why is not None:
        reasons = zig.why(partition, why)
        _print_json([reason._asdict() for reason in reasons]) if as_json else _show_reasons(why, reasons)
        return
    if diff is not None:
        first = zig.analyze(diff, forks=forks.value, rewrite=rewrite, freeze_inputs=freeze_inputs)
        changes = zig.diff(first, partition)
        _print_json([change._asdict() for change in changes]) if as_json else _show_changes(diff, model, changes)
        return
    for form, target in pictures:
        _draw(partition, target, form)
        kept()
    summary = zig.summary(partition)
    if as_json:
        _print_json(summary)
    else:
        _show_summary(str(model), summary)


@app.command(epilog="Example: zig prune model.onnx -o zeroed.onnx --ratio 0.5 --of macs")
def prune(
    model: Model,
    output: Target,
    ratio: Annotated[float, typer.Option("--ratio", help="The share to remove, between 0 and 1.", show_default=False)],
    of: Annotated[
        Optional[Of],  # noqa: UP045 - as above
        typer.Option("--of", help="What the ratio is a share of: params, or groups where the scope is local."),
    ] = None,
    criterion: Annotated[
        Criterion, typer.Option("--criterion", help="What makes a group important.")
    ] = Criterion.magnitude,
    scope: Annotated[
        Scope, typer.Option("--scope", help="Where groups compete; local: in each node group.")
    ] = Scope.global_,
    round_to: Annotated[int, typer.Option("--round-to", min=1, help="Keep widths multiples of this number.")] = 1,
    seed: Seed = 0,
    forks: ForksOption = Forks.heads,
    keep: Keep = None,
    rewrite: Rewrite = False,
    freeze_inputs: FreezeInputs = False,
    as_json: Json = False,
) -> None:
    """Zero the least important groups.

    The file keeps its shape; `zig compress` then makes it small.
    """
    with _loading():
        import zig.surgery.compress
        from zig.plan import default_measure

    if not 0 < ratio < 1:
        raise UsageError(f"--ratio is {ratio:g}; give a share between 0 and 1, such as 0.5")
    _check_model(output)
    partition = zig.analyze(
        model, forks=forks.value, keep=tuple(keep or ()), rewrite=rewrite, freeze_inputs=freeze_inputs
    )
    measure = of.value if of else default_measure(scope.value)
    plan = zig.prune(
        partition,
        ratio=ratio,
        of=measure,
        criterion=criterion.value,
        scope=scope.value,
        seed=seed,
        round_to=round_to,
    )
    zig.zero(plan, output)
    kept()
    reached = plan.reached[measure]
    if reached < ratio and plan.remove.sum() == len(partition) - len(partition.node_groups):
        _warn([f"only {reached:.1%} of {measure} can go, not {ratio:.1%}: the rest is fixed, `zig analyze` says why"])
    if reached > ratio and 0 < plan.idle == plan.remove.sum():
        _warn([f"{reached:.1%} of {measure} go, not {ratio:.1%}: so much does nothing as the weights are"])
    if not plan.remove.any():
        _warn([f"no group is zeroed: a share of {ratio:g} is less than one group"] if len(partition) else [])
    before, after = zig.cost(partition), zig.cost(partition, plan.remove)
    removed, groups = int(plan.remove.sum()), len(partition)
    if as_json:
        _print_json({"output": str(output), "removed": removed, "groups": groups, "before": before, "after": after})
        return
    _show_change(f"{output}: {removed} of {groups} groups zeroed", before, after, last="once compressed")


@app.command(epilog="Example: zig compress zeroed.onnx -o small.onnx")
def compress(
    model: Model,
    output: Target,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Take weights up to this size for zero.")
    ] = 0.0,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare the outputs before writing.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where no group can be removed.")] = False,
    rewrite: Rewrite = False,
    freeze_inputs: FreezeInputs = False,
    samples: Samples = 3,
    seed: Seed = 0,
    rtol: Rtol = None,
    atol: Atol = 1e-5,
    data: Data = None,
    provider: Provider = "cpu",
    as_json: Json = False,
) -> None:
    """Remove every group that is zero.

    The outputs are compared before anything is written.
    """
    with _loading():
        import zig.surgery.compress

    _check_model(output)
    report = zig.compress(
        model,
        output,
        tolerance=tolerance,
        check=verify,
        strict=strict,
        rewrite=rewrite,
        freeze_inputs=freeze_inputs,
        samples=samples,
        seed=seed,
        rtol=rtol,
        atol=atol,
        data=data,
        provider=provider,
        alone=True,
    )
    kept()
    _warn(report.comparison.warnings if report.comparison else [])
    _warn([f"not verified: {report.unverified}"] if report.unverified else [])
    if not report.removed:
        _warn(["no group is zero, so nothing was removed; what was pruned with --allow-rewrite needs it here too"])
    if as_json:
        _print_json(report.to_dict())
    else:
        _show_report(str(output), report)


@app.command(epilog="Example: zig verify model.onnx small.onnx --samples 5")
def verify(
    a: Annotated[Path, typer.Argument(metavar="A", help="The reference.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The model that must agree with it.", show_default=False)],
    samples: Samples = 3,
    seed: Seed = 0,
    rtol: Rtol = None,
    atol: Atol = 1e-5,
    data: Data = None,
    provider: Provider = "cpu",
    as_json: Json = False,
) -> None:
    """Compare the outputs of two models.

    Both run on the same inputs under onnxruntime.
    """
    from zig.proof.verify import verify as compare

    comparison = compare(
        a, b, samples=samples, seed=seed, rtol=rtol, atol=atol, data=data, provider=provider, alone=True
    )
    kept()  # the exit code says whether they agree
    _warn(comparison.warnings)
    if as_json:
        _print_json(comparison.to_dict())
    else:
        _show_comparison(comparison)
    if not comparison.equal:
        if comparison.nothing:
            raise VerifyError(f"{a} and {b}: {comparison.nothing}; give real inputs by --data FILE.npz")
        raise VerifyError(f"{a} and {b} differ: {comparison.differences[0]}")


@app.command(epilog="Example: zig operators --json")
def operators(as_json: Json = False) -> None:
    """List the operators that zig knows.

    For each its versions, its rule, and why what can't be pruned is fixed.
    """
    from zig.operators import table

    rows = table()
    if as_json:
        _print_json(rows)
    else:
        _show([_table(["operator", "versions", "rule", "fixed"], [list(map(str, row.values())) for row in rows])])


@app.command(epilog="Example: zig demo --out zig-demo")
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to leave the files.")] = Path("zig-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer epochs: shows the way, not the accuracy.")] = False,
) -> None:
    """Train, compress and verify on real data.

    A small residual network learns to read handwriting; files, a report and a picture are left in DIR.
    """
    with _training("demo"):
        from zig.app.scene.sketch import sketch
        from zig.training.demo import run
    kept()
    run(out, quick=quick, sketch=sketch)


@app.command(epilog="Example: zig train samples/configs/digits.yml")
def train(
    config: Config,
    smoke: Smoke = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train and prune at once, as a file says.

    Both models are then measured on held-out data under onnxruntime. Several processes are started by torchrun.
    """
    with _training("train"):
        from zig.runs.train import train as run
    _show_run(run(config, smoke=smoke, resume=resume), as_json)


@app.command(epilog="Example: zig prune-checkpoint samples/configs/digits.yml runs/digits/checkpoint.pt --out pruned")
def prune_checkpoint(
    config: Config,
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint, a state dict, or a folder of transformers."),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045 - as above
        typer.Option("--out", metavar="DIR", help="Where to leave the files; by default the run's folder."),
    ] = None,
    smoke: Smoke = False,
    as_json: Json = False,
) -> None:
    """Cut the zero groups out of a trained network.

    It is measured before and after, on the held-out data of the run's file.
    """
    with _training("prune-checkpoint"):
        from zig.runs.train import prune_checkpoint as run
    _show_run(run(config, checkpoint, out=out, smoke=smoke), as_json)


@app.command(epilog="Example: zig search samples/configs/search_onestep.yml --backend dask --address tcp://host:8786")
def search(
    config: Config,
    smoke: Smoke = False,
    resume: Resume = False,
    backend: Annotated[
        Optional[Backend],  # noqa: UP045 - as above
        typer.Option("--backend", help="Where candidates are scored, in place of method.backend."),
    ] = None,
    address: Annotated[
        Optional[str],  # noqa: UP045 - as above
        typer.Option("--address", metavar="URL", help="Of Dask's scheduler or Ray's cluster, as tcp://host:8786."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for a small network, as a file says.

    Iterative, one-step or once-for-all pruning; what is left is retrained and compared with the whole network under
    onnxruntime. report.html shows how the search went.
    """
    with _training("search"):
        from zig.search.run import search as run
    chosen: Any = backend.value if backend else None
    _show_run(run(config, smoke=smoke, resume=resume, backend=chosen, address=address), as_json)


@app.command(epilog="Example: zig view model.onnx --port 8600")
def view(
    model: Annotated[
        Optional[Path],  # noqa: UP045 - as above
        typer.Argument(metavar="[MODEL]", help="An ONNX file, or a folder of them; by default this folder."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where to listen.")] = 8501,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
) -> int:
    """Open the app.

    It shows the graph, its groups and what pruning would do, in a browser on this machine. It opens files of the
    model's folder only.
    """
    from zig.app.launch import launch

    kept()
    return int(launch(model or Path(), port, headless))


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Imports whose many objects the garbage collector leaves alone, now and for good: a fifth of a short command."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _check_model(target: Path) -> None:
    """Refuse to write a model where none can be written, before any work is done."""
    from zig.model.reading import check_target

    check_target(target)
    checked(target)


def _training(command: str) -> contextlib.AbstractContextManager[None]:
    """Say what to install for a command that trains."""
    return importing(f"zig {command}", "'onnx-zig[train]'")


def _draw(partition: Partition, target: Path, form: str) -> None:
    from zig.app.scene.sketch import sketch
    from zig.groups.picture import draw

    message = draw(partition, target, form, sketch)
    if message:
        print(f"zig: {sentence(message)}", file=sys.stderr)


@contextlib.contextmanager
def _warnings_as_sentences() -> Iterator[None]:
    """What the library warns of is printed, at once, as the command's own warnings are; others' stay as they are."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, ZigWarning):
                _warn([str(message)])
            else:
                others(message, category, *place)

        warnings.showwarning = show  # type: ignore[assignment]
        warnings.simplefilter("always", ZigWarning)
        yield


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"zig: warning: {sentence(warning)}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _show_summary(name: str, summary: dict[str, Any]) -> None:
    total, prunable = summary["parameters"], summary["prunable_parameters"]
    share = f"{prunable / total:.0%}" if total else "none"
    facts = [
        ["nodes", f"{summary['nodes']:,}"],
        ["parameters", f"{_short(total)} ({share} in groups)"],
        ["MACs", _short(summary["macs"])],
        ["groups", f"{summary['groups']:,} in {len(summary['node_groups'])} node groups"],
        ["analysed in", f"{1000 * summary['seconds']:.0f} ms"],
    ]
    groups = [
        [str(group["id"]), group["name"], str(group["size"]), _places(group["members"]), _places(group["dependents"])]
        for group in summary["node_groups"]
    ]
    _show(
        [
            _table(["", name], facts),
            _table(["id", "node group", "width", "members", "dependents"], groups),
            _table(["fixed because", "axes", "first"], _reasons(summary["fixed"])),
        ]
    )
    if summary["unknown_operators"]:
        unknown = ", ".join(summary["unknown_operators"])
        _warn([f"unknown operators: {unknown}; what touches them is fixed, unless zig.analyze(operators=) gets rows"])


def _show_reasons(tensor: str, reasons: list[Why]) -> None:
    if not reasons:
        print(f"{cell(tensor)} can be pruned along all of its axes.")
    for why in reasons:
        print(f"{cell(tensor)} axis {why.axis}, {why.size} indices: {cell(why.reason)}")
        way = [*why.chain, why.node] if why.node and why.node not in why.chain else why.chain
        if way:
            print(f"  on the way: {' -> '.join(map(cell, way))}")
        print(f"  what would free them: {why.advice}")


def _show_changes(first: Path, second: Path, changes: list[Change]) -> None:
    if not changes:
        print(f"{printable(str(first))} and {printable(str(second))} have the same groups.")
        return
    rows = [[change.name, str(change.before or "-"), str(change.after or "-")] for change in changes]
    _show([_table(["node group", str(first), str(second)], rows)])


def _reasons(fixed: list[dict[str, Any]]) -> list[list[str]]:
    """Each kind of reason once: how many axes it fixes, and the first of them with its node."""
    axes: dict[str, list[str]] = {}
    for entry in fixed:
        kind = entry["reason"].replace(f" '{entry['node']}'", "")
        place = f"{entry['tensor']} axis {entry['axis']}"
        axes.setdefault(kind, []).append(f"{place} ({entry['node']})" if entry["node"] else place)
    return [[kind, str(len(places)), places[0]] for kind, places in axes.items()]


def _places(entries: list[dict[str, Any]]) -> str:
    """The first tensors of a node group, and how many more there are."""
    named = ", ".join(f"{entry['tensor']}:{entry['axis']}" for entry in entries[:2])
    return f"{named}, +{len(entries) - 2}" if len(entries) > 2 else named


def _show_change(title: str, before: dict[str, Any], after: dict[str, Any], last: str = "after") -> None:
    rows = [
        [
            name,
            _short(before[name]),
            _short(after[name]),
            f"{1 - after[name] / before[name]:.1%}" if before[name] else "",
        ]
        for name in before
    ]
    _show([_table([title, "before", last, "less"], rows)])


def _show_report(name: str, report: Report) -> None:
    _show_change(f"{name}: {report.removed} of {report.groups} groups removed", report.before, report.after)
    changed = [[title, str(old), str(new)] for title, old, new in report.widths if old != new]
    _show([_table(["node group", "before", "after"], changed)] if changed else [])
    if report.comparison:
        _show_comparison(report.comparison)


def _show_run(report: dict[str, Any], as_json: bool) -> None:
    """What a run has reached; a process that is not the first has no report."""
    from zig.runs.result import table

    kept()
    if report and as_json:
        _print_json(report)
    elif report:
        _warn(report["warnings"])
        _show([table(report)])


def _show_comparison(comparison: Comparison) -> None:
    inside = [replace(output, name=f"{output.name} (inside)") for output in comparison.inside]
    rows = [
        [
            output.name,
            "x".join(map(str, output.shape)) or "scalar",
            f"{output.max_abs:.2e}",
            f"{output.max_rel:.2e}",
            f"{output.sensitivity:.2g}",
            "equal" if output.equal else "DIFFERENT" if output.compared else "nothing compared",
        ]
        for output in [*comparison.outputs, *inside]
    ]
    steps = f" of {comparison.steps} steps" if comparison.steps > 1 else ""
    title = f"{'equal' if comparison.equal else 'different'} on {comparison.samples} samples{steps}"
    _show([_table([title, "shape", "max |a-b|", "/ max |a|", "moves by", ""], rows)])


def _short(number: float) -> str:
    """A count for people: 11.7 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"


def _table(header: list[str], rows: list[list[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=f"{len(rows) - SHOWN} more; see --json" if len(rows) > SHOWN else None)
    for title in header:
        table.add_column(cell(title), overflow="fold")
    for row in rows[:SHOWN]:
        table.add_row(*map(cell, row))
    return table


def _show(tables: list[Table]) -> None:
    from rich.console import Console

    # A pipe or a file has no width; names must not be cut there.
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    for table in tables:
        if table.row_count:
            console.print(table)
