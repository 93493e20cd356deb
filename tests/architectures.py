"""The architectures of the zoo: what zig promises to prune exactly, each a row that says how to make it.

`ZOO` has small nets that each show one thing, and the families of torchvision and transformers. Beyond it,
`architecture("torchvision:NAME")` and `architecture("timm:NAME")` give any architecture of these libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
import torchvision_schemas
from torch import Tensor, nn
from torch.nn import functional as F


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


class PaddedShortcut(nn.Module):
    """Option A of ResNet: the shortcut leaves out every other pixel and has zeros where there are new channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(inputs, outputs, stride=2), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.more = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more)))


class SpatialGate(nn.Module):
    """The spatial half of CBAM: pixels gated by the mean and the largest of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.gate(seen))


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


class MessagePassing(nn.Module):
    """A graph network: in each layer every node adds up, from zero, what its neighbours on a ring with chords send."""

    def __init__(self, nodes: int = 6, width: int = 24) -> None:
        super().__init__()
        ring = torch.arange(nodes)
        self.register_buffer("source", torch.cat([ring, ring]))
        self.register_buffer("target", torch.cat([(ring + 1) % nodes, (ring * 2) % nodes]))
        self.embed, self.head = nn.Linear(20, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.embed(x))
        for layer in self.layers:
            sent = layer(x)[:, self.source]
            place = self.target[None, :, None].expand_as(sent)
            x = torch.relu(torch.zeros_like(x).scatter_add(1, place, sent))
        return self.head(x)


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
    "s_cbam": lambda: pattern(conv_bn(16, 16), SpatialGate()),
    "s_option_a": lambda: pattern(PaddedShortcut(16, 32), PaddedShortcut(32, 64), after=64),
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
    "gnn": Architecture(MessagePassing, (Input("nodes", (6, 20)),), "other", small=True),
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
    """Imports torchvision, whose operators may be of another build than torch.

    Raises:
        UnavailableError: torchvision is missing, or does not load.
    """
    torchvision_schemas.install()
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


PLAIN = {"aux_logits": False, "init_weights": False}
VISION: dict[str, tuple[int | tuple[int, ...], dict[str, Any]]] = {  # the first pattern that fits: size, options
    "alexnet": (224, {}),
    "vgg*": (224, {"init_weights": False}),
    "googlenet": (128, PLAIN),
    "inception_v3": (160, PLAIN),
    "swin_v2_*": (256, {}),
    "swin_*": (224, {}),
    "maxvit_t": (224, {}),
    "vit_h_14": (56, {"image_size": 56}),
    "vit_*": (64, {"image_size": 64}),
    "deeplabv3_*": (64, {"weights_backbone": None}),
    "fcn_*": (64, {"weights_backbone": None}),
    "lraspp_*": (64, {"weights_backbone": None}),
    "s3d": ((3, 16, 224, 224), {}),
    "mvit_*": ((3, 16, 224, 224), {}),
    "swin3d_*": ((3, 8, 64, 64), {}),
    "mc3_18": ((3, 8, 64, 64), {}),
    "r2plus1d_18": ((3, 8, 64, 64), {}),
    "r3d_18": ((3, 8, 64, 64), {}),
    "*": (64, {}),
}


def vision(name: str) -> Architecture:
    """A torchvision architecture as published, with random weights."""
    size, options = next(row for pattern, row in VISION.items() if fnmatch(name, pattern))

    def module() -> nn.Module:
        return torchvision_models().get_model(name, weights=None, **options)

    attends = name.startswith(("vit_", "swin", "maxvit", "mvit"))
    inputs = images(size) if isinstance(size, int) else (Input("video", size),)
    return Architecture(module, inputs, "transformer" if attends else "conv")


@cache
def load_timm() -> Any:
    """Imports timm, which imports torchvision.

    Raises:
        UnavailableError: timm is missing, or torchvision does not load.
    """
    load_torchvision()
    if importlib.util.find_spec("timm") is None:
        raise UnavailableError("timm is not installed")
    with quiet():
        timm = importlib.import_module("timm")
    timm.layers.set_fused_attn(False)  # torch can't export some of the fused ones
    return timm


NATIVE = ("halonet*", "lambda_*", "*patch14*", "deepseek_*")  # blocks of a size that small images do not fill


def timm_model(name: str) -> Architecture:
    """An architecture of timm as published, with random weights, on an image of at most 96 x 96 where it can.

    Raises:
        UnavailableError: timm has none of that name.
    """
    timm = load_timm()
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise UnavailableError(f"timm has no architecture '{name}'")
    channels, size, _ = config.input_size
    native = config.fixed_input_size or any(fnmatch(name, pattern) for pattern in NATIVE)
    size = size if native else min(size, 96)
    return Architecture(lambda: timm.create_model(name, pretrained=False), images(size, channels), "other")


def architecture(name: str) -> Architecture:
    """The row of `ZOO`, or `torchvision:NAME`, or `timm:NAME`.

    Raises:
        UnavailableError: The library is missing here.
    """
    library, _, rest = name.rpartition(":")
    return {"": ZOO.__getitem__, "torchvision": vision, "timm": timm_model}[library](rest)


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


PUBLISHED = """
    resnet18 mobilenet_v2 swin_t shufflenet_v2_x1_0 densenet121 resnet50 alexnet vgg11
    vgg11_bn resnext50_32x4d wide_resnet50_2 squeezenet1_1 googlenet inception_v3 mobilenet_v3_small mnasnet1_0
    efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny vit_b_32 swin_v2_t maxvit_t
"""

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
    **{name: vision(name) for name in PUBLISHED.split()},
}


# --- transformers ------------------------------------------------------------------------------------------------

WORDS, LENGTH = 500, 12
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
text = (Input("input_ids", (LENGTH,), "tokens", WORDS), Input("attention_mask", (LENGTH,), "mask"))
pixels = (Input("pixel_values", (3, 32, 32)),)
photo = (Input("pixel_values", (3, 64, 64)),)


class ByName(nn.Module):
    """Calls a transformers model by the names of its inputs, whose order differs, and asks for a tuple."""

    def __init__(self, model: nn.Module, inputs: Iterable[Input], **options: Any) -> None:
        super().__init__()
        self.model, self.names, self.options = model, tuple(i.name for i in inputs), options

    def forward(self, *inputs: Tensor) -> Any:
        return self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=False, **self.options)


TEXT, PIXELS = {"vocab_size": WORDS, "max_position_embeddings": 32}, {"image_size": 32, "patch_size": 8}
GPT = {"vocab_size": WORDS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}
GROUPED = {"num_key_value_heads": 2}
GATED = {**SIZES, **TEXT, **GROUPED, "head_dim": 16}
CODED = {
    "vocab_size": WORDS, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
}  # fmt: skip
RESNET = {
    "embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1],
    "out_features": ["stage4"], "layer_type": "basic",
}  # fmt: skip
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
PYRAMID = {
    "depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 32, 64], "num_attention_heads": [1, 2, 2, 4],
    "decoder_hidden_size": 32, "sr_ratios": [8, 4, 2, 1],
}  # fmt: skip
WAVES = {
    "vocab_size": 32, "conv_dim": [32, 32], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
EAGER = {"attn_implementation": "eager"}  # where torch can't export the other one
EXPERTS = {
    **GATED,
    "experts_implementation": "batched_mm",
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "num_experts": 4,
    "num_local_experts": 4,
}
CLIP = {"text_config": {**SIZES, **TEXT}, "vision_config": {**SIZES, **PIXELS}, "projection_dim": 48}

wave = (Input("input_values", (640,)),)
spectrum = (Input("input_features", (16, 64)),)
answer = (Input("decoder_input_ids", (7,), "tokens", WORDS),)

# Tiny configurations of transformers' models: class, options of its configuration, inputs.
TINY: dict[str, tuple[str, dict[str, Any], tuple[Input, ...]]] = {
    "bert": ("BertModel", SIZES | TEXT, text),
    "bert_qa": ("BertForQuestionAnswering", SIZES | TEXT, text),
    "distilbert": ("DistilBertModel", TEXT | {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}, text),
    "roberta": ("RobertaForSequenceClassification", SIZES | TEXT | {"pad_token_id": 0}, text),
    "albert": ("AlbertModel", SIZES | TEXT | {"embedding_size": 32}, text),
    "electra": ("ElectraModel", SIZES | TEXT | {"embedding_size": 32}, text),
    "deberta": ("DebertaModel", SIZES | TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, text),
    "deberta_v2": ("DebertaV2Model", SIZES | TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, text),
    "modernbert": ("ModernBertForMaskedLM", SIZES | TEXT | {"pad_token_id": 0}, text),
    "gpt2": ("GPT2LMHeadModel", GPT, text),
    "gpt2_eager": ("GPT2LMHeadModel", GPT | EAGER, text),
    "gpt_neox": ("GPTNeoXForCausalLM", SIZES | TEXT, text),
    "gptj": ("GPTJForCausalLM", GPT | {"rotary_dim": 8}, text),
    "bloom": ("BloomForCausalLM", {"vocab_size": WORDS, "hidden_size": 64, "n_layer": 2, "n_head": 4}, text),
    "falcon": ("FalconForCausalLM", SIZES | TEXT | {"multi_query": True, "parallel_attn": True}, text),
    "opt": ("OPTForCausalLM", SIZES | TEXT | {"ffn_dim": 128, "word_embed_proj_dim": 64}, text),
    "llama": ("LlamaForCausalLM", GATED, text),
    "mistral": ("MistralForCausalLM", GATED, text),
    "mixtral": ("MixtralForCausalLM", EXPERTS, text),
    "qwen2": ("Qwen2ForCausalLM", GATED, text),
    "qwen3": ("Qwen3ForCausalLM", GATED, text),
    "qwen3_moe": ("Qwen3MoeForCausalLM", EXPERTS, text),
    "gemma": ("GemmaForCausalLM", GATED, text),
    "gemma2": ("Gemma2ForCausalLM", GATED, text),
    "gemma3": ("Gemma3ForCausalLM", GATED, text),
    "phi": ("PhiForCausalLM", SIZES | TEXT, text),
    "phi3": ("Phi3ForCausalLM", GATED | {"pad_token_id": 0}, text),
    "mamba": ("MambaForCausalLM", {"vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}, text[:1]),
    "t5": ("T5ForConditionalGeneration", {"vocab_size": WORDS, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4} | EAGER, text + answer),
    "bart": ("BartForConditionalGeneration", CODED | {"max_position_embeddings": 32}, text + answer),
    "whisper": ("WhisperForConditionalGeneration", CODED | {"num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 16, "pad_token_id": 0}, spectrum + answer),
    "vit": ("ViTForImageClassification", SIZES | PIXELS | {"num_labels": 10}, pixels),
    "deit": ("DeiTForImageClassification", SIZES | PIXELS | {"num_labels": 10}, pixels),
    "dinov2": ("Dinov2ForImageClassification", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 10} | PIXELS, pixels),
    "beit": ("BeitForImageClassification", SIZES | PIXELS | {"num_labels": 10}, pixels),
    "swin": ("SwinForImageClassification", SWIN | EAGER | {"num_labels": 10}, pixels),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_labels": 10}, pixels),
    "detr": ("DetrForObjectDetection", CODED | {"num_queries": 6, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "num_labels": 5}, photo),
    "segformer": ("SegformerForSemanticSegmentation", PYRAMID | {"num_labels": 5}, photo),
    "clip": ("CLIPModel", CLIP, (text[0], pixels[0], text[1])),
    "wav2vec2": ("Wav2Vec2ForCTC", SIZES | WAVES, wave),
    "hubert": ("HubertModel", SIZES | WAVES, wave),
}  # fmt: skip


def tiny(name: str) -> Architecture:
    """A model of transformers with 2 layers of width 64, or nearly so."""
    kind, options, inputs = TINY[name]

    def module() -> nn.Module:
        transformers = load_transformers()
        model = getattr(transformers, kind)
        given = dict(options)
        if name == "detr":
            given["backbone_config"] = transformers.ResNetConfig(**RESNET)
        config = model.config_class(**given)
        return ByName(model(config), inputs, **({"use_cache": False} if hasattr(config, "use_cache") else {}))

    return Architecture(
        module, inputs, "other" if name in ("mamba", "convnext") else "transformer", small=name in QUICK
    )


QUICK = {"bert", "distilbert", "gpt2", "llama", "mamba", "t5", "vit"}  # in the default test run
EVERY_WAY = {"bert", "bert_qa", "distilbert", "gpt2", "gpt2_eager", "vit"}  # by every exporter, the others by dynamo
TRANSFORMERS: dict[str, Architecture] = {name: tiny(name) for name in TINY}

ZOO: dict[str, Architecture] = {
    **{
        name: Architecture(make, images(16), small=True, shrinks=FEW_LEFT.get(name, 0.4))
        for name, make in PATTERNS.items()
    },
    **OWN,
    **TORCHVISION,
    **TRANSFORMERS,
}


def names(library: str) -> list[str]:
    """All classification architectures of torchvision, or all of timm.

    Raises:
        UnavailableError: The library can't be loaded here.
    """
    if library == "torchvision":
        models = torchvision_models()
        return sorted(models.list_models(module=models))
    return sorted(load_timm().list_models())
