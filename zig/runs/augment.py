"""What is done to images (c, h, w) before a network learns from them; each is a function of a random generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor
from torch.nn import functional

Random = np.random.Generator
TRIES = 10  # of a random rectangle, before the whole image is taken


def flip(image: Tensor, size: int, random: Random) -> Tensor:
    """Every other time, left and right change places."""
    del size
    return image.flip(2) if random.random() < 0.5 else image


def shift(image: Tensor, size: int, random: Random) -> Tensor:
    """Moved by up to one pixel."""
    del size
    return _moved(image, 1, random)


def crop(image: Tensor, size: int, random: Random) -> Tensor:
    """Moved by up to an eighth of its size, as is usual with CIFAR (He et al., CVPR 2016: four pixels of 32)."""
    del size
    return _moved(image, max(1, image.shape[1] // 8), random)


def _moved(image: Tensor, by: int, random: Random) -> Tensor:
    height, width = image.shape[1:]
    down, right = (int(i) for i in random.integers(0, 2 * by + 1, 2))
    return functional.pad(image, (by, by, by, by))[:, down : down + height, right : right + width]


def resized_crop(image: Tensor, size: int, random: Random) -> Tensor:
    """A random rectangle of 8 to 100 % of the area, sides 3:4 to 4:3: usual with ImageNet (Szegedy et al., 2015)."""
    height, width = image.shape[1:]
    for _ in range(TRIES):
        area = height * width * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1))
            return _resized(image[:, top : top + h, left : left + w], size, size)
    return fit(image, size)


def fit(image: Tensor, size: int) -> Tensor:
    """The middle of the image, after its shorter side has become 8/7 of the size; unless it has the size already."""
    height, width = image.shape[1:]
    if (height, width) == (size, size):
        return image
    scale = round(size * 8 / 7) / min(height, width)
    height, width = round(height * scale), round(width * scale)
    top, left = (height - size) // 2, (width - size) // 2
    return _resized(image, height, width)[:, top : top + size, left : left + size]


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    resized = functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


AUGMENTATIONS: dict[str, Callable[[Tensor, int, Random], Tensor]] = {
    "shift": shift,
    "crop": crop,
    "flip": flip,
    "resized_crop": resized_crop,
}
