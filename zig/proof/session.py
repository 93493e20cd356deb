"""Models loaded in onnxruntime, with errors in plain words: the only file that imports it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zig.errors import ModelError, UsageError
from zig.host.isolate import apart
from zig.host.packages import importing
from zig.proof.inputs import Array, Feeds, Input

if TYPE_CHECKING:
    import onnx

Source: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto"
PATIENCE = 30.0  # seconds that one run may take, and one more for each 2 MB of weights
_DIGITS = 18  # of a number of bytes
SMALLEST = '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Abs (x) }'
EDITED = 2**30  # bytes of a model file beyond which it is run as it is, without probes: it would be copied


class Session:
    """A model loaded in onnxruntime, quiet, with errors in plain words."""

    def __init__(
        self,
        source: Source | Model,
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
                else `zig.proof.edits` does to it.
            given: Tensors inside that become inputs, with their element types.

        Raises:
            ModelError: The model can't be read, or onnxruntime refuses it.
            UsageError: The provider is missing here.
        """
        onnxruntime = _onnxruntime()
        onnxruntime.set_default_logger_severity(4)
        model = source if isinstance(source, Model) else Model(source, folder)
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
                raise ImpatientError(f"{self.name}: {limit}; give smaller inputs by --data FILE.npz") from error
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


class ImpatientError(ModelError):
    """One run took too long; another input would hardly be faster."""


class Model:
    """A model as it was given, and its graph, as far as that can be read without its external data."""

    def __init__(self, source: Source, folder: str | os.PathLike[str] | None) -> None:
        """Read the graph; `folder` is where the external data of a model in memory lie."""
        self.content: str | bytes
        self.graph: onnx.ModelProto | None
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            _check_readable(path)
            self.name, self.graph = str(path), graph_of(path)
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
        from zig.proof.edits import probes  # noqa: PLC0415 - imports onnx

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
        from zig.proof.edits import tables  # noqa: PLC0415 - imports onnx

        return {} if self.graph is None else tables(self.graph.graph)

    @cached_property
    def is_half(self) -> bool:
        """Whether there are weights or results of 16 bits."""
        from zig.proof.edits import is_half  # noqa: PLC0415 - imports onnx

        return self.graph is not None and is_half(self.graph)

    @cached_property
    def is_rough(self) -> bool:
        """Whether it computes with fewer bits than those of float32."""
        from zig.proof.edits import is_rough  # noqa: PLC0415 - imports onnx

        return self.graph is not None and is_rough(self.graph)

    @cached_property
    def threads(self) -> int | None:
        """How many threads may work on a node of it, so that it computes the same each time; None for any number."""
        from zig.proof.edits import is_shared  # noqa: PLC0415 - imports onnx

        return 1 if self.graph is not None and is_shared(self.graph) else None

    @cached_property
    def is_random(self) -> bool:
        """Whether anything in it draws random numbers."""
        from zig.proof.edits import is_random  # noqa: PLC0415 - imports onnx

        return self.graph is not None and is_random(self.graph)

    def edited(self, shown: Sequence[str], given: Mapping[str, int]) -> str | bytes:
        """What onnxruntime takes for the model with these tensors as outputs and inputs; see `zig.proof.edits`."""
        if self.graph is None or self.graph.ByteSize() > EDITED:
            return self.content
        from zig.proof.edits import edited  # noqa: PLC0415 - imports onnx

        changed = edited(self.graph, shown, given, os.fspath(self.folder or ""))
        return self.content if changed is None else _serialized(self.name, changed)

    def _check(self) -> None:
        """Refuse what onnxruntime would not survive, or should not read."""
        from zig.model import bodies, tensors  # noqa: PLC0415 - as above
        from zig.model.bounds import excess  # noqa: PLC0415 - as above
        from zig.proof.edits import unsound  # noqa: PLC0415 - as above

        assert self.graph is not None
        if problem := excess(self.graph):
            raise ModelError(f"{self.name}: {problem}")
        if problem := unsound(self.graph):
            raise ModelError(f"{self.name}: {problem}; the file is damaged, export the model again")
        for tensor in self.graph.graph.initializer:
            if tensor.data_location != tensor.EXTERNAL:
                tensors.check_size(self.name, tensor)
        for tensor in bodies.tensors(self.graph.graph):  # onnxruntime 1.23, the last for Python 3.10, reads any file
            if tensor.data_location == tensor.EXTERNAL and self.folder is not None:
                tensors.check_tensor(self.name, tensor, Path(self.folder))


def graph_of(path: Path) -> onnx.ModelProto | None:
    """The model in a file without its external data; None for what only onnxruntime can read, or nobody."""
    from zig.model.reading import ORT, is_text, read  # noqa: PLC0415 - imports onnx

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
    from zig.model.reading import is_text  # noqa: PLC0415 - as above

    return str(path) if graph is None or not is_text(path) else _serialized(str(path), graph)


def _external(tensor: onnx.TensorProto) -> int:
    """How many bytes of a data file a tensor takes, as far as it says so."""
    value = next((entry.value for entry in tensor.external_data if entry.key == "length"), "")
    return int(value) if value.isdecimal() and len(value) < _DIGITS else 0


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
        import onnxruntime  # noqa: PLC0415 - the one place; it costs 0.1 s and only two commands need it
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
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415 - as in Session

    # Its exceptions have no common base class below Exception.
    known = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    refusals: tuple[type[Exception], ...] = (*known, RuntimeError, ValueError)
    try:
        yield
    except refusals as error:
        raise ModelError(f"{what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
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
