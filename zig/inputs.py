"""Inputs to run a model on: random ones made from its declarations, or real ones from a `.npz` file."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
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
    """A model's declaration of one input; a dimension is a size, a symbol's name or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Sizes(NamedTuple):
    """One guess at what a model's free dimensions and token numbers may be."""

    batch: int
    image: int
    sequence: int
    tokens: int


# Tried in this order until onnxruntime accepts the inputs: some models need a small vocabulary, others a minimal image.
GUESSES = (
    Sizes(2, 224, 16, 64),
    Sizes(2, 32, 16, 8),
    Sizes(2, 64, 8, 2),
    Sizes(2, 256, 32, 2),
    Sizes(1, 299, 1, 2),
    Sizes(1, 512, 128, 1),
    Sizes(1, 512, 576, 576),  # a frame of audio
    Sizes(1, 512, 16000, 16000),  # a second of it
)
TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
    **{f"tensor({name})": name for name in ("float16", "int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}


def joint(a: Mapping[str, Input], b: Mapping[str, Input]) -> dict[str, Input]:
    """Declarations that suit two models: an axis is as large as either of them says."""

    def shape(one: Input, other: Input) -> tuple[int | str | None, ...]:
        return tuple(x if isinstance(x, int) else y for x, y in zip(one.shape, other.shape, strict=True))

    return {name: Input(name, one.type, shape(one, b[name])) for name, one in a.items()}


def random_feeds(model: str, inputs: Mapping[str, Input], sizes: Sizes, seed: int, index: int) -> Feeds:
    """Sample number `index` of random inputs that fit the declarations.

    Raises:
        ModelError: An input of `model` has a type that no array can have.
    """
    generator = np.random.default_rng([seed, index])
    symbols: dict[str, int] = {}
    return {
        name: _random_array(model, declared, _shape(declared, sizes, symbols), sizes, generator)
        for name, declared in inputs.items()
    }


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


def _shape(declared: Input, sizes: Sizes, symbols: dict[str, int]) -> tuple[int, ...]:
    rank = len(declared.shape)
    return tuple(_size(dim, axis, rank, sizes, symbols) for axis, dim in enumerate(declared.shape))


def _size(dim: int | str | None, axis: int, rank: int, sizes: Sizes, symbols: dict[str, int]) -> int:
    """The size of one axis; a symbol keeps its first size, a sum such as "past + 1" is summed."""
    if isinstance(dim, int):
        return dim
    if dim is None:
        return _free_size("", axis, rank, sizes)
    terms = [term.strip() for term in dim.split("+")]
    return sum(
        int(term) if term.isdigit() else symbols.setdefault(term, _free_size(term.lower(), axis, rank, sizes))
        for term in terms
    )


def _free_size(symbol: str, axis: int, rank: int, sizes: Sizes) -> int:
    volume, image, channel = 5, 4, 1
    if re.search("seq|len|time|token|past", symbol):
        return sizes.sequence
    if axis == 0 or "batch" in symbol:
        return sizes.batch
    if rank < image:
        return sizes.sequence
    if axis == channel:
        return 3
    return sizes.image if rank < volume else max(16, sizes.image // 8)


def _random_array(
    model: str, declared: Input, shape: tuple[int, ...], sizes: Sizes, generator: np.random.Generator
) -> Array:
    """Values that the input's type and name let a model expect.

    Floating point is standard normal. Integers named like a mask are ones, like positions 0, 1, 2, ..., like token
    types zeros; bytes with three axes or more are pixels; all others are small enough to look up in a table.
    """
    if declared.type not in TYPES:
        problem = f"input '{declared.name}' is {declared.type}, which zig can't feed"
        raise ModelError(f"{model}: {problem}; make it an input of floats, integers, booleans or strings")
    dtype = np.dtype(TYPES[declared.type])
    name = declared.name.lower()
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "O":
        return generator.choice(np.array(["a", "b", "c"], dtype=object), shape)
    if "mask" in name:
        return np.ones(shape, dtype)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if "position" in name:
        return np.broadcast_to(np.arange(shape[-1] if shape else 1, dtype=dtype), shape).copy()
    if re.search("token_?type|segment", name):
        return np.zeros(shape, dtype)
    pixels = dtype == np.uint8 and len(shape) > 2
    return generator.integers(0, 256 if pixels else sizes.tokens, shape).astype(dtype)


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
    return [array] if array.ndim == len(declared.shape) else list(array)
