"""Everything but drawing works without streamlit, and the app knows nothing but zig's public names."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SHOWING = ("main.py", "canvas", "views")
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"streamlit", "torch", "altair", "pandas"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
PLAIN = sorted(
    "zig.app." + ".".join(path.relative_to(ROOT / "app").with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "app").rglob("*.py")
    if path.relative_to(ROOT / "app").parts[0] not in SHOWING
)


def test_all_but_the_pages_import_without_streamlit(tmp_path: Path) -> None:
    code = BLOCKED + f"import importlib\nfor name in {PLAIN!r}: importlib.import_module(name.removesuffix('.__init__'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(PLAIN) > 20


def test_a_scene_is_made_without_streamlit(tmp_path: Path) -> None:
    code = (
        BLOCKED
        + """
import json
from pathlib import Path
from zig.app import sample
from zig.app.facts.picture import picture
from zig.app.opened import Opened
from zig.app.session import Look
model = Opened(sample.write(Path("sample.onnx")), "sample.onnx")
print(json.dumps(len(picture(model, Look(), 500)["scene"]["key"])))
"""
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) > 5


def test_zig_view_without_streamlit_says_what_to_install(tmp_path: Path) -> None:
    code = BLOCKED + "from zig.cli import main\nmain(['view', '--headless'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "zig: error: zig view needs streamlit; install it by pip install 'onnx-zig[app]'\n"


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=lambda path: path.name)
def test_the_app_uses_no_private_name_of_zig_and_no_pickle(path: Path) -> None:
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("zig"):
            assert not any(name.name.startswith("_") for name in statement.names)
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            names = {name.name.split(".")[0] for name in statement.names} | {getattr(statement, "module", "") or ""}
            assert not names & {"pickle", "torch", "onnxruntime", "joblib", "dill"}
        if isinstance(statement, ast.keyword) and statement.arg == "allow_pickle":
            assert isinstance(statement.value, ast.Constant)
            assert statement.value.value is False
