"""The data files of models: what they are called, which model refers to which, and which nobody needs any more.

A model names its data file by a path relative to its folder, so any other model in that folder may name the same one.
A data file is therefore never written over: a new one gets a name of its own, the model is renamed, and then the old
one goes, unless something else in the folder has its name in it.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message

from zig import locks
from zig.atomic import Draft, is_plain, short, sync
from zig.errors import UsageError

_LIST = "data.json"  # in a draft: the data files that may have to go if its process dies
_DIGITS = 12  # of a digest in a name
_WHOLE = 1 << 30  # bytes of a file that all count for its digest; of a larger one pieces do
_PIECE, _PIECES = 1 << 20, 256
_LARGEST = 1 << 31  # bytes of a model, by protobuf


def name_of(data: Path, model: str, home: Path) -> str:
    """The name of a data file by what is in it, which in its folder is free or stands for the same bytes.

    Args:
        data: the file.
        model: the name of the model that it belongs to.
        home: the folder that it goes to.
    """
    digest = _digest(data)
    for number in count(2):
        name = f"{short(model)}.{digest}.data"
        if _has_room(home / name, data):
            return name
        digest = f"{digest[:_DIGITS]}-{number}"
    raise AssertionError("there is no last number")


def publish(draft: Draft) -> None:
    """Move a model and its data to their place by a single rename, and remove the old data that nobody needs.

    Raises:
        UsageError: somebody else has just taken the name of a data file, or the target is a link into another folder.
    """
    home = draft.target.parent
    data = [file for file in draft.file.parent.iterdir() if file != draft.file]
    if data and os.path.realpath(draft.named.parent) != str(home):
        raise UsageError(
            f"{draft.named} is a link into another folder, where its data would not be found; write to {draft.target}"
        )
    with locks.waiting(home):
        names = of_model(draft.target) + [file.name for file in data if not (home / file.name).exists()]
        if names:
            (draft.folder / _LIST).write_text(json.dumps(names))
        try:
            for file in data:
                _move(file, home / file.name)
            draft.publish()
        finally:  # whatever happens, data stay if and only if a model names them
            remove(names, draft.target)


def remove(names: Iterable[str], model: Path) -> None:
    """Remove data files of a model's folder that nothing in it refers to."""
    home = model.parent
    for name in names:
        file = home / name
        if is_plain(file) and _lies_in(file, home) and file.suffix != ".onnx" and file != model:
            _remove(file, home)


def _remove(data: Path, home: Path) -> None:
    try:
        if not _is_needed(data, home):
            data.unlink()
    except OSError:  # what can't be read may be a model that needs it; what can't be removed may stay
        return


def swept(folder: Path, target: Path) -> None:
    """Remove the data files that a dead process has moved or would have removed; its draft lies in `folder`."""
    try:
        names = json.loads((folder / _LIST).read_text())
    except (OSError, ValueError):  # it moved nothing yet
        return
    with locks.waiting(target.parent):
        remove(names, target)


def of_model(file: Path) -> list[str]:
    """The data files that a model names, relative to its folder; none, where there is no model."""
    try:
        if not file.is_file() or not _contains(file, b"location"):
            return []
        model = onnx.load(file, load_external_data=False)
    except (OSError, DecodeError, ValueError):  # what can't be read names nothing that could be removed
        return []
    return list(dict.fromkeys(entry.value for tensor in _tensors(model) for entry in tensor.external_data
                              if entry.key == "location" and entry.value))  # fmt: skip


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """All tensors of a model, wherever they stand."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _tensors(part)


def _digest(file: Path) -> str:
    """Hexadecimal digits by the bytes of a file."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    starts = range(0, size, _PIECE if size <= _WHOLE else size // _PIECES)
    with file.open("rb") as opened:
        for start in starts:
            opened.seek(start)
            digest.update(opened.read(_PIECE))
    return digest.hexdigest()[:_DIGITS]


def _has_room(place: Path, data: Path) -> bool:
    """Whether a place is free, or holds the same bytes."""
    return not os.path.lexists(place) or (is_plain(place) and filecmp.cmp(place, data, shallow=False))


def _move(data: Path, place: Path) -> None:
    if not _has_room(place, data):
        raise UsageError(f"{place} has just been written by somebody else; run the command again")
    if not place.exists():
        sync(data)
        os.rename(data, place)


def _lies_in(file: Path, home: Path) -> bool:
    """Whether a file is in a folder or below it, and in no other by a link."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(home))


def _is_needed(data: Path, home: Path) -> bool:
    """Whether a file that may be a model has the name of a data file in it.

    Files are searched for the bytes of the name, without parsing them: what is found may be something else, but
    nothing is missed, in whatever format they are.
    """
    name = max(re.findall(rb"[\w.+-]+", os.fsencode(data.name), re.ASCII), key=len, default=b"")
    here = [path for folder in {home, data.parent} for path in folder.iterdir()]
    above = home.absolute().parent.glob("*.onnx")  # a model up there may name a file in a folder below it
    return any(path.is_file() and not path.samefile(data) and _contains(path, name) for path in (*here, *above))


def _contains(file: Path, words: bytes) -> bool:
    """Whether a file that is not too large for a model contains some bytes."""
    size = file.stat().st_size
    if not size or size > _LARGEST:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(words) >= 0
