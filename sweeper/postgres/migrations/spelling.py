"""How ids that people write are compared: the function `sweeper.spelling` of the database.

Two texts that a person would take for the same id have one spelling, whatever the database's locale: case, Unicode form
(NFKC), dashes, blanks, quotes, brackets, invisible characters, leading zeros, `urn:uuid:` and punctuation at the ends make no
difference. A hold may so reach too much, never too little.
"""

import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

_IGNORED = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Pd", "Ps", "Pe", "Pi", "Pf"})
"""Categories of characters that make no difference wherever they are: invisible ones, blanks, dashes, brackets, quotes."""
_IGNORED_TOO = "\"'`\u00b4\u2032\u2033\u2035\u2036\u2043\u2212\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
"""More quotes and dashes, and what Unicode calls ignorable in other categories."""
_VARIATIONS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
"""Variation selectors: how a character looks, not which one it is."""
_DOTLESS = {"\u0130": "i", "\u0131": "i"}
"""The Turkish capital I with a dot and the small one without: whatever the locale, both are taken for an i."""

_HEAD = """CREATE OR REPLACE FUNCTION sweeper.spelling(id text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
DECLARE
    spelt text;
BEGIN
"""
_UNICODE = """    IF octet_length(id) <> char_length(id) THEN
        spelt := normalize(translate(normalize(regexp_replace(id, {ignored}, '', 'g'), NFKC), {capitals}, {small}), NFKC);
        spelt := replace(replace(spelt, chr(223), 'ss'), 'i' || chr(775), 'i');  -- sharp s, and what a small dotted I becomes
        spelt := regexp_replace(spelt, {ignored}, '', 'g');
        spelt := regexp_replace(spelt, {ends}, '', 'g');
    ELSE
        spelt := translate(lower(id COLLATE "C"), {ignored_ascii}, '');
    END IF;
"""
_LATIN1 = """    spelt := replace(translate(lower(id COLLATE "C"), {latin} || {ignored_latin}, {latin_small}), chr(223), 'ss');
"""
_ASCII = """    spelt := translate(lower(id COLLATE "C"), {ignored_ascii}, '');
"""
_BODIES = {"UTF8": _UNICODE, "LATIN1": _LATIN1}
_TAIL = """    spelt := COALESCE(NULLIF(btrim(spelt, {ends_ascii}), ''), spelt);
    IF starts_with(spelt, 'urn:uuid:') THEN
        spelt := substr(spelt, 10);
    ELSIF spelt ~ '^[0-9]+[.]00?$' THEN  -- a number that went through a spreadsheet
        spelt := split_part(spelt, '.', 1);
    END IF;
    RETURN CASE WHEN spelt ~ '^0+$' THEN '0' ELSE ltrim(spelt, '0') END;
END $body$;
COMMENT ON FUNCTION sweeper.spelling(text) IS 'What is the same for all ways of writing one id; compared, never shown.';"""


@cache
def function(encoding: str) -> str:
    """The statement that makes the function in a database of the encoding: only in UTF8 PostgreSQL knows NFKC.

    In LATIN1, whose characters have but one form, the small letters are enough; in others case and blanks of ASCII alone.
    """
    capitals, small = _folds()
    latin = {
        capital: letter
        for capital, letter in zip(capitals, small, strict=True)
        if 128 <= ord(max(capital, letter)) < 256
    }
    values = {
        "ignored": _text(f"[{_classes(_is_ignored)}]"),
        "ends": _text(f"^[{_classes(_is_punctuation)}]+|[{_classes(_is_punctuation)}]+$"),
        "capitals": _text(capitals),
        "small": _text(small),
        "ignored_ascii": _text("".join(filter(_is_ignored, map(chr, range(1, 128))))),
        "latin": _text("".join(latin)),
        "latin_small": _text("".join(latin.values())),
        "ignored_latin": _text("".join(filter(_is_ignored, map(chr, range(1, 256))))),
        "ends_ascii": _text("".join(c for c in map(chr, range(33, 127)) if not c.isalnum())),
    }
    return (_HEAD + _BODIES.get(encoding, _ASCII) + _TAIL).format_map(values)


def _folds() -> tuple[str, str]:
    """Each character that has another one as its small form, and beside it that form; sharp s stays."""
    found = dict(_DOTLESS)
    for character in _characters():
        folded = character.casefold() if len(character.casefold()) == 1 else character.lower()
        if len(folded) == 1 and folded != character and unicodedata.normalize("NFKC", character) == character:
            found.setdefault(character, folded)
    small = "".join(unicodedata.normalize("NFKC", folded) for folded in found.values())
    return "".join(found), small


_PLANES = (range(1, 0xD800), range(0xE000, 0x20000), range(0xE0000, 0xE1000))
"""Code points that may have a small form or be ignored; elsewhere Unicode has only ideographs, private and unassigned ones."""


def _characters() -> Iterator[str]:
    return (chr(code) for plane in _PLANES for code in plane)


def _is_ignored(character: str) -> bool:
    code = ord(character)
    named = unicodedata.category(character) in _IGNORED or character in _IGNORED_TOO
    return named or any(code in selectors for selectors in _VARIATIONS)


def _is_punctuation(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character).startswith("P")


def _classes(belongs: Callable[[str], bool]) -> str:
    """The characters that belong, as the inside of a bracket expression, in escapes so that the text is ASCII."""
    ranges: list[list[int]] = []
    for code in (ord(character) for character in _characters() if belongs(character)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" if last > first else f"\\U{first:08x}" for first, last in ranges)


def _text(value: str) -> str:
    """A text as PostgreSQL reads it, whatever standard_conforming_strings says where the function runs."""
    quoted = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{quoted}'".translate(_ESCAPED)


_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(1, 32), 127)}
