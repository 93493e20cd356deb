"""What is done to images (c, h, w) before a network learns from them: each a function of a random generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zig.runs.config import Jitter

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


# --- colours ---------------------------------------------------------------------------------------------------------


def jitter(image: Tensor, by: Jitter, random: Random) -> Tensor:
    """Brightness, contrast, saturation and hue changed at random, one after the other in random order.

    Usual with ImageNet (Krizhevsky et al., 2012; Howard, 1312.5402). An image of one channel has no hue or saturation.
    """
    factors = {name: 1 + random.uniform(-1, 1) * getattr(by, name) for name in ("brightness", "contrast", "saturation")}
    turn = random.uniform(-1, 1) * by.hue
    for step in random.permutation(4):
        if step == 0:
            image = (image * factors["brightness"]).clamp(0, 1)
        elif step == 1:
            image = _away_from(grey(image).mean(), image, factors["contrast"])
        elif step == 2 and image.shape[0] == 3:
            image = _away_from(grey(image), image, factors["saturation"])
        elif step == 3 and image.shape[0] == 3 and turn:
            image = turned(image, turn)
    return image


def grey(image: Tensor) -> Tensor:
    """The luma of an image (ITU-R BT.601), (1, h, w); the mean of its channels where there are not three."""
    weights = torch.tensor([0.299, 0.587, 0.114]) if image.shape[0] == 3 else torch.full((image.shape[0],), 1.0)
    return (image * (weights / weights.sum()).view(-1, 1, 1)).sum(0, keepdim=True)


def turned(image: Tensor, turn: float) -> Tensor:
    """The hue of an image (3, h, w) moved by some turns of the colour circle, as HSV has it (Smith, 1978)."""
    red, green, blue = image
    top, chroma = image.amax(0), image.amax(0) - image.amin(0)
    some = chroma.clamp_min(1e-12)
    hue = torch.where(
        top == red, (green - blue) / some, torch.where(top == green, (blue - red) / some + 2, (red - green) / some + 4)
    )
    places = (torch.tensor([5.0, 3.0, 1.0]).view(-1, 1, 1) + hue + 6 * turn) % 6
    return (top - chroma * torch.minimum(places, 4 - places).clamp(0, 1)).clamp(0, 1)


def _away_from(centre: Tensor, image: Tensor, factor: float) -> Tensor:
    return (centre + factor * (image - centre)).clamp(0, 1)


# --- whole batches ---------------------------------------------------------------------------------------------------


def mixed(images: Tensor, labels: Tensor, alpha: float, random: Random) -> dict[str, Tensor]:
    """Mix-up (Zhang et al., 1710.09412): each image blended with another of its batch, by one share for all of them.

    Args:
        images: (n, c, h, w).
        labels: (n,).
        alpha: The share is drawn from Beta(alpha, alpha).
        random: Where it and the partners come from.

    Returns:
        `image`, and for each its `label`, the `partner`'s, and the `share` that is the label's, float32 (n,).
    """
    share = random.beta(alpha, alpha)
    other = torch.from_numpy(random.permutation(len(labels))).to(images.device)
    shares = torch.full((len(labels),), share, dtype=torch.float32, device=images.device)
    blended = share * images + (1 - share) * images[other]
    return {"image": blended, "label": labels, "partner": labels[other], "share": shares}


AUGMENTATIONS: dict[str, Callable[[Tensor, int, Random], Tensor]] = {
    "shift": shift,
    "crop": crop,
    "flip": flip,
    "resized_crop": resized_crop,
}
