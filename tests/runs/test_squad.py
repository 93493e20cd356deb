"""Question answering: spans, windows, and the official measures on crafted cases."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zig.errors import UsageError
from zig.runs.answers import exact, f1, plain, score
from zig.runs.config import Questions
from zig.runs.data import PLAIN, Key
from zig.runs.squad import QuestionAnswering

HERE = Path(__file__).parent / "squad"

# What the official evaluate-v1.1.py gives: lower case, then punctuation, then articles, then spaces; F1 over words.
CASES = [
    ("The Cat", "cat", 1, 1),
    ("cat.", "a cat", 1, 1),
    ("U.S.", "US", 1, 1),
    ("the", "a", 1, 0),  # both are nothing without articles; F1 counts no common word
    ("an apple a day", "apple day", 1, 1),
    ("theatre", "atre", 0, 0),  # an article is a whole word
    ("twenty-one", "twenty one", 0, 0),  # the hyphen goes, and joins what it parted
    ("New York City", "york", 0, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
    ("to be or not to be", "to be", 0, 2 * (2 / 6) * 1 / (2 / 6 + 1)),
    ("be", "to be or not to be", 0, 2 * 1 * (1 / 6) / (1 + 1 / 6)),
    ("", "something", 0, 0),
    ("“Quoted”", "quoted", 0, 0),  # only ASCII punctuation goes
    ("Straße", "straße", 1, 1),
    ("1,000", "1000", 1, 1),
    ("a  b\tc", "b c", 1, 1),
]


@pytest.mark.parametrize(("answer", "truth", "same", "overlap"), CASES)
def test_measures_of_one_answer(answer: str, truth: str, same: float, overlap: float) -> None:
    assert exact(answer, truth) == same
    assert f1(answer, truth) == pytest.approx(overlap)


def test_plain_answers() -> None:
    assert plain("  The  U.S.A., an (a) place!") == "usa place"


def test_the_best_of_several_answers_counts_and_a_missing_one_is_wrong() -> None:
    truths = {"1": ["Paris", "the city of Paris"], "2": ["1066"], "3": ["Anna"]}
    found = score({"1": "city of paris", "2": "in 1066"}, truths)
    assert found == pytest.approx({"exact_match": 1 / 3, "f1": (1 + 2 / 3 + 0) / 3})


def load(**options: Any) -> QuestionAnswering:
    given = {"kind": "squad", "path": str(HERE), "train": "small.json", "held_out": "small.json", "length": 40}
    return QuestionAnswering.load(Questions(**{**given, "stride": 6, **options}))


def test_the_answer_of_every_question_is_found_back_in_its_windows() -> None:
    task = load()
    part = task.train
    seen = set()
    for number, window in enumerate(part.windows):
        example = part[Key(PLAIN, number)]
        start, end = int(example["start"]), int(example["end"])
        if (start, end) != (0, 0):
            places = part.read[window.text].places[window.first :]
            at = part.start_of(window)
            text = part.texts[window.text][places[start - at][0] : places[end - at][1]]
            assert text == part.questions[window.question].answers[0].text
            seen.add(window.question)
    assert seen == set(range(len(part.questions)))


def test_inputs_are_those_of_bert() -> None:
    task = load()
    words = (HERE / "vocab.txt").read_text().split("\n")
    example = task.train[Key(PLAIN, 0)]
    assert list(example) == ["input_ids", "attention_mask", "token_type_ids", "start", "end"]
    tokens = [words[i] for i in example["input_ids"][: int(example["attention_mask"].sum())]]
    middle = tokens.index("[SEP]")
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert tokens[1:middle] == ["who", "crossed", "the", "river", "?"]
    assert example["token_type_ids"].sum() == len(tokens) - middle - 1
    assert len(example["input_ids"]) == 40
    assert (example["input_ids"][len(tokens) :] == words.index("[PAD]")).all()


def test_windows_cover_a_long_text_and_overlap() -> None:
    part = load(length=24).train
    for question in range(len(part.questions)):
        windows = [window for window in part.windows if window.question == question]
        text = part.read[windows[0].text]
        assert windows[0].first == 0
        assert windows[-1].end == len(text.ids)
        assert all(b.first - a.first == 6 and b.first < a.end for a, b in pairwise(windows))
        room = 24 - len(part.asked[question].ids) - 3
        assert all(window.end - window.first <= room for window in windows)
    assert len(part.windows) > len(part.questions)


def outputs(task: QuestionAnswering, answers: dict[int, tuple[int, int]]) -> list[list[np.ndarray]]:
    """Scores that point at tokens of the text, by question."""
    found = []
    for window in task.held_out.windows:
        start, end = np.zeros((2, 1, task.section.length), np.float32)
        at = task.held_out.start_of(window) - window.first
        for scores, token in zip((start, end), answers.get(window.question, (-1, -1)), strict=True):
            if window.first <= token < window.end:
                scores[0, at + token] = 5
        start[0, 0] = end[0, 0] = 9  # [CLS], which is no answer
        found.append([start, end])
    return found


def test_answers_come_from_scores() -> None:
    task = load()
    part = task.held_out
    truth = {}
    for number, question in enumerate(part.questions):
        places = part.read[part.windows[[w.question for w in part.windows].index(number)].text].places
        answer = question.answers[-1]
        tokens = [
            i for i, (a, b) in enumerate(places)
            if b > answer.answer_start and a < answer.answer_start + len(answer.text)
        ]  # fmt: skip
        truth[number] = (tokens[0], tokens[-1])
    assert task.score(outputs(task, truth)) == {"exact_match": 1.0, "f1": 1.0}
    found = task.answers(outputs(task, truth))
    assert found["caesar-1"] == "Julius Caesar"
    # An end before its start, and one too far behind it, are no answers.
    backwards = task.answers(outputs(task, {0: (5, 2)}))
    assert backwards["caesar-1"] not in ("", found["caesar-1"])
    assert len(task.answers(outputs(task, {0: (0, 12)}))["caesar-1"].split()) <= 13
    short = load(answer_length=2)
    assert len(short.answers(outputs(short, {0: (0, 12)}))["caesar-1"].split()) <= 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.pop("data"), "data: Field required"),
        (lambda content: content["data"][0].pop("paragraphs"), "data.0.paragraphs: Field required"),
        (
            lambda content: content["data"][0]["paragraphs"][0]["qas"][0].update(answers=[]),
            "qas.0.answers: List should",
        ),
        (
            lambda content: content["data"][0]["paragraphs"][0]["qas"][0]["answers"][0].update(answer_start=1),
            "question caesar-1: at character 1 its text says",
        ),
    ],
)
def test_a_file_of_another_format_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    content = json.loads((HERE / "small.json").read_text())
    change(content)
    (tmp_path / "small.json").write_text(json.dumps(content))
    (tmp_path / "vocab.txt").write_text((HERE / "vocab.txt").read_text())
    with pytest.raises(UsageError) as error:
        load(path=str(tmp_path))
    assert said in str(error.value)


def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("hello\nworld\n")
    with pytest.raises(UsageError, match=r"vocab.txt has no token \[PAD\]"):
        load(vocabulary=str(tmp_path / "vocab.txt"))


def test_a_question_longer_than_its_window_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data.length leaves no room"):
        load(length=16, question_length=20, path=str(HERE), train="long.json")
