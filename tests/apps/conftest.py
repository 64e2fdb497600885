"""The two servers that every adapter is tried on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper import embedded
from tests.apps.application import Application, create
from tests.conftest import SETTINGS

DEBIAN = Path("/usr/lib/postgresql/15/bin")
SERVERS = ("embedded", "debian")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is of `make test-apps`, and of no other target."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.apps)


@pytest.fixture(scope="session")
def debian() -> Iterator[embedded.Server]:
    """Debian's PostgreSQL 15."""
    assert (DEBIAN / "postgres").is_file(), f"there is no {DEBIAN}: apt-get install postgresql-15"
    with embedded.server(settings=SETTINGS, programs=DEBIAN) as running:
        yield running


@pytest.fixture(scope="module", params=SERVERS)
def application(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Application:
    """The application that the module names as APPLICATION, with an empty database on each of the servers."""
    server = request.getfixturevalue("server" if request.param == "embedded" else request.param)
    return create(server, request.module.APPLICATION, tmp_path_factory.mktemp(request.param))
