"""What the filter looks for, and where in a text it found it.

The law of this file: where findings overlap nothing of any of them stays: they are replaced as one.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class DataKind(StrEnum):
    """What sensitive data is; of two findings of one length the kind listed first here names both."""

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
        """What stands in a text instead of a finding."""
        return f"[{self.name}]"


LETTER = r"(?:(?=[^\W_])[\x00-\u2dff])"
"""A letter or digit that would make a longer word of what it touches; scripts without spaces have no such words."""

RANK = {kind: rank for rank, kind in enumerate(DataKind)}


class TextSpan(NamedTuple):
    """From this character to before that one."""

    start: int
    end: int


class Finding(NamedTuple):
    """Sensitive data in a text, from `start` to before `end`."""

    start: int
    end: int
    kind: DataKind


Locate: TypeAlias = Callable[[re.Match[str]], Iterable[TextSpan]]
"""Which parts of a candidate are sensitive, if any."""


def whole(match: re.Match[str]) -> Iterable[TextSpan]:
    """All of the candidate, or what its group `secret` holds."""
    return (TextSpan(*match.span("secret" if "secret" in match.re.groupindex else 0)),)


@dataclass(frozen=True, slots=True)
class Recogniser:
    """How one kind is recognised: candidates by a pattern, of those the ones that `locate` confirms.

    A pattern is linear: its repetitions are bounded, or possessive behind a start that cannot lie inside them.
    """

    kind: DataKind
    pattern: re.Pattern[str]
    locate: Locate = whole
    needles: tuple[str, ...] = ()
    """A text that has none of these (lower case) has no candidate; they are quicker to look for than the pattern."""
    digits: int = 0
    """Nor has a text with fewer digits."""

    def may_apply(self, text: "Text") -> bool:
        """Whether a text is worth the pattern."""
        if text.digits < self.digits:
            return False
        return not self.needles or any(needle in text.lower for needle in self.needles)

    def findings(self, text: "Text") -> Iterator[Finding]:
        """What this rule finds in a text."""
        for match in self.pattern.finditer(text.folded):
            for span in self.locate(match):
                yield Finding(*span, self.kind)


class Text:
    """A text as rules look at it: other digits, letters, dashes and spaces folded to ASCII, each in its place."""

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
    """The text with the signs that people and phones write for ASCII's, one for one: positions stay what they are."""
    text = WIDE.sub(lambda match: chr(ord(match[0]) - 0xFEE0), text)
    text = DIGITS.sub(lambda match: str(unicodedata.decimal(match[0])), text)
    return SPACES.sub(" ", DASHES.sub("-", text))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in order, overlapping ones as one, of the kind of the longest of them."""
    joined: list[Finding] = []
    longest = 0
    for found in sorted(findings, key=lambda one: (one.start, -one.end, RANK[one.kind])):
        length = found.end - found.start
        if not joined or found.start >= joined[-1].end:
            joined.append(found)
            longest = length
            continue
        before = joined[-1]
        prevails = (-length, RANK[found.kind]) < (-longest, RANK[before.kind])
        joined[-1] = Finding(before.start, max(before.end, found.end), found.kind if prevails else before.kind)
        longest = max(longest, length)
    return joined
