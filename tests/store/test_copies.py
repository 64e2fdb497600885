"""Copies elsewhere are told what was purged: in the order of the evidence, at least once, and without holding a purge up."""

import hashlib
import hmac
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from sweeper.clock import Clock
from sweeper.copies import delivery, lag
from sweeper.copies.delivery import Delivery
from sweeper.copies.lag import CopyLag
from sweeper.errors import ConfigurationError
from sweeper.evidence import checkpoint
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.report import status
from sweeper.runs import sweep as sweeps
from sweeper.runs.job import Job
from sweeper.runs.result import Result
from tests.acceptance import commands
from tests.facts import instant
from tests.processes import children, started, until
from tests.store.operated import NOW, chat, exported, ran, read, world
from tests.store.stores import Store, frozen

SECRET = "a secret of thirty-two characters"
GUARDS = {"history": False, "volume": False}
QUICK: dict[str, Any] = {"attempts": 1, "timeout_seconds": 30.0}


class Index:
    """A search index with an HTTP API: it answers with `status`, or not at all until `wake` is set if that is 0."""

    def __init__(self) -> None:
        self.status, self.wake = 200, Event()
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                index.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                if not index.status:
                    index.wake.wait(60)
                self.send_response(index.status or 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client has gone
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def told(self) -> list[str]:
        """The ids of all POSTs of JSON lines, in order."""
        return [json.loads(line)["record_id"] for _, _, body in self.got for line in body.splitlines()]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A search index on this machine."""
    monkeypatch.setenv("SWEEPER_COPY_SECRET_INDEX", SECRET)
    found = Index()
    thread = Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.wake.set()
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture(autouse=True)
def emptied(store: Store) -> Iterator[None]:
    """The cursors of a test are gone with it."""
    yield
    store.execute("DELETE FROM sweeper.copies")


def of(index: Index, **settings: Any) -> dict[str, Any]:
    """The settings of a copy behind a URL."""
    return {"name": "index", "url": f"{index.url}/purged", **QUICK, **settings}


def purge(store: Store, policy: Policy, copy: dict[str, Any], *names: str, stop: bool = False) -> Result:
    """A run that purges these conversations and tells the copy."""
    store.execute("DELETE FROM conversations")
    if not store.execute("SELECT 1 FROM accounts"):
        store.load(world())
    store.load({**world(*(chat(name, timedelta(days=3)) for name in names)), "accounts": []})
    return sweeps.sweep(job(store, policy, copy))


def job(store: Store, policy: Policy, *copies: dict[str, Any]) -> Job:
    """A job whose settings name copies."""
    return store.job(policy, NOW, guards=GUARDS, copies=copies)


def deliver(store: Store, *copies: dict[str, Any], now: str = NOW) -> list[Delivery]:
    """Deliver, as the job and the command do."""
    return delivery.deliver(store.database(store.settings(copies=copies)), frozen(now))


def behind(store: Store, *copies: dict[str, Any], now: str = NOW) -> CopyLag:
    """How far the first copy lags."""
    database = store.database(store.settings(copies=copies))
    return database.within(lambda c: lag.read(c, database.settings, instant(now)))[0]


def events(store: Store) -> list[dict[str, Any]]:
    """What the events say of deliveries."""
    return [
        row[0] for row in store.execute("SELECT details FROM sweeper.events WHERE kind = 'copy_delivered' ORDER BY id")
    ]


def buried(store: Store) -> list[str]:
    """The ids of all purged conversations in the order of their leaves."""
    rows = store.execute(
        "SELECT t.record_id FROM sweeper.leaves l JOIN sweeper.tombstones t "
        "ON t.id BETWEEN l.first_id AND l.first_id + l.length - 1 WHERE l.source = 'tombstones' ORDER BY l.first, t.id"
    )
    return [row[0] for row in rows]


def test_signed_post(store: Store, policy: Policy, index: Index) -> None:
    """A run ends with a signed POST of ids and times, and no content; an event tells which leaves were acknowledged."""
    chats = [
        chat("c1", timedelta(days=3), messages=[{"id": "m1", "author": "user", "created_at": "2026-04-01T00:00:00Z"}])
    ]
    store.load(world(*chats))
    store.execute("UPDATE messages SET body = 'secret words'")
    assert sweeps.sweep(job(store, policy, of(index))).outcome == "completed"
    ((path, headers, body),) = index.got
    assert (path, headers["sweeper-copy"], headers["content-type"]) == ("/purged", "index", "application/x-ndjson")
    signed = hmac.new(SECRET.encode(), headers["sweeper-timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["sweeper-signature"] == f"sha256={signed}"
    (line,) = map(json.loads, body.splitlines())
    due = rfc3339(instant(NOW) - timedelta(days=3))
    assert line == {
        "record": "conversation", "record_id": store.id("c1"), "conversation_id": store.id("c1"), "account_id": store.id("a1"),
        "rule": "standard", "due_at": due, "purged_at": NOW, "run_id": 1, "leaf": line["leaf"],
    }  # fmt: skip
    assert events(store) == [
        {"store": "store", "copy": "index", "records": 1, "from_leaf": line["leaf"], "to_leaf": line["leaf"]}
    ]
    assert deliver(store, of(index)) == [Delivery("index", next_leaf=line["leaf"] + 1)]
    assert len(index.got) == 1


def test_down_for_three_days(store: Store, policy: Policy, index: Index) -> None:
    """While a copy is down runs purge, its lag grows, and the status does not say that nothing is wrong; then it catches up."""
    copy = of(index, batch=2)
    for night, answer in enumerate((500, 503, 404)):
        index.status = answer
        assert purge(store, policy, copy, f"c{night}a", f"c{night}b", f"c{night}c").count == 3
        found = behind(store, copy)
        assert (found.records, found.next_leaf, found.last_error) == (3 * (night + 1), 0, f"the URL answered {answer}")
    later = rfc3339(instant(NOW) + timedelta(days=3))
    assert behind(store, copy, now=later).seconds == timedelta(days=3).total_seconds()
    database = store.database(store.settings(copies=[copy]))
    (advice,) = [line for line in status.read(database, frozen(NOW)).advice if line.startswith("Copy")]
    assert advice.startswith(
        "Copy index has not acknowledged 9 purged records, the oldest for 0.0 s. The last delivery failed: "
    )
    index.status, index.got = 200, []
    assert deliver(store, copy)[0].records == 9
    assert index.told() == buried(store)
    assert len(index.told()) == 9
    found = behind(store, copy)
    assert (found.records, found.seconds, found.failed_at, found.last_error) == (0, 0.0, None, None)
    assert [event["records"] for event in events(store)] == [2, 2, 2, 2, 1]
    assert [line for line in status.read(database, frozen(NOW)).advice if line.startswith("Copy")] == []


def test_commits_late(store: Store, index: Index) -> None:
    """A tombstone that commits after a later one was delivered is delivered next."""
    copy, run_id = of(index), ran(store, {})
    insert = (
        "INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)"
        f" VALUES ('conversation', %s, 'standard', now(), now(), {run_id}, 'd', '{{}}', false, now())"
    )
    with psycopg.connect(store.libpq) as slow:
        slow.execute(insert, ["late"])
        store.execute(insert, "early")
        assert deliver(store, copy)[0].records == 1
        slow.commit()
    assert behind(store, copy).records == 1
    assert deliver(store, copy)[0].records == 1
    assert index.told() == ["early", "late"]


def test_other_stores_and_kinds(store: Store, index: Index) -> None:
    """A copy is told of its own store and its kinds of records only."""
    mine, other = ran(store, {}), ran(store, {}, schema="other")
    insert = (
        "INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)"
        " VALUES (%s, %s, 'standard', now(), now(), %s, 'd', '{}', false, now())"
    )
    for record, id_, run_id in (("feedback", "f", mine), ("conversation", "c", mine), ("conversation", "o", other)):
        store.execute(insert, record, id_, run_id)
    assert (deliver(store, of(index))[0].records, index.told()) == (1, ["c"])
    both = of(index, records=["conversation", "feedback"])
    store.execute("UPDATE sweeper.copies SET next_leaf = 0")
    assert (behind(store, both).records, deliver(store, both)[0].records) == (2, 2)


def test_many_at_once(store: Store, policy: Policy, index: Index, threads: ThreadPoolExecutor) -> None:
    """Of several processes one delivers, the others say so, and nothing is sent twice."""
    index.status = 500
    copy = of(index, batch=1, attempts=1)
    purge(store, policy, copy, *(f"c{number}" for number in range(8)))
    index.status, index.got = 200, []
    found = list(threads.map(lambda _: deliver(store, copy)[0], range(6)))
    assert sum(each.records for each in found) == 8
    assert {each.outcome for each in found} <= {"delivered", "claimed"}
    assert index.told() == buried(store)


def test_hangs(
    store: Store, policy: Policy, index: Index, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a copy hangs another run purges, and the delivery ends with the time limit, or soon after a stop request."""
    monkeypatch.setenv("SWEEPER_COPY_SECRET_OTHER", SECRET)
    index.status = 0
    hanging = threads.submit(purge, store, policy, of(index), "c1")
    until(lambda: bool(index.got))
    store.load({**world(chat("c2", timedelta(days=3))), "accounts": []})
    second = sweeps.sweep(job(store, policy, of(index, name="other", timeout_seconds=0.05)))
    assert (second.count, second.outcome, hanging.done()) == (1, "completed", False)
    assert behind(store, of(index, name="other")).last_error == "no answer within 0.05 s"
    store.database(store.settings(guards=GUARDS, copies=[of(index)])).stop.ask()
    assert hanging.result().count == 1
    assert store.execute("SELECT name FROM sweeper.copies WHERE claimed_until > now()") == []
    assert behind(store, of(index)).records == 2


def test_retried(store: Store, policy: Policy, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that fails is tried again, and waits longer each time; one that would begin too late is not."""
    waits: list[float] = []
    monkeypatch.setattr(delivery._Deliverer, "_sleep", lambda _, seconds: waits.append(seconds))
    index.status = 503
    purge(store, policy, of(index, attempts=4, backoff_seconds=2.0), "c1")
    assert (len(index.got), waits) == (4, [2.0, 4.0, 8.0])
    index.got.clear()
    deliver(store, of(index, attempts=4, backoff_seconds=2.0, seconds=1.5))
    assert len(index.got) == 1


@pytest.mark.parametrize(("settings", "records"), [({}, 0), ({"not_found_is_success": True}, 1)])
def test_not_found(store: Store, policy: Policy, index: Index, settings: dict[str, Any], records: int) -> None:
    """404 is a failure, unless the settings say otherwise."""
    index.status = 404
    purge(store, policy, of(index, **settings), "c1")
    assert sum(event["records"] for event in events(store)) == records


@pytest.mark.parametrize(
    ("path", "template", "header", "sent"),
    [
        (
            "/collections/chats/points/delete?wait=true",
            '{"filter": {"must": [{"key": "conversation_id", "match": {"any": "$record_ids"}}]}}',
            "api-key: k-1",
            lambda ids: {"filter": {"must": [{"key": "conversation_id", "match": {"any": ids}}]}},
        ),
        (
            "/chats/_delete_by_query?refresh=true",
            '{"query": {"terms": {"conversation_id": "$record_ids"}}}',
            "Authorization: ApiKey k-1",
            lambda ids: {"query": {"terms": {"conversation_id": ids}}},
        ),
    ],
    ids=["Qdrant", "Elasticsearch"],
)
def test_delete_apis(
    store: Store, policy: Policy, index: Index, tmp_path: Path, path: str, template: str, header: str,
    sent: Callable[[list[str]], Any],
) -> None:  # fmt: skip
    """The APIs of Qdrant and Elasticsearch get a body of their own and a key from a file; an error leaves the cursor."""
    (tmp_path / "headers").write_text(header + "\n")
    copy = of(index, url=index.url + path, body=template, headers_file=tmp_path / "headers")
    index.status = 409
    purge(store, policy, copy, "c1", "c2")
    index.status = 200
    assert deliver(store, copy)[0].records == 2
    name, _, value = header.partition(": ")
    for got, headers, body in index.got:
        assert (got, headers[name.lower()], headers["content-type"]) == (path, value, "application/json")
        assert json.loads(body) == sent(buried(store))


VECTORS = """
import json, os, sys, psycopg
ids = [json.loads(line)["record_id"] for line in sys.stdin]
assert not any(name.startswith("SWEEPER_") for name in os.environ)
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("DELETE FROM vectors.embeddings WHERE conversation_id = ANY(%s)", [ids])
"""


def test_vectors_by_sql(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command deletes the vectors of what was purged, and no others; one that fails leaves the cursor."""
    monkeypatch.setenv("SWEEPER_SIGNING_KEY_FILE", "/not/for/commands")
    copy = {"name": "vectors", "command": [sys.executable, "-c", VECTORS, store.libpq], **QUICK}
    purge(store, policy, copy, "c1", "c2")
    assert behind(store, copy).last_error == "the command exited with 1"  # there is no such table
    store.execute("CREATE SCHEMA vectors")
    store.execute("CREATE TABLE vectors.embeddings (conversation_id text, embedding real[])")
    store.execute(
        "INSERT INTO vectors.embeddings SELECT unnest(%s::text[]), '{0.1}'", [store.id("c1"), store.id("c2"), "x"]
    )
    assert deliver(store, copy)[0].records == 2
    assert store.execute("SELECT conversation_id FROM vectors.embeddings") == [("x",)]


def test_command_hangs(store: Store, policy: Policy) -> None:
    """A command that does not end is killed with all that it started."""
    hangs = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import signal; signal.pause()'])"
    copy = {"name": "vectors", "command": [sys.executable, "-c", hangs], **QUICK, "timeout_seconds": 0.5}
    assert purge(store, policy, copy, "c1").count == 1
    assert behind(store, copy).last_error == "no answer within 0.5 s"


def test_paused(store: Store, policy: Policy, index: Index) -> None:
    """During a pause nothing is deleted elsewhere either."""
    index.status = 500
    purge(store, policy, of(index), "c1")
    index.got.clear()
    store.execute("INSERT INTO sweeper.pauses (reason, paused_at) VALUES ('audit', '2026-05-31T00:00:00Z')")
    assert (deliver(store, of(index))[0].outcome, index.got) == ("paused", [])
