"""Findings, the recognisers that yield them, and the text form that recognisers search.

Invariant: overlapping findings are merged into one, so that no part of any of them remains.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class DataKind(StrEnum):
    """The kinds of sensitive data. If overlapping findings have the same length, the kind listed first wins."""

    PRIVATE_KEY = "private_key"
    URL_CREDENTIALS = "url_credentials"
    API_KEY = "api_key"
    TOKEN = "token"  # noqa: S105 — the name of a kind, no token
    PASSWORD = "password"  # noqa: S105 — the name of a kind, no password
    IBAN = "iban"
    PAYMENT_CARD = "payment_card"
    NATIONAL_ID = "national_id"
    EMAIL = "email"
    IP_ADDRESS = "ip_address"
    PHONE = "phone"

    @property
    def placeholder(self) -> str:
        """The text that replaces a finding."""
        return f"[{self.name}]"


LETTER = r"(?:(?=[^\W_])[\x00-\u2dff])"
"""A letter or digit that makes the match beside it part of a longer word; not in scripts without spaces between words."""

RANK = {kind: rank for rank, kind in enumerate(DataKind)}


class TextSpan(NamedTuple):
    """A range of characters, without the one at `end`."""

    start: int
    end: int


class Finding(NamedTuple):
    """A range of characters that is sensitive, without the one at `end`."""

    start: int
    end: int
    kind: DataKind


Locate: TypeAlias = Callable[[re.Match[str]], Iterable[TextSpan]]
"""Returns the sensitive parts of a candidate, if any."""


def whole(match: re.Match[str]) -> Iterable[TextSpan]:
    """Return the whole candidate, or only its group `secret` if the pattern has one."""
    return (TextSpan(*match.span("secret" if "secret" in match.re.groupindex else 0)),)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Finds one kind of data: `pattern` finds candidates, `locate` confirms them.

    A pattern must take linear time: each repetition is bounded, or is possessive and cannot contain the start of a match.
    """

    kind: DataKind
    pattern: re.Pattern[str]
    locate: Locate = whole
    needles: tuple[str, ...] = ()
    """Lower-case strings. A text that contains none of them has no candidate; this test is faster than the pattern."""
    digits: int = 0
    """A text with fewer digits has no candidate."""

    def may_apply(self, text: "FoldedText") -> bool:
        """Return False if the text certainly has no candidate."""
        if text.digits < self.digits:
            return False
        return not self.needles or any(needle in text.lower for needle in self.needles)

    def findings(self, text: "FoldedText") -> Iterator[Finding]:
        """Yield the findings in a text."""
        for match in self.pattern.finditer(text.folded):
            for span in self.locate(match):
                yield Finding(*span, self.kind)


class FoldedText:
    """A text with digits, letters, dashes and spaces of other forms folded to ASCII, one character for one."""

    def __init__(self, text: str) -> None:
        self.folded = text if text.isascii() else _folded(text)
        self.lower = self.folded.lower()
        self.digits = len(DIGIT.findall(self.folded))


DIGIT = re.compile(r"[0-9]")
DASHES = re.compile(r"[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
SPACES = re.compile(r"[^\S\n\r\t ]")
WIDE = re.compile(r"[\uff01-\uff5e]")
DIGITS = re.compile(r"[^\D0-9]")


def _folded(text: str) -> str:
    text = WIDE.sub(lambda match: chr(ord(match[0]) - 0xFEE0), text)
    text = DIGITS.sub(lambda match: str(unicodedata.decimal(match[0])), text)
    return SPACES.sub(" ", DASHES.sub("-", text))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings in order, overlapping ones merged into one of the kind of the longest."""
    joined: list[Finding] = []
    longest = 0
    for finding in sorted(findings, key=lambda each: (each.start, -each.end, RANK[each.kind])):
        length = finding.end - finding.start
        if not joined or finding.start >= joined[-1].end:
            joined.append(finding)
            longest = length
            continue
        last = joined[-1]
        wins = (-length, RANK[finding.kind]) < (-longest, RANK[last.kind])
        joined[-1] = Finding(last.start, max(last.end, finding.end), finding.kind if wins else last.kind)
        longest = max(longest, length)
    return joined
