"""Model files, in every format that onnx reads: ONNX itself, and its forms as text.

What is written is always ONNX: a model as text takes several times the space, and onnxruntime runs none.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError
from onnx import parser, serialization

from zig.errors import ModelError, UsageError

ORT = ".ort"  # onnxruntime's own format
_DEPTH = 500  # brackets in brackets; of some thousands onnx's parser ends the process
_REFUSALS = (
    DecodeError, json_format.Error, text_format.ParseError, parser.ParseError, json.JSONDecodeError, UnicodeDecodeError,
    ValueError, TypeError, AttributeError, RecursionError, RuntimeError,
)  # fmt: skip


def read(path: Path) -> onnx.ModelProto:
    """The model in a file, without its external data.

    Raises:
        ModelError: the file is missing, or holds no model.
    """
    if path.suffix == ORT:
        raise ModelError(f"{path}: is in onnxruntime's own format; give the ONNX file that it was made from")
    try:
        if is_text(path) and _depth(path.read_bytes()) > _DEPTH:
            raise ModelError(f"{path}: its brackets stand more than {_DEPTH} deep, which no model needs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the textual form is an experiment
            return onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror or error})") from error
    except _REFUSALS as error:
        raise ModelError(f"{path}: is not an ONNX model, or it is damaged or cut off") from error


def _depth(text: bytes) -> int:
    """How deep the brackets of a text stand in each other; those of strings count too."""
    kinds = np.frombuffer(text, np.uint8)
    steps = np.isin(kinds, tuple(b"{[(")).astype(np.int64) - np.isin(kinds, tuple(b"}])"))
    return int(steps.cumsum().max(initial=0))


def is_text(path: Path) -> bool:
    """Whether a file of this name holds a model as text, which onnxruntime can't read."""
    form = serialization.registry.get_format_from_file_extension(path.suffix)
    return form not in (None, "protobuf")


def check_target(target: str | os.PathLike[str]) -> None:
    """Refuse to write a model under a name by which it would be taken for what it is not.

    Raises:
        UsageError: the name is that of a text, or of onnxruntime's own format.
    """
    path = Path(target)
    if path.suffix == ORT or is_text(path):
        raise UsageError(f"{path}: zig writes ONNX alone, not {path.suffix}; name it {path.stem}.onnx")
