"""`status --watch` on a terminal of 80 columns and 24 lines: a real process behind a pty, beside a real run."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

from sweeper.clock import Clock
from sweeper.embedded import Server
from sweeper.policy.schema import Policy
from sweeper.report.live import Look, Watcher
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener
from tests.acceptance.commands import Command, environment, in_process
from tests.processes import started, until
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_pressure import vacuum
from tests.store.test_races import AS_OF, GUARDS, fill

COLUMNS, LINES = 80, 24
NAME = "watcher"
SIGNS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'sweeper %'"


class Screen:
    """What a process wrote to its terminal."""

    def __init__(self, ours: int) -> None:
        self.seen = b""
        self._reader = Thread(target=self._read, args=(ours,))
        self._reader.start()

    def _read(self, ours: int) -> None:
        while True:
            try:
                self.seen += os.read(ours, 65_536)
            except OSError:  # Linux says so when the other side is closed
                return

    def frame(self) -> list[str]:
        """The lines of the newest whole frame: each begins with the store's name."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.decode())
        frames = re.split(r"(?=^.*; Ctrl-C ends\r?$)", text, flags=re.MULTILINE)[1:]
        return [line.rstrip() for line in frames[-1].splitlines()] if frames else []

    def shows(self, part: str) -> bool:
        """Whether the newest frame has this."""
        return any(part in line for line in self.frame())

    def close(self) -> None:
        """Wait for the end of what is written."""
        self._reader.join()


@contextmanager
def watching(store: Store) -> Iterator[tuple[Screen, "subprocess.Popen[str]"]]:
    """`status --watch` on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "sweeper.cli", "status", "--watch", "--every", "0.2"]
    variables = {**os.environ, **environment(store), "TERM": "xterm", "NO_COLOR": "1", "PGAPPNAME": NAME}
    with started(command, env=variables, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        screen = Screen(ours)
        try:
            yield screen, process
        finally:
            process.kill()
            process.wait()
            screen.close()
            os.close(ours)


def test_watch(store: Store, server: Server, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """It shows what a run waits for, how far it is and how it ended, sits out a database that is gone, and ends with Ctrl-C."""
    fill(store, 3)
    job = store.job(policy, AS_OF, pace={"autovacuum": True}, guards=GUARDS)
    with watching(store) as (screen, process):
        until(lambda: screen.shows("at work   no run"), process)
        with vacuum(store, "messages"):
            running = threads.submit(sweep, job)
            until(lambda: screen.shows("now       a VACUUM is running on a table"), process)
            until(lambda: screen.shows("done      0 [" + "." * 30 + "] 0%, 3 left"), process)
            assert screen.shows("at work   run 1 (run), began ")
            sign = {"expected": 3, "doing": "a VACUUM is running on a table that is purg…"}
            assert json.loads(in_process(store, "status", "--json").out)["signs"] == {"run 1": sign}
        assert running.result(60).count == 3
        until(lambda: screen.shows("ended     run 1 (run) completed"), process)
        assert screen.shows(": 3 purged")
        assert store.execute(SIGNS) == [(0,)]
        with gone(server, store):
            until(lambda: screen.shows("no answer since "), process)
        until(lambda: not screen.shows("no answer since "), process)
        frame = screen.frame()
        assert max(map(len, frame)) <= COLUMNS
        assert len(frame) < LINES
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        screen.close()
        assert screen.shows("ended     run 1 (run) completed")
        assert b"Traceback" not in screen.seen


def test_looks_at_a_run(store: Store, policy: Policy) -> None:
    """Each look counts what was purged since the one before, and what is left of what the run expects."""
    fill(store, 6)
    job = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 2})
    watcher, looks = Watcher(store.job(policy, AS_OF).database, Clock()), list[Look]()
    sweep(job, watch=ProgressListener(advance=lambda _: looks.append(watcher.look())))
    assert [(look.done, look.left) for look in looks] == [(2, 4), (4, 2), (6, 0)]
    assert {look.run.id for look in looks if look.run} == {1}
    after = watcher.look()
    assert (after.run, after.left, [(run.id, run.purged) for run in after.ended]) == (None, None, [(1, 6)])


@contextmanager
def gone(server: Server, store: Store) -> Iterator[None]:
    """The watcher's connections are ended, and it can make no other."""
    ((name,),) = store.execute("SELECT quote_ident(current_database())")
    with stores.administered(server) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [NAME]
            )
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_watch_needs_a_terminal(sweeper: Command) -> None:
    """Into a pipe it draws nothing, and names what a program calls instead."""
    done = sweeper("status", "--watch")
    assert (done.code, done.out) == (2, "")
    assert "`sweeper status --json`" in done.err
