"""Three ways to half of a network's multiply-adds, on the digits that scikit-learn carries; about a minute.

python samples/search_digits.py
"""

import tempfile

import torch
from torch import nn
from torch.nn import functional

from zig.search import Evolution, IterativePruner, OFAPruner, OneStepPruner, recalibrate
from zig.training.demo import DigitNet, Digits

torch.manual_seed(0)
digits = Digits.load()
images, labels = digits.images[:1150], digits.labels[:1150]
kept = digits.images[1150:], digits.labels[1150:]  # for searches; training never sees these
batches = list(images.split(64))


def train(model: nn.Module, epochs: int) -> None:
    """As usual."""
    optimizer = torch.optim.AdamW(model.train().parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(images[batch]), labels[batch]))
            optimizer.step()
    model.eval()


def loss(model: nn.Module) -> float:
    """Of a candidate, on what was kept."""
    with torch.no_grad():
        return float(functional.cross_entropy(model.eval()(kept[0]), kept[1]))


def tell(name: str, model: nn.Module) -> None:
    """Retrain what is left, and say how good it is."""
    train(model, 3)
    with torch.no_grad():
        right = (model(torch.from_numpy(digits.held_out)).argmax(1).numpy() == digits.truth).mean()
    print(f"{name:13} {sum(p.numel() for p in model.parameters()):7,} parameters, {right:.1%} of held-out digits right")


net = DigitNet(16)
train(net, 6)
tell("whole", net)
with tempfile.TemporaryDirectory() as folder:
    iterative = IterativePruner(net, images[:1], folder=folder)
    iterative.analyze(loss, best="min", ratios=(0.25, 0.5, 0.75), calibration_fn=recalibrate, calib_args=(batches,))
    tell("iterative", iterative.prune(0.5, mode="slim"))

    one_step = OneStepPruner(net, images[:1], folder=folder)
    one_step.search(recalibrate, loss, calib_args=(batches,), num_subnets=20, removal_ratio=0.5, best="min")
    tell("one-step", one_step.prune())

    ofa = OFAPruner(net, images[:1], folder=folder)
    supernet = ofa.ofa_model((0.25, 0.5, 0.75, 1), auto_excludes=False)
    optimizer = torch.optim.AdamW(supernet.parameters(), 3e-3)
    for _ in range(3):
        for batch in torch.randperm(len(images)).split(64):
            ofa.train_step(images[batch], labels[batch], optimizer)
    whole = supernet.space.whole["macs"] / 1e6
    found = ofa.run_evolutionary_search(
        recalibrate,
        loss,
        calib_args=(batches,),
        min_macs=0.45 * whole,
        max_macs=0.5 * whole,
        step=whole,
        best="min",
        evolution=Evolution(population=8, generations=2),
    )
    best = min(found.values(), key=lambda subnet: subnet.score)
    tell("once-for-all", ofa.get_static_subnet(best.values).module)
