"""Checkpoints: written whole or not at all, read without running anything that a file may hold."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zig.errors import UsageError


def write(path: str | Path, state: Mapping[str, Any]) -> None:
    """Save beside the target, make sure that it is on the disk, and rename it: whoever reads finds the old or the new.

    Args:
        path: The file; its folder is made.
        state: Tensors and plain values, in dicts, lists and tuples.

    Raises:
        UsageError: It can't be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise UsageError(
            f"{target} can't be written ({error.strerror or error}); what was there is still there"
        ) from error
    _sweep(target)


def _sweep(target: Path) -> None:
    """Remove what a process that was killed while it wrote has left beside the target."""
    for left in target.parent.glob(f".{target.name}.*"):
        left.unlink(missing_ok=True)


def read(path: str | Path) -> dict[str, Any]:
    """What a file of `torch.save` holds, on the CPU; only tensors and plain values are read.

    Raises:
        UsageError: It can't be read, or holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is not a file of tensors and plain values; save it anew by torch.save(model.state_dict(), PATH)"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds a {type(found).__name__}; save a state dict: model.state_dict()")
    return found


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
