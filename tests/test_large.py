"""Models larger than memory: weights are read from their file and written to another piece by piece."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import zig
from zig.cli import main
from zig.groups.weights import Zeroed
from zig.proof import verify as verifying

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import large

SMALL = large.Size(layers=2, width=64, hidden=96, heads=4, words=50)
LONG = large.Size(layers=5, width=1024, hidden=2752, heads=8, words=2000)


@pytest.fixture
def decoder(tmp_path: Path) -> Callable[[large.Size], Path]:
    def build(size: large.Size) -> Path:
        large.build(size, tmp_path / "full.onnx", distinct=False)
        return tmp_path / "full.onnx"

    return build


def allocated(work: Callable[[], object]) -> int:
    """The most bytes that some work held at a time; pages of files that are mapped do not count."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_layers_that_share_their_bytes_are_pruned_each_for_itself_and_stay_exact(
    decoder: Callable[[large.Size], Path], tmp_path: Path
) -> None:
    full, zeroed, small = decoder(SMALL), tmp_path / "zeroed.onnx", tmp_path / "small.onnx"
    partition = zig.analyze(full)
    assert {"words", "layers.0.query", "layers.1.gate"} <= {group.name for group in partition.node_groups}
    plan = zig.prune(partition, 0.5, criterion="random")
    zig.zero(plan, zeroed)
    shared, own = (large.data_of(model).stat().st_size for model in (full, zeroed))
    assert own > 1.3 * shared  # the layers of the full model lie in one place
    report = zig.compress(zeroed, small, rtol=5e-3)
    assert report.removed == plan.remove.sum()
    assert report.comparison is not None
    assert report.comparison.sensitivity > 1e-2
    assert large.data_of(small).stat().st_size < 0.6 * own
    assert report.after["bytes"] == small.stat().st_size + large.data_of(small).stat().st_size


def test_memory_is_a_small_part_of_the_model(decoder: Callable[[large.Size], Path], tmp_path: Path) -> None:
    full, zeroed, small = decoder(LONG), tmp_path / "zeroed.onnx", tmp_path / "small.onnx"
    plan = zig.prune(zig.analyze(full), 0.5, criterion="random")
    zig.compress(full, small, plan, check=False)  # imports what is imported on the way
    pruned = allocated(lambda: zig.zero(plan, zeroed))
    size = large.data_of(zeroed).stat().st_size
    assert pruned < size / 8
    assert allocated(lambda: zig.compress(zeroed, small, check=False)) < size / 2.5
    assert large.data_of(small).stat().st_size > size / 2.5  # more than was held


def test_pieces_of_any_size_give_the_same_bytes(
    decoder: Callable[[large.Size], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = decoder(SMALL)
    written = []
    for piece in (64, 1000, 1 << 23):  # bytes: two rows at a time, a few, all
        monkeypatch.setattr("zig.model.structure._PIECE", piece)
        zig.zero(zig.prune(zig.analyze(full), 0.5), tmp_path / "zeroed.onnx")
        report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx", check=False)
        data = [large.data_of(tmp_path / f"{name}.onnx").read_bytes() for name in ("zeroed", "small")]
        written.append((report.removed, *data))
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("kind", ["int4", "int2"])
def test_packed_numbers_are_written_in_pieces_of_whole_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(TensorProto, kind.upper()):
        pytest.skip(f"this version of onnx has no {kind}")
    monkeypatch.setattr("zig.model.structure._PIECE", 1)
    values = np.random.default_rng(0).integers(-2, 2, (11, 3)).astype(getattr(ml_dtypes, kind))
    table = onnx.numpy_helper.from_array(values, "table")
    graph = zig.load(helper.make_model(helper.make_graph([helper.make_node("Identity", ["table"], ["z"])], "graph", [],
        [helper.make_tensor_value_info("z", table.data_type, [11, 3])], [table])))  # fmt: skip
    assert [rows.start for rows in graph.pieces("table")] == [0, 4, 8]
    from zig.surgery.save import Streamed  # onnx-ir is slow to import

    with (tmp_path / "table").open("wb") as file:
        Streamed(graph, "table", values.shape, Zeroed(graph)).tofile(file)
    assert (tmp_path / "table").read_bytes() == table.raw_data


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_zeros_are_found_in_pieces_whatever_their_sign(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zig.model.structure._PIECE", 256)
    random, kind = np.random.default_rng(0), np.dtype(getattr(ml_dtypes, dtype, dtype))
    first, second, third = (random.standard_normal(dims).astype(kind) for dims in ((70, 60), (60, 50), (50, 40)))
    first[:, [3, 4, 59]] = -np.zeros((), kind)
    first[:69, 5] = first[:, 6] = 0
    first[69, 6] = ml_dtypes.finfo(kind).smallest_subnormal  # neither of these two is zero
    second[[7, 8]] = 0  # nobody reads these
    second[:, 9] = 0
    second[3, 9] = 1  # what reads a zero alone is zero
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "second"], ["c"]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("MatMul", ["d", "third"], ["y"]),
        ],
        "layers",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(kind), ["batch", 70])],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(kind), ["batch", 40])],
        [onnx.numpy_helper.from_array(v, n) for n, v in (("first", first), ("second", second), ("third", third))],
    )
    report = zig.compress(helper.make_model(graph), tmp_path / "small.onnx", check=False)
    assert [after for _, _, after in report.widths] == [60 - 5, 50 - 1]


def test_what_there_is_no_memory_to_compare_is_written_with_a_word(
    decoder: Callable[[large.Size], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    full, zeroed, small = decoder(SMALL), tmp_path / "zeroed.onnx", tmp_path / "small.onnx"
    zig.zero(zig.prune(zig.analyze(full), 0.5), zeroed)
    monkeypatch.setattr(verifying, "_free_memory", lambda: 1e5)
    with pytest.raises(SystemExit) as end:
        main(["compress", str(zeroed), "-o", str(small), "--json"])
    told = capsys.readouterr()
    assert end.value.code == 0
    assert "not verified" in told.err
    assert "GB of memory" in json.loads(told.out)["unverified"]
    monkeypatch.undo()
    assert zig.verify(zeroed, small).equal
