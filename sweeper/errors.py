"""The program's errors, and the escaping of text for terminals and log lines.

Each error's text names the setting or the row, what was **not** done, and the remedy. `exit_code` is documented API.
"""

import unicodedata


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

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(printable, lines)))


class ConfigurationError(SweeperError):
    """The settings, the policy or an argument cannot be used; nothing was done."""

    exit_code = 2


class RefusedError(SweeperError):
    """A guard refused: the number, the limit and the way out are in the text; nothing was purged."""

    exit_code = 3

    def __init__(self, guard: str, text: str) -> None:
        super().__init__(text)
        self.guard = guard


class LeaseHeldError(SweeperError):
    """Another run holds the lease of this store; nothing was done."""

    exit_code = 4


class LeaseLostError(SweeperError):
    """This run's lease was taken over; the running batch was rolled back and nothing more is done."""

    exit_code = 4


class PausedError(SweeperError):
    """Somebody has paused the sweeper; the running batch was not begun, what was committed before stands."""
