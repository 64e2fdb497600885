"""What every test may ask for. All modules are imported here, before any clock is frozen."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path

import hypothesis
import pytest
import structlog

from sweeper import embedded
from sweeper.policy import schema as policies
from tests import processes
from tests.acceptance.commands import Command, in_process
from tests.store import stores

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "autovacuum": "off",  # no statistics but those that a test asks for
    "full_page_writes": "off",  # as fsync: nothing of it outlives the server
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}


gc.freeze()  # the modules stay: a collection need not walk them again
hypothesis.settings.register_profile(
    "suite",  # examples may take as long as they take, and share a test's fixtures
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """A command that ran in this process logs to a stream that closes with its test: the next test starts without it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """A test ends and collects the processes that it starts: one that does not fails itself, and disturbs no other."""
    before = _commands().values()  # a server of the module that was started again has the same command
    yield
    left = {child: command for child, command in _commands().items() if command not in before}
    for child in left:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not left, "the test left processes behind"


def _commands() -> dict[int, bytes]:
    """The processes that this one has started, with their commands, but for the one that multiprocessing keeps for good."""
    commands = {}
    for child in processes.children(os.getpid()):
        with suppress(FileNotFoundError):  # collected meanwhile
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"multiprocessing.resource_tracker" not in command:
                commands[child] = command
    return commands


@pytest.fixture(scope="session")
def policy() -> policies.Policy:
    """The shipped policy."""
    return policies.parse((ROOT / "config" / "policy.toml").read_text())


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    """A PostgreSQL of this test process's own."""
    with embedded.server(settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def templates(server: embedded.Server) -> stores.Templates:
    """The template databases by id type."""
    return stores.Templates(server)


@pytest.fixture(scope="session")
def shared(server: embedded.Server) -> Iterator[Callable[[str, str], stores.SharedDatabase]]:
    """The database that tests share, by template and id type."""
    with ExitStack() as closing:

        @cache
        def opened(template: str, id_type: str) -> stores.SharedDatabase:
            database = stores.SharedDatabase(server, template, id_type)
            closing.callback(database.close)
            return database

        yield opened


@pytest.fixture
def store(
    shared: Callable[[str, str], stores.SharedDatabase], templates: stores.Templates, request: pytest.FixtureRequest
) -> Iterator[stores.Store]:
    """An empty database with uuid ids; parametrise it indirectly with another id type."""
    id_type: str = getattr(request, "param", "uuid")
    with shared(templates[id_type], id_type).lent() as opened:
        yield opened


@pytest.fixture
def sweeper(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: stores.Store) -> Command:
    """A command on the test's store, in this process."""
    return partial(in_process, store)
