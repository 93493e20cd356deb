"""One of two processes that train one network with ATO; see test_ato.py."""

import sys
from pathlib import Path

import torch
from small_nets import Plain
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from zig.controller import ATO


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = Plain(16)
    ato = ATO(net, torch.zeros(2, 1, 8, 8), keep=0.5, lr=0.01, momentum=0.9, steps=40, base=0.0)
    wrapped, optimizer = DistributedDataParallel(net), ato.optimizer
    torch.manual_seed(10 + rank)
    masks, losses = [], []
    for _ in range(40):
        x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 4, (8,))
        optimizer.zero_grad()
        F.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
        apart = torch.randn(8, 1, 8, 8)
        lesson = optimizer.learn(lambda net, apart=apart: F.cross_entropy(net(apart), torch.arange(8) % 4))
        losses += [lesson.loss] if lesson else []
        masks.append(optimizer.state["groups"]["chosen"].clone())
    assert optimizer.finished
    state = {"masks": masks, "losses": losses, "controller": optimizer.state_dict()["controller"]["network"]}
    torch.save(state | {"model": dict(net.named_parameters())}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
