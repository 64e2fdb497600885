"""Parses TOML files within limits that protect the parser, and words the faults that pydantic finds in them.

Invariant: parsing takes time linear in the length of the text, and every failure is a `TomlError` with a one-line message.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ValidationError

LONGEST = 1 << 20
"""Characters; the shipped policy has about 6,000."""
DEEPEST = 32
MOST_PARTS = 16
"""Parts of a dotted key; the parser's time grows with their square."""
MOST_DIGITS = 100
"""Digits of a number; Python cannot format more than 4,300 digits, not even in a message."""
MOST_PLACES = 100
"""Occurrences of a faulty key that are tried, to find the line of the fault."""

_SKIPPED = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}(?!")'''
    r"""|'''.*?'{3,5}(?!')"""
    r"""|"(?:\\[^\n]|[^"\\\n])*"|'[^'\n]*\'"""
    r"|\#[^\n]*",
    re.DOTALL,
)
"""Strings and comments, in which brackets, dots and digits mean nothing."""
_DOTTED = re.compile(rf"""(?<![\w"'.-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")
_NUMBER = re.compile(rf"(?<![\w.])[0-9][\w.]{{{MOST_DIGITS},}}")
_BRACKET = re.compile(r"[\[\]{}]")


class TomlError(ValueError):
    """The text is not TOML, or exceeds a limit."""


def parse(text: str) -> dict[str, Any]:
    """Parse a text into tables.

    Raises:
        TomlError: the text is not TOML, or exceeds a limit of length, depth, key parts or digits.
    """
    if len(text) > LONGEST:
        raise TomlError(f"more than {LONGEST} characters")
    _check_limits(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(str(error)) from None
    except (RecursionError, MemoryError):
        raise TomlError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an instant or a number outside of Python's range
        raise TomlError(f"a value cannot be read: {error}") from None


def _check_limits(text: str) -> None:
    """Raise `TomlError` if the text exceeds a limit outside of strings and comments."""
    bare = _SKIPPED.sub(_blank, text)
    if found := _DOTTED.search(bare):
        raise TomlError(f"a key of more than {MOST_PARTS} parts{_place(bare, found.start())}")
    if found := _NUMBER.search(bare):
        raise TomlError(f"a number of more than {MOST_DIGITS} digits{_place(bare, found.start())}")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEEPEST:
            raise TomlError(f"nested more than {DEEPEST} deep{_place(bare, bracket.start())}")


def _blank(skipped: re.Match[str]) -> str:
    """Replace a string by an empty one and a comment by nothing, but keep the line breaks."""
    return ("" if skipped[0].startswith("#") else '""') + "\n" * skipped[0].count("\n")


def _place(text: str, at: int) -> str:
    return f" (at line {text.count(chr(10), 0, at) + 1})"


Loc: TypeAlias = tuple[str | int, ...]
"""A path to a value: keys and indexes of list items, from the top of the file."""

INSTANT = "write an instant with its offset, without quotes, for instance 2025-10-08T00:00:00Z"
MESSAGES: Mapping[str, str] = {
    "bool_type": "must be true or false",
    "datetime_from_date_parsing": INSTANT,
    "datetime_parsing": INSTANT,
    "dict_type": "must be a table",
    "enum": "must be {expected}",
    "extra_forbidden": "unknown key",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "frozen_set_type": "must be a list",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a table",
    "path_type": "must be a text",
    "string_too_short": "must not be empty",
    "string_type": "must be a text",
    "timezone_aware": INSTANT,
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
"""The wording of each type of pydantic's errors."""


class InputFault(NamedTuple):
    """One fault in a file: where it is and what is wrong."""

    loc: Loc
    words: str

    def line(self, raw: object) -> str:
        """Return the line that reports the fault; `raw` is the parsed file, from which list items get their names."""
        return f"{path(self.loc, raw)}: {self.words}"


def faults_of(error: ValidationError, model: type[BaseModel], text: str = "") -> Iterator[InputFault]:
    """Yield the faults of an error, except for a list that counts as empty only because its items are faulty.

    Args:
        error: what pydantic found.
        model: the model of the whole file, for the keys that an unknown key may be meant to be.
        text: the text of the file, for the line of an unknown key.
    """
    errors = error.errors(include_url=False)
    inside = {each["loc"][:end] for each in errors for end in range(len(each["loc"]))}
    for each in errors:
        if each["type"] != "too_short" or each["loc"] not in inside:
            words = MESSAGES.get(each["type"])
            if each["type"] == "extra_forbidden":
                words = _unknown(each["loc"], model, text)
            yield InputFault(each["loc"], words.format_map(each.get("ctx", {})) if words else each["msg"])


def _unknown(loc: Loc, model: type[BaseModel], text: str) -> str:
    """Word an unknown key: its line in the text, and the known key that is spelt most like it."""
    line, key = _line(loc, text), str(loc[-1])
    keys = [field.alias or name for each in _models(loc[:-1], model) for name, field in each.model_fields.items()]
    found = "unknown key" + (f" (line {line})" if line else "") + did_you_mean(key, keys)
    return found.replace("{", "{{").replace("}", "}}")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a clause that names the word spelt most like an unknown one; empty if none is like it."""
    meant = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {meant[0]}?" if meant else ""


def _line(loc: Loc, text: str) -> int | None:
    """Return the line that has a key: where another key in its place is at the same location when parsed."""
    key, other = str(loc[-1]), "k" * (len(str(loc[-1])) + 1)
    for place in islice(re.finditer(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text), MOST_PLACES):
        try:
            found: Any = tomllib.loads(text[: place.start()] + other + text[place.end() :])
            for part in loc[:-1]:
                found = found[part]
            if other in found:
                return text.count("\n", 0, place.start()) + 1
        except (ValueError, LookupError, TypeError, RecursionError):
            continue  # the key means something else there
    return None


def _models(loc: Loc, model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the models of the tables that may be at a location."""
    models = [model]
    for part in loc:
        if isinstance(part, str):
            fields = [f for each in models for n, f in each.model_fields.items() if part in (n, f.alias)]
            models = [found for field in fields for found in _inside(field.annotation)]
    return models


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _inside(part)


def path(loc: Loc, raw: object) -> str:
    """Return a location as text, for instance `rules[6] (commercial).due[0].period`."""
    text, here = "", raw
    for part in loc:
        if isinstance(part, int):
            if isinstance(here, list):  # not if a single value was given instead of a list
                here = here[part]
                text += f"[{part}]{_name(here)}"
        elif part != "[key]":  # by which pydantic marks a faulty key
            here = here.get(part) if isinstance(here, dict) else None
            text += f".{_key(part)}"
    return text.removeprefix(".") or "(top level)"


def matching(pattern: str, words: str) -> AfterValidator:
    """Return a validator that fails with the message `words` unless the whole text matches the pattern."""
    whole = re.compile(pattern)

    def check(text: str) -> str:
        if whole.fullmatch(text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check)


def duplicates(values: Iterable[tuple[Loc, str]], raw: object, words: str) -> Iterator[InputFault]:
    """Yield a fault for each value that occurred before; `{first}` in `words` stands for its first location."""
    first: dict[str, Loc] = {}
    for loc, value in values:
        if first.setdefault(value, loc) != loc:
            yield InputFault(loc, f"{value!r} {words.format(first=path(first[value], raw))}")


def _name(item: object) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return f" ({name})" if isinstance(name, str) and name.isprintable() and name else ""


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
