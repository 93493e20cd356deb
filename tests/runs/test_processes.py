"""Two processes that train together choose the groups that one would have chosen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from children import start
from tiny_run import DIGITNET, Write, fitted
from torch import distributed, nn

from zig import OTO
from zig.errors import UsageError
from zig.runs import checkpoint
from zig.runs.config import Training
from zig.runs.processes import join

PATIENCE = 120


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def train_by_two(config: Path, tmp_path: Path, **options: Any) -> None:
    at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2}
    said = [tmp_path / "said0", tmp_path / "said1"]
    children = [start(config, said=said[rank], RANK=rank, LOCAL_RANK=rank, **at, **options) for rank in (0, 1)]
    for child, words in zip(children, said, strict=True):
        child.join(PATIENCE)
        assert child.exitcode == 0, words.read_text()


def test_two_processes_zero_the_groups_that_one_does(config: Write, tmp_path: Path) -> None:
    together = {"model": DIGITNET, "method": {"name": "dhspg", "target_macs": 0.4}, "training": {"epochs": 3}}
    train_by_two(config("two", **together), tmp_path)
    fitted(config("one", **together))
    two, one = (checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    assert len(two["random"]) == 2
    zero = one["optimizer"]["state"]["groups"]["zero"]
    assert 0 < zero.sum() < len(zero) - 1
    assert torch.equal(two["optimizer"]["state"]["groups"]["zero"], zero)
    for name, value in one["model"].items():  # BatchNorm's statistics too: they are those of the whole batch
        assert torch.allclose(two["model"][name].double(), value.double(), rtol=1e-2, atol=1e-3), name
        assert torch.equal(two["model"][name] == 0, value == 0), name


@pytest.mark.slow
def test_torchrun(config: Write, tmp_path: Path) -> None:
    path = config(model=DIGITNET, training={"epochs": 3})
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "zig", "train", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("groups removed") == 1
    assert done.stderr.count("epoch 3 ") == 1
    assert (tmp_path / "run" / "DigitNet_compressed.onnx").exists()


def test_what_fsdp_leaves_of_parameters_is_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    inputs = torch.zeros(2, 8)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        oto = OTO(net, inputs)
        fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        for make in (lambda: OTO(net, inputs), oto.dhspg):
            with pytest.raises(UsageError, match=r"the parameters are DTensors \(FSDP2, fully_shard\)"):
                make()
    finally:
        distributed.destroy_process_group()


def test_a_batch_that_can_not_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    section = Training(epochs=1, batch_size=32, accumulate=2)
    with pytest.raises(UsageError, match="batch_size 32 can't be shared out evenly: 3 processes with 2 parts each"):
        join(section).__enter__()
