"""`zig search`: a file for each method, from training to the report; a kill at any moment changes nothing."""

import json
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from zig.cli import _run
from zig.errors import UsageError, ZigWarning
from zig.runs import checkpoint
from zig.search import run as searching
from zig.search.config import Search
from zig.search.plots import Series, chart
from zig.search.report import candidates, pareto, sensitivity

# networks this small have few widths: budgets are missed, and the same candidate is drawn again
pytestmark = pytest.mark.filterwarnings("ignore:.*(removed, not|candidates|subnets were scored)")
ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "model": {"name": "zig.training.demo:DigitNet", "options": {"width": 4}},
    "data": {"kind": "digits", "limit": 200},
    "training": {"before": 1, "epochs": 1, "batch_size": 50, "lr": 0.003},
}
METHODS: dict[str, dict[str, Any]] = {
    "iterative": {"name": "iterative", "ratios": [0.5], "rounds": 2, "calibration_batches": 1},
    "one_step": {"name": "one_step", "num_subnets": 3},
    "once_for_all": {
        "name": "once_for_all", "epochs": 1, "population": 3, "generations": 1, "mutations": 2, "crossovers": 1,
        "auto_excludes": False, "ratios": [0.25, 0.5, 0.75, 1.0], "within": 0.2, "removal_ratio": 0.4,
    },
}  # fmt: skip


class KilledError(Exception):
    """Stands for a kill in the middle of a search."""


def config(folder: Path, kind: str, **changes: Any) -> Path:
    file = folder / f"{kind}.yml"
    file.write_text(yaml.safe_dump({"out": str(folder / "out"), **TINY, "method": METHODS[kind], **changes}))
    return file


@pytest.mark.parametrize("method", [pytest.param("iterative", marks=pytest.mark.slow), "one_step", pytest.param("once_for_all", marks=pytest.mark.slow)])  # fmt: skip
def test_a_search_that_was_killed_ends_as_a_whole_one(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every third checkpoint or score; what comes out is the same to the bit."""
    folders = [tmp_path / name for name in ("whole", "broken")]
    for folder in folders:
        folder.mkdir()
    whole = searching.search(config(folders[0], method))
    calls = [0]

    def killing(plain: Any) -> Any:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            result = plain(*arguments, **keywords)
            calls[0] += 1
            if calls[0] % 3 == 0:
                raise KilledError
            return result

        return wrapped

    monkeypatch.setattr(checkpoint, "write", killing(checkpoint.write))
    monkeypatch.setattr("zig.search.record.Record.save", killing(searching_record_save()))
    file = config(folders[1], method)
    for _ in range(20):
        try:
            found = searching.search(file, resume=True)
            break
        except KilledError:
            continue
    assert calls[0] >= 6
    for content in (whole, found):
        for kind in ("full", "compressed"):
            del content[kind]["milliseconds"]
    assert found == whole
    small = [torch.load(folder / "out" / "retrained.pt", weights_only=False)["model"] for folder in folders]
    assert all(torch.equal(small[0][name], small[1][name]) for name in small[0])


def searching_record_save() -> Any:
    from zig.search.record import Record

    return Record.save


def test_the_command_leaves_models_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, "one_step")
    assert _run(["search", str(file), "--json"], debug=True) == 0
    content = json.loads(capsys.readouterr().out)
    out = tmp_path / "out"
    assert content == json.loads((out / "report.json").read_text())
    assert abs(content["reached"] - 0.5) <= 0.005
    assert content["compressed"]["macs"] == pytest.approx((1 - content["reached"]) * content["full"]["macs"], abs=2)
    assert content["largest_difference"] < 1e-5
    assert {"full.onnx", "compressed.onnx", "report.html", "report.json"} <= {f.name for f in out.iterdir()}
    page = (out / "report.html").read_text()
    assert "Candidates" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    for drawing in re.findall("<svg.*?</svg>", page):
        ET.fromstring(drawing)
    assert _run(["search", str(file)], debug=False) == 2
    assert "go on with --resume" in capsys.readouterr().err
    with pytest.raises(UsageError, match="by other settings"):
        searching.search(config(tmp_path, "one_step", seed=7), resume=True)


def test_the_command_tells_what_a_method_warns_of_in_plain_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left at 99.9%: a candidate each time, the same again, far from the budget."""
    file = config(tmp_path, "one_step", method=METHODS["one_step"] | {"removal_ratio": 0.999})
    assert _run(["search", str(file), "--json"], debug=True) == 0
    out, err = capsys.readouterr()
    assert "removed, not 99.90%" in json.loads(out)["said"]
    told = [line for line in err.splitlines() if line.startswith("zig: warning: ")]
    assert len(told) == 2
    assert "different candidates were scored, not 3" in told[0]
    assert "miss the budget; of the nearest" in told[1]
    assert "Warning" not in err
    assert ".py" not in err


def test_warnings_of_others_stay_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warning(*_: Any, **options: Any) -> dict[str, Any]:
        warnings.warn("a budget\n  is missed", ZigWarning, stacklevel=2)
        warnings.warn("something is old", UserWarning, stacklevel=2)
        return {}

    monkeypatch.setattr(searching, "search", warning)
    before = warnings.showwarning, list(warnings.filters)
    with pytest.warns(UserWarning, match="is old") as others:
        assert _run(["search", str(config(tmp_path, "one_step"))], debug=True) == 0
    assert [str(other.message) for other in others] == ["something is old"]
    assert capsys.readouterr() == ("", "zig: warning: a budget is missed\n")
    assert (warnings.showwarning, list(warnings.filters)) == before
    with pytest.warns(ZigWarning, match="is missed"), pytest.warns(UserWarning, match="is old"):  # in Python as ever
        searching.search(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": {"name": "one_stop"}}, "did you mean 'one_step'?"),
        ({"method": METHODS["one_step"] | {"num_subnet": 3}}, "did you mean 'num_subnets'?"),
        ({"method": METHODS["one_step"] | {"removal_ratio": 1.5}}, "method.removal_ratio is 1.5"),
        (
            {"method": METHODS["once_for_all"], "training": {"epochs": 1, "mode": "sparse"}},
            "set method.kernels to false",
        ),
    ],
)
def test_mistakes_are_told_at_once(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        searching.search(config(tmp_path, "one_step", **change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", sorted(ROOT.glob("samples/configs/search_*.yml")), ids=lambda file: file.stem)
def test_every_sample_is_a_valid_file(file: Path) -> None:
    from zig.runs.config import load

    for smoke in (False, True):
        assert load(file, Search, smoke=smoke).out.startswith("runs/search_")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["iterative", "once_for_all"])
def test_the_sparse_way_gives_a_small_file_too(method: str, tmp_path: Path) -> None:
    kernels = {"kernels": False} if method == "once_for_all" else {}
    file = config(tmp_path, method, method=METHODS[method] | kernels, training=TINY["training"] | {"mode": "sparse"})
    content = searching.search(file)
    assert content["compressed"]["macs"] < 0.75 * content["full"]["macs"]
    assert content["largest_difference"] < 1e-4


@pytest.mark.slow
def test_latency_is_predicted_and_measured(tmp_path: Path) -> None:
    method = METHODS["one_step"] | {"of": "latency", "removal_ratio": 0.1}
    content = searching.search(config(tmp_path, "one_step", method=method))
    predicted, measured = content["predicted_milliseconds"]
    assert predicted >= 0
    assert measured > 0


def test_charts_are_whole_and_leave_out_what_is_no_number() -> None:
    drawing = chart(
        [Series("a < b", [(0, 1), (1, float("nan")), (2, 3e6)]), Series("c", [(1, 1)], line=False)], "x", "y", "t"
    )
    tree = ET.fromstring(drawing)
    tags = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert tags.count("circle") == 3
    assert tags.count("polyline") == 1
    assert "nan" not in drawing
    for points in ([], [(1.0, 1.0)], [(0.0, 0.0), (0.0, 5.0)]):
        ET.fromstring(chart([Series("s", points)], "x", "y", "t"))


def test_reports_draw_what_records_hold() -> None:
    groups = [
        {"name": "conv", "ratios": [0, 0.5], "metrics": [1.0, None]},
        {"name": "gone", "ratios": [0], "metrics": [None]},
    ]
    assert sensitivity({"best": "max", "node_groups": groups}).count("<circle") == 1
    lines = [{"number": 1, "score": 0.5, "params": 10}, {"number": 0, "score": None, "params": 20}]
    drawn = candidates({"best": "min", "removal_ratio": 0.5, "of": "macs", "candidates": lines})
    assert drawn.count("<circle") == 2  # the candidate, and once more as the best
    points = [(1, 0.5), (2, 0.4), (3, 0.9), (2.5, 0.7)]
    subnets = [{"macs": x * 1e6, "score": y, "born": "0 random", "setting": []} for x, y in points]
    assert pareto({"best": "max", "of": "macs", "subnets": subnets}).count("<circle") == 4 + 3
    assert pareto({"best": "min", "of": "macs", "subnets": subnets}).count("<circle") == 4 + 2


def test_the_detector_sample_prunes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import runpy

    import numpy as np
    from searched import CASES

    import zig
    from zig.training.export import export

    model, x = CASES["chain"]
    export(model, x, tmp_path / "net.onnx")
    name = next(iter(zig.load(tmp_path / "net.onnx").inputs))
    np.savez(tmp_path / "images.npz", **{name: np.stack([x.numpy(), 2 * x.numpy()])})
    main = runpy.run_path(str(ROOT / "samples" / "search_detector.py"))["main"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        main("net.onnx", "images.npz", "small.onnx", "0.3")
    assert "of macs removed" in capsys.readouterr().out
    assert zig.cost(zig.analyze(tmp_path / "small.onnx"))["macs"] < zig.cost(zig.analyze(tmp_path / "net.onnx"))["macs"]
