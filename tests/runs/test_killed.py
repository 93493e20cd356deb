"""A run that is killed at any moment and goes on ends with the same bits as one that was not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from children import start
from tiny_run import DIGITNET, Write
from torch.utils._pytree import tree_flatten

from zig.runs import checkpoint

PATIENCE = 120


def ended(child: Any) -> int:
    child.join(PATIENCE)
    assert child.exitcode is not None
    return int(child.exitcode)


def bits(folder: Path) -> list[Any]:
    state = checkpoint.read(folder / "checkpoint.pt")
    return tree_flatten({key: state[key] for key in ("step", "model", "optimizer", "random")})[0]


def same(a: list[Any], b: list[Any]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@pytest.fixture
def killed_at_random(config: Write, tmp_path: Path) -> Any:
    settings = {"model": DIGITNET, "method": {"name": "dhspg"}, "training": {"checkpoint_steps": 1, "epochs": 10}}
    first, said = config("first", **settings), tmp_path / "said"
    assert ended(start(tmp_path / "missing.yml")) == 2  # starts the process that all others are forked from
    began = time.monotonic()
    assert ended(start(first, said=said)) == 0, said.read_text()
    seconds, truth = time.monotonic() - began, bits(tmp_path / "first")

    def killed(seed: int) -> str:
        random, name = np.random.default_rng(seed), f"killed{seed}"
        file, folder = config(name, **settings), tmp_path / name
        child = start(file)
        if seed % 4:  # while it trains
            wait_for_lines(folder / "log.csv", int(random.integers(1, 10)), child)
            child.join(random.uniform(0, 0.1))
        else:  # at any moment, from its start to the comparison of the two models
            child.join(random.uniform(0, seconds))
        child.kill()
        child.join()
        saved = folder / "checkpoint.pt"
        when = f"step {checkpoint.read(saved)['step']}" if saved.exists() else "no checkpoint yet"
        assert ended(start(file, resume=True)) == 0, when
        assert same(bits(folder), truth), when
        for left in ("log.csv", "log.jsonl", "DigitNet_full.onnx", "DigitNet_compressed.onnx"):
            assert (folder / left).read_bytes() == (tmp_path / "first" / left).read_bytes(), (left, when)
        assert not list(folder.glob(".*")), "what a dead process has left beside its target"
        return when

    return killed


def wait_for_lines(path: Path, count: int, child: Any) -> None:
    while child.is_alive() and (not path.exists() or path.read_text().count("\n") < count):
        time.sleep(0.002)


def test_killed_at_some_moments(killed_at_random: Any) -> None:
    for seed in (1, 2):
        killed_at_random(seed)


@pytest.mark.slow
def test_killed_at_twenty_moments(killed_at_random: Any) -> None:
    for seed in range(100, 120):
        print(killed_at_random(seed))
