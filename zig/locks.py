"""Locks that end with their process, however it ends: nobody has to clean up after one that was killed."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zig.errors import UsageError

fcntl: Any
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

LOCK = ".zig.lock"  # in the folder of a run
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of file systems that have no locks
_held: set[int] = set()  # descriptors


def take(path: Path) -> int | None:
    """Take the lock of a file, which is made where it is missing.

    Returns:
        What to give to `release`; None where somebody else has the lock.

    Raises:
        OSError: the file can't be opened, or its file system has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            ours = _lock(descriptor)
            if ours and _stands(descriptor, path):
                _held.add(descriptor)
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not ours:
            return None


def release(descriptor: int, path: Path) -> None:
    """Give a lock back and remove its file."""
    if fcntl is not None:  # whoever has opened the file meanwhile sees that it is not there any more
        _unlink(path)
    _held.discard(descriptor)
    os.close(descriptor)
    if fcntl is None:  # an open file can't be removed there
        _unlink(path)


@contextlib.contextmanager
def alone(folder: str | os.PathLike[str], what: str = "run") -> Iterator[None]:
    """Write to a folder as the only process that does.

    Args:
        folder: made where it is missing.
        what: writes to it, for the error.

    Raises:
        UsageError: another process writes to it, or it can't be written.
    """
    path = Path(folder, LOCK)
    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = take(path)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise UsageError(f"{folder} can't be written ({error.strerror or error}); choose another out") from error
        yield  # nobody can tell there
        return
    if descriptor is None:
        raise UsageError(f"another {what} is at work in {folder}; wait for its end, or choose another out")
    try:
        yield
    finally:
        release(descriptor, path)
        if new:
            with contextlib.suppress(OSError):  # the usual case: something is in it now
                path.parent.rmdir()


@contextlib.contextmanager
def waiting(folder: Path) -> Iterator[None]:
    """Change the files of a folder while no other process of zig does; on Windows, where nothing tells, at once."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (*_UNKNOWN, errno.EBADF):  # network file systems lock no folders
                raise
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock of an open file is ours now."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            windows: Any = importlib.import_module("msvcrt")
            windows.locking(descriptor, windows.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _stands(descriptor: int, path: Path) -> bool:
    """Whether an open file is still what its path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):  # somebody else has removed it, or is about to
        os.unlink(path)


def _forget() -> None:
    """Close what a fork has got from its parent: the lock of a process ends with that process alone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
