"""The runners' files, `.vai/<class>.sens` and `.search`: a class has many networks, so a file is known by its content.

What lies at a runner's place and is of another network is never used and never lost: where this network is measured
anew, it moves aside, and comes back when its own network asks again.
"""

from __future__ import annotations

import glob
import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zig.errors import UsageError, ZigWarning
from zig.search.pruner import Pruner
from zig.search.record import read


def begun(path: Path, pruner: Pruner, options: Mapping[str, tuple[str, Any]]) -> bool:
    """Make `path` the place of this network's scores, and tell where what was there is not used.

    Args:
        path: The runner's file.
        pruner: Whose scores are wanted.
        options: What scores depend on, by its name in the file: the name of the runner's argument, and its value.

    Returns:
        Whether what is there now is to be forgotten.
    """
    other = _brought_back(path, pruner)
    if other:
        said = f"{path} is of {other}; it is {_moved(path)} now, and this model is measured anew"
        warnings.warn(said, ZigWarning, stacklevel=3)
    known = read(path) if path.exists() else {}
    changed = [word for name, (word, value) in options.items() if known and known.get(name) != value]
    if changed:
        said = f"{path} was made with another {changed[0]}; the model is measured anew"
        warnings.warn(said, ZigWarning, stacklevel=3)
    return bool(changed)


def found(path: Path, pruner: Pruner, again: str) -> Path:
    """The file of this network.

    Args:
        path: The runner's file.
        pruner: Whose scores are wanted.
        again: The runner's method that makes the file.

    Raises:
        UsageError: There is none, or what is there is of something else.
    """
    other = _brought_back(path, pruner)
    if not path.exists():
        raise UsageError(f"there is no {path} yet; call {again} first")
    if other:
        raise UsageError(f"{path} is of {other}; call {again}, which measures this model anew")
    return path


def _brought_back(path: Path, pruner: Pruner) -> str:
    """Put this network's file in its place where it lies aside; says what else is there, empty for nothing else."""
    other = _unlike(path, pruner) if path.exists() else ""
    if path.exists() and not other:
        return ""
    for aside in sorted(path.parent.glob(f"{glob.escape(path.stem)}-*{path.suffix}")):
        if not _unlike(aside, pruner):
            if other:
                _moved(path)
            os.replace(aside, path)
            return ""
    return other


def _unlike(path: Path, pruner: Pruner) -> str:
    try:
        return pruner.unlike(read(path))
    except UsageError:
        return "something else: it can't be read as scores"


def _moved(path: Path) -> Path:
    """Move a file aside, under a name that says what is in it."""
    try:
        stamp = hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest()
        aside = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
        os.replace(path, aside)
    except OSError as error:
        raise UsageError(f"{path} is of something else and can't be moved aside ({error.strerror})") from error
    return aside
