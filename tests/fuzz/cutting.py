"""Whatever network, whatever options: what is pruned can be cut, and the outputs stay the same."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnxruntime
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

import zig
from fuzz.dress import DRESSES, dressed
from fuzz.networks import networks
from zig.errors import ModelError

BATCH = 50  # networks between two looks at the clock
EXACT = 1e-4  # of the largest output; float32 through four cases in another order of summation
_STATE = onnxruntime.capi.onnxruntime_pybind11_state
CANT_RUN = (
    _STATE.Fail, _STATE.InvalidArgument, _STATE.InvalidGraph, _STATE.NotImplemented, _STATE.RuntimeException,
    NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How a network is pruned."""

    forks: str
    rewrite: bool
    ratio: float  # 0: a random half of every node group
    of: str
    scope: str
    criterion: str
    round_to: int
    keep: bool  # one weight, whichever
    dresses: frozenset[str]
    seed: int


OPTIONS = st.builds(
    Options,
    forks=st.sampled_from(["heads", "head_dims", "finest"]),
    rewrite=st.booleans(),
    ratio=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    of=st.sampled_from(["params", "macs", "groups"]),
    scope=st.sampled_from(["global", "local"]),
    criterion=st.sampled_from(["magnitude", "random"]),
    round_to=st.sampled_from([1, 1, 1, 2]),
    keep=st.booleans(),
    dresses=st.frozensets(st.sampled_from(sorted(DRESSES)), max_size=3),
    seed=st.integers(0, 99),
)


def check(model: onnx.ModelProto, options: Options, folder: Path) -> str:
    """Prune, zero, compress by the plan and by the zeros; what became of it, where nothing is wrong.

    Raises:
        AssertionError: something that should be equal is not.
    """
    inputs = graphs.feeds(model, options.seed)
    try:
        full = graphs.run(model, inputs)
    except CANT_RUN:
        return f"does not run, {len(options.dresses)} dresses"
    partition = zig.analyze(model, forks=options.forks, rewrite=options.rewrite)
    if keep := kept(partition, options):
        partition = zig.analyze(model, forks=options.forks, rewrite=options.rewrite, keep=keep)
    plan = planned(partition, options)
    zeroed, small, same = (folder / f"{name}.onnx" for name in ("zeroed", "small", "same"))
    zig.zero(plan, zeroed)
    try:
        wanted = graphs.run(zeroed, inputs)
    except CANT_RUN:
        return "does not run once zeroed"  # a size or index that was computed from weights
    by_plan = zig.compress(model, small, plan, check=False)
    zig.compress(zeroed, same, check=False, rewrite=options.rewrite)
    assert by_plan.removed >= plan.remove.sum(), "not all that was planned went"
    for path in (small, same):
        got = graphs.run(path, inputs)
        apart = graphs.difference(wanted, got)
        if apart > EXACT and steady(zeroed, inputs, wanted, apart):
            raise AssertionError(f"{path.stem}: differs by {apart:.1e} of the largest output")
    if options.seed % 4 == 0:
        verified(zeroed, small, inputs, wanted)
    if not plan.remove.any():
        return "nothing to prune"
    return "pruned" if graphs.difference(full, wanted) > EXACT else "pruned, to no effect"


def verified(full: Path, small: Path, inputs: dict[str, Any], outputs: list[Any]) -> None:
    """Whether our own comparison agrees that nothing has changed."""
    try:
        comparison = zig.verify(full, small, samples=1)
    except ModelError:  # onnxruntime lacks an operator, or makes nothing of the inputs that zig makes up
        return
    if not comparison.equal and steady(full, inputs, outputs, comparison.max_rel):
        raise AssertionError(f"verify finds a difference: {comparison.differences[0]}")


def kept(partition: zig.Partition, options: Options) -> tuple[str, ...]:
    """The pattern of one weight that must stay, or none."""
    weights = sorted({row.tensor for row in partition.rows})
    return (weights[options.seed % len(weights)],) if options.keep and weights else ()


def planned(partition: zig.Partition, options: Options) -> zig.Plan:
    """By the criterion; or, for the ratio 0, a random half of every node group."""
    if not options.ratio:
        return graphs.half(partition, options.seed)
    return zig.prune(
        partition, options.ratio, of=options.of, scope=options.scope, criterion=options.criterion, seed=options.seed,
        round_to=options.round_to,
    )  # fmt: skip


def steady(model: Path, inputs: dict[str, Any], outputs: list[Any], apart: float) -> bool:
    """Whether rounding alone can't make this difference: inputs that are moved a little move the outputs less."""
    random = np.random.default_rng(0)
    for size in (3e-7, 1e-6, 3e-6):
        moved = {
            name: (value * (1 + size * random.standard_normal(value.shape))).astype(value.dtype)
            for name, value in inputs.items()
        }
        if graphs.difference(outputs, graphs.run(model, moved)) > apart / 10:
            return False
    return not any((~np.isfinite(np.asarray(a, np.float64))).any() for a in outputs if np.asarray(a).dtype.kind == "f")


def fuzz(seed: int, seconds: float, keep: Path | None = None, stop: bool = False) -> Counter[str]:
    """Random networks under random options until the time is up, or one fails; what became of them, by its kind.

    What fails is printed, and its network written to the folder `keep`. Hypothesis first makes it small, unless there is
    no such folder.
    """
    found, end = Counter[str](), time.monotonic() + seconds
    while time.monotonic() < end and not (stop and any(kind.startswith("FAILED") for kind in found)):
        _some(seed, found, end, keep)
        seed += 1
    return found


def _some(seed: int, found: Counter[str], end: float, keep: Path | None) -> None:
    """The networks of one seed, up to the first that fails."""
    last: list[tuple[onnx.ModelProto, Options]] = []

    @seeded(seed)
    @settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if keep else [Phase.generate],
        print_blob=False,
    )
    @given(networks(), OPTIONS)
    def one(model: onnx.ModelProto, options: Options) -> None:
        if last and time.monotonic() > end:
            return
        model = dressed(model, options.dresses, options.seed)
        last[:] = [(model, options)]
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            found[check(model, options, Path(folder))] += 1

    try:
        one()
    except Exception as error:
        model, options = last[0]
        found[f"FAILED {type(error).__name__}: {str(error).splitlines()[0][:200]}"] += 1
        print(
            f"seed {seed}: {type(error).__name__}: {error}\n{options}\n{onnx.printer.to_text(model)[:4000]}", flush=True
        )
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            onnx.save(model, keep / f"network-{seed}.onnx")
