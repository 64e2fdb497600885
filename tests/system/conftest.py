"""A store as the sweeper sees it through pgbouncer, beside the same store without it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from sweeper import embedded
from tests.store.stores import Store
from tests.store.test_races import configure
from tests.system import pooler as poolers
from tests.system.pooler import SERVERS, Pooler

DEFAULTS = {
    "search_path": "public",
    "TimeZone": "America/New_York",
    "DateStyle": "SQL, DMY",
    "statement_timeout": "61s",
    "deadlock_timeout": "120s",  # a batch that a test holds must not run into its own time bound, which follows this
}
"""Defaults of the database that are not what the sweeper sets, so that either would be told from the other."""


@pytest.fixture(scope="session")
def pooler(server: embedded.Server) -> Iterator[Pooler]:
    """A pgbouncer in front of this test process's server."""
    with poolers.pooler(server) as running:
        yield running


@pytest.fixture
def pooled(store: Store, pooler: Pooler) -> Iterator[Store]:
    """The test's store through the pool, with all server connections open, so that each transaction gets another one."""
    for setting, value in DEFAULTS.items():
        configure(store, setting, value)
    name = store.execute("SELECT current_database()")[0][0]
    through = Store(pooler.url(name, "sweeper"), store.id_type)
    with clients(through):
        pass
    yield through
    through.close()


@contextmanager
def clients(pooled: Store) -> Iterator[list[psycopg.Connection[Any]]]:
    """Plain clients of the pool, each in a transaction; together they have all its server connections."""
    with ExitStack() as opened:
        found = [opened.enter_context(psycopg.connect(pooled.program)) for _ in range(SERVERS)]
        pids = {client.execute("SELECT pg_backend_pid()").fetchone() for client in found}
        assert len(pids) == SERVERS
        yield found
