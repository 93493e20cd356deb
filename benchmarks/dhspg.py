"""What a step of DHSPG, HSPG and HESSO costs beside torch's own SGD and AdamW, on ResNet-50 or BERT.

Prints the median time of a step over interleaved rounds and its ratio to `SGD(foreach=True, momentum=0.9)`; with
`--train`, also the share of a whole training step at batch 32. Every channel of ResNet-50 that can go is in a group.

    python benchmarks/dhspg.py [--model bert-base] [--device cuda] [--rounds 15] [--train]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from zig.training import DHSPG, HESSO, HSPG, GroupRows, GroupTable


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions, expansion 4."""

    def __init__(self, inputs: int, width: int, stride: int):
        """Make the block; `inputs` channels come in."""
        super().__init__()
        self.a, self.b, self.c = (
            nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o))
            for i, o, k, s in ((inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        )
        project = inputs != 4 * width or stride > 1
        self.skip = (
            nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            if project
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        return (self.c(self.b(self.a(x).relu()).relu()) + self.skip(x)).relu()


def resnet50() -> tuple[nn.Sequential, list[list[list[nn.Module]]]]:
    """ResNet-50 (25.6 M parameters), and for each node group the (convolution, norm) pairs that share its channels."""
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64))
    blocks: list[nn.Module] = []
    together: list[list[list[nn.Module]]] = [[list(stem)]]
    inputs = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        stage: list[list[nn.Module]] = []
        for i in range(count):
            block = Bottleneck(inputs, width, stride if i == 0 else 1)
            together += [[list(block.a)], [list(block.b)]]
            stage += [list(block.c)] + ([list(block.skip)] if i == 0 else [])
            blocks.append(block)
            inputs = 4 * width
        together.append(stage)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
    return nn.Sequential(stem, nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks, *head), together


def table(together: list[list[list[nn.Module]]]) -> GroupTable:
    """The groups of `resnet50`, made by hand so that this script needs nothing else."""
    rows: list[GroupRows] = []
    node_group: list[int] = []
    for number, pairs in enumerate(together):
        channels = pairs[0][0].out_channels
        groups = np.arange(len(node_group), len(node_group) + channels)
        rows += [GroupRows(p, 0, groups) for pair in pairs for module in pair for p in module.parameters()]
        node_group += [number] * channels
    return GroupTable(rows, np.array(node_group))


def bert_base() -> tuple[nn.Module, GroupTable]:
    """BERT-base (109 M parameters) with random weights, and the groups that `OTO` finds in it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import zoo

    from zig import OTO

    zoo.load_transformers()
    from transformers import BertConfig, BertModel

    net = BertModel(BertConfig(attn_implementation="eager"), add_pooling_layer=False)
    net.config.return_dict = False
    oto = OTO(net, torch.randint(0, 30_000, (1, 32)))
    return net, oto.table


def milliseconds(run: Callable[[], object], device: str) -> float:
    """Time of one call."""
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return 1e3 * (time.perf_counter() - start)


def optimizers(net: nn.Module, groups: GroupTable) -> dict[str, torch.optim.Optimizer]:
    """The baseline first; then each method in its phases."""
    far = 10**6
    common = {"lr": 1e-6, "momentum": 0.9, "target_group_sparsity": 0.7}
    return {
        "torch SGD(foreach=True, momentum=0.9)": torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, foreach=True),
        "DHSPG before pruning": DHSPG(net.parameters(), groups, start_pruning_steps=far, pruning_steps=far, **common),
        "DHSPG while pruning": DHSPG(net.parameters(), groups, start_pruning_steps=0, pruning_steps=far, **common),
        "DHSPG after pruning": DHSPG(net.parameters(), groups, start_pruning_steps=0, pruning_steps=1, **common),
        "HSPG before pruning": HSPG(net.parameters(), groups, start_pruning_steps=far, pruning_steps=far, **common),
        "HSPG while pruning": HSPG(net.parameters(), groups, start_pruning_steps=0, pruning_steps=far, **common),
        "HESSO while pruning": HESSO(net.parameters(), groups, start_pruning_steps=0, pruning_steps=far, **common),
        "torch AdamW(foreach=True)": torch.optim.AdamW(net.parameters(), lr=1e-6, foreach=True),
        "DHSPG adamw while pruning": DHSPG(
            net.parameters(), groups, variant="adamw", lr=1e-6, start_pruning_steps=0, pruning_steps=far
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("resnet50", "bert-base"), default="resnet50")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--train", action="store_true", help="also time a forward and backward pass at batch 32")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.model == "bert-base":
        net, groups = bert_base()
    else:
        net, together = resnet50()
        groups = table(together)
    net.to(options.device)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    candidates = optimizers(net, groups)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(options.rounds + 3):
        for name, optimizer in candidates.items():
            taken = milliseconds(optimizer.step, options.device)
            times[name] += [taken] if i >= 3 else []  # the first rounds make buffers and choose groups
    median = {name: statistics.median(values) for name, values in times.items()}
    base = next(iter(median.values()))
    size = sum(p.numel() for p in net.parameters()) / 1e6
    output = Table(title=f"{options.model}, {size:.1f} M parameters, {len(groups)} groups, {options.device}")
    for heading in ("step", "ms", "ratio to SGD"):
        output.add_column(heading, justify="left" if heading == "step" else "right")
    for name, value in median.items():
        output.add_row(name, f"{value:.1f}", f"{value / base:.2f}")
    Console().print(output)
    if options.train:
        bert = options.model == "bert-base"
        x = torch.randint(0, 30_000, (32, 32)) if bert else torch.randn(32, 3, 224, 224)
        x = x.to(options.device)

        def passes_through() -> None:
            result = net(x)
            (result[0] if bert else result).square().mean().backward()

        passes = [milliseconds(passes_through, options.device) for _ in range(3)]
        whole = statistics.median(passes)
        extra = (whole + median["DHSPG while pruning"]) / (whole + base)
        Console().print(
            f"forward + backward at batch 32: {whole:.0f} ms; whole step with DHSPG: {extra:.3f}x that with SGD"
        )


if __name__ == "__main__":
    main()
