"""The `zig` command as users and scripts meet it: exit codes, streams, files."""

import errno
import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ROOT, parse

from zig import cli

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMMANDS = ("analyze", "prune", "compress", "verify", "operators", "demo")
PATTERNS = {
    "analyze": ["{}"],
    "prune": ["{}", "-o", "out.onnx", "--ratio", "0.5"],
    "compress": ["{}", "-o", "out.onnx"],
    "verify": ["{}", "{}"],
}


def assert_fails(done: "subprocess.CompletedProcess[str]", words: str, code: int = 2) -> None:
    """One sentence on stderr, nothing on stdout, and the exit code."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("zig: error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: the same entry point, without the second it takes to start another one."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return subprocess.CompletedProcess([], int(caught.value.code or 0), *capfd.readouterr())

    return run


# The main job


def test_prune_compress_verify(zig: Run, model_path: Path) -> None:
    folder = model_path.parent
    for line in (
        ["prune", "network.onnx", "-o", "zeroed.onnx", "--ratio", "0.5", "--criterion", "magnitude"],
        ["compress", "zeroed.onnx", "-o", "small.onnx"],
        ["verify", "zeroed.onnx", "small.onnx"],
    ):
        done = zig(*line)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    small = {tensor.name: list(tensor.dims) for tensor in onnx.load(folder / "small.onnx").graph.initializer}
    assert small["w1"][0] < 6
    assert small["w2"] == [small["w1"][0], small["w1"][0], 3, 3]
    assert small["w3"] == [5, small["w1"][0]]
    differ = zig("verify", "network.onnx", "small.onnx")
    assert differ.returncode == 1
    assert "network.onnx and small.onnx differ: output 'logits' differs by" in differ.stderr


def test_json_is_all_there_is_on_stdout(zig: Run, model_path: Path) -> None:
    results: dict[str, Any] = {}
    for name, line in {
        "analyze": ["network.onnx", "--svg", "graph.svg"],
        "prune": ["network.onnx", "-o", "zeroed.onnx", "--ratio", "0.5"],
        "compress": ["zeroed.onnx", "-o", "small.onnx"],
        "verify": ["zeroed.onnx", "small.onnx"],
        "operators": [],
    }.items():
        results[name] = json.loads(zig(name, *line, "--json").stdout)
    assert set(results["analyze"]) >= {
        "nodes", "parameters", "prunable_parameters", "macs", "groups", "node_groups", "fixed", "unknown_operators",
        "seconds",
    }  # fmt: skip
    group = results["analyze"]["node_groups"][0]
    assert set(group) == {"id", "name", "size", "members", "dependents"}
    assert group["size"] == results["analyze"]["groups"] == 6
    assert {"tensor": "w1", "axis": 0} in group["members"]
    assert {"tensor": "w3", "axis": 1} in group["dependents"]
    assert set(results["analyze"]["fixed"][0]) == {"tensor", "axis", "size", "reason", "node"}
    assert results["prune"]["removed"] == results["compress"]["removed"] > 0
    assert results["prune"]["after"]["parameters"] == results["compress"]["after"]["parameters"]
    assert results["verify"]["equal"] is True
    assert {"operator", "versions", "rule", "fixed"} == set(results["operators"][0])


def test_a_difference_is_json_too(here: Run, model_path: Path) -> None:
    here("prune", "network.onnx", "-o", "zeroed.onnx", "--ratio", "0.5")
    done = here("verify", "network.onnx", "zeroed.onnx", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["equal"] is False
    assert done.stderr.count("\n") == 1


def test_tables_name_groups_and_reasons_without_colour(here: Run, model_path: Path) -> None:
    done = here("analyze", model_path)
    assert "6 in 1 node groups" in done.stdout
    assert "convolves over this axis" in done.stdout
    assert "\x1b" not in done.stdout


def test_kept_tensors_are_not_pruned(here: Run, model_path: Path) -> None:
    kept = json.loads(here("analyze", model_path, "--keep", "w?", "--json").stdout)
    assert kept["groups"] == 0


def test_pictures_are_written(here: Run, model_path: Path, tmp_path: Path) -> None:
    assert here("analyze", model_path, "--dot", "graph.dot").returncode == 0
    assert (tmp_path / "graph.dot").read_text(encoding="utf-8").startswith("digraph zig {")


def test_a_picture_without_graphviz_becomes_text_and_a_line(zig: Run, model_path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = zig("analyze", model_path, "--pdf", "graph.pdf", "--json", env=environment)
    assert done.returncode == 0
    assert json.loads(done.stdout)["groups"] == 6
    assert "install graphviz" in done.stderr
    assert (tmp_path / "graph.dot").exists()


def test_unknown_operators_are_a_warning_and_fixed(here: Run, tmp_path: Path) -> None:
    model = parse(
        "g (float[N, 4] x) => (float[N, 4] y) { z = MatMul(x, w) y = local.Unheard(z) }", w=np.ones((4, 4), np.float32)
    )
    onnx.save(model, tmp_path / "custom.onnx")
    done = here("analyze", "custom.onnx")
    assert done.returncode == 0
    assert "Unheard" in done.stderr
    summary = json.loads(here("analyze", "custom.onnx", "--json").stdout)
    assert summary["groups"] == 0
    assert any("Unheard" in entry["reason"] for entry in summary["fixed"])


def test_nothing_to_remove_fails_only_where_that_is_asked_for(here: Run, model_path: Path) -> None:
    done = here("compress", model_path, "-o", "small.onnx")
    assert done.returncode == 0
    strict = here("compress", model_path, "-o", "strict.onnx", "--strict")
    assert strict.returncode == 1
    assert "nothing was removed" in strict.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, here: Run) -> None:
    done = here(command, "--help")
    assert done.returncode == 0
    assert f"Example: zig {command}" in done.stdout


def test_help_is_what_a_bare_command_shows(zig: Run) -> None:
    done = zig()
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    assert zig("--version").stdout[0].isdigit()


# Wrong use


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["prune", "{}", "-o", "out.onnx", "--ratio", "0"], "--ratio is 0; give a share between 0 and 1"),
        (["prune", "{}", "-o", "out.onnx", "--ratio", "1"], "--ratio is 1;"),
        (["prune", "{}", "-o", "out.onnx", "--ratio", "-0.5"], "--ratio is -0.5;"),
        (["prune", "{}", "-o", "out.onnx", "--ratio", "nan"], "--ratio is nan;"),
        (["prune", "{}", "-o", "out.onnx", "--ratio", "half"], "--ratio"),
        (["prune", "{}", "-o", "out.onnx", "--ratio", "0.5", "--of", "bytes"], "'bytes' is not one of"),
        (["prune", "{}", "--ratio", "0.5"], "missing option"),
        (["compress", "{}", "-o", "out.onnx", "--provider", "abacus"], "choose one of"),
        (["compress", "{}", "-o", "out.onnx", "--data", "none.npz"], "none.npz: no such file"),
        (["analyze"], "missing argument 'MODEL'"),
        (["analyze", "{}", "--colour"], "no such option"),
        (["analyze", "{}", "--svg", "."], "is not a file"),
        (["paint", "{}"], "no such command 'paint'"),
    ],
)
def test_wrong_use_is_one_sentence(line: list[str], words: str, here: Run, model_path: Path, tmp_path: Path) -> None:
    assert_fails(here(*(part.format(model_path) for part in line)), words)
    assert not (tmp_path / "out.onnx").exists()


def test_debug_shows_the_traceback_wherever_it_stands(zig: Run) -> None:
    for line in (["--debug", "analyze", "none.onnx"], ["analyze", "none.onnx", "--debug"]):
        done = zig(*line)
        assert done.returncode == 1
        assert "Traceback" in done.stderr


# Bad input


def truncated(folder: Path, network: onnx.ModelProto) -> Path:
    content = network.SerializeToString()
    path = folder / "truncated.onnx"
    path.write_bytes(content[: len(content) // 2])
    return path


def external(folder: Path, network: onnx.ModelProto, location: str) -> Path:
    path = folder / "external.onnx"
    onnx.save(network, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    return path


def written(folder: Path, content: bytes) -> Path:
    path = folder / "odd.onnx"
    path.write_bytes(content)
    return path


def outside(folder: Path, network: onnx.ModelProto) -> Path:
    (folder / "model").mkdir()
    (folder / "secret.bin").write_bytes(bytes(10_000))
    return external(folder / "model", network, "../secret.bin")


BAD_FILES: dict[str, tuple[Callable[[Path, onnx.ModelProto], Path], str]] = {
    "missing": (lambda folder, _: folder / "none.onnx", "none.onnx"),
    "folder": (lambda folder, _: folder, "test_bad_files"),
    "empty": (lambda folder, _: written(folder, b""), "odd.onnx"),
    "text": (lambda folder, _: written(folder, b"this is a text file, no model\n" * 3), "odd.onnx"),
    "truncated": (truncated, "truncated.onnx"),
    "missing external data": (lambda folder, network: external(folder, network, "gone.bin"), "gone.bin"),
    "external data outside": (outside, "../secret.bin"),
}


@pytest.mark.parametrize("command", PATTERNS)
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_named_in_one_sentence(
    kind: str, command: str, here: Run, network: onnx.ModelProto, tmp_path: Path
) -> None:
    make, words = BAD_FILES[kind]
    path = make(tmp_path, network)
    (tmp_path / "out.onnx").write_bytes(b"untouched")
    assert_fails(here(command, *(part.format(path) for part in PATTERNS[command])), words)
    assert (tmp_path / "out.onnx").read_bytes() == b"untouched"


@pytest.mark.parametrize("kind", ["missing", "text", "external data outside"])
def test_bad_files_through_the_real_entry_point(kind: str, zig: Run, network: onnx.ModelProto, tmp_path: Path) -> None:
    make, words = BAD_FILES[kind]
    assert_fails(zig("analyze", make(tmp_path, network)), words)


def test_a_model_that_onnxruntime_refuses_is_analysed_but_not_compressed(here: Run, tmp_path: Path) -> None:
    # The operator has a rule, its attribute has a value that no kernel takes.
    model = parse(
        'g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { y = Conv <auto_pad = "MAYBE"> (x, w) }',
        w=np.ones((4, 3, 1, 1), np.float32),
    )
    onnx.save(model, tmp_path / "refused.onnx")
    assert_fails(here("verify", "refused.onnx", "refused.onnx"), "refused.onnx: onnxruntime refuses the model")
    assert_fails(here("compress", "refused.onnx", "-o", "out.onnx"), "onnxruntime refuses")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("command", ["analyze", "compress", "verify"])
def test_an_unknown_opset_domain(command: str, here: Run, tmp_path: Path) -> None:
    model = parse(
        "g (float[N, 4] x) => (float[N, 4] y) { z = MatMul(x, w) y = local.Unheard(z) }", w=np.ones((4, 4), np.float32)
    )
    onnx.save(model, tmp_path / "custom.onnx")
    done = here(command, *(part.format("custom.onnx") for part in PATTERNS[command]))
    if command == "analyze":
        assert done.returncode == 0
    else:
        assert_fails(done, "Unheard")


# Targets that can't be written


@pytest.mark.parametrize("command", ["prune", "compress"])
@pytest.mark.parametrize("target", ["nowhere/out.onnx", "folder", "network.onnx/out.onnx", "/dev/null"])
def test_a_target_that_cannot_be_written_is_named(command: str, target: str, here: Run, model_path: Path) -> None:
    (model_path.parent / "folder").mkdir()
    line = [part.format(model_path).replace("out.onnx", target) for part in PATTERNS[command]]
    assert_fails(here(command, *line), target)


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX")
@pytest.mark.parametrize("command", ["prune", "compress"])
def test_a_full_disk_leaves_the_target_and_its_folder_as_they_were(command: str, zig: Run, model_path: Path) -> None:
    (model_path.parent / "out.onnx").write_bytes(b"untouched")

    def no_room() -> None:
        # The kernel refuses every byte beyond this; a signal would come first if Python did not ignore it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    before = sorted(path.name for path in model_path.parent.iterdir())
    line = [command, *(part.format(model_path) for part in PATTERNS[command])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    assert_fails(zig(*line, preexec_fn=no_room, env=environment), "out.onnx")
    assert (model_path.parent / "out.onnx").read_bytes() == b"untouched"
    assert sorted(path.name for path in model_path.parent.iterdir()) == before


def test_a_full_disk_is_named_for_pictures_too(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemExit) as caught:
        cli.main(["analyze", str(model_path), "--dot", str(model_path.with_name("graph.dot"))])
    assert caught.value.code == 2
    assert "graph.dot can't be written: No space left on device" in capsys.readouterr().err
    assert [path.name for path in model_path.parent.iterdir()] == ["network.onnx"]


def test_an_interrupt_while_a_compiled_module_loads_ends_with_130(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr("zig.analyze", load, raising=False)
    done = here("analyze", "model.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (cli.INTERRUPTED, "", "")
