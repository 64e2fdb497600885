"""The SQL files: every statement has a unique name and a description, and is used."""

import re
from pathlib import Path

from sweeper.postgres import statement

ROOT = Path(statement.__file__).parents[1]
QUERIES = sorted(statement.FOLDER.glob("*.sql"))
BUILT = re.compile(r"""f"((?:ledger|state|manifest|lookup|record|recorded|is_shown)_)\{[\w.]+\}(\w*)\"""")
"""Names that the program puts together."""


def named() -> dict[str, str]:
    """The statements by name, each with its first line."""
    found = [pair for file in QUERIES for pair in re.findall(r"(?m)^-- name: (\w+)\n(.*)$", file.read_text())]
    assert len(found) == len(dict(found)) > 150
    return dict(found)


def test_each_says_what_it_does() -> None:
    """A line of English follows its name."""
    assert [name for name, line in named().items() if not re.match(r"-- [A-Z].*", line)] == []


def test_each_is_used() -> None:
    """Every statement is used, and every used one exists."""
    code = "\n".join(file.read_text() for file in ROOT.rglob("*.py"))
    built = [re.compile(rf"{head}\w+{tail}") for head, tail in BUILT.findall(code)]
    unused = [n for n in named() if f'"{n}"' not in code and not any(each.fullmatch(n) for each in built)]
    assert unused == []
    asked = set(re.findall(r"""(?<!parameter_)(?:statement|source|filled|rows|suspect)\(\s*"(\w+)\"""", code))
    assert asked - set(named()) <= {"tombstones", "events"}
