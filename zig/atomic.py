"""The one way to write a file: in a hidden folder beside the target, then renamed.

Whoever reads finds the old file or the new one, whole, even where the process is killed at the worst moment. What a
killed process leaves is removed by the next one that writes to the same target.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zig import locks
from zig.errors import UsageError

_LOCK, _NEW = "lock", "new"
_SUFFIX = ".part"
_RANDOM = 8  # characters that `tempfile` puts into a name
_LONGEST = 200  # bytes of a name that others are made from; file systems take 255
_LINKS = 40  # that are followed, as the kernel does


@dataclass(frozen=True)
class Draft:
    """What is being written.

    Attributes:
        folder: The hidden folder, for anything that is needed on the way.
        target: Where the file goes; links are followed.
        named: The file as it was named.
    """

    folder: Path
    target: Path
    named: Path

    @property
    def file(self) -> Path:
        """The file that becomes the target; its folder holds nothing else, so it may have any name."""
        return self.folder / _NEW / self.target.name

    def publish(self) -> None:
        """Put the file in its place, once its bytes are on the disk."""
        if self.target.exists():
            shutil.copymode(self.target, self.file)
        sync(self.file)
        os.replace(self.file, self.target)
        sync(self.target.parent)


@contextlib.contextmanager
def draft(target: str | os.PathLike[str], swept: Callable[[Path, Path], None] | None = None) -> Iterator[Draft]:
    """A draft of a file; it is gone afterwards, whatever happens.

    Args:
        target: the file as it was named.
        swept: called with the folder of a draft whose process is dead, before that is removed, and the target.

    Raises:
        UsageError: the target can't be written; nothing was changed.
    """
    try:
        place = checked(target)
        sweep(place, swept)
        folder, lock = _begin(place)
        try:
            (folder / _NEW).mkdir()
            yield Draft(folder, place, Path(target))
        finally:
            # The lock is the last to go: a folder without one may be somebody's who is about to take it.
            for left in folder.iterdir():
                if left.name != _LOCK:
                    _remove(left)
            if lock is not None:
                locks.release(lock, folder / _LOCK)
            _remove(folder)
    except OSError as error:
        raise UsageError(f"{target} can't be written: {error.strerror or error}; nothing was changed") from error


def write(target: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file in one piece.

    Raises:
        UsageError: it can't be written; what was there is still there.
    """
    with draft(target) as made:
        made.file.write_bytes(content.encode() if isinstance(content, str) else content)
        made.publish()


def write_json(target: str | os.PathLike[str], content: Any) -> None:
    """Write plain data as indented JSON.

    Raises:
        UsageError: it can't be written; what was there is still there.
    """
    write(target, json.dumps(content, indent=2) + "\n")


def checked(target: str | os.PathLike[str]) -> Path:
    """Where a file is to be written, links followed.

    Raises:
        UsageError: it can't be: there is no such folder, or something else than a file has the name.
    """
    place = _followed(Path(target))
    folder = place.parent
    if place.is_dir():
        raise UsageError(f"{target} is not a file but a folder; give the name of a file to write")
    if place.exists() and not place.is_file():
        raise UsageError(f"{target} is not a file but a pipe or a device; give the name of a file to write")
    if not folder.is_dir():
        raise UsageError(f"{target} can't be written: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{target} can't be written: folder {folder} is read-only; choose another one")
    return place


def short(name: str) -> str:
    """As much of a file's name as leaves room for what is put before and behind it."""
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir():
        with contextlib.suppress(OSError):  # not every system can sync a folder; it may be later then
            _fsync(path, os.O_RDONLY)
    else:
        _fsync(path, os.O_RDWR)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _followed(target: Path) -> Path:
    """The place that a chain of links leads to, in an existing folder or not."""
    place = target
    for _ in range(_LINKS):
        place = Path(os.path.realpath(place.parent), place.name) if place.name else place
        if place.parts[1:2] == ("proc",) or place.parts[1:3] == ("dev", "fd"):
            raise UsageError(f"{target} is not a file but an open stream; give the name of a file to write")
        if not place.is_symlink():
            return place
        place = place.parent / os.readlink(place)
    raise UsageError(f"{target} is a link that leads to no file; give the name of a file to write")


# --- hidden folders --------------------------------------------------------------------------------------------------


def _begin(target: Path) -> tuple[Path, int | None]:
    """A hidden folder beside the target and its lock, which is None where the file system has none."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=_SUFFIX, dir=target.parent))
        try:
            lock = locks.take(folder / _LOCK)
        except FileNotFoundError:  # swept by somebody, who took us for dead
            continue
        except OSError:
            return folder, None
        if lock is not None:
            return folder, lock


def _prefix(target: Path) -> str:
    return f".{short(target.name)}."


def sweep(target: Path, swept: Callable[[Path, Path], None] | None = None) -> None:
    """Remove what dead processes have left beside the target."""
    prefix = _prefix(target)
    length = len(prefix) + _RANDOM + len(_SUFFIX)
    with os.scandir(target.parent) as entries:
        found = [Path(entry.path) for entry in entries if len(entry.name) == length and entry.name.startswith(prefix)]
    for folder in found:
        if folder.name.endswith(_SUFFIX) and not folder.is_symlink() and folder.is_dir():
            _sweep_one(folder, target, swept)


def _sweep_one(folder: Path, target: Path, swept: Callable[[Path, Path], None] | None) -> None:
    ours = {path.name for path in folder.iterdir()}
    if ours and _LOCK not in ours:  # not of this making
        return
    try:
        lock = locks.take(folder / _LOCK)
    except OSError:  # it has just gone, or nothing tells whether its process lives
        return
    if lock is not None:
        if swept is not None:
            swept(folder, target)
        _remove(folder)
        locks.release(lock, folder / _LOCK)


def _remove(path: Path) -> None:
    """Remove a file or a folder; one that will not go is left to the next who writes to the target."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def is_plain(path: Path) -> bool:
    """Whether a path is a file of its own: neither a link nor one of several names."""
    try:
        found = path.lstat()
    except (OSError, ValueError):  # no such file, or no name of a file
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
