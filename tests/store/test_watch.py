"""`status --watch` on a terminal of 80 columns and 24 lines: a real process behind a pty, beside a real run."""

import fcntl
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

from sweeper.embedded import Server
from sweeper.policy.schema import Policy
from sweeper.runs.sweep import sweep
from tests.acceptance.commands import Command, environment
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
            until(lambda: screen.shows("purged    0 [" + "." * 30 + "] 0%, 3 left"), process)
            assert screen.shows("at work   run 1 (run), began ")
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
