"""Colour jitter, mix-up and smoothed labels: what they are by number, and that a stopped run ends the same with them."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_killed import bits, same
from tiny_run import TINY, Write, fitted
from torch import Tensor

from zig.errors import UsageError
from zig.runs import data
from zig.runs.augment import grey, jitter, mixed, turned
from zig.runs.config import Images, Jitter, Run, load

ALL = Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
RECIPE = {"jitter": {"brightness": 0.4, "contrast": 0.4}, "mix_up": 0.2, "label_smoothing": 0.1}


def picture(channels: int = 3) -> Tensor:
    return torch.rand(channels, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.2, 0.5])
def test_hue_is_turned_as_hsv_has_it(turn: float) -> None:
    image = picture()
    image[:, 0, 0] = 0.5  # grey has no hue
    expected = image.clone()
    for y, x in np.ndindex(5, 7):
        h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
        expected[:, y, x] = torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
    torch.testing.assert_close(turned(image, turn), expected, rtol=0, atol=1e-5)


def test_each_change_of_colour_alone() -> None:
    image, draws = picture(), np.random.default_rng(3).uniform(-1, 1, 3)
    brighter, contrast, saturated = (
        jitter(image, Jitter(**{name: 0.4}), np.random.default_rng(3))
        for name in ("brightness", "contrast", "saturation")
    )
    one, two, three = 1 + 0.4 * draws
    torch.testing.assert_close(brighter, (one * image).clamp(0, 1), rtol=0, atol=1e-6)
    mean = grey(image).mean()
    torch.testing.assert_close(contrast, (mean + two * (image - mean)).clamp(0, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(saturated, (grey(image) + three * (image - grey(image))).clamp(0, 1), rtol=0, atol=1e-6)
    luma = torch.tensor([0.299, 0.587, 0.114]) @ image.reshape(3, -1)
    torch.testing.assert_close(grey(image).flatten(), luma, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_a_function_of_its_random_numbers(channels: int) -> None:
    image = picture(channels)
    found = [jitter(image, ALL, np.random.default_rng(seed)) for seed in (1, 1, *range(2, 9))]
    assert torch.equal(found[0], found[1])
    assert not any(torch.equal(found[0], other) for other in found[2:])
    assert all(each.min() >= 0 and each.max() <= 1 and each.shape == image.shape for each in found)
    assert torch.allclose(jitter(image, Jitter(), np.random.default_rng(0)), image, atol=1e-6)


def test_mix_up_blends_images_and_labels_by_one_share_from_a_beta() -> None:
    images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    made = mixed(images, labels, 0.2, np.random.default_rng(5))
    random = np.random.default_rng(5)
    share, other = random.beta(0.2, 0.2), random.permutation(16)
    torch.testing.assert_close(made["image"], share * images + (1 - share) * images[other])
    assert torch.equal(made["partner"], labels[other])
    assert made["share"].unique().tolist() == [pytest.approx(share)]
    shares = np.array([mixed(images, labels, 0.2, np.random.default_rng(i))["share"][0].item() for i in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)  # of Beta(a, a)


def test_the_loss_in_training_is_the_cross_entropy_with_smoothed_and_mixed_labels() -> None:
    task = data.load(Images(kind="digits", mix_up=0.4, label_smoothing=0.1))
    plain = next(data.in_order(task.train, 8))
    batch = task.prepared(plain, data.of_step(0, 3))
    scores = torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
    hot = [torch.eye(10)[batch[name]] for name in ("label", "partner")]
    wanted = 0.9 * (batch["share"][:, None] * hot[0] + (1 - batch["share"][:, None]) * hot[1]) + 0.1 / 10
    expected = -(wanted * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.training_loss((scores,), batch), expected)
    usual = torch.nn.functional.cross_entropy(scores, plain["label"])
    torch.testing.assert_close(task.loss((scores,), plain), usual)  # what is measured is neither smoothed nor mixed


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_goes_on_ends_with_the_same_bits(config: Write, tmp_path: Path, accumulate: int) -> None:
    settings = {"data": RECIPE, "training": {"accumulate": accumulate}}
    fitted(config("whole", **settings))
    fitted(config("stopped", **settings), until=7)
    fitted(config("stopped", **settings))
    assert same(bits(tmp_path / "whole"), bits(tmp_path / "stopped"))
    fitted(config("plain", training={"accumulate": accumulate}))
    assert not same(bits(tmp_path / "whole"), bits(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"mix_up": 0}, "data.mix_up"),
        ({"label_smoothing": 1.0}, "data.label_smoothing"),
        ({"jitter": {"hue": 0.7}}, "data.jitter.hue"),
        ({"jitter": {"colour": 0.1}}, "data.jitter.colour is no key"),
        ({"kind": "squad", "mix_up": 0.2, "augment": None, "limit": None}, "data.mix_up is no key"),
    ],
)
def test_what_can_not_be_is_told(config: Write, section: dict[str, object], said: str) -> None:
    section = {**TINY["data"], **section}
    path = config(data={key: value for key, value in section.items() if value is not None})
    with pytest.raises(UsageError, match=said):
        load(path, Run)
