"""The daemon as a process: it sweeps by itself, answers over HTTP, and ends in order within ten seconds, whatever it is at."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import make_url

from tests.acceptance import test_kill as kill
from tests.acceptance.commands import Command, environment, in_process
from tests.acceptance.test_kill import BATCH, DUE, KEPT, gate, outcomes
from tests.processes import started, until
from tests.store.stores import POLICY, Store

PROMISED_SECONDS = 10
SETTINGS = """
[database]
lock_timeout_ms = 60000
statement_timeout_ms = 60000
[policy]
file = "{policy}"
[purge]
batch = {batch}
{purge}
[objects]
prefixes = ["{objects}"]
[lease]
seconds = 1.0
[guards]
history = false
[schedule]
sweep = "0 0 1 1 *"
report = ""
checkpoint = ""
"""
EXPIRED = DUE + KEPT - 1
"""By now all conversations of the store are due but the one under hold."""


@dataclass(frozen=True)
class Daemon:
    """`sweeper serve --json` at work; both streams go to files."""

    process: subprocess.Popen[str]
    folder: Path
    name: str

    def lines(self, stream: str) -> list[dict[str, Any]]:
        """What it has written so far."""
        written = (self.folder / f"{self.name}.{stream}").read_text()
        return [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log of one kind."""
        return [line for line in self.lines("err") if line["event"] == event]

    def ends(self) -> list[tuple[str, str]]:
        """Which jobs have ended, and how."""
        return [(line["job"], line["outcome"]) for line in self.lines("out")]

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first line of a kind, once it is there."""
        until(lambda: bool(self.said(event)), self.process)
        return self.said(event)[0]

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """The status and the body of an answer."""
        request = urllib.request.Request(f"http://{self.said('serving')[0]['address']}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=PROMISED_SECONDS) as answer:  # noqa: S310 — the address is the daemon's
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def ready(self) -> tuple[int, dict[str, Any]]:
        """What /readyz answers."""
        status, body = self.get("/readyz")
        return status, json.loads(body)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, which is there within the time that is promised."""
        self.process.send_signal(number)
        return self.process.wait(PROMISED_SECONDS)


@contextmanager
def serving(store: Store, folder: Path, purge: str = "", name: str = "daemon") -> Iterator[Daemon]:
    """A daemon on the store, which is due to sweep at once where that was ever served before."""
    config = folder / f"{name}.toml"
    objects = (folder / "objects").as_uri()
    config.write_text(SETTINGS.format(policy=folder / "policy.toml", batch=BATCH, purge=purge, objects=objects))
    (folder / "policy.toml").write_text(Path(POLICY).read_text())
    with ExitStack() as stack:
        out, err = (stack.enter_context((folder / f"{name}.{stream}").open("wb")) for stream in ("out", "err"))
        words = ["serve", "--json", "--listen", "127.0.0.1:0", "--config", str(config)]
        variables = {k: v for k, v in environment(store).items() if k != "SWEEPER_POLICY_FILE"}
        command = [sys.executable, "-m", "sweeper.cli", *words]
        process = stack.enter_context(started(command, env={**os.environ, **variables}, stdout=out, stderr=err))
        daemon = Daemon(process, folder, name)
        daemon.wait_for("serving")
        yield daemon


@pytest.fixture
def due(store: Store, tmp_path: Path) -> Store:
    """A store with much to purge, which missed its sweep; a batch that is held does not run into its own time bound."""
    (tmp_path / "objects").mkdir()
    kill.fill(store, tmp_path / "objects")
    store.execute(
        "INSERT INTO sweeper.events (at, kind, details) VALUES ('2025-01-01Z', 'serving', '{\"store\": \"store\"}')"
    )
    store.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''120s''', current_database()); END $$"
    )
    return store


def test_sweeps_by_itself_and_answers(due: Store, tmp_path: Path) -> None:
    """It makes up for what was missed, says so, answers, and ends in order although clients hang on to it."""
    with serving(due, tmp_path) as daemon:
        until(lambda: bool(daemon.ends()), daemon.process)
        assert daemon.ends() == [("sweep", "completed")]
        assert daemon.lines("out")[0]["result"]["purged"] == EXPIRED
        assert "since 2025-01-01T00:00:00Z; one sweep makes up for" in daemon.said("missed")[0]["text"]
        assert [line["purged"] for line in daemon.said("job ended")] == [EXPIRED]
        assert daemon.get("/healthz") == (200, b'{"alive": true}\n')
        assert daemon.get("/healthz", "HEAD") == (200, b"")
        status, said = daemon.ready()
        assert (status, said["ready"], said["jobs"]["sweep"]["last_outcome"]) == (200, True, "completed")
        families = list(text_string_to_metric_families(daemon.get("/metrics")[1].decode()))
        assert len({family.name for family in families}) == len(families)
        samples = {sample.name: sample.value for family in families for sample in family.samples}
        assert (samples["sweeper_up"], samples["sweeper_job_runs_total"]) == (1, 1)
        assert [daemon.get(path)[0] for path in ("/", "/metrics/x", "/readyz?x=1")] == [404, 404, 200]
        assert daemon.get("/metrics", "POST")[0] == 501
        host, port = daemon.said("serving")[0]["address"].split(":")
        with ExitStack() as stack:
            for _ in range(40):  # more than it has threads for, and none says a word
                stack.enter_context(socket.create_connection((host, int(port))))
            assert daemon.get("/healthz")[0] == 200
            assert daemon.stop() == 0
    assert outcomes(due) == [("completed", True)]
    assert daemon.said("stopped")


def test_first_scrape_while_the_count_cannot_end(store: Store, tmp_path: Path) -> None:
    """A scrape is answered with the numbers that are there although somebody keeps the overdue records from being counted."""
    with store.connect() as other, other.transaction():
        other.execute("LOCK TABLE store.feedback")
        with serving(store, tmp_path) as daemon:
            until(lambda: b"\nsweeper_paused{" in daemon.get("/metrics")[1], daemon.process)
            status, told = daemon.get("/metrics")
            assert (status, b"\nsweeper_paused{" in told, b"\nsweeper_overdue_conversations{" in told) == (
                200,
                True,
                False,
            )
            assert re.search(rb"^sweeper_up\{.*\} 1.0$", told, re.MULTILINE)


def test_signal_in_a_batch(due: Store, tmp_path: Path) -> None:
    """Asked to end in a batch, it finishes that, records the run as stopped and ends; more signals change nothing."""
    with serving(due, tmp_path) as daemon:
        with gate(due, "sweeper.tombstones", "INSERT", "true") as holder:
            kill.waiting(daemon.process, holder)
            assert daemon.ready()[1]["at_work"] == ["sweep"]
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for("stopping")
            assert daemon.ready()[1]["reasons"] == ["it is stopping"]
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(PROMISED_SECONDS) == 0
        assert daemon.ends() == [("sweep", "stopped")]
        assert "Traceback" not in (tmp_path / "daemon.err").read_text()
    assert outcomes(due) == [("stopped", True)]
    assert due.execute("SELECT count(*) FROM sweeper.tombstones") == [(BATCH,)]
    assert kill.each_once(due)


def test_signal_in_a_long_statement(due: Store, tmp_path: Path) -> None:
    """Asked to end while a statement takes long, it cancels that and ends in time; nothing is half done."""
    due.execute("ALTER TABLE conversations RENAME TO chats")
    due.execute("CREATE VIEW conversations AS SELECT c.* FROM chats c, (SELECT pg_sleep(60) OFFSET 0) s")
    with serving(due, tmp_path, 'table = "store.chats"') as daemon, due.connect() as watcher:
        sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        until(lambda: watcher.execute(sleeping).fetchone() is not None, daemon.process)
        assert daemon.stop() == 0
        assert daemon.ends() == [("sweep", "stopped")]
        until(lambda: watcher.execute(sleeping).fetchone() is None)
    assert due.execute("SELECT count(*) FROM chats") == [(DUE + KEPT,)]
    assert due.execute("SELECT count(*) FROM sweeper.tombstones") == [(0,)]


def test_signal_in_a_batch_that_never_ends(due: Store, tmp_path: Path) -> None:
    """A batch that does not end by itself is undone; what it held is free again, and the next run does all of it."""
    with serving(due, tmp_path) as daemon, gate(due, "sweeper.tombstones", "INSERT", "true") as holder:
        kill.waiting(daemon.process, holder)
        daemon.stop()
        until(lambda: holder.execute(kill.WAITING).fetchone() is None)
    assert due.execute("SELECT count(*) FROM sweeper.tombstones") == [(0,)]
    assert due.execute("SELECT count(*) FROM conversations") == [(DUE + KEPT,)]
    done = in_process(due, "run", "--config", str(tmp_path / "daemon.toml"), "--json")
    assert (done.code, json.loads(done.out)["purged"]) == (0, EXPIRED)
    assert kill.each_once(due)


def test_two_daemons(due: Store, tmp_path: Path) -> None:
    """Of two daemons on one store one sweeps, the other says that the lease is held; both live on."""
    with serving(due, tmp_path) as one:
        with gate(due, "sweeper.tombstones", "INSERT", "true") as holder:
            kill.waiting(one.process, holder)
            with serving(due, tmp_path, name="other") as other:
                until(lambda: bool(other.ends()), other.process)
                assert other.ends() == [("sweep", "lease_held")]
                assert "another run holds it" in other.said("job ended")[0]["text"]
                assert [daemon.get("/healthz")[0] for daemon in (one, other)] == [200, 200]
                assert other.stop() == 0
        until(lambda: bool(one.ends()), one.process)
        assert one.ends() == [("sweep", "completed")]
        assert one.stop() == 0


def test_ready_only_while_it_could_sweep(store: Store, server: Any, tmp_path: Path) -> None:
    """Without its database or with a broken policy it is alive and not ready; when they are back it is ready again."""
    name = make_url(store.url).database

    def allow(yes: str) -> None:
        with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    with serving(store, tmp_path) as daemon:
        assert daemon.ready()[0] == 200
        allow("false")
        status, said = daemon.ready()
        assert (status, said["ready"]) == (503, False)
        assert said["reasons"][0].startswith("database: not reached")
        assert daemon.get("/healthz")[0] == 200
        allow("true")
        until(lambda: daemon.ready()[0] == 200, daemon.process)
        written = (tmp_path / "policy.toml").read_text()
        (tmp_path / "policy.toml").write_text("nonsense")
        assert "policy.toml" in daemon.ready()[1]["reasons"][0]
        (tmp_path / "policy.toml").write_text(written)
        assert daemon.ready()[0] == 200
        assert daemon.stop(signal.SIGINT) == 0


@pytest.fixture
def sweeper(store: Store) -> Command:
    """A command on the store in this process: what it does not begin needs none of its own."""
    return lambda *words: in_process(store, *words)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ('sweep = "17 2 * * 8"', "schedule.sweep '17 2 * * 8': day of week '8' is not valid"),
        ('zone = "Mars/Base"', "schedule.zone 'Mars/Base' is not a known time zone"),
    ],
)
def test_what_cannot_be_scheduled(schedule: str, words: str, sweeper: Command, store: Store, tmp_path: Path) -> None:
    """An expression or a zone that means nothing is refused before anything is started."""
    (tmp_path / "s.toml").write_text(f"[schedule]\n{schedule}\n")
    done = sweeper("serve", "--config", str(tmp_path / "s.toml"))
    assert (done.code, words in done.err) == (2, True)
    assert store.execute("SELECT count(*) FROM sweeper.events") == [(0,)]


def test_what_lacks_its_key(sweeper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that is scheduled without a key for pseudonyms is refused at once, not at the end of the month."""
    monkeypatch.delenv("SWEEPER_PSEUDONYM_KEY_FILE", raising=False)
    monkeypatch.delenv("SWEEPER_PSEUDONYM_KEY", raising=False)
    (tmp_path / "s.toml").write_text('[schedule]\nmanifest = "@monthly"\n')
    done = sweeper("serve", "--config", str(tmp_path / "s.toml"))
    assert (done.code, "no key for pseudonyms" in done.err) == (2, True)


@pytest.mark.parametrize("listen", ["9464", "127.0.0.1:x", "127.0.0.1:99999", ":9464", "127.0.0.1:-1"])
def test_what_is_no_address(listen: str, sweeper: Command) -> None:
    """An address that is none is refused."""
    done = sweeper("serve", "--listen", listen)
    assert (done.code, "is not an address: nothing was started" in done.err) == (2, True)


def test_an_address_in_use(sweeper: Command) -> None:
    """An address that another process listens on is refused, with the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = sweeper("serve", "--listen", listen)
    assert done.code == 2
    assert f"[serve] listen {listen}: cannot be listened on (Address already in use). Nothing was started." in done.err
