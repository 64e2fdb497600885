"""Kills: sweepers by SIGKILL, the server by an immediate stop, each at a random instant of a sweep that is under way."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.soak import judge
from benchmarks.soak.application import LOG, Application, world
from sweeper import embedded
from tests.facts import World
from tests.store import stores
from tests.store.stores import Store

SETTINGS = """
[database]
outage_seconds = 60.0
[purge]
batch = 20
locked_wait_seconds = 1.0
[lease]
seconds = 1.5
[guards]
volume = false
history = false
"""
THREADS = 2
PATIENCE = 60.0


@dataclass(frozen=True)
class Plan:
    """What is done to one store."""

    seed: int = 1
    conversations: int = 2_500
    kills: int = 30
    stops: int = 10


@dataclass
class Report:
    """What was done, and every fault that was found."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    purged: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class Chaos:
    """One soak on one server of its own; it must be used by the thread that started the server."""

    server: embedded.Server
    store: Store
    folder: Path
    plan: Plan
    key: str = field(repr=False)
    report: Report = field(default_factory=Report)

    def run(self) -> Report:
        """Fill the store, kill, run once more in peace, judge."""
        chance = random.Random(self.plan.seed)
        self.store.execute(LOG)
        begun = world(self.plan.seed, self.plan.conversations, datetime.now(UTC))
        self.store.load(begun)
        with self._application() as application:
            for deed in self._deeds(chance):
                deed(chance)
        self.report.actions = application.done
        self.report.faults += application.faults
        self._judge(begun)
        return self.report

    def _deeds(self, chance: random.Random) -> list[Callable[[random.Random], None]]:
        deeds: list[Callable[[random.Random], None]] = []
        deeds += [self._kill_sweeper] * self.plan.kills
        deeds += [self._stop_server] * self.plan.stops
        chance.shuffle(deeds)
        return deeds

    @contextmanager
    def _application(self) -> Iterator[Application]:
        accounts = max(self.plan.conversations // 20, 5)
        application = Application(self.store, self.plan.seed, self.plan.conversations, accounts)
        threads = [threading.Thread(target=application.work, args=(number,), daemon=True) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield application
        finally:
            application.ended.set()
            for thread in threads:
                thread.join(PATIENCE)

    def _kill_sweeper(self, chance: random.Random) -> None:
        before = self._last_run()
        with self._sweeper() as process:
            self._wait_for_run(process, before)
            self._until(lambda: process.poll() is not None, chance.uniform(0.0, 0.6))
            alive = process.poll() is None
            process.kill()
            process.wait()
        self.report.kills["in a sweep" if alive else "too late"] += 1

    def _stop_server(self, chance: random.Random) -> None:
        before = self._last_run()
        with self._sweeper() as process:
            self._wait_for_run(process, before)
            self._until(lambda: process.poll() is not None, chance.uniform(0.0, 0.4))
            alive = process.poll() is None
            os.kill(self.server.pid, signal.SIGQUIT)
            self.server.stop()
            self.server.start()
            _, err = process.communicate(timeout=PATIENCE)
        self.report.stops["in a sweep" if alive else "too late"] += 1
        if process.returncode != 0:
            self.report.faults.append(
                f"a sweep did not survive a stop of the server ({process.returncode}): {err[-1500:]}"
            )

    @contextmanager
    def _sweeper(self) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeper.cli", "run", "--json", "--config", str(self._config())],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.plan.stops else subprocess.DEVNULL,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _config(self) -> Path:
        path = self.folder / "sweeper.toml"
        if not path.exists():
            path.write_text(f'{SETTINGS}\n[policy]\nfile = "{stores.POLICY}"\n')
        return path

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SWEEPER_DATABASE_URL": self.store.url, "SWEEPER_SIGNING_KEY": self.key}

    def _wait_for_run(self, process: subprocess.Popen[str], before: int) -> None:
        """Until the process has opened a run, or has ended."""
        self._until(lambda: process.poll() is not None or self._last_run() > before, PATIENCE)

    def _last_run(self) -> int:
        ((last,),) = self.store.execute("SELECT COALESCE(max(id), 0) FROM sweeper.runs")
        return int(last)

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not condition():
            time.sleep(0.005)  # between two looks

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sweeper.cli", *words, "--json", "--config", str(self._config())],
            env=self._environment(),
            capture_output=True,
            text=True,
        )

    def _judge(self, begun: World) -> None:
        """Twice one more run in peace, as of one instant, and everything must add up."""
        as_of = datetime.now(UTC)
        done = [
            self._command(*words)
            for words in (
                ("run", "--as-of", as_of.isoformat()),
                ("run", "--as-of", as_of.isoformat()),
                ("audit", "verify"),
            )
        ]
        for command in done:
            if command.returncode != 0:
                words = " ".join(command.args[3:5])
                self.report.faults.append(f"{words} ended with {command.returncode}: {command.stderr[-1500:]}")
        if self.report.faults:
            return
        if more := json.loads(done[1].stdout)["purged"]:
            self.report.faults.append(f"a second run in peace purged {more} more")
        self.report.faults += judge.faults(self.store, judge.told(self.store, begun), as_of)
        ((self.report.purged,),) = self.store.execute("SELECT count(*) FROM sweeper.tombstones")
        self.report.runs = Counter(dict(self.store.execute("SELECT outcome, count(*) FROM sweeper.runs GROUP BY 1")))


def _made_key() -> str:
    """A key that signs the checkpoints of this soak."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def soak(plan: Plan, folder: Path) -> Report:
    """A soak from beginning to end, on a server of its own."""
    with embedded.server() as server:
        template = stores.create(server, "uuid")
        store = stores.copy(server, template, "soak", "uuid")
        try:
            return Chaos(server, store, folder, plan, _made_key()).run()
        finally:
            store.close()
