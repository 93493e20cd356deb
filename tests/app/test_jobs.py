"""Long work in a process of its own."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from zig.app.facts import pruning
from zig.app.facts.pruning import Wish
from zig.app.jobs import Job
from zig.app.opened import Opened

import zig
from zig.errors import ZigError

pytest_plugins = ("app_models",)
SECONDS = 100.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def test_pruning_in_a_worker_gives_what_the_library_gives(sample_model: Opened, folder: Path) -> None:
    plan = pruning.plan(sample_model, Wish(0.5))
    mask = pruning.save_mask(plan, folder)
    job = Job(folder, "prune", model=str(sample_model.path), mask=mask, samples=1, seed=0)
    result = job.wait(SECONDS)
    assert job.error == ""
    assert job.progress == 1
    assert result["report"]["removed"] == plan.remove.sum()
    assert result["report"]["comparison"]["equal"]
    assert zig.cost(zig.analyze(result["small"])) == zig.cost(sample_model.partition, plan.remove)
    assert zig.verify(result["zeroed"], result["small"], samples=1).equal
    assert len(job.log) == 4


def test_only_what_is_zero_goes_without_a_plan(sample_model: Opened, folder: Path) -> None:
    result = Job(folder, "prune", model=str(sample_model.path), mask="", samples=1, seed=0).wait(SECONDS)
    assert result["report"]["removed"] == 0
    assert result["zeroed"] == ""


def test_sensitivity_is_how_far_the_outputs_move(small_model: Opened, folder: Path) -> None:
    result = Job(folder, "sensitivity", model=str(small_model.path), share=0.5, seed=0).wait(SECONDS)
    assert set(result["sensitivity"]) == {str(group.id) for group in small_model.groups}
    assert all(value > 0 for value in result["sensitivity"].values())


def test_an_error_is_one_sentence(folder: Path) -> None:
    job = Job(folder, "verify", a="none.onnx", b="none.onnx", samples=1, seed=0)
    with pytest.raises(ZigError, match=r"none\.onnx: no such file"):
        job.wait(SECONDS)
    assert not job.running
    assert job.result is None


def test_a_plan_that_was_pickled_is_refused(sample_model: Opened, folder: Path) -> None:
    np.save(folder / "mask.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    job = Job(folder, "prune", model=str(sample_model.path), mask=str(folder / "mask.npy"), samples=1, seed=0)
    with pytest.raises(ZigError, match="allow_pickle=False"):
        job.wait(SECONDS)


def test_cancelling_stops_the_process(sample_model: Opened, folder: Path) -> None:
    job = Job(folder, "sensitivity", model=str(sample_model.path), share=0.5, seed=0)
    job.cancel()
    assert not job.running
    assert job.error == ""
    assert job.result is None


def test_a_job_dies_with_its_session(sample_model: Opened, folder: Path) -> None:
    job = Job(folder, "sensitivity", model=str(sample_model.path), share=0.5, seed=0)
    process = job._process
    del job
    assert process.poll() is not None


def test_lines_that_are_half_written_are_left_for_later(folder: Path, sample_model: Opened) -> None:
    job = Job(folder, "verify", a=str(sample_model.path), b=str(sample_model.path), samples=1, seed=0)
    job.wait(SECONDS)
    with (folder / "answers.jsonl").open("a") as file:
        file.write('{"progress": 0.')
    assert json.dumps(job.events)
    assert job.result is not None


def test_external_data_follow(sample_path: Path, tmp_path: Path, folder: Path) -> None:
    proto = onnx.load(sample_path)
    onnx.save(proto, tmp_path / "ext.onnx", save_as_external_data=True, location="ext.data", size_threshold=100)
    model = Opened(tmp_path / "ext.onnx", "ext.onnx")
    mask = pruning.save_mask(pruning.plan(model, Wish(0.4)), folder)
    result = Job(folder, "prune", model=str(model.path), mask=mask, samples=1, seed=0).wait(SECONDS)
    assert list(Path(result["small"]).parent.glob("small.onnx.*.data"))
