"""Small stand-ins for the data of a run, in files of the same format: for trying a configuration without its data.

The images carry a pattern by class, so that a network can learn them; the texts name people, towns and trades.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zig.locks import LOCK
from zig.runs.config import Data

FOLDER_CLASSES = 4
TRAIN, HELD_OUT = 8, 4  # images of each class
Bytes = NDArray[np.uint8]

NAMES = ("Anna", "Bruno", "Clara", "David", "Emma", "Felix")
TOWNS = ("Oslo", "Lima", "Cairo", "Quito")
TRADES = ("baker", "doctor", "painter", "judge")


def smoke_folder(out: str) -> Path:
    """Where a run that is only tried leaves its files."""
    return Path(f"{out}-smoke")


def empty(folder: Path) -> None:
    """Remove what the last try has left in a folder, but no lock of this one."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.name == LOCK:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink()


def stand_in(section: Data, folder: Path, *, write: bool = True) -> Data:
    """Write stand-ins for the files of a section, unless others do; and return the section that reads them."""
    if section.kind == "digits":
        return section  # these are always there
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        _WRITERS[section.kind](folder)
    return section.model_copy(update={"path": str(folder)})


def _images(classes: int, each: int, shape: tuple[int, int, int], seed: int) -> tuple[Bytes, Bytes]:
    """Images (n, c, h, w): a pattern for each class under noise; and labels (n,), in mixed order."""
    patterns = np.random.default_rng(0).integers(0, 256, (classes, shape[0], 4, 4))
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(classes), each)).astype(np.uint8)
    large = patterns.repeat(-(-shape[1] // 4), 2).repeat(-(-shape[2] // 4), 3)[:, :, : shape[1], : shape[2]]
    noise = random.integers(-40, 41, (len(labels), *shape))
    return (large[labels] + noise).clip(0, 255).astype(np.uint8), labels


def _mnist(folder: Path) -> None:
    for seed, (name, each) in enumerate((("train", TRAIN), ("t10k", HELD_OUT)), 1):
        images, labels = _images(10, each, (1, 28, 28), seed)
        for kind, values in (("images-idx3", images[:, 0]), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + values.tobytes())


def _cifar10(folder: Path) -> None:
    images, labels = _images(10, TRAIN, (3, 32, 32), 1)
    for number, some in enumerate(np.array_split(np.arange(len(labels)), 5), 1):
        _records(folder / f"data_batch_{number}.bin", images[some], labels[some][:, None])
    images, labels = _images(10, HELD_OUT, (3, 32, 32), 2)
    _records(folder / "test_batch.bin", images, labels[:, None])


def _cifar100(folder: Path) -> None:
    for seed, (name, each) in enumerate((("train.bin", 2), ("test.bin", 1)), 1):
        images, labels = _images(100, each, (3, 32, 32), seed)
        _records(folder / name, images, np.stack([labels // 5, labels], 1))


def _records(file: Path, images: Bytes, labels: Bytes) -> None:
    file.write_bytes(np.concatenate([labels, images.reshape(len(images), -1)], 1).tobytes())


def _folder(folder: Path) -> None:
    from PIL import Image  # noqa: PLC0415 - a folder of images is read by it, too

    for seed, (part, each) in enumerate((("train", TRAIN), ("val", HELD_OUT)), 1):
        images, labels = _images(FOLDER_CLASSES, each, (3, 72, 80), seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = folder / part / f"class{label}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(file)


def _squad(folder: Path) -> None:
    people = [(name, *at) for name, at in zip(NAMES, product(TOWNS, TRADES), strict=False)]
    texts = [f"{name} lives in {town}. {name} is a {trade} there." for name, town, trade in people]
    for file, some in (("train-v1.1.json", slice(0, 4)), ("dev-v1.1.json", slice(4, 6))):
        paragraphs = [_paragraph(text, *who) for text, who in zip(texts[some], people[some], strict=True)]
        content = {"version": "1.1", "data": [{"title": "people", "paragraphs": paragraphs}]}
        (folder / file).write_text(json.dumps(content, indent=1))
    words = sorted({word for text in texts for word in text.lower().replace(".", " ").split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, "where", "what", "does", "live", "?", "."]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")


def _paragraph(text: str, name: str, town: str, trade: str) -> dict[str, object]:
    asked = [
        (f"{name}-1", f"Where does {name} live?", [town, f"in {town}"]),
        (f"{name}-2", f"What is {name}?", [f"a {trade}", trade]),
    ]
    return {
        "context": text,
        "qas": [
            {
                "id": number,
                "question": question,
                "answers": [{"text": a, "answer_start": text.index(a)} for a in answers],
            }
            for number, question, answers in asked
        ],
    }


_WRITERS: dict[str, Callable[[Path], None]] = {
    "mnist": _mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "folder": _folder,
    "squad": _squad,
}
