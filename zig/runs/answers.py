"""How answers are measured: exact match and F1 by the official rules of SQuAD v1.1 (Rajpurkar et al., EMNLP 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def plain(answer: str) -> str:
    """An answer in small letters, without punctuation, articles and needless spaces; in this order."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, truth: str) -> float:
    """1 if both are plainly the same, else 0."""
    return float(plain(answer) == plain(truth))


def f1(answer: str, truth: str) -> float:
    """The harmonic mean of precision and recall of the words; a word counts as often as it is in both."""
    ours, theirs = plain(answer).split(), plain(truth).split()
    same = (Counter(ours) & Counter(theirs)).total()
    return 2 * same / (len(ours) + len(theirs)) if same else 0.0


def score(answers: Mapping[str, str], truths: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Both measures over all questions, shares in [0, 1] (the official script prints percentages).

    Args:
        answers: By question; one that is missing counts as wrong.
        truths: All right answers of each question; the one that fits best counts.
    """
    return {name: _mean(measure, answers, truths) for name, measure in (("exact_match", exact), ("f1", f1))}


def _mean(
    measure: Callable[[str, str], float], answers: Mapping[str, str], truths: Mapping[str, Sequence[str]]
) -> float:
    given = ((answers[name], right) for name, right in truths.items() if name in answers)
    return sum(max(measure(answer, truth) for truth in right) for answer, right in given) / len(truths)
