"""Where a search scores its candidates: a back end of joblib, by the file or the command line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest
import yaml

from zig.cli import main
from zig.errors import UsageError
from zig.runs.config import load
from zig.search.backend import scoring_on
from zig.search.config import Search

CONFIG = Path(__file__).resolve().parents[2] / "samples" / "configs" / "search_onestep.yml"


def ended(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def written(folder: Path, **method: Any) -> Path:
    content = yaml.safe_load(CONFIG.read_text())
    content["extends"] = str(CONFIG.parent / content["extends"])
    path = folder / "search.yml"
    path.write_text(
        yaml.safe_dump({**content, "out": str(folder / "out"), "method": {**content.get("method", {}), **method}})
    )
    return path


def test_the_file_names_the_back_end(tmp_path: Path) -> None:
    for given, processes in (({}, 1), ({"backend": "dask"}, -1), ({"backend": "ray", "jobs": 3}, 3), ({"jobs": 2}, 2)):
        method = load(written(tmp_path, **given), Search).method
        assert (method.backend, method.processes) == (given.get("backend", "loky"), processes)
    with pytest.raises(UsageError, match=r"method\.backend is 'dusk': input should be 'loky', 'dask' or 'ray'"):
        load(written(tmp_path, backend="dusk"), Search)


def test_joblib_takes_the_back_end() -> None:
    with scoring_on("loky"):
        assert joblib.Parallel(n_jobs=2)._backend.__class__.__name__ == "LokyBackend"
    with (
        pytest.raises(UsageError, match="loky uses this machine; choose the back end dask or ray"),
        scoring_on("loky", "x"),
    ):
        pass


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_back_end_whose_package_is_missing(
    backend: str, package: str, by_file: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)
    file = written(tmp_path, **({"backend": backend} if by_file else {}))
    assert ended("search", file, *([] if by_file else ["--backend", backend, "--address", "tcp://127.0.0.1:1"])) == 2
    said = capsys.readouterr()
    assert said.err == f"zig: error: the back end {backend} needs {package}; install it by pip install {package}\n"
    assert said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("dask.distributed is not installed")
    monkeypatch.setattr("zig.search.backend.PATIENCE", "1s")
    with pytest.raises(UsageError, match=r"no scheduler of Dask answers at tcp://127\.0\.0\.1:1; start it"):
        scoring_on("dask", "tcp://127.0.0.1:1").__enter__()
