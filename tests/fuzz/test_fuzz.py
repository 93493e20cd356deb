"""A minute of both fuzzers, always with the same seeds; `make fuzz SECONDS=3600 SEED=1` runs them for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError

from fuzz import cutting, sandbox
from fuzz.command import Done, misbehaviour, trial
from fuzz.damage import damaged
from zig.operators import OPERATORS, Operator

SECONDS = 15  # each


@pytest.mark.parametrize("seed", [0, 100_000])
def test_damaged_models_are_refused_in_one_sentence(seed: int) -> None:
    found = sandbox.fuzz(seed, SECONDS)
    assert found.pop("inputs") > 1
    assert not found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of onnx's reference, where onnxruntime lacks an operator
@pytest.mark.parametrize("seed", [0, 100_000])
def test_random_networks_are_cut_exactly(seed: int) -> None:
    found = cutting.fuzz(seed, SECONDS)
    assert found["pruned"] > 1
    assert not [kind for kind in found if kind.startswith("FAILED")]


# The fuzzers themselves: what is wrong is found


@pytest.mark.parametrize("name", ["Sigmoid", "Softmax"])
def test_a_wrong_row_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, name, Operator("*b -> *b", rest=lambda call, x: x))
    found = cutting.fuzz(0, 600, stop=True)
    assert [kind for kind in found if kind.startswith("FAILED")]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (2, "zig: error: bad.onnx: is damaged", ""),
        (0, "zig: warning: nothing was removed", ""),
        (0, "Output 'y' is not produced", "noise"),
        (2, "Traceback (most recent call last):\nValueError", "traceback: ValueError"),
        (2, "zig: error: bad.onnx: a\nb", "not one sentence"),
        (139, "", "exit code 139"),
        (1, "zig: error: bad.onnx: ... please report it", "caught"),
    ],
)
def test_misbehaviour_is_told_apart(code: int, error: str, words: str) -> None:
    assert misbehaviour(Done("compress bad.onnx", code, "", error)).startswith(words)
    assert bool(misbehaviour(Done("compress bad.onnx", code, "", error))) == bool(words)


def test_a_command_that_takes_too_long_is_told() -> None:
    assert misbehaviour(Done("verify", 2, "", "zig: error: too long", seconds=61)) == "hang: 61 s"


@pytest.mark.parametrize(
    ("program", "words"), [("import os; os.abort()", "crash"), ("import time; time.sleep(600)", "hang")]
)
def test_a_child_that_is_lost_is_told(program: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    lost = sandbox.Sandbox()
    lost.child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert lost.trial(0)[1][0].startswith(words)
    assert lost.child is None


def content(path: Path) -> bytes | str:
    """What a file holds; of a link or a pipe, what it is."""
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else "no file"


def test_a_damaged_model_is_always_the_same(tmp_path: Path) -> None:
    kinds = set()
    for number in range(60):
        folders = [tmp_path / f"{number}-{i}" for i in range(2)]
        for folder in folders:
            folder.mkdir()
            kinds |= set(damaged(number, folder).split(", "))
        files = [{path.name: content(path) for path in folder.iterdir()} for folder in folders]
        assert files[0] == files[1]
    assert len(kinds) > 15


def test_most_damaged_models_can_still_be_read(tmp_path: Path) -> None:
    readable = 0
    for number in range(100):
        damaged(number, tmp_path)
        try:
            readable += bool(onnx.load(tmp_path / "bad.onnx", load_external_data=False).graph.node)
        except DecodeError:
            continue
    assert readable > 50


def test_a_whole_model_passes(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_path.parent)
    assert trial(model_path.name) == []
    assert {"small.onnx", "zeroed.onnx", "smaller.onnx"} < {path.name for path in model_path.parent.iterdir()}
