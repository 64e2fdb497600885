"""What every test may ask for. All modules are imported here, before any clock is frozen."""

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import structlog

from sweeper import embedded
from sweeper.policy import schema as policies
from tests.acceptance.commands import Command, in_process
from tests.store import stores

ROOT = Path(__file__).parents[1]
_numbers = count(1)


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """A command that ran in this process logs to a stream that closes with its test: the next test starts without it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def policy() -> policies.Policy:
    """The shipped policy."""
    return policies.parse((ROOT / "config" / "policy.toml").read_text())


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    """A PostgreSQL of this test process's own."""
    with embedded.server() as running:
        yield running


@pytest.fixture(scope="session")
def templates(server: embedded.Server) -> dict[str, str]:
    """The template databases by id type."""
    return {id_type: stores.create(server, id_type) for id_type in stores.ID_TYPES}


@pytest.fixture
def store(server: embedded.Server, templates: dict[str, str], request: pytest.FixtureRequest) -> Iterator[stores.Store]:
    """A fresh database of this test's own with uuid ids; parametrise it indirectly with another id type."""
    id_type: str = getattr(request, "param", "uuid")
    name = f"test_{next(_numbers)}"
    opened = stores.copy(server, templates[id_type], name, id_type)
    yield opened
    opened.close()
    stores.drop(server, name)


@pytest.fixture
def sweeper(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: stores.Store) -> Command:
    """A command on the test's store, in this process."""
    return partial(in_process, monkeypatch, capsys, store)
