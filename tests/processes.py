"""Processes that a test starts and conditions that it waits for.

Invariant: a process that was started here is gone, with all that it started, when the body of the `with` statement has ended.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOOKS = 24_000
"""So often, for some two minutes, a condition is looked for; counted, since a test may have stopped the clock."""


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; its streams are text, and its output and errors are pipes unless said otherwise."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen(command, start_new_session=True, **{**streams, **options})
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Look until the condition holds; fails if it never does, or if `process` has ended by itself."""
    for _ in range(LOOKS):
        if condition():
            return
        if process is not None:
            assert process.poll() in (None, -signal.SIGKILL), process.communicate()
        time.sleep(0.005)  # between two looks
    raise AssertionError("the awaited condition did not come about")


def children(process: int) -> list[int]:
    """The processes that a process has started and not yet collected."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


def is_running(process: int) -> bool:
    """Whether a process is there and has not merely not been collected yet."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
