"""The labelled texts, and how well what a filter finds in them agrees with the labels.

Everything in them is made up, or a number that its issuer documents as an example. A text that holds what scanners of
secrets look for is kept as a list of parts, cut inside the secret: joined, it is the text.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sweeper.redact.finding import DataKind, Finding

FILE = Path(__file__).with_name("filter_labelled.jsonl")


@dataclass(frozen=True)
class Example:
    """A text, and what is sensitive in it."""

    text: str
    spans: tuple[Finding, ...]


@dataclass
class Score:
    """How often a kind was found where it is, missed where it is, and found where it is not."""

    right: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        """Of what is sensitive, the share that was found, and by its kind."""
        return self.right / (self.right + self.missed) if self.right else 0.0

    @property
    def precision(self) -> float:
        """Of what was found, the share that touches something sensitive of that kind."""
        return self.right / (self.right + self.wrong) if self.right else 0.0


def load() -> list[Example]:
    """All labelled texts."""
    lines = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    return [
        Example("".join(line["text"]), tuple(Finding(start, end, DataKind(kind)) for start, end, kind in line["spans"]))
        for line in lines
    ]


def score(
    find: Callable[[str], Iterable[Finding]], examples: Iterable[Example], *, whole: bool = True
) -> dict[DataKind, Score]:
    """How well `find` does, by kind; where not `whole`, finding a part is finding."""
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


def _touch(one: Finding, other: Finding) -> bool:
    return one.start < other.end and other.start < one.end
