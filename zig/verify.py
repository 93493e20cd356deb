"""Do two models compute the same? onnxruntime says (the only file that imports it).

Both models get the same inputs: real ones from a `.npz` file, or random ones made from the models' own declarations.
Each output `a` of the first and `b` of the second model must satisfy

    max |a - b| <= atol + rtol * max |a|        over the output's finite values, in float64

with NaN and infinities at the same places; integers, booleans and strings must be identical. A comparison on inputs
to which the outputs hardly react says nothing, so their movement between two inputs is measured too.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zig.errors import ModelError, UsageError, VerifyError
from zig.inputs import GUESSES, Array, Data, Feeds, Input, Sizes, joint, random_feeds, real_feeds

if TYPE_CHECKING:
    import onnx

Source: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto"

INSENSITIVE = 1e-3  # outputs that move less than this share of their largest value can hide any damage


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """What became of one output over all samples."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    equal: bool
    max_abs: float
    max_rel: float
    sensitivity: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on two models.

    Attributes:
        equal: Whether every output of every sample agrees.
        max_abs: Largest absolute difference of any output; infinite where outputs can't be compared.
        max_rel: Largest difference of an output divided by its largest magnitude.
        sensitivity: How far the least sensitive output of the first model moves between two inputs, as a share of its
            largest magnitude; nan where only one sample was given.
        outputs: One entry for each output.
        samples: How many inputs were run.
        rtol: Relative tolerance used.
        atol: Absolute tolerance used.
        differences: One sentence for each way in which the models differ.
        warnings: What makes the comparison weaker than it looks.
    """

    equal: bool
    max_abs: float
    max_rel: float
    sensitivity: float
    outputs: list[OutputComparison]
    samples: int
    rtol: float
    atol: float
    differences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values; a number that isn't finite becomes None."""
        content: dict[str, Any] = _finite(asdict(self))
        return content


def verify(  # noqa: PLR0913 - each one is an option of the command
    a: Source,
    b: Source,
    *,
    samples: int = 3,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    data: Data | None = None,
    provider: str = "cpu",
    folder: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Run two models on the same inputs under onnxruntime and compare their outputs.

    Args:
        a: The reference model: a file, or a model in memory.
        b: The model that must agree with it.
        samples: How many random inputs to run, or how many of the samples in `data`.
        seed: Seed of the random inputs.
        rtol: Allowed difference as a share of an output's largest magnitude.
        atol: Allowed absolute difference.
        data: Real inputs, a `.npz` file or a mapping, by input name. An array has one axis more than the input it is
            for: `array[i]` is sample `i`, batch axis included. An array of the input's own rank is a single sample.
        provider: Where to run: "cpu", "cuda" or another provider of the installed onnxruntime.
        folder: Where the external data of a model in memory lies.

    Returns:
        The verdict, with every difference as a sentence.

    Raises:
        ModelError: A model can't be read, or onnxruntime refuses it or every input that was made for it.
        UsageError: The provider is missing here, or `data` doesn't fit the inputs.
        VerifyError: The second model breaks down on an input that the first accepts.
    """
    if samples < 1:
        raise UsageError(f"samples is {samples}; give at least 1")
    first = Session(a, provider, folder=folder)
    second = Session(b, provider, folder=folder)
    differences = _interface_differences(first, second)
    if differences:
        return Comparison(False, math.inf, math.inf, math.nan, [], 0, rtol, atol, differences)
    feeds, sampled = _inputs(first, second, samples, seed, data)
    return _judge(_Tally(first.name, second.name, rtol, atol), first, second, feeds, sampled)


def latency(source: Source, *, runs: int = 30, seed: int = 0, provider: str = "cpu") -> float:
    """Median time of one run on one thread with a batch of one, in milliseconds.

    Args:
        source: The model.
        runs: How many runs to time, after three that are not.
        seed: Seed of the random input.
        provider: Where to run.

    Raises:
        ModelError: The model can't be read, or onnxruntime refuses it.
    """
    session = Session(source, provider, threads=1)
    feeds, _ = _accepted(session, session.inputs, seed, [guess._replace(batch=1) for guess in GUESSES])
    for _ in range(3):
        session.run(feeds)
    return 1000 * statistics.median(_seconds(session, feeds) for _ in range(runs))


class Session:
    """A model loaded in onnxruntime, quiet, with errors in plain words."""

    def __init__(
        self,
        source: Source,
        provider: str = "cpu",
        *,
        threads: int | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Load `source`; see `verify` for what the arguments mean.

        Raises:
            ModelError: The model can't be read, or onnxruntime refuses it.
            UsageError: The provider is missing here.
        """
        import onnxruntime  # noqa: TID251, PLC0415 - the one place; it costs 0.1 s and only two commands need it

        onnxruntime.set_default_logger_severity(4)
        self.name, model = _named(source)
        wanted = _provider(provider, onnxruntime)
        options = _session_options(onnxruntime, threads, folder)
        with _in_plain_words(f"{self.name}: onnxruntime refuses the model"):
            # Without fallback: a provider that can't start must be an error, not a line on stdout and a CPU run.
            self._session = onnxruntime.InferenceSession(model, options, providers=wanted, enable_fallback=False)
        if isinstance(model, str):
            _check_inside(Path(model))
        if self._session.get_providers()[0] != wanted[0][0]:
            raise UsageError(f"onnxruntime can't start {wanted[0][0]} on this machine; use --provider cpu")
        declared = self._session.get_inputs()
        self.inputs = {value.name: Input(value.name, value.type, tuple(value.shape)) for value in declared}
        self.output_names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name; the parts of a sequence or map become outputs of their own.

        Raises:
            ModelError: onnxruntime refuses the inputs.
        """
        with _in_plain_words(f"{self.name}: onnxruntime refuses the input"):
            values = self._session.run(None, feeds)
        pairs = zip(self.output_names, values, strict=True)
        return dict(part for name, value in pairs for part in _parts(name, value))


def _named(source: Source) -> tuple[str, str | bytes]:
    """What to call a model in messages, and what onnxruntime takes for it."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        _check_readable(path)
        return str(path), str(path)
    return source.graph.name or "the model in memory", source.SerializeToString()


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():
        raise ModelError(f"{path}: not a file; give the path of an .onnx file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty; export the model again")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path}: not readable; check its permissions")


def _check_inside(path: Path) -> None:
    """Refuse external data outside the model's folder, which onnxruntime 1.23 (the last for Python 3.10) reads."""
    import onnx  # noqa: PLC0415 - `zig verify` alone needs it

    if path.suffix == ".ort":  # onnxruntime's own format has no external data
        return
    folder = path.parent.resolve()
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
        if location is not None and folder not in (folder / location).resolve().parents:
            where = f"keeps its data in '{location}', outside the model's folder"
            raise ModelError(f"{path}: tensor '{tensor.name}' {where}; put the data file beside the model")


def _provider(name: str, onnxruntime: Any) -> list[tuple[str, dict[str, str]]]:
    """Providers and their options for `name`, which is what stands before "ExecutionProvider", in any case."""
    known = {full.removesuffix("ExecutionProvider").lower(): full for full in onnxruntime.get_available_providers()}
    if name.lower() not in known:
        have = ", ".join(sorted(known))
        raise UsageError(f"provider '{name}' is not part of the onnxruntime installed here; choose one of {have}")
    if name.lower() == "cuda":
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it doesn't find; the session tells us anyway
            onnxruntime.preload_dlls()
    full = known[name.lower()]
    # TF32 keeps 10 bits of mantissa, too few to tell two models apart.
    return [(full, {"use_tf32": "0"} if name.lower() == "cuda" else {})]


def _session_options(onnxruntime: Any, threads: int | None, folder: str | os.PathLike[str] | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # A number of its own keeps onnxruntime from pinning threads to cores that a container may not have.
    options.intra_op_num_threads = threads or min(8, os.cpu_count() or 1)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.fspath(folder))
    return options


@contextlib.contextmanager
def _in_plain_words(what: str) -> Iterator[None]:
    """Turn onnxruntime's refusals into ModelError."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: TID251, PLC0415 - as in Session

    # Its exceptions have no common base class below Exception.
    known = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    refusals: tuple[type[Exception], ...] = (*known, RuntimeError, ValueError)
    try:
        yield
    except refusals as error:
        raise ModelError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The message of onnxruntime without its code, its file names and its line breaks."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"\S+\.(cc|h):\d+ [\w:~<>]+(\(\))? ?", "", text)
    return " ".join(text.split())[:300].rstrip(".")


def _parts(name: str, value: Any) -> Iterator[tuple[str, Array]]:
    """An output as arrays: itself, or the elements of a sequence or map."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from _parts(f"{name}[{index}]", element)
    elif isinstance(value, dict):
        for key, element in value.items():
            yield from _parts(f"{name}[{key!r}]", element)
    else:
        yield name, np.asarray(value)


def _interface_differences(a: Session, b: Session) -> list[str]:
    """Sentences on inputs and outputs that one model has and the other has not, or declares otherwise."""
    found = [
        f"{lacking.name} lacks the {kind} '{name}' of {having.name}"
        for kind, names in (("input", lambda s: list(s.inputs)), ("output", lambda s: s.output_names))
        for having, lacking in ((a, b), (b, a))
        for name in names(having)
        if name not in names(lacking)
    ]
    for name in [name for name in a.inputs if name in b.inputs]:
        one, other = a.inputs[name], b.inputs[name]
        if one.type != other.type:
            found.append(f"input '{name}' is {one.type} in {a.name} and {other.type} in {b.name}")
        elif not _compatible(one.shape, other.shape):
            found.append(f"input '{name}' is {list(one.shape)} in {a.name} and {list(other.shape)} in {b.name}")
    return found


def _compatible(a: Sequence[int | str | None], b: Sequence[int | str | None]) -> bool:
    """Whether one array can have both shapes."""
    clash = any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(a, b, strict=False))
    return len(a) == len(b) and not clash


def _inputs(a: Session, b: Session, samples: int, seed: int, data: Data | None) -> tuple[list[Feeds], bool]:
    """The inputs to run, and whether a second one is there to measure how the outputs react."""
    if data is not None:
        feeds = real_feeds(a.name, a.inputs, data)[:samples]
        return feeds, len(feeds) > 1
    inputs = joint(a.inputs, b.inputs)
    first, sizes = _accepted(a, inputs, seed, GUESSES)
    more = [random_feeds(a.name, inputs, sizes, seed, index) for index in range(1, max(samples, 2))]
    return [first, *more], bool(inputs)


def _accepted(
    session: Session, inputs: Mapping[str, Input], seed: int, guesses: Iterable[Sizes]
) -> tuple[Feeds, Sizes]:
    """Random inputs that onnxruntime accepts for a model, and the sizes that made them."""
    refused: ModelError | None = None
    for sizes in guesses:
        feeds = random_feeds(session.name, inputs, sizes, seed, 0)
        try:
            session.run(feeds)
        except ModelError as error:
            refused = refused or error
        else:
            return feeds, sizes
    raise ModelError(f"{refused}; no random input works, so give real ones by --data FILE.npz") from refused


@dataclass(slots=True)
class _Tally:
    """What is known of each output so far, sample by sample."""

    a: str
    b: str
    rtol: float
    atol: float
    outputs: dict[str, OutputComparison] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)
    undefined: dict[str, None] = field(default_factory=dict)

    def add(self, ours: dict[str, Array], theirs: dict[str, Array], reference: dict[str, Array]) -> None:
        """Count in one sample: outputs of both models, and those of the first model on the first sample."""
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name not in ours or name not in theirs:
                owner, other = (self.a, self.b) if name in ours else (self.b, self.a)
                self.differences.setdefault(name, f"output '{name}' of {owner} has no counterpart in {other}")
                continue
            self._add(name, ours[name], theirs[name], _movement(reference.get(name), ours[name]))

    def _add(self, name: str, ours: Array, theirs: Array, movement: float) -> None:
        absolute, scale, difference = _difference(name, ours, theirs)
        if not difference and absolute > self.atol + self.rtol * scale:
            difference = f"output '{name}' differs by {absolute:.3g} where its largest value is {scale:.3g}"
        relative = _ratio(absolute, scale)
        if difference:
            self.differences.setdefault(name, difference)
        if ours.dtype.kind in "fc" and not np.isfinite(ours).all():
            self.undefined[name] = None
        past = self.outputs.get(name, OutputComparison(name, ours.shape, str(ours.dtype), True, 0.0, 0.0, 0.0))
        self.outputs[name] = OutputComparison(
            name,
            past.shape,
            past.dtype,
            past.equal and not difference,
            max(past.max_abs, absolute),
            max(past.max_rel, relative),
            max(past.sensitivity, movement),
        )

    def comparison(self, samples: int, sampled: bool) -> Comparison:
        """The verdict; `sampled` tells whether there were two inputs to compare the outputs of."""
        outputs = list(self.outputs.values())
        sensitivity = min((output.sensitivity for output in outputs), default=0.0) if sampled else math.nan
        return Comparison(
            not self.differences,
            max((output.max_abs for output in outputs), default=0.0),
            max((output.max_rel for output in outputs), default=0.0),
            sensitivity,
            outputs,
            samples,
            self.rtol,
            self.atol,
            list(self.differences.values()),
            [*self._undefined_warnings(), *self._sensitivity_warnings(sampled)],
        )

    def _undefined_warnings(self) -> Iterator[str]:
        for name in self.undefined:
            yield f"output '{name}' holds NaN or infinity on these inputs; give real ones by --data FILE.npz"

    def _sensitivity_warnings(self, sampled: bool) -> Iterator[str]:
        if not sampled:
            yield "with a single input nothing tells whether the outputs react to it at all; give two samples or more"
            return
        for output in self.outputs.values():
            if output.sensitivity < INSENSITIVE:
                share = f"{output.sensitivity:.1g} of its largest value"
                reason = f"output '{output.name}' moves by only {share} between different inputs"
                yield f"{reason}, so it would hide damage; give real inputs by --data FILE.npz"


def _judge(tally: _Tally, a: Session, b: Session, feeds: list[Feeds], sampled: bool) -> Comparison:
    reference: dict[str, Array] = {}
    for feed in feeds:
        ours = a.run(feed)
        reference = reference or ours
        try:
            theirs = b.run(feed)
        except ModelError as error:
            raise VerifyError(f"{error} (an input that {a.name} accepts)") from error
        tally.add(ours, theirs, reference)
    return tally.comparison(len(feeds), sampled)


def _difference(name: str, a: Array, b: Array) -> tuple[float, float, str]:
    """Largest difference, largest magnitude of `a`, and a sentence where the two can't be compared at all."""
    if a.shape != b.shape:
        return math.inf, math.inf, f"output '{name}' has shape {list(a.shape)} in one and {list(b.shape)} in the other"
    if a.dtype != b.dtype:
        return math.inf, math.inf, f"output '{name}' is {a.dtype} in one and {b.dtype} in the other"
    if a.dtype.kind not in "fciub":
        same = np.array_equal(a, b)
        return (0.0, 0.0, "") if same else (math.inf, math.inf, f"output '{name}' holds different strings")
    exact = a.dtype.kind in "iub"
    if exact and not np.array_equal(a, b):
        absolute, count = _largest(_wide(a) - _wide(b)), int((a != b).sum())
        return absolute, _largest(_wide(a)), f"output '{name}' differs in {count} of {a.size} {a.dtype} values"
    a, b = _wide(a), _wide(b)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf, math.inf, f"output '{name}' holds NaN or infinity at different places"
    return _largest(a[finite] - b[finite]), _largest(a[finite]), ""


def _ratio(absolute: float, scale: float) -> float:
    if 0 < scale < math.inf:
        return absolute / scale
    return math.inf if absolute else 0.0


def _movement(reference: Array | None, output: Array) -> float:
    """How far an output is from the first sample's, as a share of its largest magnitude."""
    if reference is None or reference.shape != output.shape:
        return 1.0  # a shape that depends on the input has moved
    if output.dtype.kind not in "fciub":
        return float(not np.array_equal(reference, output))
    a, b = _wide(reference), _wide(output)
    finite = np.isfinite(a) & np.isfinite(b)
    scale = max(_largest(a[finite]), _largest(b[finite]))
    return _largest(a[finite] - b[finite]) / scale if scale else 0.0


def _wide(array: Array) -> Array:
    """The array in double precision, so that a difference neither overflows nor wraps around."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def _seconds(session: Session, feeds: Feeds) -> float:
    start = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - start


def _finite(value: Any) -> Any:
    """`value` with every float that JSON can't write replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
