r"""Text of a file on its way to a person: a model may be called anything, and a terminal obeys some of it.

Escape sequences, backspaces, marks that turn the direction of writing and characters that nobody sees are shown as
Python writes them (`\x1b`, `\u202e`), in errors, warnings, tables and pictures. JSON has escapes of its own, which keep
the true name.
"""

from __future__ import annotations

import re

LONGEST = 300  # characters of a word; what is longer is no name that a person reads
_SENTENCE = 2000  # characters of a message


def printable(text: str) -> str:
    """A text on one line, in which nothing moves the cursor, changes a colour or can't be seen."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def cell(text: str) -> str:
    """A text for a table: printable, and every word of a size that can be read."""
    text = printable(text)
    return re.sub(rf"\S{{{LONGEST + 1},}}", lambda word: shortened(word[0], LONGEST), text)


def sentence(text: object) -> str:
    """A message on one line, printable, and no longer than a message may be."""
    return shortened(cell(" ".join(str(text).split())), _SENTENCE)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; of a longer one the beginning and the end."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
