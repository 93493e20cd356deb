"""The zoo: every architecture that zig promises to prune exactly, and the ways in which users export them.

`build(name)` gives a torch module whose weights and statistics are random yet alive, with example inputs;
`export(name, exporter, folder)` writes it as an ONNX file; `round_trip(name, exporter, folder)` prunes half of it at
random, compresses it, and measures with onnxruntime alone how far the results are apart.

A random network can hide every error: its output hardly depends on its input, so any damage passes. Hence `build`
randomises with care and *requires* that different inputs give clearly different outputs.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zig

OPSET = 18
EXPORTERS = ("dynamo", "torchscript", "lossless", "torchscript-dynamic", "dynamo-23")
LEAST_SENSITIVITY = 1e-3  # two inputs must move the output by this share of its size
LARGEST_OUTPUT = 1e3
SHIM = Path(__file__).resolve().parents[2] / "shared" / "torchvision_shim.py"


class UnavailableError(Exception):
    """An architecture can't be built or exported here; the text says why."""


# --- what an architecture is -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """One model input: its name, its shape without the batch axis, and what fills it."""

    name: str
    shape: tuple[int, ...]
    kind: Literal["normal", "tokens", "mask"] = "normal"
    vocabulary: int = 0

    def sample(self, random: np.random.Generator, batch: int = 1) -> np.ndarray:
        """Draws values of shape (batch, *shape): float32 noise, token numbers, or an all-ones int64 mask."""
        shape = (batch, *self.shape)
        if self.kind == "tokens":
            return random.integers(0, self.vocabulary, shape, dtype=np.int64)
        if self.kind == "mask":
            return np.ones(shape, dtype=np.int64)
        return random.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Architecture:
    """A row of the zoo.

    Attributes:
        module: Makes the torch module, with any weights.
        inputs: What the module reads, in order.
        kind: `conv` nets must lose parameters, `transformer`s heads and widths; `other` has no such promise.
        small: Quick enough for the default test run.
        shrinks: The share of parameters that pruning half of them must at least remove.
    """

    module: Callable[[], nn.Module]
    inputs: tuple[Input, ...]
    kind: Literal["conv", "transformer", "other"] = "conv"
    small: bool = False
    shrinks: float = 0.4


def images(size: int, channels: int = 3) -> tuple[Input, ...]:
    """One square image."""
    return (Input("image", (channels, size, size)),)


# --- small nets that each show one thing -------------------------------------------------------------------------


class Tail(nn.Sequential):
    """Global average pooling and a linear classifier."""

    def __init__(self, channels: int, classes: int = 10) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """Conv (same padding), BatchNorm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def pattern(*middle: nn.Module, width: int = 16, after: int = 16, kernel: int = 3) -> nn.Module:
    """A stem of `width` channels, the thing to show, a convolution that reads `after` channels, and a tail."""
    last = nn.Conv2d(after, 32, kernel, padding=kernel // 2)
    return nn.Sequential(conv_bn(3, width), *middle, last, nn.ReLU(), Tail(32))


def shuffle(groups: int) -> Apply:
    """The channel shuffle of ShuffleNet."""

    def swap(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Apply(swap)


def gate(x: Tensor) -> Tensor:
    """One half of the channels gates the other half."""
    a, b = x.chunk(2, dim=1)
    return a * torch.sigmoid(b)


class ChannelsLast(nn.Module):
    """Runs a module on channels-last data, as ConvNeXt does with its LayerNorm."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    """A learned factor and offset of shape (1, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


class SqueezeExcite(nn.Module):
    """Channels gated by what they hold on average."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class ConcatSpatial(nn.Module):
    """Two branches stacked along the height: their channels become one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = conv_bn(channels, channels), conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.two(x)], dim=2)


class ViewLinear(nn.Module):
    """Convolutions, then `view` into a linear layer: every channel is a block of 16 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 16), conv_bn(16, 16), nn.MaxPool2d(4))
        self.hidden, self.head = nn.Linear(16 * 16, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(F.relu(self.hidden(x.view(x.size(0), -1))))


class UNet(nn.Module):
    """Two levels down, two up by ConvTranspose, joined by concatenation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.down1, self.down2, self.bottom = conv_bn(3, w), conv_bn(w, 2 * w), conv_bn(2 * w, 4 * w)
        self.up2, self.join2 = nn.ConvTranspose2d(4 * w, 2 * w, 2, stride=2), conv_bn(4 * w, 2 * w)
        self.up1, self.join1 = nn.ConvTranspose2d(2 * w, w, 2, stride=2), conv_bn(2 * w, w)
        self.head = nn.Conv2d(w, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.join2(torch.cat([self.up2(c), b], dim=1))
        a = self.join1(torch.cat([self.up1(b), a], dim=1))
        return self.head(a)


class Recurrent(nn.Module):
    """A linear embedding, a recurrent net, a linear head on every step."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 24)
        self.rnn = kind(24, 32, num_layers=layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(64 if bidirectional else 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(torch.relu(self.embed(x)))
        return self.head(torch.relu(y))


class TiedLM(nn.Module):
    """A language model whose head is its embedding, transposed."""

    def __init__(self, words: int = 100, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.hidden, self.back = nn.Linear(width, 64), nn.Linear(64, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(torch.tanh(x + self.back(torch.relu(self.hidden(x)))))


class SharedConv(nn.Module):
    """The same convolution, with its weights, used on two branches and twice in one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.shared = conv_bn(3, 16), conv_bn(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.tail = Tail(32)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.shared(F.relu(self.shared(self.left(x)))))
        return self.tail(torch.cat([a, F.relu(self.shared(self.right(x)))], dim=1))


class SharedLinear(nn.Module):
    """One linear layer on two inputs, whose results are compared: a Siamese net."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.deep, self.head = nn.Linear(20, 48), nn.Linear(48, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = (F.relu(self.deep(F.relu(self.embed(v)))) for v in (x, y))
        return self.head(a - b)


def super_resolution() -> nn.Module:
    """Residual blocks without normalisation, then a pixel shuffle (ESPCN, EDSR)."""
    block = [Residual(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)) for _ in range(2)]
    up = [nn.Conv2d(24, 48, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(12, 3, 3, padding=1)]
    return nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), *block, *up)


def sound() -> nn.Module:
    """Strided and dilated Conv1d with residuals."""
    stem = [nn.Conv1d(2, 16, 5, stride=2, padding=2), nn.BatchNorm1d(16), nn.ReLU()]
    body = Residual(nn.Conv1d(16, 24, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv1d(24, 16, 1))
    head = [nn.Conv1d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*stem, body, *head)


def video() -> nn.Module:
    """Conv3d with BatchNorm and max pooling."""
    first = [nn.Conv3d(1, 12, 3, padding=1), nn.BatchNorm3d(12), nn.ReLU(), nn.MaxPool3d(2)]
    second = [nn.Conv3d(12, 24, 3, padding=1), nn.BatchNorm3d(24), nn.ReLU(), nn.AdaptiveAvgPool3d(1)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(24, 10))


def grouped() -> nn.Module:
    """Grouped, depthwise and pointwise convolutions with a residual."""
    block = Residual(conv_bn(32, 32, groups=4), conv_bn(32, 32, groups=32), nn.Conv2d(32, 32, 1))
    return nn.Sequential(conv_bn(3, 32), block, conv_bn(32, 48, groups=8), Tail(48))


def normalised(normalisation: Callable[[int], nn.Module]) -> nn.Module:
    """Convolutions with a normalisation between them, one of them in a residual."""
    block = Residual(nn.Conv2d(16, 32, 3, padding=1), normalisation(32), nn.ReLU(), nn.Conv2d(32, 16, 1))
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), normalisation(16), nn.ReLU(), block, Tail(16))


def perceptron(normalisation: Callable[[int], nn.Module]) -> nn.Module:
    """Pre-normalised residual MLP blocks, as in a transformer without attention."""
    block = [Residual(normalisation(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(2)]
    return nn.Sequential(nn.Linear(20, 32), *block, normalisation(32), nn.Linear(32, 10))


class RootMeanSquare(nn.Module):
    """RMSNorm written out, as most language models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def ended(*layers: nn.Module) -> nn.Module:
    """Two plain convolutions of 16 channels, then the given layers."""
    return nn.Sequential(conv_bn(3, 16), conv_bn(16, 16), *layers)


def lstm_pattern() -> nn.Module:
    """Convolutions over a series, an LSTM over the result, a linear head."""
    steps = Apply(lambda x: x.transpose(1, 2))
    return nn.Sequential(nn.Conv1d(12, 12, 3, padding=1), nn.ReLU(), steps, Recurrent(nn.LSTM))


def half(x: Tensor) -> Tensor:
    """The first half of the channels."""
    return x[:, :8]


PATTERNS: dict[str, Callable[[], nn.Module]] = {
    "s_plain": lambda: pattern(conv_bn(16, 16)),
    "s_residual": lambda: pattern(Residual(conv_bn(16, 16))),
    "s_add_const": lambda: pattern(conv_bn(16, 16), Apply(lambda x: x + 0.5)),
    "s_add_const_pointwise": lambda: pattern(conv_bn(16, 16), Apply(lambda x: x + 0.5), kernel=1),
    "s_sigmoid_only": lambda: pattern(nn.Conv2d(16, 16, 3, padding=1), nn.Sigmoid()),
    "s_sigmoid_pointwise": lambda: pattern(nn.Conv2d(16, 16, 3, padding=1), nn.Sigmoid(), kernel=1),
    "s_chunk": lambda: pattern(nn.Conv2d(16, 16, 3, padding=1), Apply(gate), after=8),
    "s_slice": lambda: pattern(conv_bn(16, 16), Apply(half), after=8),
    "s_shuffle": lambda: pattern(conv_bn(16, 16), shuffle(2)),
    "s_shuffle_grouped": lambda: pattern(conv_bn(16, 16, 1, groups=4), shuffle(4), conv_bn(16, 16, groups=16)),
    "s_layernorm": lambda: pattern(conv_bn(16, 16), ChannelsLast(nn.LayerNorm(16))),
    "s_groupconv": lambda: pattern(conv_bn(16, 16, groups=4)),
    "s_groupnorm": lambda: pattern(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU()),
    "s_view": ViewLinear,
    "s_flatten": lambda: ended(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, 10)),
    "s_param_scale": lambda: pattern(conv_bn(16, 16), Scale(16)),
    "s_se": lambda: pattern(conv_bn(16, 16), SqueezeExcite(16, 8)),
    "s_prelu": lambda: pattern(nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16)),
    "s_pixelshuffle": lambda: pattern(nn.Conv2d(16, 32, 3, padding=1), nn.PixelShuffle(2), after=8),
    "s_concat_spatial": lambda: pattern(ConcatSpatial(16)),
}
FEW_LEFT = {"s_groupnorm": 0.0, "s_groupconv": 0.3}  # whole groups only, so half is not always within reach

series = (Input("series", (9, 12)),)
tokens = (Input("tokens", (9,), "tokens", 100),)
features = (Input("features", (7, 20)),)
pair = (Input("one", (20,)), Input("two", (20,)))

OWN: dict[str, Architecture] = {
    "unet": Architecture(UNet, images(32), small=True),
    "superres": Architecture(super_resolution, images(16), small=True),
    "conv1d": Architecture(sound, (Input("wave", (2, 64)),), small=True),
    "conv3d": Architecture(video, (Input("video", (1, 8, 16, 16)),), small=True),
    "grouped": Architecture(grouped, images(16), small=True),
    "instancenorm": Architecture(lambda: normalised(partial(nn.InstanceNorm2d, affine=True)), images(16), small=True),
    "groupnorm": Architecture(lambda: normalised(partial(nn.GroupNorm, 4)), images(16), small=True, shrinks=0.0),
    "layernorm": Architecture(lambda: perceptron(nn.LayerNorm), features, "other", small=True),
    "rmsnorm": Architecture(lambda: perceptron(nn.RMSNorm), features, "other", small=True),
    "rmsnorm_written": Architecture(lambda: perceptron(RootMeanSquare), features, "other", small=True),
    "lstm": Architecture(lambda: Recurrent(nn.LSTM), series, "other", small=True),
    "lstm_deep": Architecture(lambda: Recurrent(nn.LSTM, 2, True), series, "other", small=True),
    "gru": Architecture(lambda: Recurrent(nn.GRU), series, "other", small=True),
    "gru_deep": Architecture(lambda: Recurrent(nn.GRU, 2, True), series, "other", small=True),
    "s_lstm": Architecture(lstm_pattern, (Input("series", (12, 9)),), "other", small=True),
    "tied_lm": Architecture(TiedLM, tokens, "other", small=True),
    "shared_conv": Architecture(SharedConv, images(16), small=True),
    "shared_linear": Architecture(SharedLinear, pair, "other", small=True),
}


# --- torchvision -------------------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what other libraries warn of and log, which is not ours to mend."""
    logging.disable(logging.WARNING)  # under pytest torch would log each step of an export
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@cache
def load_torchvision() -> Any:
    """Imports torchvision, with the help of the shim where torch and torchvision are of different builds.

    Raises:
        UnavailableError: torchvision is missing, or can't load and there is no shim.
    """
    if SHIM.exists():
        spec = importlib.util.spec_from_file_location("torchvision_shim", SHIM)
        assert spec is not None
        assert spec.loader is not None
        shim = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(shim)
        shim.install()
        sys.modules["torchvision_shim"] = shim  # its declarations live as long as the module
    try:
        with quiet():
            return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(f"torchvision does not load beside this torch: {error}") from error


def torchvision_models() -> Any:
    """`torchvision.models`."""
    return load_torchvision().models


@cache
def load_transformers() -> Any:
    """Imports transformers, which imports torchvision where that is installed.

    Raises:
        UnavailableError: transformers is missing, or torchvision does not load.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UnavailableError("transformers is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        load_torchvision()
    with quiet():
        return importlib.import_module("transformers")


def vision(name: str, size: int = 64, kind: Literal["conv", "transformer"] = "conv", **options: Any) -> Architecture:
    """A torchvision architecture as published, with random weights."""

    def module() -> nn.Module:
        return torchvision_models().get_model(name, weights=None, **options)

    return Architecture(module, images(size), kind)


def mini_vit() -> nn.Module:
    """torchvision's ViT with 2 layers of width 64."""
    return torchvision_models().VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)


def mini_swin(version: int) -> nn.Module:
    """torchvision's Swin with two stages; windows of 3 on 8x8 patches, so that padding and shifting both occur."""
    swin = torchvision_models().swin_transformer
    parts = {"block": swin.SwinTransformerBlock, "downsample_layer": swin.PatchMerging}
    if version == 2:
        parts = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    return swin.SwinTransformer([4, 4], 32, [2, 2], [4, 8], [3, 3], mlp_ratio=2, num_classes=10, **parts)


def mini_maxvit() -> nn.Module:
    """torchvision's MaxViT with two stages and windows of 4."""
    return torchvision_models().MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=10)


def mini_convnext() -> nn.Module:
    """torchvision's ConvNeXt with two stages."""
    convnext = torchvision_models().convnext
    return convnext.ConvNeXt([convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)], num_classes=10)


def mini_resnet(name: str) -> nn.Module:
    """torchvision's ResNet or ResNeXt with one block in each of its four stages."""
    resnet = torchvision_models().resnet
    if name == "resnext":
        return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, groups=32, width_per_group=4)
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)


def mini_densenet() -> nn.Module:
    """torchvision's DenseNet with two blocks."""
    return torchvision_models().DenseNet(8, (2, 3), 16, num_classes=10)


def mini_shufflenet() -> nn.Module:
    """torchvision's ShuffleNetV2 with two units in each stage."""
    return torchvision_models().ShuffleNetV2([2, 2, 2], [24, 32, 64, 128, 128], num_classes=10)


def mini_vgg() -> nn.Module:
    """VGG's plan in small: flattened features, two hidden linear layers with dropout."""
    features = [conv_bn(3, 16), nn.MaxPool2d(2), conv_bn(16, 32), nn.MaxPool2d(2), conv_bn(32, 32)]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)]
    return nn.Sequential(*features, *head)


def mini_fire() -> nn.Module:
    """Two of SqueezeNet's Fire modules."""
    fire = torchvision_models().squeezenet.Fire
    return nn.Sequential(conv_bn(3, 24), fire(24, 8, 16, 16), fire(32, 8, 24, 24), Tail(48))


def mini_mobilenet() -> nn.Module:
    """MobileNetV2 with three inverted residuals."""
    setting = [[1, 8, 1, 1], [4, 16, 2, 2], [4, 24, 1, 2]]
    return torchvision_models().MobileNetV2(num_classes=10, inverted_residual_setting=setting)


def mini_efficientnet() -> nn.Module:
    """EfficientNet with three stages: depthwise, squeeze-and-excite, SiLU, fused blocks."""
    net = torchvision_models().efficientnet
    setting = [
        net.FusedMBConvConfig(2, 3, 1, 16, 16, 1),
        net.MBConvConfig(4, 3, 2, 16, 24, 2, 1.0, 1.0),
        net.MBConvConfig(4, 5, 2, 24, 32, 1, 1.0, 1.0),
    ]
    return net.EfficientNet(setting, dropout=0.1, num_classes=10)


def mini_regnet() -> nn.Module:
    """RegNetY: grouped bottlenecks with squeeze-and-excite."""
    net = torchvision_models().regnet
    parameters = net.BlockParams.from_init_params(4, 16, 16.0, 2.0, 8, se_ratio=0.25)
    return net.RegNet(parameters, num_classes=10)


TORCHVISION: dict[str, Architecture] = {
    "mini_resnet": Architecture(lambda: mini_resnet("resnet"), images(32), small=True),
    "mini_resnext": Architecture(lambda: mini_resnet("resnext"), images(32)),
    "mini_densenet": Architecture(mini_densenet, images(32), small=True),
    "mini_shufflenet": Architecture(mini_shufflenet, images(32), small=True),
    "mini_vgg": Architecture(mini_vgg, images(32), small=True),
    "mini_fire": Architecture(mini_fire, images(16), small=True),
    "mini_mobilenet": Architecture(mini_mobilenet, images(32), small=True),
    "mini_efficientnet": Architecture(mini_efficientnet, images(32), small=True),
    "mini_regnet": Architecture(mini_regnet, images(32), small=True),
    "mini_convnext": Architecture(mini_convnext, images(32), small=True),
    "mini_vit": Architecture(mini_vit, images(32), "transformer", small=True),
    "mini_swin": Architecture(lambda: mini_swin(1), images(32), "transformer", small=True),
    "mini_swin_v2": Architecture(lambda: mini_swin(2), images(32), "transformer", small=True),
    "mini_maxvit": Architecture(mini_maxvit, images(32), "transformer", small=True),
    "resnet18": vision("resnet18"),
    "mobilenet_v2": vision("mobilenet_v2"),
    "swin_t": vision("swin_t", 224, "transformer"),
    "shufflenet_v2_x1_0": vision("shufflenet_v2_x1_0"),
    "densenet121": vision("densenet121"),
    "resnet50": vision("resnet50"),
    "alexnet": vision("alexnet", 224),
    "vgg11": vision("vgg11", 224, init_weights=False),
    "vgg11_bn": vision("vgg11_bn", 224, init_weights=False),
    "resnext50_32x4d": vision("resnext50_32x4d"),
    "wide_resnet50_2": vision("wide_resnet50_2"),
    "squeezenet1_1": vision("squeezenet1_1"),
    "googlenet": vision("googlenet", 128, aux_logits=False, init_weights=False),
    "inception_v3": vision("inception_v3", 160, aux_logits=False, init_weights=False),
    "mobilenet_v3_small": vision("mobilenet_v3_small"),
    "mnasnet1_0": vision("mnasnet1_0"),
    "efficientnet_b0": vision("efficientnet_b0"),
    "efficientnet_v2_s": vision("efficientnet_v2_s"),
    "regnet_x_400mf": vision("regnet_x_400mf"),
    "regnet_y_400mf": vision("regnet_y_400mf"),
    "convnext_tiny": vision("convnext_tiny"),
    "vit_b_32": vision("vit_b_32", 64, "transformer", image_size=64),
    "swin_v2_t": vision("swin_v2_t", 256, "transformer"),
    "maxvit_t": vision("maxvit_t", 224, "transformer"),
}


# --- transformers ------------------------------------------------------------------------------------------------

WORDS, LENGTH = 500, 12
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
text = (Input("input_ids", (LENGTH,), "tokens", WORDS), Input("attention_mask", (LENGTH,), "mask"))
pixels = (Input("pixel_values", (3, 32, 32)),)


class ByName(nn.Module):
    """Calls a transformers model by the names of its inputs, whose order differs, and asks for a tuple."""

    def __init__(self, model: nn.Module, inputs: Iterable[Input], **options: Any) -> None:
        super().__init__()
        self.model, self.names, self.options = model, tuple(i.name for i in inputs), options

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=False, **self.options)


def bert(head: str) -> nn.Module:
    """BERT with 2 layers of width 64, with the head of the given class."""
    transformers = load_transformers()
    config = transformers.BertConfig(vocab_size=WORDS, **SIZES, max_position_embeddings=32)
    return ByName(getattr(transformers, head)(config), text)


def distilbert() -> nn.Module:
    """DistilBERT with 2 layers of width 64."""
    transformers = load_transformers()
    config = transformers.DistilBertConfig(
        vocab_size=WORDS, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=32
    )
    return ByName(transformers.DistilBertModel(config), text)


def gpt2(attention: str = "sdpa") -> nn.Module:
    """GPT-2 with 2 layers of width 64 and the tied head of a language model."""
    transformers = load_transformers()
    sizes = {"vocab_size": WORDS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, attn_implementation=attention)
    return ByName(transformers.GPT2LMHeadModel(config), text, use_cache=False)


def hf_vit() -> nn.Module:
    """transformers' ViT with 2 layers of width 64."""
    transformers = load_transformers()
    config = transformers.ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=10)
    return ByName(transformers.ViTForImageClassification(config), pixels)


TRANSFORMERS: dict[str, Architecture] = {
    "bert": Architecture(lambda: bert("BertModel"), text, "transformer", small=True),
    "bert_qa": Architecture(lambda: bert("BertForQuestionAnswering"), text, "transformer"),
    "distilbert": Architecture(distilbert, text, "transformer", small=True),
    "gpt2": Architecture(gpt2, text, "transformer", small=True),
    "gpt2_eager": Architecture(lambda: gpt2("eager"), text, "transformer"),
    "vit": Architecture(hf_vit, pixels, "transformer", small=True),
}

ZOO: dict[str, Architecture] = {
    **{
        name: Architecture(make, images(16), small=True, shrinks=FEW_LEFT.get(name, 0.4))
        for name, make in PATTERNS.items()
    },
    **OWN,
    **TORCHVISION,
    **TRANSFORMERS,
}

# Opset 23 has single operators for what older ones spell out: attention, GELU, group and RMS normalisation.
NEWER = {
    name for name, a in ZOO.items() if a.kind == "transformer" or name in ("rmsnorm", "groupnorm", "mini_convnext")
}

# What an exporter refuses, with its own reason; tests skip these.
NO_RMS = "torch's TorchScript exporter has no aten::rms_norm in opset 18"
REFUSED: dict[tuple[str, str], str] = {
    ("rmsnorm", "torchscript"): NO_RMS,
    ("rmsnorm", "torchscript-dynamic"): NO_RMS,
}


def pairs() -> list[tuple[str, str]]:
    """Every architecture with every exporter that makes a difference for it."""
    return [(name, exporter) for name in ZOO for exporter in EXPORTERS if exporter != "dynamo-23" or name in NEWER]


# --- random, yet alive -------------------------------------------------------------------------------------------

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def seed_of(name: str) -> int:
    """A seed that depends on the name alone."""
    return zlib.crc32(name.encode())


def sample(name: str, seed: int, batch: int = 1) -> list[np.ndarray]:
    """Draws one set of inputs for an architecture, in the order of its inputs."""
    random = np.random.default_rng([seed_of(name), seed])
    return [i.sample(random, batch) for i in ZOO[name].inputs]


def tensors(name: str, seed: int, batch: int = 1) -> tuple[Tensor, ...]:
    """Like `sample`, as torch tensors."""
    return tuple(torch.from_numpy(x) for x in sample(name, seed, batch))


def randomise(module: nn.Module) -> None:
    """Gives every parameter random values of a healthy size, so that none of them is without effect.

    Matrices and kernels keep the variance of what passes (He et al. 2015); scales spread around 1; offsets, layer
    scales, tokens and tables, which many nets start at 0 or 1e-6, get values that matter. BatchNorm's offsets lie
    around 1: around 0, each BatchNorm and ReLU multiplies differences by 1.2 (Yang et al. 2019), and a deep net then
    turns the rounding of float32 into differences of 1e-4.
    """
    scales = {id(m.weight) for m in module.modules() if isinstance(m, (*NORMS, nn.PReLU)) and m.weight is not None}
    transposed = {id(m.weight) for m in module.modules() if isinstance(m, nn.ConvTranspose2d)}
    shifts = {id(m.bias) for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    kernels = {id(m.weight) for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)}
    for name, p in module.named_parameters():
        if id(p) in scales or name.endswith(("scale", "factor")):
            nn.init.uniform_(p, 0.5, 1.5)
        elif id(p) in shifts:
            nn.init.normal_(p, 1.0, 0.4)
        elif "layer_scale" in name:
            nn.init.uniform_(p, 0.2, 0.6)
        elif p.numel() == max(p.shape, default=1) or name.endswith(("bias", "offset")):
            nn.init.normal_(p, 0.0, 0.1)
        elif id(p) in tables or (p.ndim > 2 and id(p) not in kernels):
            nn.init.normal_(p, 0.0, 0.5)
        else:
            inputs = p.shape[0] if id(p) in transposed or "c_" in name else p[0].numel()
            nn.init.normal_(p, 0.0, ((2 if id(p) in kernels else 1) / inputs) ** 0.5)


def disturb(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """A pre-forward hook: sets BatchNorm statistics to those of what comes in, then disturbs them by about 20 %."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    x = inputs[0].transpose(0, 1).flatten(1)
    spread = x.std(1)
    norm.running_mean.copy_(x.mean(1) + 0.2 * spread * torch.randn_like(spread))
    norm.running_var.copy_(spread.square() * (1 + 0.2 * (2 * torch.rand_like(spread) - 1)))


def calibrate(module: nn.Module, batch: tuple[Tensor, ...]) -> None:
    """Sets all BatchNorm statistics in one pass, each after the disturbances before it, so that they do not add up."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(disturb) for norm in norms]
    if hooks:
        module(*batch)
    for hook in hooks:
        hook.remove()


def flat(outputs: Any) -> list[Tensor]:
    """The tensors of a module's result."""
    return [outputs] if isinstance(outputs, Tensor) else [t for o in outputs for t in flat(o)]


def sensitivity(one: list[Tensor], two: list[Tensor]) -> float:
    """How far the outputs for two inputs are apart, relative to their size, where they are closest."""
    return min(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, two, strict=True))


@torch.no_grad()
def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Builds an architecture with random weights that leave nothing hidden.

    Args:
        name: A key of `ZOO`.

    Returns:
        The module in eval mode, and example inputs with a batch of one.

    Raises:
        UnavailableError: The library that defines the architecture can't be loaded here.
        AssertionError: Its output explodes or hardly depends on its input.
    """
    torch.manual_seed(seed_of(name))
    module = ZOO[name].module().eval()
    randomise(module)
    calibrate(module, tensors(name, 0, batch=32))
    one, two = (flat(module(*tensors(name, seed))) for seed in (1, 2))
    largest, moved = max(float(o.abs().max()) for o in one), sensitivity(one, two)
    assert largest < LARGEST_OUTPUT, f"{name}: outputs as large as {largest:.3g}"  # also false for nan
    assert moved >= LEAST_SENSITIVITY, f"{name}: outputs move by only {moved:.1e} between two inputs"
    return module, tensors(name, 1)


# --- export ------------------------------------------------------------------------------------------------------


def export(name: str, exporter: str, folder: Path) -> Path:
    """Writes an architecture as `<folder>/<name>.<exporter>.onnx`.

    `dynamo` and `torchscript` are torch's two exporters as most users call them; `torchscript-dynamic` has a batch axis
    of unknown size; `dynamo-23` may use the Attention, RMSNormalization and Gelu operators of newer opsets; `lossless`
    keeps each parameter, and each BatchNorm, as it is in the module.

    Raises:
        UnavailableError: The exporter is known to refuse this architecture, or its library can't be loaded here.
    """
    if (name, exporter) in REFUSED:
        raise UnavailableError(REFUSED[name, exporter])
    module, inputs = build(name)
    path = folder / f"{name}.{exporter}.onnx"
    names = [i.name for i in ZOO[name].inputs]
    with quiet():
        if exporter.startswith("dynamo"):
            opset = 23 if exporter == "dynamo-23" else OPSET
            torch.onnx.export(module, inputs, path, opset_version=opset, input_names=names, dynamo=True, verbose=False)
        elif exporter == "lossless":
            export_lossless(module, inputs, path, names)
        else:
            batch = {n: {0: "batch"} for n in (*names, "output")} if exporter == "torchscript-dynamic" else None
            outputs = ["output"] if batch else None
            plain = {"opset_version": OPSET, "input_names": names, "do_constant_folding": True, "dynamo": False}
            torch.onnx.export(module, inputs, path, output_names=outputs, dynamic_axes=batch, **plain)
    return path


def export_lossless(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, names: list[str]) -> None:
    """Exports with every parameter kept: for the time of the optimizer they are inputs, which it can't fold."""
    from onnx_ir.passes.common import AddInitializersToInputsPass, RemoveInitializersFromInputsPass
    from onnxscript.optimizer import optimize

    program = torch.onnx.export(
        module, inputs, opset_version=OPSET, input_names=names, dynamo=True, optimize=False, verbose=False
    )
    assert program is not None
    AddInitializersToInputsPass()(program.model)
    optimize(program.model)
    RemoveInitializersFromInputsPass()(program.model)
    program.save(str(path), external_data=False)


# --- the round trip ----------------------------------------------------------------------------------------------

Arrays = dict[str, np.ndarray]
SCORES = ("Softmax", "Attention")  # their first input has the heads as its third axis from the end
CURVES = ("Erf", "Gelu", "Tanh")  # their input has the width of the MLP as its last axis


def run(path: Path, inputs: Iterable[Arrays], outputs: Iterable[str] = ()) -> list[Arrays]:
    """Runs a model under onnxruntime on one thread.

    Args:
        path: The model.
        inputs: Sets of values by input name; those that the exporter dropped are ignored.
        outputs: Inner tensors to give as well.

    Returns:
        For each set the model's outputs, and the inner tensors, by name.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with TemporaryDirectory(dir=path.parent) as folder:
        if outputs:
            model = onnx.load(path)
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
            path = Path(folder) / "watched.onnx"
            onnx.save(model, path, save_as_external_data=True)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    asked = [i.name for i in session.get_inputs()]
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, session.run(names, {n: x[n] for n in asked}), strict=True)) for x in inputs]


def apart(one: Arrays, two: Arrays) -> float:
    """The largest difference of two results, relative to the largest value of the first, in the worst output."""
    assert one.keys() == two.keys(), f"outputs differ: {sorted(one)} and {sorted(two)}"
    shapes = [(n, one[n].shape, two[n].shape) for n in one if one[n].shape != two[n].shape]
    assert not shapes, f"shapes of outputs differ: {shapes}"
    return max(float(np.abs(one[n] - two[n]).max() / np.abs(one[n]).max()) for n in one)


def parameters(path: Path) -> int:
    """The number of floating-point elements in the initializers of a model."""
    model = onnx.load(path, load_external_data=False)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in floats)


def attention(path: Path, inputs: Arrays) -> tuple[dict[str, int], dict[str, int]]:
    """Measures the heads of every attention, and the width under every curved activation, by running the model.

    Returns:
        Number of heads, and widths, each by the name of the node's output.
    """
    nodes = onnx.load(path, load_external_data=False).graph.node
    read = {n.output[0]: n.input[0] for n in nodes if n.op_type in SCORES + CURVES}
    (seen,) = run(path, [inputs], sorted(set(read.values())))
    heads = {n.output[0]: seen[n.input[0]].shape[-3] for n in nodes if n.op_type in SCORES}
    widths = {n.output[0]: seen[n.input[0]].shape[-1] for n in nodes if n.op_type in CURVES}
    return heads, widths


@dataclass(frozen=True)
class Trip:
    """One model on its way: the three files, what zig said, and what onnxruntime says.

    Attributes:
        groups: Number of zero-invariant groups, and of node groups.
        parameters: Those of the original (and zeroed) and of the compressed model.
        difference: Zeroed against compressed, relative; must vanish.
        effect: Original against zeroed, relative; must not vanish, or nothing was pruned.
        sensitivity: Zeroed, between different inputs; must not vanish, or any damage would pass.
        seconds: What `analyze`, `prune`, `zero` and `compress` took.
    """

    original: Path
    zeroed: Path
    compressed: Path
    inputs: tuple[Arrays, ...]
    groups: tuple[int, int]
    parameters: tuple[int, int]
    difference: float
    effect: float
    sensitivity: float
    seconds: float

    @property
    def lost(self) -> float:
        """The share of parameters that is gone."""
        return 1 - self.parameters[1] / self.parameters[0]


def round_trip(name: str, exporter: str, folder: Path, ratio: float = 0.5) -> Trip:
    """Exports, prunes at random, compresses, and compares on three random inputs without any help of zig.

    Raises:
        UnavailableError: The architecture can't be exported here.
    """
    original, zeroed, compressed = export(name, exporter, folder), folder / "zeroed.onnx", folder / "compressed.onnx"
    start = time.perf_counter()
    partition = zig.analyze(original)
    plan = zig.prune(partition, ratio=ratio, criterion="random", seed=seed_of(name) % 2**31)
    zig.zero(plan, zeroed)
    zig.compress(zeroed, compressed, check=False)
    seconds = time.perf_counter() - start
    batch = 3 if exporter == "torchscript-dynamic" else 1
    names = [i.name for i in ZOO[name].inputs]
    inputs = tuple(dict(zip(names, sample(name, seed, batch), strict=True)) for seed in (11, 12, 13))
    full, empty, small = (run(path, inputs) for path in (original, zeroed, compressed))
    return Trip(
        original,
        zeroed,
        compressed,
        inputs,
        groups=(len(partition), len(partition.node_groups)),
        parameters=(parameters(original), parameters(compressed)),
        difference=max(map(apart, empty, small)),
        effect=min(map(apart, full, empty)),
        sensitivity=min(apart(empty[0], empty[1]), apart(empty[0], empty[2])),
        seconds=seconds,
    )
