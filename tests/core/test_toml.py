"""Parsing of TOML: hostile texts are refused quickly with one line, all others parse as with tomllib."""

import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import toml
from sweeper.policy.schema import PolicyError
from sweeper.policy.schema import parse as parse_policy
from sweeper.toml import DEEPEST, MOST_DIGITS, MOST_PARTS, TomlError

ROOT = Path(__file__).parents[2]
HOSTILE = {
    "too long": ("# " * 600_000, "more than 1048576 characters"),
    "arrays": ("a = " + "[" * 100_000, "nested more than 32 deep (at line 1)"),
    "closed arrays": ("\na = " + "[" * 20_000 + "]" * 20_000, "nested more than 32 deep (at line 2)"),
    "inline tables": ("a = " + "{a = " * 5_000 + "1" + "}" * 5_000, "nested more than 32 deep"),
    "number": ("a = " + "9" * 10_000, "a number of more than 100 digits"),
    "negative number": ("a = -" + "9" * 10_000, "a number of more than 100 digits"),
    "hexadecimal number": ("a = 0x" + "f" * 10_000, "a number of more than 100 digits"),
    "fraction": ("a = 0." + "1" * 10_000, "a number of more than 100 digits"),
    "dotted key": (".".join("a" * 50_000) + " = 1", "a key of more than 16 parts"),
    "quoted key": (" . ".join(['"a"'] * 50_000) + " = 1", "a key of more than 16 parts"),
    "header": ("x = 1\n\n[" + ".".join("a" * 50_000) + "]", "a key of more than 16 parts (at line 3)"),
    "behind a text": ('a = """\n[[["""\nb' + ".b" * 50_000 + " = 1", "a key of more than 16 parts (at line 3)"),
    "behind a text of quotes": ('a = """x"""""\nb' + ".b" * 50_000 + " = 1", "a key of more than 16 parts (at line 2)"),
    "no day": ("a = 2025-02-30T00:00:00Z", "Invalid date or datetime"),
    "open text": ('"""\n' * 200_001, "(at line 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name: str) -> None:
    """A text that would exhaust the parser's stack, or take minutes, is refused with the line of the fault."""
    text, expected = HOSTILE[name]
    with pytest.raises(TomlError) as refused:
        toml.parse(text)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(PolicyError):
        parse_policy(text)


def test_limits() -> None:
    """A text at a limit is parsed; one step beyond it is refused."""
    deep = "a = " + "[" * DEEPEST + "]" * DEEPEST
    dotted = ".".join("a" * MOST_PARTS) + " = 1"
    number = "a = " + "9" * MOST_DIGITS
    for text in (deep, dotted, number):
        assert toml.parse(text) == tomllib.loads(text)
    for text in (deep.replace("[", "[[", 1), f"a.{dotted}", f"{number}9"):
        with pytest.raises(TomlError):
            toml.parse(text)


ORDINARY = {
    "in a text": 'a = "' + "x." * 1_000 + "[" * 100 + "9" * 200 + '"',
    "in a literal text": "a = '" + "x." * 1_000 + "[" * 100 + "'",
    "in lines": 'a = """\n' + "x." * 1_000 + '\\"""' + "[" * 100 + '"""""',
    "in literal lines": "a = '''\n" + "x." * 1_000 + "[" * 100 + "'''",
    "in a comment": "a = 1 # it's " + "x." * 1_000 + "[" * 100 + "9" * 200,
    "list": "a = [" + ", ".join(f'"plan.{n}"' for n in range(1_000)) + "]",
    "fractions": "a = [" + ", ".join(["1.5"] * 1_000) + "]",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_texts(name: str) -> None:
    """Dots, brackets and digits in strings and comments do not count towards the limits, nor does the length of a list."""
    assert toml.parse(ORDINARY[name]) == tomllib.loads(ORDINARY[name])


@pytest.mark.parametrize("file", sorted((ROOT / "config").rglob("*.toml")), ids=lambda file: file.name)
def test_shipped_files(file: Path) -> None:
    """The shipped files parse as with tomllib."""
    assert toml.parse(file.read_text()) == tomllib.loads(file.read_text())


PIECES = (*"[]{}a.=\"'\\#\n9-, \0é\ud800", '"""', "'''")


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_text(text: str) -> None:
    """Any text parses as with tomllib, or raises `TomlError`."""
    try:
        found = toml.parse(text)
    except TomlError:
        return
    assert found == tomllib.loads(text)


@given(st.sampled_from(PIECES), st.sampled_from(PIECES), st.integers(1, 30_000))
def test_any_repetition(one: str, two: str, times: int) -> None:
    """No repetition of two pieces takes long or raises another error."""
    for text in ((one + two) * times, "a = " + one * times + two * times):
        with suppress(TomlError):
            toml.parse(text)
