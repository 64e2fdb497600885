"""The one filter that every text passes before it reaches a terminal or a log line, wherever it came from.

The law of this file: what comes out is one line that a terminal obeys in nothing, and filtering it again changes nothing.
"""

import unicodedata


def printable(text: str) -> str:
    r"""The text with each character shown as its escape (`\x1b`, `\n`, `\u202e`) that is none to read.

    Those are control and format characters, line and paragraph separators, lone surrogates, and what Unicode has not assigned.
    Blanks of every width stay: they are in names that people write.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
