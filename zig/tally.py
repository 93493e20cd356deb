"""How far the outputs of two models are apart, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from zig.inputs import Array

INSENSITIVE = 1e-3  # outputs that move less than this share of their largest value can hide any damage


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """What became of one output, or of a tensor inside, over all samples."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    equal: bool
    max_abs: float
    max_rel: float
    sensitivity: float
    compared: int = 0  # entries that say something: finite numbers, integers, strings


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on two models.

    Attributes:
        equal: Whether every output of every sample agrees, and every tensor in `inside`, and there was something to
            compare.
        max_abs: Largest absolute difference of any output; infinite where outputs can't be compared.
        max_rel: Largest difference of an output divided by its largest magnitude.
        sensitivity: How far the least sensitive output of the first model, or the tensor before the Sigmoid or Softmax
            that it comes from, moves between two inputs, as a share of its largest magnitude; nan where only one sample
            was given.
        outputs: One entry for each output.
        samples: How many inputs were run.
        rtol: Relative tolerance used.
        atol: Absolute tolerance used.
        differences: One sentence for each way in which the models differ.
        warnings: What makes the comparison weaker than it looks.
        inside: One entry for each tensor before a last Sigmoid, Softmax, ArgMax, ... that both models have.
        steps: How often each sample was run, the state fed back in between.
        nothing: Why nothing was compared, where that alone is in the way: outputs of NaN throughout, or empty ones.
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
    inside: list[OutputComparison] = field(default_factory=list)
    steps: int = 1
    nothing: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values; a number that isn't finite becomes None."""
        content: dict[str, Any] = _finite(asdict(self))
        return content


@dataclass(slots=True)
class Tally:
    """What is known of each output so far.

    Attributes:
        a: What to call the first model.
        b: What to call the second one.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        probes: For outputs, the tensors inside that are compared as well.
    """

    a: str
    b: str
    rtol: float
    atol: float
    probes: Mapping[str, Collection[str]] = field(default_factory=dict)
    seen: dict[str, OutputComparison] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)
    undefined: dict[str, None] = field(default_factory=dict)
    tiny: dict[str, float] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def inside(self) -> set[str]:
        """The tensors that are no outputs."""
        return {name for names in self.probes.values() for name in names}

    def add(self, ours: Mapping[str, Array], theirs: Mapping[str, Array], reference: Mapping[str, Array]) -> None:
        """Count in one sample: outputs of both models, and those of the first model on the first sample."""
        inside = self.inside
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name in inside and not comparable(ours.get(name), theirs.get(name)):
                continue
            if name not in ours or name not in theirs:
                owner, other = (self.a, self.b) if name in ours else (self.b, self.a)
                self.differences.setdefault(name, f"output '{name}' of {owner} has no counterpart in {other}")
                continue
            what = f"tensor '{name}' inside" if name in inside else f"output '{name}'"
            self._add(name, what, ours[name], theirs[name], movement(reference.get(name), ours[name]))

    def agree(self, ours: Array, theirs: Array) -> bool:
        """Whether two arrays are equal within the tolerances."""
        absolute, scale, difference = _difference("", ours, theirs)
        return not difference and absolute <= self.atol + self.rtol * scale

    def _add(self, name: str, what: str, ours: Array, theirs: Array, moved: float) -> None:
        absolute, scale, difference = _difference(what, ours, theirs)
        if not difference and absolute > self.atol + self.rtol * scale:
            difference = f"{what} differs by {absolute:.3g} where its largest value is {scale:.3g}"
        if difference:
            self.differences.setdefault(name, difference)
        if ours.dtype.kind in "fc" and not np.isfinite(ours).all() and name not in self.inside:
            self.undefined[name] = None
        if not difference and absolute > self.rtol * scale:
            self.tiny[name] = scale
        past = self.seen.get(name, OutputComparison(name, ours.shape, str(ours.dtype), True, 0.0, 0.0, 0.0))
        self.seen[name] = replace(
            past,
            equal=past.equal and not difference,
            max_abs=max(past.max_abs, absolute),
            max_rel=max(past.max_rel, _ratio(absolute, scale)),
            sensitivity=max(past.sensitivity, moved),
            compared=past.compared + _telling(ours),
        )

    def comparison(self, samples: int, steps: int, sampled: bool) -> Comparison:
        """The verdict; `sampled` tells whether there were two inputs to compare the outputs of."""
        inside = [self.seen[name] for name in self.seen if name in self.inside]
        outputs = [self.seen[name] for name in self.seen if name not in self.inside]
        nothing = self._nothing(outputs)
        outputs = [replace(output, equal=output.equal and output.name not in nothing) for output in outputs]
        moves = [self._movement(output) for output in outputs]
        return Comparison(
            equal=not self.differences and not nothing,
            max_abs=max((output.max_abs for output in outputs), default=0.0),
            max_rel=max((output.max_rel for output in outputs), default=0.0),
            sensitivity=min(moves, default=0.0) if sampled else math.nan,
            outputs=outputs,
            samples=samples,
            rtol=self.rtol,
            atol=self.atol,
            differences=[*self.differences.values(), *nothing.values()],
            warnings=[
                *self.notes,
                *self._undefined_warnings(),
                *(f"{_unsaid(output)}; give real inputs by --data FILE.npz" for output in outputs if _is_empty(output)),
                *self._tiny_warnings(outputs),
                *self._sensitivity_warnings(outputs, sampled),
            ],
            inside=inside,
            steps=steps,
            nothing="" if self.differences else next(iter(nothing.values()), ""),
        )

    def _nothing(self, outputs: list[OutputComparison]) -> dict[str, str]:
        """Outputs that can't be called equal, since they say nothing of the models, with a sentence for each.

        One that holds NaN throughout never can. One that is empty may be right (a detector that sees nothing in made up
        images), as long as another one was compared.
        """
        if not any(output.compared for output in outputs):
            said = {output.name: _unsaid(output) for output in outputs}
            return said or {"": "there are no outputs, or they are empty sequences, so nothing was compared"}
        return {o.name: _unsaid(o) for o in outputs if not o.compared and not _is_empty(o)}

    def _movement(self, output: OutputComparison) -> float:
        """How far an output moves, or the tensors that it comes from by a Sigmoid or the like."""
        known = [self.seen[name].sensitivity for name in self.probes.get(output.name, ()) if name in self.seen]
        return max(output.sensitivity, min(known, default=0.0))

    def _undefined_warnings(self) -> Iterator[str]:
        for name in self.undefined:
            yield f"output '{name}' holds NaN or infinity on these inputs; give real ones by --data FILE.npz"

    def _tiny_warnings(self, outputs: list[OutputComparison]) -> Iterator[str]:
        """Of outputs that differ by no more than the absolute tolerance, unless the tensors they come from agree."""
        for output in outputs:
            if output.name in self.tiny and not any(name in self.seen for name in self.probes.get(output.name, ())):
                reason = f"differs by {output.max_rel:.2g} of its largest value, {self.tiny[output.name]:.2g}"
                yield f"output '{output.name}' {reason}, which only --atol {self.atol:g} allows; give real inputs"

    def _sensitivity_warnings(self, outputs: list[OutputComparison], sampled: bool) -> Iterator[str]:
        if not sampled:
            yield "with a single input nothing tells whether the outputs react to it at all; give two samples or more"
            return
        for output in outputs:
            moved = self._movement(output)
            if moved < INSENSITIVE:
                reason = (
                    f"output '{output.name}' moves by only {moved:.1g} of its largest value between different inputs"
                )
                yield f"{reason}, so it would hide damage; give real inputs by --data FILE.npz"


def comparable(ours: Array | None, theirs: Array | None) -> bool:
    """Whether a tensor inside is the same thing in both models: floats of one shape."""
    return ours is not None and theirs is not None and ours.dtype.kind == "f" and ours.shape == theirs.shape


def _telling(array: Array) -> int:
    """How many entries say something of the model that made them: not NaN, and not infinite."""
    return int(np.isfinite(array).sum()) if array.dtype.kind in "fc" else array.size


def _is_empty(output: OutputComparison) -> bool:
    return not output.compared and 0 in output.shape


def _unsaid(output: OutputComparison) -> str:
    """Why nothing of an output was compared."""
    what = "is empty" if _is_empty(output) else "holds NaN or infinity throughout"
    return f"output '{output.name}' {what} in both models on these inputs, so nothing of it was compared"


def _difference(what: str, a: Array, b: Array) -> tuple[float, float, str]:
    """Largest difference, largest magnitude of `a`, and a sentence where the two can't be compared at all."""
    if a.shape != b.shape:
        return math.inf, math.inf, f"{what} has shape {list(a.shape)} in one and {list(b.shape)} in the other"
    if a.dtype != b.dtype:
        return math.inf, math.inf, f"{what} is {a.dtype} in one and {b.dtype} in the other"
    if a.dtype.kind not in "fciub":
        same = np.array_equal(a, b)
        return (0.0, 0.0, "") if same else (math.inf, math.inf, f"{what} holds different strings")
    exact = a.dtype.kind in "iub"
    if exact and not np.array_equal(a, b):
        absolute, count = _largest(_wide(a) - _wide(b)), int((a != b).sum())
        return absolute, _largest(_wide(a)), f"{what} differs in {count} of {a.size} {a.dtype} values"
    a, b = _wide(a), _wide(b)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf, math.inf, f"{what} holds NaN or infinity at different places"
    return _largest(a[finite] - b[finite]), _largest(a[finite]), ""


def _ratio(absolute: float, scale: float) -> float:
    if 0 < scale < math.inf:
        return absolute / scale
    return math.inf if absolute else 0.0


def movement(reference: Array | None, output: Array) -> float:
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


def _finite(value: Any) -> Any:
    """`value` with every float that JSON can't write replaced by None."""
    if isinstance(value, dict):
        return {key: _finite(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
