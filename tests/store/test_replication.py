"""Legal holds that come by logical replication: an officer places them on one server, and another server is swept.

Both servers are real, and so is the subscription. An apply worker fires row triggers that are ENABLE ALWAYS, and no others.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from sweeper import embedded
from sweeper.policy.schema import Policy
from sweeper.postgres import evidence
from tests.processes import until
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_races import ACCOUNT, fill, swept

LOGICAL = {"wal_level": "logical", "fsync": "off"}


@pytest.fixture
def office() -> Iterator[psycopg.Connection[Any]]:
    """A connection to the server on which holds are placed; it publishes them."""
    with embedded.server(settings=LOGICAL) as server:
        made = stores.copy(server, stores.create(server, "uuid"), "office", "uuid")
        made.execute("CREATE PUBLICATION holds FOR TABLE sweeper.legal_holds")
        with made.connect() as connection:
            yield connection
        made.close()


@pytest.fixture
def swept_here(office: psycopg.Connection[Any]) -> Iterator[Store]:
    """The store on a server of its own, which subscribes to the holds of the other one, with three conversations due."""
    office.execute(
        "INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('before', 'copied at the beginning')"
    )
    with embedded.server(settings={"fsync": "off"}) as server:
        store = stores.copy(server, stores.create(server, "uuid"), "swept", "uuid")
        fill(store, 3)
        name, socket = office.info.dbname, office.info.host
        store.execute(
            f"CREATE SUBSCRIPTION holds CONNECTION 'host={socket} port={office.info.port} user=postgres dbname={name}' "
            "PUBLICATION holds"
        )
        until(lambda: "before" in matters(store))
        yield store
        store.execute("ALTER SUBSCRIPTION holds DISABLE")
        store.execute("ALTER SUBSCRIPTION holds SET (slot_name = NONE)")
        store.execute("DROP SUBSCRIPTION holds")
        store.close()


def matters(store: Store) -> set[str]:
    """The matters of the holds that are to be seen here."""
    return {row[0] for row in store.execute("SELECT matter FROM sweeper.legal_holds")}


def is_applying(store: Store) -> bool:
    """Whether an apply worker waits for a lock."""
    return store.execute(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%' AND wait_event_type = 'Lock'"
    ) == [(True,)]


def test_replicated_hold_waits_for_the_batch_at_work(
    swept_here: Store,
    office: psycopg.Connection[Any],
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
) -> None:
    """A hold that arrives while a batch is at work is not to be seen before that has ended, and holds from then on."""
    original, left = evidence.insert_tombstones, [True]

    def bury(connection: Connection, *args: Any) -> None:
        if left:
            left.pop()
            office.execute("INSERT INTO sweeper.legal_holds (matter, account_id) VALUES ('meanwhile', %s)", [ACCOUNT])
            until(lambda: is_applying(swept_here))
            assert "meanwhile" not in matters(swept_here)
        original(connection, *args)

    def once_seen(size: int) -> None:
        until(lambda: "meanwhile" in matters(swept_here))

    monkeypatch.setattr(evidence, "insert_tombstones", bury)
    from sweeper.runs.throttle import ProgressListener

    result = swept(swept_here, policy, ProgressListener(advance=once_seen), purge={"batch": 1}).as_json()
    assert (result["purged"], result["spared_by_reason"]) == (1, {"protected_after_as_of": 2})
    assert len(swept_here.left()) == 2


def test_replicated_holds_leave_events(swept_here: Store, office: psycopg.Connection[Any]) -> None:
    """A hold that is copied or applied, changed and dropped by replication leaves an event of each here, too."""
    office.execute("INSERT INTO sweeper.legal_holds (matter, account_id) VALUES ('applied', %s)", [ACCOUNT])
    office.execute("UPDATE sweeper.legal_holds SET released_at = now() WHERE matter = 'applied'")
    office.execute("DELETE FROM sweeper.legal_holds WHERE matter = 'applied'")
    office.execute("INSERT INTO sweeper.legal_holds (matter) VALUES ('last')")
    until(lambda: "last" in matters(swept_here))
    told = swept_here.execute(
        "SELECT kind, COALESCE(details -> 'now', details -> 'was') ->> 'matter' FROM sweeper.events "
        "WHERE kind LIKE 'hold%%' ORDER BY id"
    )
    assert told == [
        ("hold_added", "before"),
        *((f"hold_{what}", "applied") for what in ("added", "changed", "dropped")),
        ("hold_added", "last"),
    ]
