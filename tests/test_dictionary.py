"""The dictionary is complete: every operator that the installed onnx knows has a row, or stands as a wall with a reason.

A row's rule must also fit the operator as its schema describes it: no more operands and results than there can be, and
no fewer results, since one that a rule leaves out would be taken for something that is not cut.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from zig.flow.rules import parse
from zig.operators import OPERATORS, Operator, table
from zig.operators.__main__ import page

SCHEMAS = {
    f"{schema.domain}.{schema.name}".lstrip("."): schema
    for schema in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda schema: schema.since_version)
}
# What exporters to onnxruntime, its optimizer and its quantizer write.
MICROSOFT = [
    "Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "FusedConv", "FusedMatMul", "Gelu",
    "GroupQueryAttention", "MatMulNBits", "MultiHeadAttention", "NhwcConv", "NhwcFusedConv", "NhwcMaxPool", "QGemm",
    "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool",
    "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuickGelu",
    "RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
]  # fmt: skip
ROWS = {row["operator"]: row for row in table()}
DOCS = Path(__file__).parent.parent / "docs"


def test_every_operator_of_onnx_has_a_row() -> None:
    assert not SCHEMAS.keys() - OPERATORS.keys()


@pytest.mark.parametrize("name", MICROSOFT)
def test_operators_of_onnxruntime_have_a_row(name: str) -> None:
    assert f"com.microsoft.{name}" in OPERATORS


def test_every_row_is_of_an_operator_that_there_is() -> None:
    known = SCHEMAS.keys() | {"SimplifiedLayerNormalization"}  # onnxruntime's own in the standard domain
    assert {name for name in OPERATORS.keys() - known if not name.startswith("com.microsoft.")} == set()


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_a_row_says_one_thing(name: str) -> None:
    row = OPERATORS[name]
    assert sum(map(bool, (row.rule, row.move, row.wall))) == 1, "a row has a rule, or moves data, or is a wall"
    assert not row.wall or row == Operator(wall=row.wall)
    assert len(row.wall.split()) != 1, "a wall has a reason in plain words"
    assert not (row.move and (row.rest or row.macs or row.contracts)), "what only a rule's row uses"


RULES = [name for name in sorted(SCHEMAS) if name in OPERATORS and OPERATORS[name].rule]


@pytest.mark.parametrize("name", [name for name in RULES if isinstance(OPERATORS[name].rule, str)])
def test_a_rule_has_as_many_operands_and_results_as_its_operator(name: str) -> None:
    rule, schema, row = parse(str(OPERATORS[name].rule)), SCHEMAS[name], OPERATORS[name]
    assert len(rule.operands) <= schema.max_input
    assert len(rule.operands) >= (row.data or schema.max_input), "an operand that is data is left out"
    assert len(rule.results) >= schema.max_output, "a result is left out"
    assert len(rule.results) <= schema.max_output


@pytest.mark.parametrize("name", [name for name in sorted(OPERATORS) if OPERATORS[name].rule])
def test_what_is_bound_has_a_reason(name: str) -> None:
    assert "!" not in ROWS[name]["rule"] or OPERATORS[name].why != Operator().why


def test_the_table_tells_of_every_row() -> None:
    assert ROWS.keys() == OPERATORS.keys()
    assert all(row["rule"] and row["versions"] for row in ROWS.values())
    assert ROWS["Softmax"] == {
        "operator": "Softmax", "versions": "1, 11, 13", "rule": "*a v! -> *a v", "fixed": "v: normalises over this axis",
    }  # fmt: skip
    assert ROWS["NonZero"]["fixed"] == "all: selects by values, so all that reaches it must stay"


def test_the_page_of_operators_is_up_to_date() -> None:
    written = (DOCS / "operators.md").read_text(encoding="utf-8")
    assert written == page(), "write it again: python -m zig.operators > docs/operators.md"


def test_the_page_is_written_by_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "zig.operators"], capture_output=True, text=True, check=True)
    assert done.stdout == page()
