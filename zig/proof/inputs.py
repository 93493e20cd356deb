"""Inputs to run a model on: made from what its declarations say, or real ones from a `.npz` file.

What an input is for stands in its name, type and shape, and where its entries are looked up in a table, in the graph.
Images are drawn (a text detector hardly reacts to noise), audio is a voice-like tone, masks are ones, positions count
up, states start at zero; what tells nothing is standard normal.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from zig.errors import ModelError, UsageError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Feeds: TypeAlias = "dict[str, Array]"
Data: TypeAlias = "str | os.PathLike[str] | Mapping[str, Array]"


@dataclass(frozen=True, slots=True)
class Input:
    """A model's declaration of one input (or output); a dimension is a size, a symbol's name or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]
    below: int = 0  # what every entry must be smaller than, where the input is looked up in a table; else 0


class Sizes(NamedTuple):
    """One guess at what a model's free dimensions and token numbers may be."""

    batch: int
    image: int
    sequence: int
    tokens: int
    audio: int


# Tried in this order until onnxruntime accepts the inputs: some models need a small vocabulary, others a minimal image.
GUESSES = (
    Sizes(2, 224, 16, 64, 16000),
    Sizes(2, 32, 16, 8, 512),
    Sizes(2, 64, 8, 2, 1024),
    Sizes(2, 256, 32, 2, 8000),
    Sizes(1, 299, 1, 2, 576),
    Sizes(1, 512, 128, 1, 32000),
    Sizes(1, 512, 576, 576, 1280),  # a frame of audio
    Sizes(1, 512, 16000, 16000, 160000),  # a second of it
)
TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
    **{f"tensor({name})": name for name in ("float16", "int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}
RATE = 16000  # samples of audio in a second
MOST = 2**28  # elements of an input; more is no sensible size but a damaged file


def joint(a: Mapping[str, Input], b: Mapping[str, Input]) -> dict[str, Input]:
    """Declarations that suit two models: an axis is as large as either of them says."""

    def shape(one: Input, other: Input) -> tuple[int | str | None, ...]:
        return tuple(x if isinstance(x, int) else y for x, y in zip(one.shape, other.shape, strict=True))

    return {name: Input(name, one.type, shape(one, b[name]), one.below) for name, one in a.items()}


def random_feeds(
    model: str,
    inputs: Mapping[str, Input],
    sizes: Sizes,
    seed: int,
    index: int,
    *,
    step: int = 0,
    states: Mapping[str, Array | None] = {},
) -> Feeds:
    """Sample number `index` of made up inputs that fit the declarations.

    Args:
        model: What to call the model in messages.
        inputs: The declarations.
        sizes: What free dimensions are taken to be.
        seed: Seed of everything random.
        index: Number of the sample.
        step: How often the model has run on this sample already.
        states: The inputs that are fed back, with what the last run gave for them; None before the first one.

    Raises:
        ModelError: An input of `model` has a type that no array can have.
    """
    sample = _Sample(model, inputs, sizes, np.random.default_rng([seed, index, step]), step)
    given = {name: state for name, state in states.items() if state is not None}
    for name, state in given.items():  # free dimensions are what they have grown to
        sample.bind(inputs[name], state.shape)
    shapes = {name: sample.shape(declared) for name, declared in inputs.items()}
    return {
        name: given[name] if name in given else sample.array(declared, shapes, name in states)
        for name, declared in inputs.items()
    }


def feedback(inputs: Mapping[str, Input], outputs: Collection[Input]) -> dict[str, str]:
    """Which output is the next run's input: `hn` that of `h0`, `present.0.key` that of `past_key_values.0.key`, ..."""
    found: dict[str, str] = {}
    for declared in inputs.values():
        fits = [
            o.name for o in outputs if o.name not in found.values() and o.type == declared.type and _fits(o, declared)
        ]
        stem = _stem(declared.name)
        named = [name for name in fits if stem and _stem(name) == stem]
        if named or (re.search(_STATE, declared.name.lower()) and len(fits) == 1):
            found[declared.name] = (named or fits)[0]
    return found


_STATE = r"state|hidden|past|cache|(^|_)[hc](_?\d|_?in|_?prev)?$"
_OLD_OR_NEW = {
    "past", "present", "prev", "previous", "next", "new", "updated", "last", "init", "initial", "input", "output", "in",
    "out", "n",
}  # fmt: skip


def _stem(name: str) -> str:
    """What is left of a name without what tells old from new: `h` of h0, hn, h_in and new_h."""
    words = re.findall("[a-z]+|[0-9]+", name.lower().replace("key_values", ""))
    kept = [word for word in words if word not in _OLD_OR_NEW]
    if kept and kept[-1] == "0":
        kept.pop()
    return " ".join(word[:-1] if len(word) > 1 and word.endswith("n") else word for word in kept)


def _fits(output: Input, declared: Input) -> bool:
    """Whether an output can be the input of the next run; an axis that is free in one of them may have any size."""
    sizes = zip(output.shape, declared.shape, strict=False)
    known = [x for x in declared.shape if isinstance(x, int) and x > 1]
    clash = any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes)
    alike = output.type == declared.type and len(output.shape) == len(declared.shape) >= 2
    return alike and bool(known) and not clash


def real_feeds(model: str, inputs: Mapping[str, Input], data: Data) -> list[Feeds]:
    """The samples of a `.npz` file or a mapping, one dictionary for each; `zig.verify.verify` says how they lie in it.

    Raises:
        UsageError: The file can't be read, or doesn't fit the inputs of `model`.
    """
    arrays = data if isinstance(data, Mapping) else _load(Path(data))
    where = "the data" if isinstance(data, Mapping) else os.fspath(data)
    missing = [name for name in inputs if name not in arrays]
    if missing:
        have = ", ".join(arrays) or "nothing"
        raise UsageError(f"{where} holds no array for the input '{missing[0]}' of {model} (it holds {have})")
    columns = {name: _samples(arrays[name], declared, where) for name, declared in inputs.items()}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise UsageError(f"{where} holds {counts} samples; give the same number, at least one, for each input")
    return [dict(zip(columns, sample, strict=True)) for sample in zip(*columns.values(), strict=True)]


# -- sizes ------------------------------------------------------------------------------------------------------------


class _Sample:
    """One sample of inputs while it is made: equal symbols have equal sizes."""

    def __init__(self, model: str, inputs: Mapping[str, Input], sizes: Sizes, random: np.random.Generator, step: int):
        self.model, self.sizes, self.random, self.step = model, sizes, random, step
        self.symbols: dict[str, int] = {}
        self.heard = any(re.search(_RATE, name.lower()) for name in inputs)  # who asks for the rate wants audio

    def bind(self, declared: Input, shape: tuple[int, ...]) -> None:
        """Take the sizes of free dimensions from an array that is given."""
        for dim, size in zip(declared.shape, shape, strict=False):
            if isinstance(dim, str) and dim not in self.symbols:
                self.symbols[dim] = size

    def shape(self, declared: Input) -> tuple[int, ...]:
        """The sizes of an input."""
        return tuple(self._size(declared, axis) for axis in range(len(declared.shape)))

    def _size(self, declared: Input, axis: int) -> int:
        """The size of one axis; a symbol keeps its first size, a sum such as "past + 1" is summed."""
        dim = declared.shape[axis]
        if isinstance(dim, int):
            return max(dim, 0)
        if dim is None:
            return self._free("", declared, axis)
        terms = [term.strip() for term in dim.split("+")]
        return sum(
            int(term) if term.isdecimal() else self.symbols.setdefault(term, self._free(term.lower(), declared, axis))
            for term in terms
        )

    def _free(self, symbol: str, declared: Input, axis: int) -> int:
        volume, image, channel, rank = 5, 4, 1, len(declared.shape)
        if axis == rank - 1 > 0 and self.is_audio(declared) and "batch" not in symbol:
            return self.sizes.audio
        if re.search("seq|len|time|token|past", symbol):
            return self.sizes.sequence
        if axis == 0 or "batch" in symbol:
            return self.sizes.batch
        if rank < image:
            return self.sizes.sequence
        if axis == channel:
            return 3
        return self.sizes.image if rank < volume else max(16, self.sizes.image // 8)

    def is_audio(self, declared: Input) -> bool:
        """Whether an input is a wave form."""
        if (
            declared.type not in ("tensor(float)", "tensor(double)", "tensor(float16)")
            or not 0 < len(declared.shape) < 4
        ):
            return False
        long = isinstance(declared.shape[-1], int) and declared.shape[-1] >= 4000
        named = bool(re.search(_AUDIO, declared.name.lower())) or (self.heard and "input" in declared.name.lower())
        narrow = len(declared.shape) < 3 or declared.shape[1] in (1, 2)
        return (named or long) and narrow

    # -- values -------------------------------------------------------------------------------------------------------

    def array(self, declared: Input, shapes: Mapping[str, tuple[int, ...]], state: bool) -> Array:
        """Values that the input's type and name let a model expect."""
        if declared.type not in TYPES:
            problem = f"input '{declared.name}' is {declared.type}, which zig can't feed"
            raise ModelError(f"{self.model}: {problem}; make it an input of floats, integers, booleans or strings")
        shape, dtype = shapes[declared.name], np.dtype(TYPES[declared.type])
        if int(np.prod([float(n) for n in shape])) > MOST:
            raise ModelError(f"{self.model}: input '{declared.name}' of sizes {list(shape)} is too large to be made up")
        if dtype.kind == "O":
            return self.random.choice(np.array(["a", "b", "c"], dtype=object), shape)
        if state and not re.search("past|cache|key|value", declared.name.lower()):
            return np.zeros(shape, dtype)
        place = _Place(declared, shape, dtype, shapes)
        for kinds, pattern, make in _KINDS:
            if dtype.kind in kinds and re.search(pattern, declared.name.lower()):
                return np.broadcast_to(np.asarray(make(self, place)), shape).astype(dtype)
        return np.asarray(self._plain(place), dtype)  # of a single number too: onnxruntime takes no bool alone

    def _plain(self, place: _Place) -> Array:
        """Values of an input whose name says nothing of them."""
        shape, dtype = place.shape, place.dtype
        if dtype.kind == "b":
            return self.random.random(shape) < 0.5
        channels = next((axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in (1, 3, 4)), 0)
        if channels and min(shape[4 - channels], shape[2]) >= 16:
            pictures = (
                np.stack([self._picture(place, channels) for _ in range(shape[0])]) if shape[0] else np.empty(shape)
            )
            return 255 * pictures if dtype.kind in "iu" else 4 * pictures - 2
        if dtype.kind in "iu":
            pixels = dtype == np.uint8 and len(shape) > 2
            return self.random.integers(0, 256 if pixels else place.declared.below or self.sizes.tokens, shape)
        return self._voice(shape) if self.is_audio(place.declared) else self.random.standard_normal(shape)

    def _picture(self, place: _Place, channels: int) -> Array:
        """A drawing in [0, 1]: a slope of light, some boxes, and lines of dark strokes like those of text."""
        shape = list(place.shape[1:])
        colours = shape.pop(channels - 1)
        height, width = shape
        draw, y, x = self.random, *np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        light = 0.6 + 0.3 * np.sin(2 * (draw.normal() * y + draw.normal() * x + draw.random()))
        picture = light[..., None] * draw.uniform(0.7, 1, colours)
        for _ in range(6):
            top, left, tall, wide = draw.random(4)
            picture[(y > top) & (y < top + tall / 3) & (x > left) & (x < left + wide / 3)] = draw.random(colours)
        rows, strokes = np.sin(y * draw.uniform(25, 45)) > 0.3, draw.random(width).repeat(2)[:width] > 0.4
        picture[rows & strokes & (np.abs(y - 0.5) < 0.3) & (np.abs(x - 0.5) < 0.4)] *= 0.1
        picture += 0.02 * draw.standard_normal(picture.shape)
        return np.moveaxis(np.clip(picture, 0, 1), -1, channels - 1)

    def _voice(self, shape: tuple[int, ...]) -> Array:
        """A tone with overtones that rises and falls, in syllables, with a little noise; its peaks are near 0.5."""
        draw, seconds = self.random, np.arange(shape[-1]) / RATE
        pitch = draw.uniform(90, 250, (*shape[:-1], 1)) * (1 + 0.2 * np.sin(2 * np.pi * draw.uniform(0.5, 2) * seconds))
        phase = 2 * np.pi * np.cumsum(pitch, -1) / RATE
        tone = sum(np.sin(k * phase) / k for k in range(1, 6))
        syllables = np.sin(2 * np.pi * 2 * seconds + draw.uniform(0, np.pi, (*shape[:-1], 1))) ** 2
        return np.asarray(0.25 * tone * syllables + 0.01 * draw.standard_normal(shape))


class _Place(NamedTuple):
    """An input while it gets its values, among the shapes of all."""

    declared: Input
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shapes: Mapping[str, tuple[int, ...]]


def _mask(sample: _Sample, place: _Place) -> float:
    """Ones where a mask says what counts, zeros where it is added to scores or says what is left out."""
    return float(not (place.dtype.kind == "f" and len(place.shape) > 2) and "key_padding" not in place.declared.name)


def _positions(sample: _Sample, place: _Place) -> Array:
    past = next((size for name, size in sample.symbols.items() if "past" in name and "+" not in name), 0)
    counted = past + np.arange(place.shape[-1] if place.shape else 1)
    return np.minimum(counted, place.declared.below - 1) if place.declared.below else counted


def _length(sample: _Sample, place: _Place) -> int:
    """The whole length of the inputs that have one: their axis after the batch, or the last one of audio."""
    longer = [shape for shape in place.shapes.values() if len(shape) > 1]
    return max((shape[1] if len(shape) > 2 and shape[1] > 2 else shape[-1] for shape in longer), default=1)


_AUDIO = "audio|wave?form|^wave?s?$|speech|pcm|^signal|^samples"
_RATE = "^(sr|fs)$|samp.*rate"
# (kinds of types, pattern of the name, values): the first that fits
_KINDS: tuple[tuple[str, str, Callable[[_Sample, _Place], Any]], ...] = (
    ("fiub", "mask", _mask),
    ("iu", "position", _positions),
    ("iu", "token_?type|segment", lambda sample, place: 0),
    ("fiu", _RATE, lambda sample, place: RATE),
    ("iu", "(^|_)(length|len)s?$", _length),
    ("b", "use_cache|use_past", lambda sample, place: sample.step > 0),
    ("fiu", "im(age|g)?_?(shape|size)s?$|(orig|target).*_sizes?$", lambda sample, place: sample.sizes.image),
    ("f", "scale(_?factor)?s?$", lambda sample, place: 1),
    ("fiu", "time_?steps?$", lambda sample, place: sample.random.integers(1, 1000)),
    ("f", "^f_?min$", lambda sample, place: 50),
    ("f", "^f_?max$", lambda sample, place: 2000),
    ("iu", "bytes", lambda sample, place: sample.random.integers(0, 256, place.shape)),
)


# -- files ------------------------------------------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; --data takes a .npz file with an array for each input") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a .npz file of plain arrays; write it with numpy.savez") from error


def _samples(array: Array, declared: Input, where: str) -> list[Array]:
    """One input's array, cut into samples, in the type that the model wants."""
    dtype = np.dtype(TYPES.get(declared.type, "object"))
    if dtype.kind != "O" and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise UsageError(f"{where} holds {array.dtype} for the input '{declared.name}', which is {dtype}; convert it")
    array = np.asarray(array, dtype)
    return [array] if array.ndim == len(declared.shape) else [np.asarray(sample, dtype) for sample in array]
