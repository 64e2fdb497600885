"""The program's errors, and the escaping of text for terminals and log lines.

Each error's text names the setting or the row, what was **not** done, and the remedy. `exit_code` is documented API.
"""

import re
import unicodedata
from typing import Any


def printable(text: str) -> str:
    r"""Return the text with every unprintable character escaped (`\x1b`, `\n`, `\u202e`).

    Escaped are control and format characters, line and paragraph separators, lone surrogates and unassigned characters. Spaces
    of any width stay, since people use them in names.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


class SweeperError(Exception):
    """Something failed; nothing beyond what was already recorded was done.

    Each argument is one line of the message, escaped here: it may quote the store, a file or the server.
    """

    exit_code = 1

    def __init__(self, *lines: str, remedy: str = "") -> None:
        """`remedy` is added to the message; it is kept apart for programs."""
        text = "\n".join(map(printable, lines))
        super().__init__(f"{text} {printable(remedy)}" if remedy else text)
        self.remedy = remedy

    def as_json(self) -> dict[str, Any]:
        """Return the error for --json: `error` is the whole message; `guard` and `remedy` are null where it has none."""
        return {
            "error": str(self),
            "guard": None,
            "remedy": printable(self.remedy) or _remedy_in(str(self)),
            "exit_code": self.exit_code,
        }


_EFFECT = re.compile(r"\b(?:nothing|none|no [a-z]+)\b[^.:;]*\b(?:was|were|is)\b[^.:;]*[.:;]\s+", re.IGNORECASE)


def _remedy_in(text: str) -> str | None:
    """Return what follows the sentence that says what was not done."""
    effects = list(_EFFECT.finditer(text))
    return text[effects[-1].end() :] or None if effects else None


class ConfigurationError(SweeperError):
    """The settings, the policy or an argument cannot be used; nothing was done."""

    exit_code = 2


class RefusedError(SweeperError):
    """A guard refused; the message is made of the fields."""

    exit_code = 3

    def __init__(self, guard: str, found: str, limit: str, remedy: str, effect: str = "Nothing was purged.") -> None:
        """Each field but `guard` consists of whole sentences.

        Args:
            guard: the name of the guard, as in the settings where it has one.
            found: what was found, with its numbers.
            limit: what was allowed; "" where `found` says it.
            remedy: what a person may do about it.
            effect: what was not done because of it.
        """
        super().__init__(" ".join(part for part in (found, limit, effect) if part), remedy=remedy)
        self.guard, self.found, self.limit = guard, found, limit

    def as_json(self) -> dict[str, Any]:
        """Return the refusal for --json and for the record of a run: the guard, the whole message and its parts."""
        parts = {"found": printable(self.found), "limit": printable(self.limit)}
        return {**super().as_json(), "guard": self.guard, "text": str(self), **parts, "outcome": "refused"}


class LeaseHeldError(SweeperError):
    """Another run holds the lease of this store; nothing was done."""

    exit_code = 4


class LeaseLostError(SweeperError):
    """This run's lease was taken over; the running batch was rolled back and nothing more is done."""

    exit_code = 4


class PausedError(SweeperError):
    """Somebody has paused the sweeper; the running batch was not begun, what was committed before stands."""
