"""Colours: told apart with every kind of colour vision, and never the only sign."""

from itertools import combinations

import numpy as np
import pytest
from zig.app.opened import Opened
from zig.app.scene.palette import PALETTE, hues

pytest_plugins = ("app_models",)

# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)


def linear(colour: str) -> np.ndarray:
    """sRGB to linear light."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB."""
    t = TO_XYZ @ np.clip(light, 0, 1) / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_every_two_colours_are_told_apart(vision: str) -> None:
    seen = [lab(VISION[vision] @ linear(colour)) for colour in PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= 13  # CIE76


def test_the_measure_tells_bad_palettes() -> None:
    red, green = (lab(VISION["deutan"] @ linear(colour)) for colour in ("#d62728", "#2ca02c"))
    assert np.linalg.norm(red - green) < np.linalg.norm(lab(linear("#d62728")) - lab(linear("#2ca02c"))) / 2


def test_labels_are_legible_on_every_colour() -> None:
    for colour in PALETTE:
        luminance = float(TO_XYZ[1] @ linear(colour))
        ink = 0.0 if luminance > 0.179 else 1.0  # as graph.js chooses it
        light, dark = max(luminance, ink), min(luminance, ink)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_groups_that_meet_at_a_node_differ(sample_model: Opened) -> None:
    colours = hues(sample_model.net, len(sample_model.groups))
    for item in sample_model.net.items:
        together = {*item.writes, *item.reads}
        assert len({colours[group] for group in together}) == len(together)
    assert colours == hues(sample_model.net, len(sample_model.groups))


def test_every_box_says_its_groups(sample_model: Opened) -> None:
    data = sample_model.scene(sample_model.first_open()).columns
    for writes, title in zip(data["writes"], data["title"], strict=True):
        assert all(0 <= group < len(sample_model.groups) for group, _ in writes), title
