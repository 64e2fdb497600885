"""Loads the labelled texts and measures how well the findings of a filter agree with the labels.

All data in the texts are made up, or are examples from their issuers' documentation. A text with something that secret scanners
look for is stored as a list of parts, cut inside the secret.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.redact.finding import DataKind, Finding

FILE = Path(__file__).with_name("filter_labelled.jsonl")


@dataclass(frozen=True)
class Example:
    """A text and its sensitive parts."""

    text: str
    spans: tuple[Finding, ...]


@dataclass
class Score:
    """Numbers of correct, missed and wrong findings of one kind."""

    right: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        """The share of sensitive parts that were found, with the right kind."""
        return self.right / (self.right + self.missed) if self.right else 0.0

    @property
    def precision(self) -> float:
        """The share of findings that overlap a sensitive part of the same kind."""
        return self.right / (self.right + self.wrong) if self.right else 0.0


def load() -> list[Example]:
    """Return all labelled texts."""
    lines = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    return [
        Example("".join(line["text"]), tuple(Finding(start, end, DataKind(kind)) for start, end, kind in line["spans"]))
        for line in lines
    ]


def score(
    find: Callable[[str], Iterable[Finding]], examples: Iterable[Example], *, whole: bool = True
) -> dict[DataKind, Score]:
    """Return the score of `find` by kind; unless `whole`, finding a part of a sensitive part is enough."""
    scores: dict[DataKind, Score] = defaultdict(Score)
    for example in examples:
        found = list(find(example.text))
        for span in example.spans:
            of_kind = [one for one in found if one.kind == span.kind and _touch(one, span)]
            if any(not whole or (one.start <= span.start and span.end <= one.end) for one in of_kind):
                scores[span.kind].right += 1
            else:
                scores[span.kind].missed += 1
        for one in found:
            if not any(one.kind == span.kind and _touch(one, span) for span in example.spans):
                scores[one.kind].wrong += 1
    return scores


def total(scores: Mapping[DataKind, Score]) -> Score:
    """Return the score of all kinds together."""
    right, missed, wrong = (sum(getattr(one, name) for one in scores.values()) for name in ("right", "missed", "wrong"))
    return Score(right, missed, wrong)


def _touch(one: Finding, other: Finding) -> bool:
    return one.start < other.end and other.start < one.end
