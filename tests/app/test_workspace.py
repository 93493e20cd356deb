"""Which files a session may touch."""

import io
import os
from pathlib import Path

import pytest
from zig.app import workspace
from zig.app.session import Session
from zig.app.workspace import Workspace, start

from zig.errors import ModelError, UsageError


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    folder = tmp_path / "models"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("a.onnx", "deep/b.onnx", "deep/er/c.onnx", ".hidden/d.onnx", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "secret.onnx").write_bytes(b"x")
    return Workspace(folder)


@pytest.mark.parametrize("text", ["../secret.onnx", "deep/../../secret.onnx", "/etc/passwd", "~/secret.onnx"])
def test_paths_outside_the_chosen_folder_are_refused(here: Workspace, text: str) -> None:
    with pytest.raises(UsageError, match="lies outside"):
        here.resolve(text)


def test_links_are_followed_before_they_are_judged(here: Workspace) -> None:
    (here.root / "link.onnx").symlink_to(here.root.parent / "secret.onnx")
    (here.root / "inner.onnx").symlink_to(here.root / "a.onnx")
    with pytest.raises(UsageError, match="lies outside"):
        here.resolve("link.onnx")
    assert here.resolve("inner.onnx") == here.root / "a.onnx"
    assert "link.onnx" not in [path.name for path in here.models()]


def test_paths_inside_are_found_and_missing_ones_named(here: Workspace) -> None:
    assert here.resolve("deep/b.onnx") == here.root / "deep" / "b.onnx"
    assert here.resolve(str(here.root / "a.onnx")).name == "a.onnx"
    assert [here.shown(path) for path in here.models()] == ["a.onnx", "deep/b.onnx", "deep/er/c.onnx"]
    with pytest.raises(ModelError, match="no such file"):
        here.resolve("none.onnx")


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.pth", "script.py", "model", "a.onnx.exe"])
def test_uploads_of_other_kinds_are_refused(here: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match=r"takes \.onnx"):
        here.receive(name, io.BytesIO(b"x"))


@pytest.mark.parametrize("name", ["../../evil.onnx", "..\\evil.onnx", "/abs/evil.onnx", ".evil.onnx", "e vil\n.onnx"])
def test_uploads_stay_in_the_scratch_folder(here: Workspace, name: str) -> None:
    assert here.receive(name, io.BytesIO(b"abc")).parent == here.scratch
    assert sorted(os.listdir(here.root)) == [".hidden", "a.onnx", "deep", "notes.txt"]


def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(
    here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "UPLOAD_LIMIT", 5 << 20)
    with pytest.raises(UsageError, match="limit of 5 MB"):
        here.receive("big.onnx", io.BytesIO(bytes((5 << 20) + 1)))
    assert list(here.scratch.iterdir()) == []
    assert here.receive("just.onnx", io.BytesIO(bytes(5 << 20))).stat().st_size == 5 << 20


def test_sessions_have_scratch_folders_of_their_own_that_go_with_them(here: Workspace) -> None:
    one, other = Session(Workspace(here.root)), Session(Workspace(here.root))
    model = one.open_sample()
    assert other.model is None
    with pytest.raises(UsageError, match="lies outside"):
        other.open_text(str(model.path))
    scratch = one.workspace.scratch
    assert scratch.exists()
    del one, model
    assert not scratch.exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04\x95", bytes(1000)])
def test_what_is_no_model_is_refused_and_the_open_one_stays(here: Workspace, content: bytes) -> None:
    session = Session(here)
    model = session.open_sample()
    with pytest.raises(ModelError):
        session.open_upload([("broken.onnx", io.BytesIO(content))])
    assert session.model is model


def test_the_folder_is_that_of_the_model_the_app_was_started_with(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"x")
    assert start(str(model)) == (tmp_path, model)
    assert start(str(tmp_path)) == (tmp_path, None)
    assert start(None) == (Path.cwd(), None)
