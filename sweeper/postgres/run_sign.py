"""Shows other sessions what a run is doing and why it waits, as the `application_name` of a connection that is kept meanwhile.

Invariant: nothing is sent over that connection. So it changes no session that a transaction pooler gives to others; behind a
pooler no sign is seen. The sign is gone with the connection, however the process ends. It names no person and no content, because
every role of the server can read it.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection

from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

_SIGN = re.compile(r"sweeper (?P<who>(?:run|backfill) \d+)(?: of (?P<expected>\d+))?(?:: (?P<doing>.*))?")
"""The form of a sign, for instance `sweeper run 12 of 60000: a replica is 80 MB behind, the limit is`."""
OPTIONS = {"connect_timeout": 5, "keepalives_idle": 30}
KEPT_BYTES = 63
"""PostgreSQL cuts the rest of a sign off."""


@dataclass(frozen=True)
class ReadSign:
    """What a sign says: how many conversations the run expects to purge (None: not known yet), and what else it is doing."""

    expected: int | None
    doing: str


@dataclass
class RunSign:
    """The sign of one run or backfill (`who`, for instance `run 12`). If it cannot be shown, the work goes on without."""

    database: Database
    who: str
    expected: int | None = None
    _shown: str = ""
    _kept: psycopg.Connection[Any] | None = None

    def expect(self, count: int) -> None:
        """Show how many conversations it expects to purge; it purges them from now on."""
        self.expected = count
        self.show("")

    def show(self, doing: str) -> None:
        """Show what it is doing instead of purging, for instance why it waits; "" if it purges."""
        of = "" if self.expected is None else f" of {self.expected}"
        text = f"sweeper {self.who}{of}{doing and f': {doing}'}"
        if text == self._shown:
            return
        self.close()
        engine = self.database.engine
        _, parameters = engine.dialect.create_connect_args(engine.url)
        with suppress(psycopg.Error, OSError):
            self._kept = psycopg.connect(**{**parameters, **OPTIONS, "application_name": text})
            self._shown = text

    def close(self) -> None:
        """Take the sign away."""
        if self._kept is not None:
            self._kept.close()
            self._kept, self._shown = None, ""


def read(connection: Connection) -> Mapping[str, ReadSign]:
    """Return the signs of the runs and backfills of this database, by `who`."""
    found = (_SIGN.fullmatch(row.text) for row in connection.execute(statement("signs")))
    return {each["who"]: _sign(each) for each in found if each}


def _sign(found: re.Match[str]) -> ReadSign:
    fields: Mapping[str, Any] = found.groupdict()
    cut = "…" if len(found[0].encode()) >= KEPT_BYTES else ""
    return ReadSign(int(fields["expected"]) if fields["expected"] else None, (fields["doing"] or "") + cut)
