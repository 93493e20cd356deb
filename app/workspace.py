"""Which files a session of the app may touch: those of one folder, and what the user uploaded in this session."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zig.atomic import draft
from zig.errors import ModelError, UsageError

UPLOAD_LIMIT = 1 << 30  # bytes
UPLOADED = (".onnx", ".data", ".bin", ".weight", ".npz")
LISTED = 200  # models in the list of a folder
DEPTH = 4  # folders below the chosen one that are searched for models
_CHUNK = 1 << 20


class Workspace:
    """The chosen folder, and a scratch folder that is gone when the session is."""

    def __init__(self, root: Path):
        """Allow the files below `root`."""
        self.root = root.resolve()
        self.scratch = Path(tempfile.mkdtemp(prefix="zig-view-")).resolve()
        weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)

    def resolve(self, text: str) -> Path:
        """The file or folder that a user names, absolute or relative to the chosen folder.

        Raises:
            UsageError: it lies outside the chosen folder, links followed.
            ModelError: there is nothing of this name.
        """
        path = (self.root / Path(text.strip()).expanduser()).resolve()
        if not any(path.is_relative_to(folder) for folder in (self.root, self.scratch)):
            raise UsageError(
                f"{text} lies outside {self.root}; the app opens files of the folder that it was started with, "
                "so start `zig view` with that folder"
            )
        if not path.exists():
            raise ModelError(f"{text}: there is no such file in {self.root}")
        return path

    def shown(self, path: Path) -> str:
        """A path as the pages show it: relative to the chosen folder, or the bare name of an upload."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else path.name

    def models(self) -> list[Path]:
        """The ONNX files of the chosen folder, at most `LISTED`, nearest first."""
        found: list[Path] = []
        for path in self._files(".onnx"):
            found.append(path)
            if len(found) == LISTED:
                break
        return found

    def log_folders(self) -> list[Path]:
        """The folders that hold training logs."""
        folders = dict.fromkeys(path.parent for path in self._files(".jsonl"))
        return list(folders)[:LISTED]

    def receive(self, name: str, content: BinaryIO) -> Path:
        """Keep an upload in the scratch folder.

        Raises:
            UsageError: it is of a kind that the app never reads, or larger than `UPLOAD_LIMIT`.
        """
        clean = re.sub(r"[^\w.+-]", "_", Path(name.replace("\\", "/")).name).lstrip(".")
        if Path(clean).suffix.lower() not in UPLOADED:
            raise UsageError(f"{name}: the app takes {', '.join(UPLOADED)} files")
        size = 0
        with draft(self.scratch / clean) as made:
            with made.file.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    size += len(chunk)
                    if size > UPLOAD_LIMIT:
                        raise UsageError(
                            f"{name} is larger than the limit of {UPLOAD_LIMIT >> 20} MB for uploads; "
                            "open it by its path instead: nothing is copied then, and there is no limit"
                        )
                    file.write(chunk)
            made.publish()
        return made.target

    def folder(self, name: str) -> Path:
        """A fresh folder for results of this session."""
        number = 1
        while (path := self.scratch / f"{name}-{number}").exists():
            number += 1
        path.mkdir()
        return path

    def _files(self, suffix: str) -> Iterator[Path]:
        """Files of a kind below the chosen folder, level by level, without hidden folders and links out of it."""
        level = [self.root]
        for _ in range(DEPTH):
            below: list[Path] = []
            for folder in level:
                try:
                    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
                except OSError:  # a folder that may not be read has nothing to offer
                    continue
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        below.append(Path(entry.path))
                    elif entry.name.endswith(suffix) and Path(entry.path).resolve().is_relative_to(self.root):
                        yield Path(entry.path)
            level = below


def start(given: str | None) -> tuple[Path, Path | None]:
    """The chosen folder and the model to open first, from what the app was started with."""
    path = Path(given) if given else Path.cwd()
    return (path, None) if path.is_dir() else (path.parent, path)
