"""Extractive question answering: the answer is a part of a text (SQuAD v1.1), found by a network such as BERT.

A question and a window of its text become `[CLS] question [SEP] window [SEP]`; the network scores each token as the
start and as the end of the answer. Long texts are read in overlapping windows (Devlin et al., NAACL 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from zig.errors import UsageError
from zig.packages import importing
from zig.runs.answers import score
from zig.runs.config import Questions
from zig.runs.data import Arrays, Batch, Key

Ints = NDArray[np.int64]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class Answer(BaseModel):
    """A part of a text."""

    text: str
    answer_start: int = Field(ge=0)


class Question(BaseModel):
    """A question and its answers."""

    id: str
    question: str
    answers: list[Answer] = Field(min_length=1)


class Paragraph(BaseModel):
    """A text and questions about it."""

    context: str
    qas: list[Question]


class Article(BaseModel):
    """Texts that belong together."""

    paragraphs: list[Paragraph]


class File(BaseModel):
    """A file of the official format."""

    data: list[Article]


class Tokens(NamedTuple):
    """A text as a network reads it.

    Attributes:
        ids: Of the tokens, int64[n].
        places: First character and end of each token in the text, int64[n, 2].
    """

    ids: Ints
    places: Ints


class Window(NamedTuple):
    """Some tokens of the text of a question."""

    question: int
    text: int
    first: int
    end: int


@dataclass(frozen=True)
class Part:
    """The windows of all questions of a file; an `Examples`."""

    windows: list[Window]
    questions: list[Question]
    asked: list[Tokens]
    texts: list[str]
    read: list[Tokens]
    special: tuple[int, int, int]
    length: int

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.windows)

    def __getitem__(self, key: Key) -> Batch:
        """`input_ids`, `attention_mask`, `token_type_ids` int64 (length,), and the answer's tokens `start`, `end`."""
        window = self.windows[key[1]]
        pad, cls, sep = self.special
        asked, read = self.asked[window.question].ids, self.read[window.text].ids[window.first : window.end]
        tokens = np.concatenate([[cls], asked, [sep], read, [sep]])
        ids, kinds, mask = (np.full(self.length, pad), *np.zeros((2, self.length), np.int64))
        ids[: len(tokens)], kinds[len(asked) + 2 : len(tokens)], mask[: len(tokens)] = tokens, 1, 1
        start, end = self._answer(window)
        found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        return {name: torch.from_numpy(value) for name, value in found.items()} | {
            "start": torch.tensor(start), "end": torch.tensor(end)
        }  # fmt: skip

    def _answer(self, window: Window) -> tuple[int, int]:
        """Where the first answer lies in a window, or [CLS] where it does not lie in it."""
        answer, places = self.questions[window.question].answers[0], self.read[window.text].places
        first = int(np.searchsorted(places[:, 1], answer.answer_start, "right"))
        last = int(np.searchsorted(places[:, 0], answer.answer_start + len(answer.text), "left")) - 1
        if not window.first <= first <= last < window.end:
            return 0, 0
        shift = self.start_of(window) - window.first
        return first + shift, last + shift

    def start_of(self, window: Window) -> int:
        """Where the text begins in the tokens of a window."""
        return len(self.asked[window.question].ids) + 2


@dataclass(frozen=True)
class QuestionAnswering:
    """A `Task`: find the answer in the text."""

    train: Part
    held_out: Part
    section: Questions
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    metrics: tuple[str, ...] = ("exact_match", "f1")

    @classmethod
    def load(cls, section: Questions) -> QuestionAnswering:
        """Read both files and cut their texts into tokens.

        Raises:
            UsageError: A file is missing or not of the format.
        """
        folder = Path(section.path)
        _check_files(folder, section)
        tokenizer = _tokenizer(folder / section.vocabulary, section)
        train, held_out = (_part(folder / name, tokenizer, section) for name in (section.train, section.held_out))
        return cls(train, held_out, section)

    def arguments(self, batch: Batch) -> dict[str, Tensor]:
        """The tensors that BERT reads, by its own names for them."""
        return {name: batch[name] for name in self.inputs}

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """Scores of each token as start and as end, (batch, length) each."""
        found = model(**self.arguments(batch))
        start, end = (found.start_logits, found.end_logits) if hasattr(found, "start_logits") else tuple(found)[:2]
        return start, end

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """The mean of the cross entropies of start and end."""
        pairs = zip(outputs, (batch["start"], batch["end"]), strict=True)
        return sum((functional.cross_entropy(scores.float(), true) for scores, true in pairs), torch.tensor(0.0)) / 2

    def prepared(self, batch: Batch, random: np.random.Generator) -> Batch:
        """The batch as it is."""
        return batch

    def training_loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """The loss as it is."""
        return self.loss(outputs, batch)

    def score(self, outputs: Iterable[Arrays]) -> dict[str, float]:
        """Exact match and F1."""
        return score(self.answers(outputs), {q.id: [a.text for a in q.answers] for q in self.held_out.questions})

    def answers(self, outputs: Iterable[Arrays]) -> dict[str, str]:
        """The best answer to each question of `held_out`, over all windows of its text."""
        part = self.held_out
        best: dict[str, tuple[float, str]] = {}
        scores = ((starts[i], ends[i]) for starts, ends, *_ in outputs for i in range(len(starts)))
        for window, (start, end) in zip(part.windows, scores, strict=True):
            at, name = part.start_of(window), part.questions[window.question].id
            here = slice(at, at + window.end - window.first)
            total, first, last = _span(start[here], end[here], self.section)
            places = part.read[window.text].places[window.first : window.end]
            if total > best.get(name, (-np.inf, ""))[0]:
                best[name] = total, part.texts[window.text][places[first, 0] : places[last, 1]]
        return {name: answer for name, (_, answer) in best.items()}

    def check(self, outputs: tuple[Tensor, ...]) -> None:
        """Refuse a network that does not score each token twice.

        Raises:
            UsageError: It does not.
        """
        shapes = [list(each.shape[1:]) for each in outputs]
        if shapes != [[self.section.length]] * 2:
            raise UsageError(f"question answering needs two scores for each token; the network gives shapes {shapes}")


def _span(start: NDArray[Any], end: NDArray[Any], section: Questions) -> tuple[float, int, int]:
    """The best pair of one of the best starts and one of the best ends, and its score."""
    starts, ends = (np.argsort(-scores, kind="stable")[: section.best] for scores in (start, end))
    length = ends[None] - starts[:, None] + 1
    total = np.where((length >= 1) & (length <= section.answer_length), start[starts][:, None] + end[ends], -np.inf)
    row, column = np.unravel_index(total.argmax(), total.shape)
    return float(total[row, column]), int(starts[row]), int(ends[column])


def _tokenizer(vocabulary: Path, section: Questions) -> Any:
    """A WordPiece tokenizer that knows where in the text each token stands."""
    with importing("question answering", "transformers"):
        from tokenizers import BertWordPieceTokenizer  # noqa: PLC0415 - only these data need it
    words = {word: number for number, word in enumerate(_text(vocabulary, "data.vocabulary").split("\n")) if word}
    if missing := [token for token in SPECIAL if token not in words]:
        raise UsageError(f"{vocabulary} has no token {missing[0]}; a vocabulary of BERT has a token a line")
    return BertWordPieceTokenizer(vocab=words, lowercase=section.lower_case)


def _text(file: Path, key: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{key}: {file} can't be read ({error.strerror})") from error


def _part(file: Path, tokenizer: Any, section: Questions) -> Part:
    """Read a file and cut its texts into windows."""
    paragraphs = _paragraphs(file)
    numbered = [(number, question) for number, paragraph in enumerate(paragraphs) for question in paragraph.qas]
    numbered = numbered[: section.limit]
    if not numbered:
        raise UsageError(f"{file} holds no question")
    texts, questions = [paragraph.context for paragraph in paragraphs], [question for _, question in numbered]
    read, asked = _tokens(tokenizer, texts), _tokens(tokenizer, [question.question for question in questions])
    asked = [Tokens(each.ids[: section.question_length], each.places[: section.question_length]) for each in asked]
    windows = [
        window
        for at, (text, _) in enumerate(numbered)
        for window in _windows(at, text, len(read[text].ids), section.length - len(asked[at].ids) - 3, section.stride)
    ]
    special = (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]"))
    return Part(windows, questions, asked, texts, read, special, section.length)


def _check_files(folder: Path, section: Questions) -> None:
    """Name all files that are needed where any of them is missing, not the first alone."""
    keys = {key: folder / getattr(section, key) for key in ("vocabulary", "train", "held_out")}
    if missing := [f"{file} (data.{key})" for key, file in keys.items() if not file.is_file()]:
        needed = ", ".join(file.name for file in keys.values())
        raise UsageError(f"data.path: {folder} must hold {needed}; missing: {', '.join(missing)}")


def _paragraphs(file: Path) -> list[Paragraph]:
    try:
        content = File.model_validate_json(_text(file, "data.path"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise UsageError(f"{file} is not in the format of SQuAD v1.1: {place}: {first['msg']}") from error
    paragraphs = [paragraph for article in content.data for paragraph in article.paragraphs]
    for paragraph in paragraphs:
        for question in paragraph.qas:
            _check_answers(file, question, paragraph.context)
    return paragraphs


def _check_answers(file: Path, question: Question, text: str) -> None:
    for answer in question.answers:
        found = text[answer.answer_start : answer.answer_start + len(answer.text)]
        if not answer.text or found != answer.text:
            raise UsageError(
                f"{file}: question {question.id}: at character {answer.answer_start} its text says '{found}', "
                f"not '{answer.text}'; mend answer_start"
            )


def _tokens(tokenizer: Any, texts: list[str]) -> list[Tokens]:
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [Tokens(np.array(each.ids, np.int64), np.array(each.offsets, np.int64).reshape(-1, 2)) for each in encoded]


def _windows(question: int, text: int, tokens: int, room: int, stride: int) -> Iterable[Window]:
    """Windows of `room` tokens, `stride` apart, until the end of the text."""
    if room < 1:
        raise UsageError("data.length leaves no room for the text beside the question; make it larger")
    for first in range(0, tokens, min(stride, room)):
        yield Window(question, text, first, min(first + room, tokens))
        if first + room >= tokens:
            return
