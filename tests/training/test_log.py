"""Training logs, as the app reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from zig.app.facts import training

from zig import OTO
from zig.errors import UsageError


def network() -> OTO:
    torch.manual_seed(0)
    return OTO(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(3, 4)
    )


def test_a_log_tells_the_zero_share_of_each_node_group(tmp_path: Path) -> None:
    oto = network()
    optimizer = oto.hesso(lr=0.1, target_group_sparsity=0.5, start_pruning_steps=1, pruning_steps=4)
    path = tmp_path / "run" / "log.jsonl"
    log = oto.log(path)
    for step in range(6):
        optimizer.zero_grad()
        loss = oto.model(torch.randn(3, 4)).square().mean()
        loss.backward()
        optimizer.step()
        log.write(epoch=step, loss=loss.item())
    steps = training.read(path.parent)
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4, 5, 6]
    names = [group.name for group in oto.partition.node_groups]
    assert list(steps[0]["sparsity"]) == names
    sizes = {group.name: group.size for group in oto.partition.node_groups}
    assert sum(share * sizes[name] for name, share in steps[-1]["sparsity"].items()) == pytest.approx(7, abs=0.01)


def test_a_resumed_log_goes_on_and_a_new_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 99}\n')
    oto = network()
    optimizer = oto.dhspg(lr=0.1, start_pruning_steps=50, pruning_steps=150)
    oto.log(path).write(loss=1.0)
    oto.model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    oto.log(path).write(loss=0.5)
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.0, 0.5]


def test_a_resumed_log_takes_out_what_will_be_logged_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 4.0}\n{"step": 2, "loss": 3.0}\n{"step": 3, "loss": 2.0}\n{"step": 4, "lo')
    oto = network()
    optimizer = oto.dhspg(lr=0.1, start_pruning_steps=50, pruning_steps=150)
    for _ in range(2):
        oto.model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    oto.log(path).write(loss=2.5)
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [4.0, 3.0, 2.5]


def test_there_is_no_log_without_an_optimizer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make the optimizer first"):
        network().log(tmp_path / "log.jsonl")
