"""Escapes every text on its way to a terminal or a log line.

Invariant: the result is one line without control characters, and escaping it again changes nothing.
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
