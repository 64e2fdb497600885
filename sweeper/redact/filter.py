"""Replaces each piece of sensitive data in a text by the name of its kind.

Invariant: a text passes only if nothing sensitive is found in the result; in doubt the text is withheld.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import metadata

from sweeper.errors import ConfigurationError
from sweeper.redact import language
from sweeper.redact.finding import DataKind, Finding, FoldedText, Recogniser, merged

__all__ = ["DataKind", "Filter", "Filtered"]

RULES_VERSION = 1
"""Increase it with every change of a rule. Manifests record it, so that readers know how the text was filtered."""

LIBRARIES = ("phonenumbers", "python-stdnum")
LONGEST = 1_000_000
PASSES = 4
"""Most searches of one text, since a replacement may expose another finding. A text with findings in the last is withheld."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """The result of filtering one text.

    Attributes:
        text: the text with all findings replaced; None if there was no text or it was withheld.
        found: number of replaced findings by kind.
        passed: False if the text was withheld.
        language: the language of the filtered text, if it was asked for and is not in doubt.
    """

    text: str | None
    found: Mapping[DataKind, int] = field(default_factory=dict)
    passed: bool = True
    language: str | None = None


WITHHELD = Filtered(None, passed=False)


@dataclass(frozen=True)
class Filter:
    """Replaces sensitive data in texts, with the same result in every process, on every machine and at any time.

    Attributes:
        longest: texts of more characters are withheld, because searching them would take too long.
        with_language: detect the language of the filtered text as well.
    """

    longest: int = LONGEST
    with_language: bool = False

    @property
    def name(self) -> str:
        """The name of this filter in manifests."""
        return "sweeper.manifest.filter"

    @cached_property
    def version(self) -> str:
        """The version of the rules and of the libraries they use."""
        recognisers()
        return f"{RULES_VERSION} ({', '.join(f'{name} {metadata.version(name)}' for name in LIBRARIES)})"

    def apply(self, text: str | None) -> Filtered:
        """Return the text with all sensitive data replaced.

        Raises:
            ConfigurationError: the libraries of the extra `text` are not installed.
        """
        rules = recognisers()
        if text is None:
            return Filtered(None)
        try:
            filtered = _replaced(text, rules) if self._is_examinable(text) else WITHHELD
        except Exception:  # a rule failed, so the text was not fully searched
            return WITHHELD
        return replace(filtered, language=language.detect(filtered.text)) if self.with_language else filtered

    def _is_examinable(self, text: str) -> bool:
        """Return True if the text is not too long and can be stored as UTF-8: no NUL, no lone surrogate."""
        if len(text) > self.longest or "\0" in text:
            return False
        return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _replaced(text: str, rules: tuple[Recogniser, ...]) -> Filtered:
    found: Counter[DataKind] = Counter()
    for _ in range(PASSES):
        findings = find(text, rules)
        if not findings:
            return Filtered(text, dict(found))
        found.update(finding.kind for finding in findings)
        text = _without(text, findings)
    return WITHHELD


def find(text: str, rules: tuple[Recogniser, ...] | None = None) -> list[Finding]:
    """Return the sensitive parts of a text in order, without overlaps."""
    folded = FoldedText(text)
    found = (finding for rule in rules or recognisers() if rule.may_apply(folded) for finding in rule.findings(folded))
    return merged(found)


def _without(text: str, findings: list[Finding]) -> str:
    parts, end = [], 0
    for finding in findings:
        parts += [text[end : finding.start], finding.kind.placeholder]
        end = finding.end
    return "".join([*parts, text[end:]])


@cache
def recognisers() -> tuple[Recogniser, ...]:
    """Return all recognisers. The libraries are imported here, so that only filtering needs them.

    Raises:
        ConfigurationError: the libraries of the extra `text` are not installed.
    """
    try:
        from sweeper.redact import contact, credential, number
    except ImportError as error:
        raise ConfigurationError(
            f"no text was filtered or written: {error.name} is not installed; pip install '.[text]' in the program's checkout"
        ) from error
    return (*credential.RULES, *number.rules(), *contact.rules())
