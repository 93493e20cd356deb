"""`python -m zig.runs > docs/run-keys.md`: all keys of a run's file."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from zig.runs.config import Run, sections

_HEAD = """# All keys of a run's file

This page is written by `python -m zig.runs > docs/run-keys.md`; [runs.md](runs.md) says what a run is. `-` stands for
nothing.
"""


def page() -> str:
    """The page, in Markdown: a table for each section."""
    return "\n".join([_HEAD, *(line for place, section in _all(Run, "") for line in _table(place, section))])


def _all(section: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A section and those in it, each with its place in the file."""
    yield place, section
    for key, field in section.model_fields.items():
        for inner in sections(field.annotation):
            yield from _all(inner, f"{place}.{key}" if place else key)


def _table(place: str, section: type[BaseModel]) -> list[str]:
    about = " ".join((section.__doc__ or "").split())
    title = f"## {f'`{place}`' if place else 'The file'}: {about}"
    rows = [f"| `{key}` | {_default(field)} | {field.description} |" for key, field in section.model_fields.items()]
    return [title.removesuffix("."), "", "| key | default | meaning |", "| --- | --- | --- |", *rows, ""]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "must be given"
    if value is None or isinstance(value, BaseModel) or value in ({}, [], ""):
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(page(), end="")
