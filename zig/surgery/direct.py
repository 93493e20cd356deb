"""Bytes on their way to a file: those of a large file go past the system's cache.

A file of many gigabytes pushes all else out of the cache, and takes memory for each of its pages, which a virtual
machine must first get from its host: where this was written 6.7 GB took 9 s through the cache, 2 s past it.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from zig.model.shapes import Array

ALIGNED = 1 << 16  # bytes: what goes past the cache begins and ends at multiples of it, in the file and in memory
LARGE = 1 << 31  # bytes of a file
_BLOCK = 1 << 22
# Bytes that go through the cache at once. For more the kernel takes large blocks of memory, which a virtual machine may
# first have to get back from its host: pieces of 4 MB took ten times as long there.
_CHUNK = 1 << 16


def put(file: BinaryIO, pieces: Iterable[Array]) -> None:
    """Write runs of bytes, uint8[n] each, one after the other from where an open file is."""
    straight = _straight(file)
    if straight:
        with straight:
            pieces = [_put_blocks(straight, pieces)]  # what is left is too little to go past the cache
            file.seek(straight.tell())
    for piece in pieces:
        for start in range(0, len(piece), _CHUNK):
            file.write(piece[start : start + _CHUNK].data)


def _straight(file: BinaryIO) -> io.FileIO | None:
    """The same place of a large file, opened to write past the cache; None where the system has no way to."""
    start = file.tell()
    if not hasattr(os, "O_DIRECT") or start % ALIGNED or os.fstat(file.fileno()).st_size < LARGE:
        return None
    try:
        straight = io.FileIO(file.name, "r+", opener=lambda path, flags: os.open(path, flags | os.O_DIRECT))
    except OSError:  # not every file system can
        return None
    straight.seek(start)
    return straight


def _put_blocks(file: io.FileIO, pieces: Iterable[Array]) -> Array:
    """Write all that fills whole blocks of the disk; the rest comes back, uint8[n]."""
    space = np.empty(_BLOCK + ALIGNED, np.uint8)
    first = -space.ctypes.data % ALIGNED
    block, filled = space[first : first + _BLOCK], 0
    for piece in pieces:
        done = 0
        while done < len(piece):
            count = min(len(piece) - done, _BLOCK - filled)
            block[filled : filled + count] = piece[done : done + count]
            done, filled = done + count, filled + count
            if filled == _BLOCK:
                _put_all(file, block)
                filled = 0
    whole = filled - filled % ALIGNED
    _put_all(file, block[:whole])
    return block[whole:filled]


def _put_all(file: io.FileIO, block: Array) -> None:
    """Write a block to its last byte; the system may take less at a time."""
    while len(block):
        try:
            block = block[file.write(block.data) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not _stop_going_straight(file):
                raise


def _stop_going_straight(file: io.FileIO) -> bool:
    """Let a file go through the cache after all, as what some file systems say of it is not so; whether it did not."""
    import fcntl  # noqa: PLC0415 - Windows has none, nor a way past the cache

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    fcntl.fcntl(file, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)
