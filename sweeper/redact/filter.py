"""Obfuscates sensitive data before any text leaves the store: each finding is replaced by the name of its kind.

The law of this file: a text leaves only when nothing is found in it any more; any doubt keeps it back.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata

from sweeper.errors import ConfigurationError
from sweeper.redact.finding import DataKind, Finding, Recogniser, Text, merged

__all__ = ["DataKind", "Filter", "Filtered"]

RULES_VERSION = 1
"""Raised whenever a rule changes: a manifest names it, so that holders know what a text was filtered by."""

LIBRARIES = ("phonenumbers", "python-stdnum")
LONGEST = 1_000_000
PASSES = 4
"""So often a text is looked at. One replacement may bare another finding; what is not clean by then does not pass."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What may leave of a text.

    Attributes:
        text: the text with each finding replaced; None where there is no text, or where it did not pass.
        found: how many findings of each kind were replaced.
        passed: whether the text, or its absence, may be written. What did not pass is counted by the caller.
    """

    text: str | None
    found: Mapping[DataKind, int] = field(default_factory=dict)
    passed: bool = True


KEPT_BACK = Filtered(None, passed=False)


@dataclass(frozen=True)
class Filter:
    """Replaces what the rules of this version find, the same in every process and on every machine.

    Attributes:
        longest: texts of more characters do not pass: they would take too long to examine.
    """

    longest: int = LONGEST

    @property
    def name(self) -> str:
        """What a manifest calls this filter."""
        return "sweeper.manifest.filter"

    @cached_property
    def version(self) -> str:
        """The version of the rules and of the libraries that they ask."""
        recognisers()
        return f"{RULES_VERSION} ({', '.join(f'{name} {metadata.version(name)}' for name in LIBRARIES)})"

    def apply(self, text: str | None) -> Filtered:
        """What may leave of this text.

        Raises:
            ConfigurationError: the libraries of the extra `text` are not installed.
        """
        rules = recognisers()
        if text is None:
            return Filtered(None)
        try:
            return _replaced(text, rules) if self._is_examinable(text) else KEPT_BACK
        except Exception:  # whatever a rule trips over: the text was not examined, so it does not leave
            return KEPT_BACK

    def _is_examinable(self, text: str) -> bool:
        """Not too long, without NUL, and fit for UTF-8: a lone surrogate is half a character."""
        if len(text) > self.longest or "\0" in text:
            return False
        return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def _replaced(text: str, rules: tuple[Recogniser, ...]) -> Filtered:
    """The text when nothing is found in it any more."""
    found: Counter[DataKind] = Counter()
    for _ in range(PASSES):
        findings = find(text, rules)
        if not findings:
            return Filtered(text, dict(found))
        found.update(finding.kind for finding in findings)
        text = _without(text, findings)
    return KEPT_BACK


def find(text: str, rules: tuple[Recogniser, ...] | None = None) -> list[Finding]:
    """What is sensitive in a text, in order and without overlaps."""
    seen = Text(text)
    return merged(finding for rule in rules or recognisers() if rule.may_apply(seen) for finding in rule.findings(seen))


def _without(text: str, findings: list[Finding]) -> str:
    parts, end = [], 0
    for finding in findings:
        parts += [text[end : finding.start], finding.kind.placeholder]
        end = finding.end
    return "".join([*parts, text[end:]])


@cache
def recognisers() -> tuple[Recogniser, ...]:
    """All rules. The libraries are imported here: whoever filters no text needs none of them.

    Raises:
        ConfigurationError: they are not installed.
    """
    try:
        from sweeper.redact import contact, credential, number
    except ImportError as error:
        raise ConfigurationError(
            f"no text was filtered or written: {error.name} is not installed; pip install '.[text]' in the program's checkout"
        ) from error
    return (*credential.RULES, *number.rules(), *contact.rules())
