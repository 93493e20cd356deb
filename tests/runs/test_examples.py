"""Data: files are read as their formats say, and what training sees depends on seed, epoch and number alone."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zig.errors import UsageError
from zig.runs import data
from zig.runs.augment import AUGMENTATIONS, fit
from zig.runs.config import Images
from zig.runs.data import PLAIN, Key
from zig.runs.images import Classification
from zig.runs.standin import stand_in


def load(kind: str, path: Path | None = None, **options: Any) -> Classification:
    return Classification.load(Images(kind=kind, path=str(path or ""), **options), 0)


def test_digits_are_split_the_same_way_each_time() -> None:
    task = load("digits")
    assert (len(task.train), len(task.held_out), task.classes) == (1437, 360, 10)
    image, label = task.train[Key(PLAIN, 0)].values()
    assert image.shape == (1, 8, 8)
    assert 0 <= image.min() < image.max() <= 1
    assert label.dtype == torch.int64
    assert torch.bincount(task.held_out.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def test_idx_files_zipped_or_not(tmp_path: Path) -> None:
    images = np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4)
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.array([3, 1], np.uint8)))
    task = load("mnist", tmp_path)
    assert task.classes == 4
    example = task.train[Key(PLAIN, 1)]
    assert example["label"] == 1
    assert torch.equal(example["image"], torch.from_numpy(images[1:2]) / 255)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([3, 1], np.uint8))[:-1])
    with pytest.raises(UsageError, match="train-labels-idx1-ubyte is not a whole idx file"):
        load("mnist", tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UsageError, match="is not a whole gzip file"):
        load("mnist", tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UsageError, match=r"there is no file .*train-images-idx3-ubyte"):
        load("mnist", tmp_path)


def test_cifar_records(tmp_path: Path) -> None:
    def record(*labels: int, value: int) -> bytes:
        pixels = np.full((3, 32, 32), value, np.uint8)
        pixels[0] = 255  # red
        return bytes(labels) + pixels.tobytes()

    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(record(number, value=10 * number) + record(0, value=0))
    (tmp_path / "test_batch.bin").write_bytes(record(9, value=51))
    task = load("cifar10", tmp_path)
    assert task.train.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert task.held_out[Key(PLAIN, 0)]["image"][:, 3, 7].tolist() == pytest.approx([1, 0.2, 0.2])
    for name in ("train", "test"):
        (tmp_path / f"{name}.bin").write_bytes(record(2, 77, value=0))
    task = load("cifar100", tmp_path)
    assert (task.classes, task.train.labels.tolist(), task.metrics) == (100, [77], ("accuracy", "top5"))
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(UsageError, match=r"test_batch.bin is not a whole file of records of 3073 bytes"):
        load("cifar10", tmp_path)


def test_folders_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for part, name, colour in (("train", "cat", 255), ("train", "dog", 0), ("val", "dog", 51)):
        (tmp_path / part / name).mkdir(parents=True)
        image.new("L", (30, 20), colour).save(tmp_path / part / name / "1.png")
    task = load("folder", tmp_path, size=16, mean=[0.2, 0.2, 0.2], std=[0.5, 0.5, 0.5])
    assert (task.classes, task.train.labels.tolist(), task.held_out.labels.tolist()) == (2, [0, 1], [1])
    assert torch.allclose(task.train[Key(PLAIN, 0)]["image"], torch.full((3, 16, 16), 1.6), atol=1e-6)
    assert torch.allclose(task.held_out[Key(PLAIN, 0)]["image"], torch.zeros(3, 16, 16), atol=1e-6)
    (tmp_path / "val" / "fox").mkdir()
    with pytest.raises(UsageError, match=r"fox is a class that .*train has not"):
        load("folder", tmp_path)


def test_scores() -> None:
    task = load("digits")
    right = np.eye(10, dtype=np.float32)[task.held_out.labels.numpy()]
    right[:36] = 0  # then the first class wins
    expected = (324 + (task.held_out.labels[:36] == 0).sum().item()) / 360
    assert task.score([[right[:100]], [right[100:]]]) == {"accuracy": expected}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_is_a_function_of_its_random_numbers(name: str) -> None:
    image = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    results = [AUGMENTATIONS[name](image, 32, np.random.default_rng(seed)) for seed in (1, 1, *range(2, 12))]
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])
    assert all(each.min() >= 0 and each.max() <= 1 for each in results)
    assert fit(results[0], 32).shape == (3, 32, 32)


def test_the_middle_of_an_image() -> None:
    image = torch.zeros(1, 70, 140)
    image[:, :, 35:105] = 1
    assert torch.allclose(fit(image, 56), torch.ones(1, 56, 56), atol=1e-3)


def test_any_process_at_any_step_sees_what_one_that_never_stopped_has_seen() -> None:
    whole = list(data.keys(103, 20, 7, range(17)))
    assert whole[4:11] == list(data.keys(103, 20, 7, range(4, 11)))
    first, second = (list(data.keys(103, 20, 7, range(17), slice(at, at + 10))) for at in (0, 10))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert len({key.number for batch in whole[:5] for key in batch}) == 100  # an epoch; each example once
    assert {key.epoch for batch in whole for key in batch} == {0, 1, 2, 3}
    assert whole[0] != [Key(0, key.number) for key in whole[5]]


def test_batches_do_not_depend_on_who_reads_them() -> None:
    task = load("digits", augment=["shift"])
    chosen = list(data.keys(len(task.train), 8, 0, range(3)))
    state = torch.get_rng_state()
    here = list(data.batches(task.train, iter(chosen)))
    there = list(data.batches(task.train, iter(chosen), workers=1))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def test_what_a_method_keeps_for_itself() -> None:
    task = load("digits")
    rest, kept = data.split(task.train, 0.1, 3)
    assert (len(rest), len(kept)) == (1293, 144)
    numbers = {int(number) for part in (rest, kept) for number in part.numbers}  # type: ignore[attr-defined]
    assert numbers == set(range(1437))
    number = int(kept.numbers[5])  # type: ignore[attr-defined]
    assert torch.equal(kept[Key(PLAIN, 5)]["image"], task.train[Key(PLAIN, number)]["image"])
    assert data.split(task.train, 0.0, 3)[0] is task.train


@pytest.mark.parametrize(("kind", "classes", "shape"), [("mnist", 10, (1, 28, 28)), ("cifar100", 100, (3, 32, 32))])
def test_stand_ins_have_the_same_format(kind: str, classes: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    task = Classification.load(stand_in(Images(kind=kind), tmp_path), 0)
    assert task.classes == classes
    assert task.train[Key(PLAIN, 0)]["image"].shape == shape
    assert len(task.train.labels.unique()) == classes
