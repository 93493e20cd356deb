"""Checkpoints: written whole or not at all, read without running anything that a file may hold."""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch

from zig import atomic
from zig.errors import UsageError

T = TypeVar("T")


def previous(path: str | Path) -> Path:
    """Where the checkpoint before the last one lies: `checkpoint.previous.pt` beside `checkpoint.pt`."""
    return Path(path).with_suffix(f".previous{Path(path).suffix}")


def write(path: str | Path, state: Mapping[str, Any]) -> None:
    """Save a checkpoint; the one that was there is kept beside it as the `previous` one.

    Args:
        path: The file; its folder is made.
        state: Tensors and plain values, in dicts, lists and tuples.

    Raises:
        UsageError: It can't be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{target} can't be written: {error.strerror or error}") from error
    with atomic.draft(target) as draft:
        with draft.file.open("wb") as file:
            _save(dict(state), file)
        if draft.target.exists():
            _keep(draft.target)
        draft.publish()


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # what torch makes of a disk that takes no more
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _keep(path: Path) -> None:
    """Give the last checkpoint a second name, under which it stays; at no moment is there none."""
    with atomic.draft(previous(path)) as draft:
        try:
            os.link(path, draft.file)
        except OSError:  # not every file system has links
            shutil.copyfile(path, draft.file)
        draft.publish()


def exists(path: str | Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return Path(path).exists() or previous(path).exists()


def resume(path: str | Path, apply: Callable[[dict[str, Any]], T], say: Callable[[str], None]) -> T | None:
    """Go on from a checkpoint, or from the one before it where the last one is damaged.

    Args:
        path: The file.
        apply: Takes what it holds; it may be called again with what the checkpoint before holds.
        say: Told which one is damaged, and that the one before is taken.

    Returns:
        What `apply` has returned; None where there is no checkpoint yet.

    Raises:
        UsageError: None can be read, or it is not of this run.
    """
    for place in filter(Path.exists, (Path(path), previous(path))):
        atomic.sweep(place)  # a run that was killed at its end writes no checkpoint any more
        try:
            state = read(place)
        except UsageError as error:
            if place != Path(path) or not previous(path).exists():
                raise
            say(f"{error}; going on from {previous(path).name}, the one before it")
            continue
        try:
            return apply(state)
        except (KeyError, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise UsageError(f"{place} does not fit this run ({said}); choose another folder by out") from error
    return None


def read(path: str | Path) -> dict[str, Any]:
    """What a file of `torch.save` holds, on the CPU; only tensors and plain values are read.

    Raises:
        UsageError: It can't be read, is damaged, or holds something else.
    """
    _check(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:
        raise UsageError(
            f"{path} is not a file of tensors and plain values; save it anew by torch.save(model.state_dict(), PATH)"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds a {type(found).__name__}; save a state dict: model.state_dict()")
    return found


def _check(path: str | Path) -> None:
    """Compare the bytes of an archive with its checksums, which torch does not look at."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":  # of torch before 1.6, which has no checksums
                return
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:
        raise UsageError(f"{path} is damaged ({error}); take a copy that is whole") from error
    if broken is not None:
        raise UsageError(f"{path} is damaged: the checksum of {broken!r} in it is wrong; take a copy that is whole")


def seed_all(seed: int) -> None:
    """Begin all random numbers anew: Python's, numpy's and torch's."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what others may draw from
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Where all random numbers of this process are: Python's, numpy's, torch's, and those of its accelerators."""
    kind, words, position, has, cached = np.random.get_state()  # noqa: NPY002 - as above
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(words, np.int64)), position, has, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Go on with random numbers where `random_state` was."""
    random.setstate(state["python"])
    kind, words, position, has, cached = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), position, has, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
