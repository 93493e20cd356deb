"""The networks that OTO's authors train on CIFAR; torchvision has them for ImageNet only.

VGG16 ends with three linear layers of 512 (15.25 M parameters with BatchNorm), ResNet-50 begins with a 3 x 3
convolution and no pooling (23.52 M).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and number of convolutions before each pooling


class VGG(nn.Sequential):
    """Convolutions 3 x 3 with poolings between, then three linear layers (Simonyan and Zisserman, ICLR 2015)."""

    def __init__(self, classes: int = 10, batch_norm: bool = False, width: float = 1.0):
        """VGG16 for images of 32 x 32; all widths are multiplied by `width`."""
        widths = [3, *(round(each * width) for each, count in _VGG16 for _ in range(count))]
        ends = {sum(count for _, count in _VGG16[: i + 1]) for i in range(len(_VGG16))}
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths), 1):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                *([nn.BatchNorm2d(after)] if batch_norm else []),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(2)] if number in ends else []
        last = widths[-1]
        for _ in range(2):
            layers += [nn.Dropout(), nn.Linear(last, last), nn.ReLU()]
        super().__init__(*layers[:-6], nn.Flatten(), *layers[-6:], nn.Linear(last, classes))
        for module in self:
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)


def vgg16(classes: int = 10, width: float = 1.0) -> VGG:
    """VGG16 without BatchNorm."""
    return VGG(classes, False, width)


def vgg16_bn(classes: int = 10, width: float = 1.0) -> VGG:
    """VGG16 with BatchNorm."""
    return VGG(classes, True, width)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut (He et al., CVPR 2016)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        """A block with 4 * `width` outputs."""
        super().__init__()
        outputs = 4 * width
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class Basic(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        """A block with `width` outputs."""
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A residual network for images of 32 x 32."""

    def __init__(
        self, classes: int = 10, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3),
        block: type[Basic] | type[Bottleneck] = Bottleneck,
    ):  # fmt: skip
        """Stages of `blocks` blocks, the first of `width`, each of twice the width before."""
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        layers, inputs = [], width
        for stage, count in enumerate(blocks):
            for number in range(count):
                layers.append(block(inputs, width * 2**stage, 2 if stage and not number else 1))
                inputs = block.expansion * width * 2**stage
        self.blocks, self.head = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, 32, 32) -> (batch, classes)."""
        x = self.blocks(functional.relu(self.norm(self.stem(image))))
        scores: Tensor = self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))
        return scores


def resnet50(classes: int = 10, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3)) -> CifarResNet:
    """ResNet-50, or a smaller one of the same kind."""
    return CifarResNet(classes, width, blocks)


def resnet18(classes: int = 10, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> CifarResNet:
    """ResNet-18, or a smaller one of the same kind."""
    return CifarResNet(classes, width, blocks, Basic)


def resnet56(classes: int = 10, width: int = 16, blocks: Sequence[int] = (9, 9, 9)) -> CifarResNet:
    """ResNet-56, or a smaller one of the same kind."""
    return CifarResNet(classes, width, blocks, Basic)
