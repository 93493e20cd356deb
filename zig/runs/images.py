"""Images in classes: digits, MNIST, CIFAR, or folders of files."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zig.errors import UsageError
from zig.packages import importing
from zig.runs.augment import AUGMENTATIONS, fit, jitter, mixed
from zig.runs.config import Images
from zig.runs.data import PLAIN, Arrays, Batch, Key

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".ppm", ".webp")


@dataclass(frozen=True)
class Part:
    """Images and labels; an `Examples`.

    Attributes:
        images: uint8 (c, h, w) each.
        labels: int64 (n,).
        section: How they are to be prepared.
        seed: Of the augmentation.
    """

    images: Sequence[Tensor] | Tensor
    labels: Tensor
    section: Images
    seed: int

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitem__(self, key: Key) -> Batch:
        """`image` float32 (c, h, w) and `label` int64 ()."""
        epoch, index = key
        image, size = self.images[index].float() / 255, self.section.size or 224
        if epoch != PLAIN and (self.section.augment or self.section.jitter):
            random = np.random.default_rng([self.seed, epoch, index])
            for name in self.section.augment:
                image = AUGMENTATIONS[name](image, size, random)
            image = image if self.section.jitter is None else jitter(image, self.section.jitter, random)
        if self.section.kind == "folder":
            image = fit(image, size)
        for numbers, apply in ((self.section.mean, torch.sub), (self.section.std, torch.div)):
            if numbers is not None:
                image = apply(image, torch.tensor(numbers).view(-1, 1, 1))
        return {"image": image, "label": self.labels[index]}


@dataclass(frozen=True)
class Classification:
    """A `Task`: say the class of each image."""

    train: Part
    held_out: Part
    classes: int
    inputs: tuple[str, ...] = ("image",)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracy, and with many classes also that of the best five."""
        return ("accuracy", "top5") if self.classes >= 100 else ("accuracy",)

    @classmethod
    def load(cls, section: Images, seed: int) -> Classification:
        """Read both parts.

        Raises:
            UsageError: A file is missing or not what it should be.
        """
        _check_folder(section)
        found = _KINDS[section.kind](Path(section.path))
        parts = [_limited(images, labels, section.limit) for images, labels in found[:2]]
        channels = parts[0][0][0].shape[0]
        for name in ("mean", "std"):
            numbers = getattr(section, name)
            if numbers is not None and len(numbers) != channels:
                raise UsageError(f"data.{name} has {len(numbers)} numbers, but the images have {channels} channels")
        train, held_out = (Part(images, labels, section, seed) for images, labels in parts)
        return cls(train, held_out, found[2])

    def arguments(self, batch: Batch) -> Tensor:
        """The images."""
        return batch["image"]

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """Scores (batch, classes)."""
        return (model(batch["image"]),)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Cross entropy."""
        return functional.cross_entropy(outputs[0].float(), batch["label"])

    def prepared(self, batch: Batch, random: np.random.Generator) -> Batch:
        """The batch after mix-up, where there is any."""
        alpha = self.train.section.mix_up
        return batch if alpha is None else batch | mixed(batch["image"], batch["label"], alpha, random)

    def training_loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Cross entropy with labels that are smoothed (Szegedy et al., 1512.00567) and mixed as the images are."""
        scores, smoothing = outputs[0].float(), self.train.section.label_smoothing or 0.0
        if "partner" not in batch:
            return functional.cross_entropy(scores, batch["label"], label_smoothing=smoothing)
        ours, theirs = (
            functional.cross_entropy(scores, batch[name], reduction="none", label_smoothing=smoothing)
            for name in ("label", "partner")
        )
        return (batch["share"] * ours + (1 - batch["share"]) * theirs).mean()

    def score(self, outputs: Iterable[Arrays]) -> dict[str, float]:
        """The share of images whose class has the highest score, or one of the highest five."""
        most = 5 if "top5" in self.metrics else 1
        best = np.concatenate([np.argsort(-scores, 1, kind="stable")[:, :most] for scores, *_ in outputs])
        right = best == self.held_out.labels.numpy()[:, None]
        numbers = {"accuracy": right[:, 0].mean(), "top5": right.any(1).mean()}
        return {name: float(numbers[name]) for name in self.metrics}

    def check(self, outputs: tuple[Tensor, ...]) -> None:
        """Refuse a network with another number of classes.

        Raises:
            UsageError: It has.
        """
        shape = tuple(outputs[0].shape[1:]) if isinstance(outputs[0], Tensor) else ()
        if shape != (self.classes,):
            raise UsageError(
                f"the data have {self.classes} classes, but the network gives outputs of shape {list(shape)} for an "
                "image; set its number of classes in model.options"
            )


Found = tuple[tuple[Any, Tensor], tuple[Any, Tensor], int]  # images and labels of both parts, number of classes


def _limited(images: Any, labels: Tensor, limit: int | None) -> tuple[Any, Tensor]:
    """Some of the images, the first of an order in which classes are mixed."""
    if limit is None or limit >= len(labels):
        return images, labels
    some = np.random.default_rng(0).permutation(len(labels))[:limit]
    return (images[some] if isinstance(images, Tensor) else images.only(some)), labels[some]


def _check_folder(section: Images) -> None:
    if section.kind == "digits":
        return
    if not section.path:
        raise UsageError(f"data.path is missing; give the folder of the {section.kind} files")
    if not Path(section.path).is_dir():
        raise UsageError(f"data.path: there is no folder {section.path}; put the {section.kind} files there")


def _digits(_: Path) -> Found:
    """The 1,797 digits that scikit-learn carries; a fifth is held out, the same share of each class."""
    with importing("data.kind digits"):
        from sklearn.datasets import load_digits  # noqa: PLC0415 - only these data need it
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    digits = load_digits()
    images = np.round(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    split = train_test_split(images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    here, there, known, truth = (torch.from_numpy(each) for each in split)
    return (here, known.long()), (there, truth.long()), 10


def _mnist(folder: Path) -> Found:
    """The four idx files of MNIST, or of any set in this format."""
    parts = []
    for name in ("train", "t10k"):
        images, labels = (_idx(folder, f"{name}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        parts.append((torch.from_numpy(images[:, None]), torch.from_numpy(labels).long()))
    return parts[0], parts[1], max(int(labels.max()) for _, labels in parts) + 1


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """An idx file of bytes: two zeros, a type, the number of axes, their sizes (big-endian), the values."""
    file = next((f for f in (folder / name, folder / f"{name}.gz") if f.exists()), None)
    if file is None:
        raise UsageError(f"there is no file {folder / name} (or .gz); data.path must be the folder of the idx files")
    content = _bytes(file)
    axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content, ">u4", axes, 4).astype(int) if len(content) >= 4 + 4 * axes else np.zeros(1)
    if not axes or len(content) != 4 + 4 * axes + shape.prod():
        raise UsageError(f"{file} is not a whole idx file of bytes; get it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _bytes(file: Path) -> bytes:
    if file.suffix != ".gz":
        return file.read_bytes()
    try:
        return gzip.decompress(file.read_bytes())
    except (gzip.BadGzipFile, EOFError) as error:
        raise UsageError(f"{file} is not a whole gzip file; get it again") from error


def _cifar10(folder: Path) -> Found:
    """The binary version of CIFAR-10."""
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    return _records(folder, train, 1), _records(folder, ["test_batch.bin"], 1), 10


def _cifar100(folder: Path) -> Found:
    """The binary version of CIFAR-100, with its fine labels."""
    return _records(folder, ["train.bin"], 2), _records(folder, ["test.bin"], 2), 100


def _records(folder: Path, names: list[str], labels: int) -> tuple[Tensor, Tensor]:
    """Files of records: some labels of one byte, of which the last counts, then 3 x 32 x 32 bytes."""
    parts, record = [], labels + 3 * 32 * 32
    for name in names:
        file = folder / name
        if not file.exists():
            raise UsageError(f"there is no file {file}; data.path must be the folder of the binary version")
        content = np.frombuffer(file.read_bytes(), np.uint8)
        if not len(content) or len(content) % record:
            raise UsageError(f"{file} is not a whole file of records of {record} bytes; get it again")
        parts.append(content.reshape(-1, record))
    rows = np.concatenate(parts)
    images = torch.from_numpy(rows[:, labels:].reshape(-1, 3, 32, 32).copy())
    return images, torch.from_numpy(rows[:, labels - 1].astype(np.int64))


@dataclass(frozen=True)
class Files:
    """Images that are read when they are asked for."""

    paths: list[Path]

    def __len__(self) -> int:
        """The number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w)."""
        from PIL import Image  # noqa: PLC0415 - only folders need it; asked for in `_folder`

        with Image.open(self.paths[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    def only(self, some: NDArray[np.int64]) -> Files:
        """Some of the files."""
        return Files([self.paths[i] for i in some])


def _folder(folder: Path) -> Found:
    """A folder for each class, in train/ and in val/."""
    with importing("reading image files"):
        import PIL.Image  # noqa: F401, PLC0415 - said here, before any of them is read
    train, val = folder / "train", folder / "val"
    for part in (train, val):
        if not part.is_dir():
            raise UsageError(f"there is no folder {part}; data.path must hold train/ and val/, with a folder a class")
    names = sorted(each.name for each in train.iterdir() if each.is_dir())
    if strange := sorted({each.name for each in val.iterdir() if each.is_dir()} - set(names)):
        raise UsageError(f"{val / strange[0]} is a class that {train} has not")
    return _files(train, names), _files(val, names), len(names)


def _files(part: Path, names: list[str]) -> tuple[Files, Tensor]:
    found = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((part / name).glob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise UsageError(f"{part} holds no image in a folder of a class; images end with {', '.join(SUFFIXES)}")
    return Files([file for file, _ in found]), torch.tensor([label for _, label in found])


_KINDS: dict[str, Callable[[Path], Found]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "folder": _folder,
}
