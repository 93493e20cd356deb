"""Do two models compute the same? onnxruntime says (through `zig.proof.session`).

Both models get the same inputs: real ones from a `.npz` file, or made up ones that suit what the inputs are called
(`zig.proof.inputs`). Each output `a` of the first and `b` of the second model must satisfy

    max |a - b| <= atol + rtol * max |a|        over the output's finite values, in float64

with NaN and infinities at the same places; integers, booleans and strings must be identical. The same is asked of the
tensors before a last Sigmoid, Softmax, Clip or ArgMax (`zig.proof.edits`), since these give equal outputs for unequal
inputs. Such an operator may also decide between values that are equal but for rounding. An output that differs is
excused, with a warning, where the first model gives it too once it is given the second one's tensors before that
operator, and these agree.

A model that hands its state back to the caller runs a few steps, its state fed back. A comparison on inputs to which
the outputs hardly react says nothing, so their movement between two inputs is measured too.
"""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zig.errors import ModelError, UsageError, VerifyError
from zig.host.isolate import apart
from zig.proof.comparison import INSENSITIVE, Comparison, OutputComparison, Tally, comparable
from zig.proof.inputs import GUESSES, Array, Data, Feeds, Input, Sizes, feedback, joint, random_feeds, real_feeds
from zig.proof.session import ImpatientError, Model, Session, Source

if TYPE_CHECKING:
    pass

__all__ = ["INSENSITIVE", "Comparison", "OutputComparison", "latency", "obstacle", "verify"]


ATOL = 1e-5
RTOL, ROUGH_RTOL = 1e-4, 5e-3  # of float32 and wider; of float16, bfloat16 and what is rounded to integers on the way
STEPS = 3  # that a model with a state runs


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
        alone: Whether onnxruntime runs in a process of its own, see `zig.host.isolate`: some damaged models end it.

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
    pair = _Pair(Model(a, folder), Model(b, folder), provider, rtol, atol)
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


def obstacle(*sources: Source | Model, provider: str = "cpu") -> str:
    """Why these models can't be run side by side here, as a sentence; empty where they can.

    What they need is estimated from the sizes of their weights; a processor runs float16 in float32.

    Args:
        sources: The models.
        provider: Where they would run; only the memory of a processor is looked at.

    Raises:
        ModelError: A model can't be read.
    """
    free = _free_memory()
    models = [source if isinstance(source, Model) else Model(source, None) for source in sources]
    needed = sum(model.weight * (2 if model.is_half else 1) for model in models)
    if provider != "cpu" or needed <= free:
        return ""
    sizes = f"about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
    return f"{models[0].name}: to run it under onnxruntime takes {sizes}; compare it on a larger machine"


class _Pair:
    """Two models that are to be compared."""

    def __init__(self, one: Model, two: Model, provider: str, rtol: float | None, atol: float) -> None:
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

    def _session(self, model: Model) -> Session:
        shown = list(dict.fromkeys(name for names in self.probes.values() for name in names))
        try:
            return self._opened(model, shown)
        except ModelError:  # perhaps of what is shown; if not, the same is said again
            return self._opened(model)

    def _opened(self, model: Model, shown: Sequence[str] = (), given: Mapping[str, int] | None = None) -> Session:
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


def _free_memory() -> float:
    """Bytes that can be had without swapping; infinitely many where the system doesn't tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return math.inf
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return 1024 * int(found[1]) if found else math.inf


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
        except ImpatientError:
            raise
        except ModelError as error:
            refused = refused or error
        else:
            return feeds, sizes
    raise ModelError(f"{refused}; no made up input works, so give real ones by --data FILE.npz") from refused
