"""One model through the public command, and what is wrong with how the command behaved.

Everything runs in this process. `fuzz.sandbox` keeps watch over it from another one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import typer.main
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from zig import cli
from zig.apart import apart
from zig.errors import ModelError

DIFFERENT = 1e-3
HUGE = 1e18  # a number whose square is too large for a float32
LIMIT = 60  # seconds that a command may take
_get_command = functools.cache(typer.main.get_command)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    line: str
    code: int
    out: str
    error: str
    trace: str = ""
    seconds: float = 0.0


def run(*arguments: str) -> Done:
    """Run the command; whatever comes out of it, C++ included, is caught."""
    start = time.monotonic()
    with _captured() as streams:
        trace = ""
        typer.main.get_command = _get_command  # half of the time went into building the parser
        try:
            cli.main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        except BaseException:
            code, trace = 70, traceback.format_exc()
    out, error = (stream.decode(errors="replace") for stream in streams)
    return Done(" ".join(arguments), code, out, error, trace, time.monotonic() - start)


@contextlib.contextmanager
def _captured() -> Iterator[list[bytes]]:
    """Both streams of the process, down to what libraries write by themselves."""
    texts: list[bytes] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        kept = [os.dup(1), os.dup(2)]
        for number, file in enumerate(files, start=1):
            os.dup2(file.fileno(), number)
        python = [stack.enter_context(open(os.dup(n), "w", encoding="utf-8")) for n in (1, 2)]
        with contextlib.redirect_stdout(python[0]), contextlib.redirect_stderr(python[1]):
            try:
                yield texts
            finally:
                for number, stream in enumerate(python, start=1):
                    stream.flush()
                    os.dup2(kept[number - 1], number)
                    os.close(kept[number - 1])
                for file in files:
                    file.seek(0)
                    texts.append(file.read())


def misbehaviour(done: Done) -> str:
    """What is wrong with how a command ended, or with the text that it shows; empty where nothing is."""
    raw = {each for each in done.out + done.error if each != "\n" and not each.isprintable()}
    return _wrong(done) or (f"raw text: {sorted(raw)!r}" if raw else "")


def _wrong(done: Done) -> str:
    if done.trace or "Traceback" in done.error:
        return f"traceback: {_last_line(done.trace or done.error)}"
    if done.seconds > LIMIT:
        return f"hang: {done.seconds:.0f} s"
    if done.code not in (0, 1, 2):
        return f"exit code {done.code}"
    lines = [line for line in done.error.splitlines() if not line.startswith("zig: warning: ")]
    if not done.code:
        return f"noise: {lines[0][:200]}" if lines else ""
    if done.line.startswith("verify") and done.code == 1 and len(lines) <= 1:
        return ""
    if len(lines) != 1 or not lines[0].startswith("zig: error: "):
        return f"not one sentence: {done.error[:300]!r}"
    if "report" in lines[0]:
        return f"caught: {lines[0]}"
    return ""


def _last_line(trace: str) -> str:
    places = [line.strip() for line in trace.splitlines() if line.strip().startswith("File")]
    inside = [place for place in places if f"{os.sep}zig{os.sep}" in place]
    return f"{trace.strip().splitlines()[-1][:200]} @ {(inside or places or [''])[-1]}"


def trial(model: str) -> list[str]:
    """Analyze, prune, compress, verify; all that is wrong, one sentence each.

    `model` lies alone (but for its data) in this process's folder.
    """
    wrong = []
    for line, target in (
        (["analyze", model, "--json"], ""),
        (["analyze", model], ""),
        (["compress", model, "-o", "small.onnx"], "small.onnx"),
        (["prune", model, "-o", "zeroed.onnx", "--ratio", "0.5"], "zeroed.onnx"),
        (["verify", model, model, "--samples", "1"], ""),
    ):
        wrong += _step(line, target)
    if Path("zeroed.onnx").exists():
        wrong += _step(["compress", "zeroed.onnx", "-o", "smaller.onnx"], "smaller.onnx")
    wrong += _silent(model, "small.onnx") + _silent("zeroed.onnx", "smaller.onnx")
    return wrong if _is_finite(model) else [one for one in wrong if "caught: " not in one or "fault of zig" in one]


def _is_finite(model: str) -> bool:
    """Whether all weights can be calculated with: of others zero times infinity is NaN, and the command rightly refuses."""
    return all(bool((sizes < HUGE).all()) for sizes in _sizes_of_weights(model))


def _overflows(model: str) -> bool:
    """Whether any weight is a number so large that it is a matter of the order whether a sum is infinite."""
    return any(bool(((sizes >= HUGE) & (sizes < np.inf)).any()) for sizes in _sizes_of_weights(model))


def _sizes_of_weights(model: str) -> list[Any]:
    """The magnitudes of all float32 weights; none, where they can't be read."""
    try:
        tensors = onnx.load(model).graph.initializer
        return [np.abs(numpy_helper.to_array(tensor)) for tensor in tensors if tensor.data_type == TensorProto.FLOAT]
    except (DecodeError, OSError, ValueError, TypeError, RuntimeError, onnx.checker.ValidationError):
        return []


def _step(line: list[str], target: str) -> list[str]:
    before = set(os.listdir())
    done = run(*line)
    wrong = misbehaviour(done)
    left = {name for name in set(os.listdir()) - before - {target} if not target or not name.startswith(f"{target}.")}
    if left:
        wrong = wrong or f"left behind: {sorted(left)}"
    if target and Path(target).exists() != (done.code == 0):
        wrong = wrong or ("wrote a target though it failed" if done.code else "said all is well, but wrote nothing")
    return [f"{line[0]}: {wrong}"] if wrong else []


def _silent(full: str, small: str) -> list[str]:
    """Whether onnxruntime, without its optimizer, sees a difference that the command did not."""
    if not Path(small).exists() or _overflows(full):
        return []
    try:
        return apart(functools.partial(_differences, full, small), small)
    except ModelError as error:
        return [f"compress: crash: {error}"]


def _differences(full: str, small: str) -> list[str]:
    """What differs; files that onnxruntime can't run count as equal."""
    try:
        first = _session(full)
        feeds = _feeds(first)
        wanted = first.run(None, feeds)
    except Exception:
        return []  # the command could not have compared either; that it said so is checked above
    try:
        got = _session(small).run(None, feeds)
    except Exception as error:
        return [f"compress: silently wrong: {small} does not run: {str(error)[:200]}"]
    return [
        f"compress: silently wrong: output {i} of {small} differs"
        for i, (a, b) in enumerate(zip(wanted, got, strict=True))
        if not _same(a, b)
    ]


def _session(model: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _feeds(session: Any) -> dict[str, Any]:
    """Other inputs than those of `zig.inputs`: uniform floats, small integers, symbols of size 3."""
    random, feeds = np.random.default_rng(1), {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 3 for size in value.shape]
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
        if dtype.kind == "f":
            feeds[value.name] = random.uniform(-2, 2, shape).astype(dtype)
        else:
            feeds[value.name] = random.integers(0, 2, shape).astype(dtype)
    return feeds


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc":
        return bool(np.array_equal(a, b))
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not finite.any():
        return bool(not finite.any())
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.abs(a[finite].astype(np.float64)).max(initial=0)
        gap = np.abs(a[finite].astype(np.float64) - b[finite]).max(initial=0)
    return bool(gap <= DIFFERENT * scale + 1e-5)
