"""Every architecture, by every exporter: prune half at random, compress, and nothing may change.

What is compared here is measured by onnxruntime, in `zoo.py`; zig's own `verify` is only asked in the end whether it
agrees. `pytest -m '' tests/test_zoo.py -k resnet18` runs the slow ones too.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("torch", reason="the zoo is made of torch modules")

import zoo
from architectures import PATTERNS

import zig

EXACT = 1e-5  # of the largest output
EFFECT = 1e-3


def speed(name: str, exporter: str) -> list[pytest.MarkDecorator]:
    """The default run has every small net by both exporters; other exports of patterns differ in little."""
    quick = zoo.ZOO[name].small and (exporter in ("dynamo", "torchscript") or name not in PATTERNS)
    return [] if quick else [pytest.mark.slow]


@pytest.mark.parametrize(("name", "exporter"), [pytest.param(*p, marks=speed(*p), id="-".join(p)) for p in zoo.pairs()])
def test_exact(name: str, exporter: str) -> None:
    with TemporaryDirectory() as folder:  # not tmp_path: pytest would keep gigabytes of it
        try:
            trip = zoo.round_trip(name, exporter, Path(folder))
        except zoo.UnavailableError as reason:
            pytest.skip(str(reason))
        check_exact(trip)
        check_smaller(trip, zoo.ZOO[name])
        agreed = zig.verify(trip.zeroed, trip.compressed, samples=1)
        assert agreed.equal, f"zig.verify finds a difference of {agreed.max_rel:.1e}, not {trip.difference:.1e}"


def check_exact(trip: zoo.Trip) -> None:
    """Zeroed and compressed agree, and the comparison is not empty."""
    assert trip.effect >= EFFECT, f"zeroing moved the outputs by only {trip.effect:.1e}: was anything pruned?"
    assert trip.sensitivity >= EFFECT / 10, f"the zeroed model hardly sees its input ({trip.sensitivity:.1e})"
    assert trip.difference <= EXACT, f"zeroed and compressed differ by {trip.difference:.1e} of the largest output"


def check_smaller(trip: zoo.Trip, architecture: zoo.Architecture) -> None:
    """Parameters are gone: enough of them in convolutional nets, whole heads and MLP widths in transformers."""
    before, after = trip.parameters
    assert after < before, f"compressed has {after} parameters, zeroed {before}"
    if architecture.kind == "conv":
        assert trip.lost >= architecture.shrinks, f"only {trip.lost:.0%} of {before} parameters are gone"
    if architecture.kind == "transformer":
        check_narrower(trip)


def check_narrower(trip: zoo.Trip) -> None:
    """Somewhere an attention has fewer heads, and somewhere an MLP is narrower."""
    full, small = (zoo.attention(path, trip.inputs[0]) for path in (trip.zeroed, trip.compressed))
    for what, before, after in zip(("heads", "widths"), full, small, strict=True):
        assert before, f"found no {what} to compare"
        narrower = [n for n in before if after.get(n, 0) < before[n]]
        assert narrower, f"no {what} went: still {sorted(before.values())}"


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript", "torchscript-dynamic"])
def test_a_shuffle_keeps_channels_apart(exporter: str, tmp_path: Path) -> None:
    """The 16 channels that are shuffled stand and fall in 8 pairs, not in 2 halves; 16 before and 32 after are free."""
    partition = zig.analyze(zoo.export("s_shuffle", exporter, tmp_path))
    assert sorted(group.size for group in partition.node_groups) == [8, 16, 32]


def test_the_zoo_is_complete() -> None:
    """Every architecture and pattern that zig promises to handle is there, and no refusal is for one that isn't."""
    families = """
        alexnet vgg11 vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 squeezenet1_1
        googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mnasnet1_0 efficientnet_b0 efficientnet_v2_s
        regnet_x_400mf regnet_y_400mf shufflenet_v2_x1_0 convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t bert
        distilbert roberta deberta modernbert gpt2 opt llama mistral qwen2 qwen3 gemma phi mamba t5 bart whisper vit
        swin detr segformer clip wav2vec2 unet superres lstm gru grouped conv1d conv3d instancenorm groupnorm layernorm
        rmsnorm tied_lm shared_conv
    """
    assert not set(families.split()) - set(zoo.ZOO)
    assert not set(zoo.REFUSED) - set(zoo.pairs())
