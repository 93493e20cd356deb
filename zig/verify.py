"""Do two models compute the same? onnxruntime says (the only file that imports it).

Both models get the same inputs: real ones from a `.npz` file, or made up ones that suit what the inputs are called
(`zig.inputs`). Each output `a` of the first and `b` of the second model must satisfy

    max |a - b| <= atol + rtol * max |a|        over the output's finite values, in float64

with NaN and infinities at the same places; integers, booleans and strings must be identical. The same is asked of the
tensors before a last Sigmoid, Softmax, Clip or ArgMax (`zig.probes`), since these give equal outputs for unequal
inputs. Such an operator may also decide between values that are equal but for rounding. An output that differs is
excused, with a warning, where the first model gives it too once it is given the second one's tensors before that
operator, and these agree.

A model that hands its state back to the caller runs a few steps, its state fed back. A comparison on inputs to which
the outputs hardly react says nothing, so their movement between two inputs is measured too.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zig.apart import apart
from zig.errors import ModelError, UsageError, VerifyError
from zig.inputs import GUESSES, Array, Data, Feeds, Input, Sizes, feedback, joint, random_feeds, real_feeds
from zig.packages import importing
from zig.tally import INSENSITIVE, Comparison, OutputComparison, Tally, comparable

if TYPE_CHECKING:
    import onnx

__all__ = [
    "INSENSITIVE", "Comparison", "OutputComparison", "Session", "Source",
    "check_onnxruntime", "latency", "obstacle", "verify",
]  # fmt: skip

Source: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto"

ATOL = 1e-5
RTOL, ROUGH_RTOL = 1e-4, 5e-3  # of float32 and wider; of float16, bfloat16 and what is rounded to integers on the way
STEPS = 3  # that a model with a state runs
PATIENCE = 30.0  # seconds that one run may take, and one more for each 2 MB of weights
_DIGITS = 18  # of a number of bytes
SMALLEST = '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Abs (x) }'
EDITED = 2**30  # bytes of a model file beyond which it is run as it is, without probes: it would be copied


def verify(  # noqa: PLR0913 - each one is an option of the command
    a: Source,
    b: Source,
    *,
    samples: int = 3,
    seed: int = 0,
    rtol: float | None = None,
    atol: float = ATOL,
    data: Data | None = None,
    provider: str = "cpu",
    folder: str | os.PathLike[str] | None = None,
    alone: bool = False,
) -> Comparison:
    """Run two models on the same inputs under onnxruntime and compare their outputs.

    Args:
        a: The reference model: a file, or a model in memory.
        b: The model that must agree with it.
        samples: How many made up inputs to run, or how many of the samples in `data`.
        seed: Seed of the made up inputs.
        rtol: Allowed difference as a share of an output's largest magnitude; None is 1e-4, and 5e-3 for models with
            weights, inputs or outputs in float16 or bfloat16, and for those that round their activations to integers.
        atol: Allowed absolute difference.
        data: Real inputs, a `.npz` file or a mapping, by input name. An array has one axis more than the input it is
            for: `array[i]` is sample `i`, batch axis included. An array of the input's own rank is a single sample.
        provider: Where to run: "cpu", "cuda" or another provider of the installed onnxruntime.
        folder: Where the external data of a model in memory lies.
        alone: Whether onnxruntime runs in a process of its own, see `zig.apart`: some damaged models end it.

    Returns:
        The verdict, with every difference as a sentence.

    Raises:
        ModelError: A model can't be read, there is not enough memory to run it, or onnxruntime refuses it or every
            input that was made for it.
        UsageError: The provider is missing here, or `data` doesn't fit the inputs.
        VerifyError: The second model breaks down on an input that the first accepts.
    """
    if samples < 1:
        raise UsageError(f"samples is {samples}; give at least 1")
    pair = _Pair(_Model(a, folder), _Model(b, folder), provider, rtol, atol)
    compare = partial(pair.compare, samples, seed, data)
    return apart(compare, pair.one.name) if alone else compare()


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
    feeds, _ = _accepted(session, session.inputs, {}, seed, [guess._replace(batch=1) for guess in GUESSES])
    for _ in range(3):
        session.run(feeds)
    return 1000 * statistics.median(session.seconds(feeds) for _ in range(runs))


def obstacle(*sources: Source | _Model, provider: str = "cpu") -> str:
    """Why these models can't be run side by side here, as a sentence; empty where they can.

    What they need is estimated from the sizes of their weights; a processor runs float16 in float32.

    Args:
        sources: The models.
        provider: Where they would run; only the memory of a processor is looked at.

    Raises:
        ModelError: A model can't be read.
    """
    free = _free_memory()
    models = [source if isinstance(source, _Model) else _Model(source, None) for source in sources]
    needed = sum(model.weight * (2 if model.is_half else 1) for model in models)
    if provider != "cpu" or needed <= free:
        return ""
    sizes = f"about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
    return f"{models[0].name}: to run it under onnxruntime takes {sizes}; compare it on a larger machine"


class Session:
    """A model loaded in onnxruntime, quiet, with errors in plain words."""

    def __init__(
        self,
        source: Source | _Model,
        provider: str = "cpu",
        *,
        threads: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        shown: Sequence[str] | None = None,
        given: Mapping[str, int] | None = None,
    ) -> None:
        """Load `source`; see `verify` for what the arguments mean.

        Args:
            source: The model.
            provider: Where to run it.
            threads: How many threads may work on one node.
            folder: Where the external data of a model in memory lies.
            shown: Tensors inside that `run` gives besides the outputs; None runs the model just as it is, without what
                else `zig.probes` does to it.
            given: Tensors inside that become inputs, with their element types.

        Raises:
            ModelError: The model can't be read, or onnxruntime refuses it.
            UsageError: The provider is missing here.
        """
        onnxruntime = _onnxruntime()
        onnxruntime.set_default_logger_severity(4)
        model = source if isinstance(source, _Model) else _Model(source, folder)
        self.name, self.patience = model.name, PATIENCE + model.weight / 2e6
        wanted = _provider(provider, onnxruntime)
        content = model.content if shown is None else model.edited(shown, given or {})
        options = _session_options(onnxruntime, threads, None if isinstance(content, str) else model.folder)
        try:
            with _in_plain_words(f"{self.name}: onnxruntime refuses the model"):
                # Without fallback: a provider that can't start must be an error, not a line on stdout and a CPU run.
                self._session = onnxruntime.InferenceSession(content, options, providers=wanted, enable_fallback=False)
        except ModelError as error:
            if provider.lower() != "cpu" and not _starts(onnxruntime, wanted):
                raise _unstarted(wanted) from error
            raise
        self._run_options = onnxruntime.RunOptions
        if self._session.get_providers()[0] != wanted[0][0]:
            raise _unstarted(wanted)
        rows = model.tables
        self.inputs = {v.name: _declared(v, rows.get(v.name, 0)) for v in self._session.get_inputs()}
        outputs = [_declared(value) for value in self._session.get_outputs()]
        self.shown = [value.name for value in outputs if value.name in model.inner]
        self.outputs = {value.name: value for value in outputs if value.name not in model.inner}
        self.output_names = list(self.outputs)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name; the parts of a sequence or map become outputs of their own.

        Raises:
            ModelError: onnxruntime refuses the inputs, or is at work for longer than there is patience.
        """
        options, waited = self._run_options(), threading.Event()

        def stop() -> None:
            waited.set()
            options.terminate = True

        timer = threading.Timer(self.patience, stop)
        timer.start()
        try:
            with _in_plain_words(f"{self.name}: onnxruntime refuses the input"):
                values = self._session.run([*self.output_names, *self.shown], feeds, options)
        except ModelError as error:
            if waited.is_set():
                limit = f"a run takes longer than {self.patience:.0f} s"
                raise _ImpatientError(f"{self.name}: {limit}; give smaller inputs by --data FILE.npz") from error
            raise
        finally:
            timer.cancel()
        pairs = zip((*self.output_names, *self.shown), values, strict=True)
        return dict(part for name, value in pairs for part in _parts(name, value))

    def seconds(self, feeds: Feeds) -> float:
        """How long one run takes."""
        start = time.perf_counter()
        self._session.run(None, feeds)
        return time.perf_counter() - start


class _ImpatientError(ModelError):
    """One run took too long; another input would hardly be faster."""


class _Model:
    """A model as it was given, and its graph, as far as that can be read without its external data."""

    def __init__(self, source: Source, folder: str | os.PathLike[str] | None) -> None:
        self.content: str | bytes
        self.graph: onnx.ModelProto | None
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            _check_readable(path)
            self.name, self.graph = str(path), _graph(path)
            self.content = _content(path, self.graph)
            self.folder: str | os.PathLike[str] | None = path.parent
            self.weight = path.stat().st_size
        else:
            self.name, self.graph, self.folder = source.graph.name or "the model in memory", source, folder
            self.content = _serialized(self.name, source)
            self.weight = len(self.content)
        if self.graph is not None:
            self._check()
            self.weight += sum(_external(tensor) for tensor in self.graph.graph.initializer)

    @cached_property
    def probes(self) -> dict[str, tuple[str, ...]]:
        """For each output the tensors before the last operators that flatten values."""
        from zig.probes import probes  # noqa: PLC0415 - imports onnx

        return {} if self.graph is None else probes(self.graph.graph)

    @cached_property
    def inner(self) -> set[str]:
        """The tensors that are no outputs, though they may be shown."""
        ends = {value.name for value in self.graph.graph.output} if self.graph is not None else set()
        return self.tensors - ends

    @cached_property
    def tensors(self) -> set[str]:
        """What the nodes of the graph compute."""
        return {name for node in self.graph.graph.node for name in node.output} if self.graph is not None else set()

    @cached_property
    def tables(self) -> dict[str, int]:
        """How many rows the tables have in which inputs are looked up."""
        from zig.probes import tables  # noqa: PLC0415 - imports onnx

        return {} if self.graph is None else tables(self.graph.graph)

    @cached_property
    def is_half(self) -> bool:
        """Whether there are weights or results of 16 bits."""
        from zig.probes import is_half  # noqa: PLC0415 - imports onnx

        return self.graph is not None and is_half(self.graph)

    @cached_property
    def is_rough(self) -> bool:
        """Whether it computes with fewer bits than those of float32."""
        from zig.probes import is_rough  # noqa: PLC0415 - imports onnx

        return self.graph is not None and is_rough(self.graph)

    @cached_property
    def threads(self) -> int | None:
        """How many threads may work on a node of it, so that it computes the same each time; None for any number."""
        from zig.probes import is_shared  # noqa: PLC0415 - imports onnx

        return 1 if self.graph is not None and is_shared(self.graph) else None

    @cached_property
    def is_random(self) -> bool:
        """Whether anything in it draws random numbers."""
        from zig.probes import is_random  # noqa: PLC0415 - imports onnx

        return self.graph is not None and is_random(self.graph)

    def edited(self, shown: Sequence[str], given: Mapping[str, int]) -> str | bytes:
        """What onnxruntime takes for the model with these tensors as outputs and inputs; see `zig.probes`."""
        if self.graph is None or self.graph.ByteSize() > EDITED:
            return self.content
        from zig.probes import edited  # noqa: PLC0415 - imports onnx

        changed = edited(self.graph, shown, given, os.fspath(self.folder or ""))
        return self.content if changed is None else _serialized(self.name, changed)

    def _check(self) -> None:
        """Refuse what onnxruntime would not survive, or should not read."""
        from zig import bodies, damage  # noqa: PLC0415 - import onnx
        from zig.bounds import excess  # noqa: PLC0415 - as above
        from zig.probes import unsound  # noqa: PLC0415 - as above

        assert self.graph is not None
        if problem := excess(self.graph):
            raise ModelError(f"{self.name}: {problem}")
        if problem := unsound(self.graph):
            raise ModelError(f"{self.name}: {problem}; the file is damaged, export the model again")
        for tensor in self.graph.graph.initializer:
            if tensor.data_location != tensor.EXTERNAL:
                damage.check_size(self.name, tensor)
        for tensor in bodies.tensors(self.graph.graph):  # onnxruntime 1.23, the last for Python 3.10, reads any file
            if tensor.data_location == tensor.EXTERNAL and self.folder is not None:
                damage.check_tensor(self.name, tensor, Path(self.folder))


class _Pair:
    """Two models that are to be compared."""

    def __init__(self, one: _Model, two: _Model, provider: str, rtol: float | None, atol: float) -> None:
        self.one, self.two, self.provider = one, two, provider
        both = one.tensors & two.tensors
        self.probes = {name: tuple(t for t in tensors if t in both) for name, tensors in one.probes.items()}
        default = ROUGH_RTOL if one.is_rough or two.is_rough else RTOL
        self.tally = Tally(one.name, two.name, default if rtol is None else rtol, atol, self.probes)

    def compare(self, samples: int, seed: int, data: Data | None) -> Comparison:
        """The verdict; the arguments are those of `verify`."""
        if problem := obstacle(self.one, self.two, provider=self.provider):
            raise ModelError(problem)
        a, b = self._session(self.one), self._session(self.two)
        differences = _interface_differences(a, b)
        if differences:
            rtol, atol = self.tally.rtol, self.tally.atol
            return Comparison(False, math.inf, math.inf, math.nan, [], 0, rtol, atol, differences)
        series = self._made(a, joint(a.inputs, b.inputs), samples, seed) if data is None else _given(a, data, samples)
        reference: dict[str, Array] = {}
        count = steps = 0
        for step, feeds, ours in series:
            reference = reference or ours
            count, steps = count + (step == 0), max(steps, step + 1)
            self._add(feeds, ours, self._theirs(b, feeds), reference)
        return self.tally.comparison(count, steps, count > 1 and bool(a.inputs))

    def _session(self, model: _Model) -> Session:
        shown = list(dict.fromkeys(name for names in self.probes.values() for name in names))
        try:
            return self._opened(model, shown)
        except ModelError:  # perhaps of what is shown; if not, the same is said again
            return self._opened(model)

    def _opened(self, model: _Model, shown: Sequence[str] = (), given: Mapping[str, int] | None = None) -> Session:
        return Session(model, self.provider, threads=model.threads, shown=shown, given=given)

    def _made(
        self, a: Session, inputs: Mapping[str, Input], samples: int, seed: int
    ) -> Iterator[tuple[int, Feeds, dict[str, Array]]]:
        """Made up inputs, with the number of their step and what the first model gives for them."""
        links = feedback(inputs, a.outputs.values())
        _, sizes = _accepted(a, inputs, links, seed, GUESSES)
        if self.one.is_random:
            a = self._session(self.one)  # anew, for it has drawn numbers that the second model has not
        for index in range(max(samples, 2) if inputs else samples):
            states: dict[str, Array | None] = dict.fromkeys(links)
            for step in range(STEPS if links else 1):
                feeds = random_feeds(a.name, inputs, sizes, seed, index, step=step, states=states)
                try:
                    ours = a.run(feeds)
                except ModelError as error:
                    if not step:
                        raise
                    self.tally.notes[f"the state can't be fed back, so each sample was one step: {error}"] = None
                    break
                yield step, feeds, ours
                states = {name: ours[output] for name, output in links.items()}

    def _theirs(self, b: Session, feeds: Feeds) -> dict[str, Array]:
        try:
            return b.run(feeds)
        except ModelError as error:
            raise VerifyError(f"{error} (an input that {self.one.name} accepts)") from error

    def _add(self, feeds: Feeds, ours: dict[str, Array], theirs: dict[str, Array], reference: dict[str, Array]) -> None:
        """Count in one sample."""
        excused = self._excused(feeds, ours, theirs)
        for name in excused:
            before = ", ".join(f"'{probe}'" for probe in self.probes[name])
            note = (
                f"output '{name}' differs only by what comes of rounding in {before}, which is equal within tolerance"
            )
            self.tally.notes[note] = None
        self.tally.add(ours | excused, theirs, reference)

    def _excused(self, feeds: Feeds, ours: dict[str, Array], theirs: dict[str, Array]) -> dict[str, Array]:
        """Outputs that differ, as the first model gives them from the second one's tensors inside."""
        tally, inside = self.tally, sorted(self.tally.inside)
        apart = [
            name
            for name, tensors in self.probes.items()
            if tensors and name in ours and name in theirs and not tally.agree(ours[name], theirs[name])
        ]
        usable = all(comparable(ours.get(n), theirs.get(n)) and tally.agree(ours[n], theirs[n]) for n in inside)
        if not apart or not usable or tally.differences:
            return {}
        try:
            replayed = self._replayed(feeds, {name: theirs[name] for name in inside})
        except ModelError:  # then nothing excuses them
            return {}
        return {name: replayed[name] for name in apart if tally.agree(replayed[name], theirs[name])}

    def _replayed(self, feeds: Feeds, inside: dict[str, Array]) -> dict[str, Array]:
        """What the first model gives with these tensors inside."""
        import onnx  # noqa: PLC0415 - imported long ago, since there are probes

        types = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inside.items()}
        return self._opened(self.one, given=types).run(feeds | inside)


def _given(a: Session, data: Data, samples: int) -> Iterator[tuple[int, Feeds, dict[str, Array]]]:
    """Real inputs, with what the first model gives for them."""
    for feeds in real_feeds(a.name, a.inputs, data)[:samples]:
        yield 0, feeds, a.run(feeds)


def _graph(path: Path) -> onnx.ModelProto | None:
    """The model in a file without its external data; None for what only onnxruntime can read, or nobody."""
    from zig.reading import ORT, is_text, read  # noqa: PLC0415 - imports onnx

    if path.suffix == ORT:
        return None
    try:
        return read(path)
    except ModelError:
        if is_text(path):
            raise
        return None


def _serialized(name: str, model: onnx.ModelProto) -> bytes:
    from google.protobuf.message import EncodeError  # noqa: PLC0415 - `zig verify` alone needs it

    try:
        return bytes(model.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{name}: is too large to be run from memory; save it with external data first") from error


def _content(path: Path, graph: onnx.ModelProto | None) -> str | bytes:
    """What onnxruntime takes for a file: its path, or the model in it where that is written as text."""
    from zig.reading import is_text  # noqa: PLC0415 - as above

    return str(path) if graph is None or not is_text(path) else _serialized(str(path), graph)


def _external(tensor: onnx.TensorProto) -> int:
    """How many bytes of a data file a tensor takes, as far as it says so."""
    value = next((entry.value for entry in tensor.external_data if entry.key == "length"), "")
    return int(value) if value.isdecimal() and len(value) < _DIGITS else 0


def _free_memory() -> float:
    """Bytes that can be had without swapping; infinitely many where the system doesn't tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return math.inf
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return 1024 * int(found[1]) if found else math.inf


def _declared(value: Any, below: int = 0) -> Input:
    return Input(value.name, value.type, tuple(value.shape), below)


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if not path.is_file():
        raise ModelError(f"{path}: not a file; give the path of an .onnx file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty; export the model again")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path}: not readable; check its permissions")


def check_onnxruntime() -> None:
    """Try at once what a long job needs at its end; in a process of its own, so that this one can still be forked.

    Raises:
        UsageError: onnxruntime is missing, or does not load.
    """
    apart(_try, "onnxruntime")


def _try() -> None:
    _onnxruntime()


def _onnxruntime() -> Any:
    with importing("running a model"):
        import onnxruntime  # noqa: TID251, PLC0415 - the one place; it costs 0.1 s and only two commands need it
    return onnxruntime


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


def _starts(onnxruntime: Any, wanted: list[tuple[str, dict[str, str]]]) -> bool:
    """Whether a provider takes the smallest of all models: else it is at fault, whatever it says of the one given."""
    import onnx  # noqa: PLC0415 - seldom needed

    model = onnx.parser.parse_model(SMALLEST)
    try:
        with _in_plain_words("the smallest of all models"):
            content, options = model.SerializeToString(), _session_options(onnxruntime, 1, None)
            made = onnxruntime.InferenceSession(content, options, providers=wanted, enable_fallback=False)
    except ModelError:
        return False
    return bool(made.get_providers()[0] == wanted[0][0])


def _unstarted(wanted: list[tuple[str, dict[str, str]]]) -> UsageError:
    return UsageError(f"onnxruntime can't start {wanted[0][0]} on this machine; use --provider cpu")


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


def _accepted(
    session: Session, inputs: Mapping[str, Input], links: Iterable[str], seed: int, guesses: Iterable[Sizes]
) -> tuple[Feeds, Sizes]:
    """Made up inputs that onnxruntime accepts for a model, and the sizes that made them."""
    refused: ModelError | None = None
    for sizes in guesses:
        try:
            feeds = random_feeds(session.name, inputs, sizes, seed, 0, states=dict.fromkeys(links))
            session.run(feeds)
        except _ImpatientError:
            raise
        except ModelError as error:
            refused = refused or error
        else:
            return feeds, sizes
    raise ModelError(f"{refused}; no made up input works, so give real ones by --data FILE.npz") from refused
