"""Databases in which nothing is granted but what deploy/postgres/roles.sql grants, and one with nothing in it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from sweeper import embedded
from sweeper.postgres import migrate
from tests.store import stores
from tests.store.stores import PEOPLE, ROLES, Store

_numbers = count(1)


@pytest.fixture(scope="session")
def ruled_template(server: embedded.Server) -> str:
    """A database with the sweeper's tables, the reference store and the file's roles, and nothing else."""
    name = "ruled_template"
    with stores.administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    store = Store(server.url(name), "uuid")
    migrate.migrate(store.database())
    for script in (stores.reference("uuid"), ROLES, PEOPLE):
        store.execute(script)
    store.close()
    return name


@pytest.fixture
def ruled(shared: Callable[[str, str], stores.SharedDatabase], ruled_template: str) -> Iterator[Store]:
    """A copy of it, as the job sees it."""
    with shared(ruled_template, "uuid").lent() as store:
        yield store


@pytest.fixture
def nothing(server: embedded.Server) -> Iterator[Store]:
    """A database with nothing in it, as the job sees it."""
    name = f"nothing_{next(_numbers)}"
    with stores.administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    store = Store(server.url(name), "uuid").acting("sweeper")
    yield store
    store.close()
    stores.drop(server, name)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads, all ended with the test."""
    with ThreadPoolExecutor(12) as pool:
        yield pool
