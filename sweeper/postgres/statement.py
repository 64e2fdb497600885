"""Named SQL statements from `queries/*.sql`: one file a noun, in the order in which the statements run.

Each statement begins with `-- name: NAME` and one line of English. Values are bound parameters. What cannot be a parameter
(a table, a column, a type) is written `$name` and filled in, quoted, here. No statement reads a clock to decide anything.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from string import Template

from psycopg.sql import Literal
from sqlalchemy import TextClause, text

FOLDER = Path(__file__).parent / "queries"
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def _sources() -> Mapping[str, str]:
    """The text of every statement by its name.

    Raises:
        ValueError: two statements have one name.
    """
    found: dict[str, str] = {}
    for file in sorted(FOLDER.glob("*.sql")):
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two statements are named {name}; the second is in {file.name}")
            found[name] = body.strip() + "\n"
    return found


def source(name: str) -> str:
    """Return the text of the statement `name`, its `$names` not filled in yet."""
    return _sources()[name]


def filled(name: str, **names: str) -> str:
    """The text of the statement with its `$names` filled in."""
    return Template(source(name)).substitute(names) if names else source(name)


@lru_cache(maxsize=1024)
def statement(name: str, **names: str) -> TextClause:
    """The statement, ready for its parameters."""
    return text(filled(name, **names))


def quoted(identifier: str) -> str:
    """One identifier, quoted."""
    return '"' + identifier.replace('"', '""') + '"'


def identifier(name: str) -> str:
    """One identifier as a person would write it: quoted if it must be."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)


def quoted_path(name: str) -> str:
    """A table name with or without its schema, each part quoted."""
    return ".".join(map(quoted, name.split(".")))


def literal(value: str | datetime | Sequence[str], type_: str) -> str:
    """A value written out as a literal of the type, for a statement that has no parameters."""
    written = value.isoformat() if isinstance(value, datetime) else value
    return f"CAST({Literal(written).as_string(None)} AS {type_})"


NO_PARAMETERS = {"no_parameters": True}
"""Execution options for a statement of literals, so that the driver takes no percent sign for a placeholder."""


def spelling(column: str, type_: str) -> str:
    """What `sweeper.spelling` gives for a column of an id's type, written out where that is quicker than calling it."""
    if type_ == "uuid":
        return f"COALESCE(NULLIF(ltrim(replace({column}::text, '-', ''), '0'), ''), '0')"
    if type_ in ("bigint", "integer", "smallint"):
        return f"replace({column}::text, '-', '')"
    return f"sweeper.spelling({column}::text)"


def inlined(name: str, values: Mapping[str, str]) -> str:
    """The text of the statement with its parameters written into it as text literals, for a client that has no parameters."""
    return _PARAMETER.sub(lambda found: Literal(values[found[1]]).as_string(None), source(name))


_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_PLAIN = re.compile(r"[0-9A-Za-z_,:+.-]+")
_NULL = re.compile(r"(^|,)(null)?(,|$)", re.IGNORECASE)
"""An element that an array's text form would read as NULL, or none at all."""


def array(ids: Iterable[str | None]) -> str | list[str | None]:
    """Ids as a parameter to be cast to an array: as one text where that needs no quoting, which is far quicker to send."""
    listed = list(ids)
    present = [id_ for id_ in listed if id_ is not None]
    joined = ",".join(present)
    if not present or (_PLAIN.fullmatch(joined) and joined.count(",") == len(present) - 1 and not _NULL.search(joined)):
        return "{" + ",".join("NULL" if id_ is None else id_ for id_ in listed) + "}"
    return listed
