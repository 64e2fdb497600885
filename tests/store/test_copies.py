"""Copies elsewhere are told what was purged: in the order of the evidence, at least once, and without holding a purge up."""

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from sweeper import applications, embedded, toml
from sweeper.copies import delivery, lag
from sweeper.copies.delivery import Delivery
from sweeper.copies.lag import CopyLag
from sweeper.daemon import jobs
from sweeper.daemon.serve import Daemon
from sweeper.errors import ConfigurationError
from sweeper.evidence import export as exports
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.policy.window import Slice
from sweeper.postgres.stop import StopRequest
from sweeper.report import status
from sweeper.runs import sweep as sweeps
from sweeper.runs.backfill import BackfillScope, begin
from sweeper.runs.backfill_runner import BackfillRunner
from sweeper.runs.job import Job
from sweeper.runs.result import Result
from sweeper.settings import load
from tests.acceptance import commands
from tests.facts import instant
from tests.processes import started, until
from tests.store.operated import NOW, chat, ran, world
from tests.store.stores import Store, frozen

SECRET = "a secret of thirty-two characters"  # noqa: S105 — made up
GUARDS = {"history": False, "volume": False}
QUICK: dict[str, Any] = {"attempts": 1, "timeout_seconds": 30.0}

BURY = """
INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)
VALUES (%s, %s, 'standard', now(), now(), %s, 'd', '{}', false, now())
"""


class Index:
    """A search index with an HTTP API: it answers with `status`, or not at all until `wake` is set if that is 0."""

    def __init__(self) -> None:
        self.status, self.wake = 200, Event()
        self.meanwhile: Callable[[], object] = lambda: None  # what happens before it answers
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                index.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                index.meanwhile()
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


def purge(store: Store, policy: Policy, copy: dict[str, Any], *names: str) -> Result:
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
    with psycopg.connect(store.libpq) as slow:
        slow.execute(BURY, ["conversation", "late", run_id])
        store.execute(BURY, "conversation", "early", run_id)
        assert deliver(store, copy)[0].records == 1
        slow.commit()
    assert behind(store, copy).records == 1
    assert deliver(store, copy)[0].records == 1
    store.execute("UPDATE sweeper.copies SET next_leaf = 0")  # the order is that of the leaves, not of the ids
    assert deliver(store, copy)[0].records == 2
    assert index.told() == ["early", "late"] * 2


def test_other_stores_and_kinds(store: Store, index: Index) -> None:
    """A copy is told of its own store and its kinds of records only."""
    mine, other = ran(store, {}), ran(store, {}, schema="other")
    for record, id_, run_id in (("feedback", "f", mine), ("conversation", "c", mine), ("conversation", "o", other)):
        store.execute(BURY, record, id_, run_id)
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
    index.status, copy = 0, of(index, timeout_seconds=3600.0)
    hanging = threads.submit(purge, store, policy, copy, "c1")
    until(lambda: bool(index.got))
    store.load({**world(chat("c2", timedelta(days=3))), "accounts": []})
    second = sweeps.sweep(job(store, policy, of(index, name="other", timeout_seconds=0.05)))
    assert (second.count, second.outcome, hanging.done()) == (1, "completed", False)
    assert behind(store, of(index, name="other")).last_error == "no answer within 0.05 s"
    store.database(store.settings(guards=GUARDS, copies=[copy])).stop.ask()
    assert hanging.result().count == 1
    assert store.execute("SELECT name FROM sweeper.copies WHERE claimed_until > now()") == []
    assert behind(store, copy).records == 2


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


def written(folder: Path, *copies: dict[str, Any], before: str = "") -> str:
    """A settings file with copies."""
    tables = (
        "\n".join(["[[copies]]", *(f"{key} = {json.dumps(value)}" for key, value in copy.items())]) for copy in copies
    )
    (folder / "sweeper.toml").write_text("\n".join([before, *tables]))
    return str(folder / "sweeper.toml")


def test_killed(store: Store, policy: Policy, index: Index, tmp_path: Path) -> None:
    """Killed after the copy has acknowledged and before the cursor has moved: it is sent again, and the events say it once."""
    index.status = 500
    purge(store, policy, of(index), "c1")
    index.status, index.got = 200, []
    config = written(tmp_path, of(index), before="[database]\nlock_timeout_ms = 60000")
    environment = {**os.environ, **commands.environment(store), "SWEEPER_CONFIG": config}
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(store.libpq) as holder:
        index.meanwhile = lambda: holder.execute("SELECT FROM sweeper.copies FOR UPDATE")
        with started([sys.executable, "-m", "sweeper.cli", "copies", "deliver"], env=environment) as process:
            until(lambda: bool(store.execute(waiting)), process)
            process.kill()
            process.wait()
        index.meanwhile = lambda: None
        store.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'sweeper'")
    assert (behind(store, of(index)).records, events(store)) == (1, [])
    assert deliver(store, of(index))[0].outcome == "claimed"
    store.execute("UPDATE sweeper.copies SET claimed_until = now()")  # as if the claim had ended
    assert deliver(store, of(index))[0].records == 1
    assert index.told() == [*buried(store), *buried(store)]
    assert [event["records"] for event in events(store)] == [1]


def test_taken_over(store: Store, policy: Policy, index: Index) -> None:
    """A process that was frozen while another took its copy over moves no cursor."""
    index.status = 500
    purge(store, policy, of(index), "c1")
    index.status = 200
    index.meanwhile = lambda: store.execute("UPDATE sweeper.copies SET claimed_until = now() + interval '1 hour'")
    assert deliver(store, of(index))[0].outcome == "claimed"
    assert (behind(store, of(index)).records, events(store)) == (1, [])


def test_commands(sweeper: commands.Command, store: Store, policy: Policy, index: Index, tmp_path: Path) -> None:
    """`copies deliver` and `copies list`, `status`, `report` and the metrics tell the same, and the exit code tells a failure."""
    config = {"SWEEPER_CONFIG": written(tmp_path, of(index, backoff_seconds=0))}
    config["SWEEPER_COPY_SECRET_INDEX"] = SECRET
    index.status = 404
    purge(store, policy, of(index), "c1", "c2")
    done = sweeper("copies", "deliver", **config)
    assert done.code == 1
    assert done.out.startswith(
        "index: 0 records delivered, then it FAILED: the URL answered 404. What is missing is sent again"
    )
    (listed,) = json.loads(sweeper("copies", "list", "--json", **config).out)
    assert (listed["copy"], listed["records"], listed["last_error"]) == ("index", 2, "the URL answered 404")
    assert listed["failed_at"] is not None
    shown = sweeper("status", **config).out
    assert "copy      index: 2 purged records behind, the oldest for" in shown
    assert "! Copy index has not acknowledged 2 purged records" in shown
    assert json.loads(sweeper("status", "--json", **config).out)["upkeep"]["copies"][0]["records"] == 2
    assert json.loads(sweeper("report", "--json", **config).out)["copies"][0]["records"] == 2
    assert "copy index: 2 purged records behind" in sweeper("report", "--textfile", str(tmp_path / "m"), **config).out
    assert (
        f'sweeper_copy_behind_records{{copy="index",store="{store.url.split("/")[3].split("?")[0]}/store"}} 2.0'
        in (tmp_path / "m").read_text()
    )
    index.status = 200
    assert sweeper("copies", "deliver", "index", **config).out == "index: 2 records delivered.\n"
    (listed,) = json.loads(sweeper("copies", "list", "--json", **config).out)
    assert (listed["records"], listed["seconds"], listed["failed_at"], listed["last_error"]) == (0, 0.0, None, None)
    assert "copy      index: has been told all that was purged" in sweeper("status", **config).out
    unknown = sweeper("copies", "deliver", "indx", **config)
    assert (unknown.code, "no copy is named 'indx'" in unknown.err) == (2, True)


@pytest.mark.parametrize(
    ("copy", "fault"),
    [
        ({"url": "http://search.example/x"}, "copies[0] (c).url: must be https://host/path"),
        ({"url": "https://u:p@search.example/x"}, "must have no user and no password"),
        ({"url": "https://host:port/x"}, "is not a URL"),
        ({}, "copies[0] (c): must have either command or url"),
        ({"url": "https://h/x", "command": ["x"]}, "copies[0] (c): must have either command or url"),
        ({"command": ["x"], "not_found_is_success": True}, "go with url, and not with command"),
        ({"url": "https://h/x", "body": "{}"}, 'must have the text "$record_ids"'),
        ({"url": "https://h/x", "body": "{"}, "must be JSON"),
        ({"url": "https://h/x", "body": '["$record_ids"]', "records": ["conversation", "feedback"]}, "records must be one kind"),
        ({"command": ["/no/such/program"]}, "'/no/such/program' is no program that can be started"),
        ({"url": "https://h/x"}, "no secret signs what it gets"),
        ({"url": "https://h/x", "secret_file": "/no/such/file"}, "secret_file /no/such/file: cannot be read"),
        ({"url": "https://h/x", "body": '["$record_ids"]', "headers_file": __file__}, "is not `Name: value`"),
    ],
)  # fmt: skip
def test_bad_input(sweeper: commands.Command, store: Store, tmp_path: Path, copy: dict[str, Any], fault: str) -> None:
    """A run with settings that cannot work purges nothing and says what to fix; so do the preview and `check`."""
    store.load(world(chat("c1", timedelta(days=3))))
    config = {"SWEEPER_CONFIG": written(tmp_path, {"name": "c", **copy}, before="[guards]\nhistory = false")}
    for words in (("run",), ("run", "--dry-run"), ("copies", "deliver")):
        done = sweeper(*words, **config)
        assert (done.code, fault in done.err, "othing was done" in done.err) == (2, True, True), done
    assert store.left() == {store.id("c1")}
    checked = sweeper("check", "--no-trial", **config)
    assert checked.code in (1, 2)
    assert fault in checked.out + checked.err


def test_two_of_one_name(tmp_path: Path) -> None:
    """Two copies with one cursor would each be told a part."""
    copy = {"name": "c", "command": ["true"]}
    with pytest.raises(ConfigurationError, match="'c' is there twice"):
        load(Path(written(tmp_path, copy, copy)), {})


@pytest.mark.parametrize(
    ("status", "said"), [(0, "ok       copy c: its command starts"), (1, "fault    copy c: the command exited with 1")]
)
def test_check_starts_the_command(
    sweeper: commands.Command, store: Store, tmp_path: Path, status: int, said: str
) -> None:
    """`check` starts a command with nothing to delete, and connects to a URL."""
    copies = [
        {"name": "c", "command": [sys.executable, "-c", f"import sys; sys.exit({status} or len(sys.stdin.read()))"]}
    ]
    copies += [{"name": "d", "url": "https://127.0.0.1:9/x", "body": '["$record_ids"]'}]
    done = sweeper("check", "--no-trial", SWEEPER_CONFIG=written(tmp_path, *copies))
    assert said.lower() in done.out.lower()
    assert "copy d: the copy could not be reached (Connection refused)" in done.out
    assert done.code == 1


def test_job_of_the_daemon(store: Store, policy: Policy, index: Index) -> None:
    """`serve` has a job for copies if there is one; a copy that does not acknowledge makes it fail."""
    index.status = 500
    purge(store, policy, of(index), "c1")
    settings = store.settings(copies=[of(index)])
    context = jobs.JobContext(lambda: settings, frozen(NOW), StopRequest())
    ended = jobs.perform("copies", context)
    assert (ended.outcome, ended.result) == ("failed", {"index": "failed"})
    index.status = 200
    ended = jobs.perform("copies", context)
    assert (ended.outcome, ended.result) == ("completed", {"index": "delivered"})
    assert "copies" in Daemon(lambda: settings, frozen(NOW)).timetable
    assert "copies" not in Daemon(store.settings, frozen(NOW)).timetable


def test_backfill_delivers_at_its_end(store: Store, policy: Policy, index: Index) -> None:
    """No slice of a backfill waits for a copy: it is told once, when all slices are done."""
    store.load(world(chat("c1", timedelta(days=3)), chat("c2", timedelta(days=40))))
    index.meanwhile = lambda: left.append(store.left())
    left: list[set[str]] = []
    scope = BackfillScope(instant("2026-04-01T00:00:00Z"), instant("2026-06-01T00:00:00Z"), Slice.MONTH)
    made = job(store, policy, of(index))
    assert BackfillRunner(made, begin(made, scope, sweeps.preview(made, scope=scope).approval)).run().purged_now == 2
    assert (left, index.told()) == ([set()], buried(store))


def test_restored(sweeper: commands.Command, store: Store, policy: Policy, index: Index, tmp_path: Path) -> None:
    """After a restore the cursor is as old as the backup, and `reapply` tells the copy what it purges again."""
    purge(store, policy, of(index), "c1")
    exports.write(store.database(), tmp_path / "ledger.jsonl")
    store.execute("UPDATE sweeper.copies SET next_leaf = 0")  # as the backup had it
    store.load({**world(chat("c1", timedelta(days=3))), "accounts": []})
    config = {"SWEEPER_CONFIG": written(tmp_path, of(index)), "SWEEPER_COPY_SECRET_INDEX": SECRET}
    done = sweeper("reapply", "--ledger", str(tmp_path / "ledger.jsonl"), "--accept-unsigned", **config)
    assert done.code == 0, done
    assert index.told() == [store.id("c1")] * 3


def test_vectors_of_files_that_went(store: Store, policy: Policy, server: embedded.Server) -> None:
    """The command that Open WebUI's settings suggest deletes the vectors of files that are gone, and no other."""
    commented = (applications.FOLDER / "open-webui" / "sweeper.toml").read_text().partition("# [[copies]]")[2]
    (copy,) = toml.parse("[[copies]]" + commented.replace("\n# ", "\n"))["copies"]
    copy["command"] = [str(server.programs / copy["command"][0]), *copy["command"][1:]]
    copy["command"][copy["command"].index("service=openwebui")] = f"{store.libpq}&options=-csearch_path%3Dstore"
    store.execute("CREATE TABLE file (id text); CREATE TABLE document_chunk (collection_name text)")
    store.execute("INSERT INTO file VALUES ('stays')")
    store.execute(
        "INSERT INTO document_chunk VALUES ('file-stays'), ('file-went'), ('file-went'), ('user-memory-went')"
    )
    purge(store, policy, copy, "c1")
    assert behind(store, copy).records == 0
    assert store.execute("SELECT * FROM document_chunk ORDER BY 1") == [("file-stays",), ("user-memory-went",)]
