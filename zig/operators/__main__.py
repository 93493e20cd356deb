"""`python -m zig.operators > docs/operators.md`: the dictionary as a page."""

from __future__ import annotations

from zig.operators import OPERATORS, table

_HEAD = """# The operators that zig knows

This page is written by `python -m zig.operators > docs/operators.md` from the dictionary itself; `zig operators` prints
the same table. How to read a rule: one letter is one axis, the same letter on two operands ties them, a letter that no
result names is summed away, `(g c)` is one axis made of two, `*s` any number of axes, and `!` marks an axis along which
nothing can go, with the reason beside it. A `~` stands before what is cut along but never zeroed. Operators of any
other name are walls: what reaches one is fixed, unless `analyze(operators=...)` brings a row for it.

There are {rows} operators, {walls} of them walls.
"""


def page() -> str:
    """The table in Markdown, one section for each domain."""
    domains: dict[str, list[str]] = {}
    for row in table():
        domain, _, name = row["operator"].rpartition(".")
        rule = f"`{row['rule']}`" if "->" in row["rule"] else row["rule"]
        cells = (f"`{name}`", row["versions"], rule, row["fixed"])
        domains.setdefault(domain, []).append(f"| {' | '.join(cells)} |")
    head = _HEAD.format(rows=len(OPERATORS), walls=sum(bool(operator.wall) for operator in OPERATORS.values()))
    columns = "| operator | versions | rule | what is fixed, and why |\n| --- | --- | --- | --- |"
    sections = (f"## {domain or 'ai.onnx'}\n\n{columns}\n" + "\n".join(rows) for domain, rows in domains.items())
    return "\n".join((head, *(f"{section}\n" for section in sections)))


if __name__ == "__main__":
    print(page(), end="")
