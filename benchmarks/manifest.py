"""What a training manifest costs, as a ratio to a binary COPY of the same rows to nowhere.

    python -m benchmarks.manifest [--messages 3000000] [--rounds 3]

Invariant: the ways are measured in turn on one store, read into memory, and each must meet the same number of rows.
Ratios are of one round. Memory is that of a process which does nothing but build, at a tenth of the size and at the whole.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from unittest import mock

from benchmarks import sweep
from benchmarks.sweep import Shape, Store
from sweeper import embedded, log
from sweeper.manifest import build, description, recheck, snapshot
from sweeper.manifest.eligibility import Eligibility
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.postgres.database import begin_values
from sweeper.postgres.statement import inlined
from sweeper.runs.job import Job

MESSAGES = 8
"""Of a conversation."""
ELIGIBLE = 0.8
"""The share of the store's messages that may be trained on, near enough."""
KEY = Pseudonym(b"the benchmark's key, and no secret")


@dataclass(frozen=True)
class Spent:
    """One measurement: seconds, rows met, and the seconds of its parts."""

    seconds: float
    rows: int
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class Watch:
    """Notes how long each part took."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """The seconds that the body takes, as those of a part."""
        started = time.perf_counter()
        yield
        self.parts[part] = time.perf_counter() - started

    def spent(self, rows: int) -> Spent:
        """All parts together."""
        return Spent(sum(self.parts.values()), rows, self.parts)


def copy(job: Job, store: Store, _: Path) -> Spent:
    """Binary COPY of the query of the rows, read and forgotten; the tables that it joins are made before."""
    eligibility = Eligibility(job.contract, job.policy, job.as_of)
    limit = job.settings.manifest.statement_timeout_ms
    watch = Watch()
    with store.connect() as connection, connection.cursor() as cursor:
        begin = inlined("begin", begin_values(job.settings, statement_timeout_ms=limit))
        for sql in ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", begin, *eligibility.prepare()):
            cursor.execute(sql.encode())
        with watch.on("copy"), cursor.copy(f"COPY ({eligibility.rows()}) TO STDOUT (FORMAT binary)".encode()) as rows:
            for _block in rows:
                pass
        return watch.spent(cursor.rowcount)


def stream(job: Job, _store: Store, _: Path) -> Spent:
    """The rows as the build reads them, in Arrow batches, forgotten one by one."""
    watch = Watch()
    with snapshot.open_snapshot(job) as taken, watch.on("stream"):
        rows = sum(batch.num_rows for batch in taken.rows(with_text=False))
    return watch.spent(rows)


def whole_build(job: Job, _store: Store, folder: Path) -> Spent:
    """A manifest in a new directory, with a stopwatch at the snapshot and at the counts; the rest is rows and files."""
    watch, started = Watch(), time.perf_counter()
    folder.mkdir()
    with _watched(watch):
        description = build.build(job, folder, KEY)
    seconds = time.perf_counter() - started
    watch.parts["stream and write"] = seconds - sum(watch.parts.values())
    return watch.spent(description.eligible)


@contextmanager
def _watched(watch: Watch) -> Iterator[None]:
    open_snapshot, counts = snapshot.open_snapshot, snapshot.Snapshot.counts

    @contextmanager
    def open_watched(job: Job, *, with_text: bool = False) -> Iterator[snapshot.Snapshot]:
        with ExitStack() as stack:
            with watch.on("prepare"):
                found = stack.enter_context(open_snapshot(job, with_text=with_text))
            yield found

    def counts_watched(found: snapshot.Snapshot) -> dict[str, int]:
        with watch.on("counts"):
            return counts(found)

    with (
        mock.patch.object(snapshot, "open_snapshot", open_watched),
        mock.patch.object(snapshot.Snapshot, "counts", counts_watched),
    ):
        yield


def whole_recheck(job: Job, _store: Store, folder: Path) -> Spent:
    """Every row of the manifest against the store, as freezing, starting and recalling do; none is lost here."""
    watch, found = Watch(), description.read(folder)
    with ExitStack() as stack:
        with watch.on("prepare"):
            rechecking = stack.enter_context(recheck.open_recheck(job))
        with watch.on("load and join"):
            revoked = sum(len(page) for page in rechecking.revoked_rows(folder, found))
    return watch.spent(found.eligible - revoked)


COPY = "binary `COPY` to nowhere"
STREAM = "**stream**, ADBC to nowhere"
BUILD = "**build**, Parquet files"
RECHECK = "recheck of every row"
WAYS: dict[str, Callable[[Job, Store, Path], Spent]] = {
    COPY: copy,
    STREAM: stream,
    BUILD: whole_build,
    RECHECK: whole_recheck,
}


def measure(store: Store, rounds: int) -> dict[str, list[Spent]]:
    """Every way in turn, as many rounds as asked for."""
    spent: dict[str, list[Spent]] = {name: [] for name in WAYS}
    with sweep.opened(store) as job:
        for round_ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                for name, way in WAYS.items():
                    spent[name].append(way(job, store, Path(folder) / "manifest"))
                    print(f"round {round_ + 1}: {spent[name][-1].seconds:7.3f} s  {name}", file=sys.stderr)
    if len({one.rows for found in spent.values() for one in found}) != 1:
        raise SystemExit(f"the ways met different numbers of rows: {spent}")
    return spent


def peak(store: Store) -> float:
    """The peak memory, in MB, of a fresh process that builds a manifest and does nothing else."""
    command = [sys.executable, "-m", "benchmarks.manifest", "--only-build", store.url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def only_build(url: str) -> None:
    """Build a manifest of a store, and print the most memory that this process ever held, in MB."""
    with sweep.opened(Store(url, [])) as job, tempfile.TemporaryDirectory() as folder:
        build.build(job, Path(folder), KEY)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6)


@contextmanager
def made(messages: int) -> Iterator[tuple[embedded.Server, Store, Shape]]:
    """A server with a store of which about so many messages may be trained on."""
    shape = Shape(conversations=int(messages / ELIGIBLE / MESSAGES), messages=MESSAGES, due=0.01, rounds=0)
    with embedded.server(settings=sweep.SERVER) as server:
        started = time.perf_counter()
        sweep.make(server, shape)
        print(f"store made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        with sweep.fresh(server) as store:
            yield server, store, shape


def report(said: str, spent: dict[str, list[Spent]], peaks: Sequence[tuple[int, float]]) -> Iterator[str]:
    """The table, ready for docs/performance.md."""
    yield said
    yield ""
    yield "| way | seconds | ratio to `COPY` | rows/s |"
    yield "|---|---:|---:|---:|"
    for name, found in spent.items():
        seconds = median(one.seconds for one in found)
        yield f"| {name} | {seconds:.2f} | {_ratio(found, spent[COPY]):.2f} | {found[0].rows / seconds:,.0f} |"
        for part in found[0].parts if len(found[0].parts) > 1 else ():
            yield f"| &nbsp; {part} | {median(one.parts[part] for one in found):.2f} | | |"
    yield ""
    held = "; ".join(f"{memory:.0f} MB for {rows:,} rows" for rows, memory in peaks)
    yield f"Peak memory (VmHWM) of a process that only builds: {held}."


def _said(server: embedded.Server, shape: Shape, spent: dict[str, list[Spent]]) -> str:
    return (
        f"{spent[COPY][0].rows:,} eligible of {shape.conversations * shape.messages:,} messages in {shape.accounts:,} "
        f"accounts; medians of {len(spent[COPY])} rounds in turn, the store in memory. {sweep.machine(server)}."
    )


def _ratio(found: Sequence[Spent], base: Sequence[Spent]) -> float:
    """The median of the ratios round by round."""
    return median(one.seconds / other.seconds for one, other in zip(found, base, strict=True))


def main() -> None:
    """Make the stores, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3_000_000, help="about how many may be trained on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-build", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with Path(os.devnull).open("w") as nowhere:
        log.configure(stream=nowhere)
        if given.only_build:
            only_build(given.only_build)
            return
        peaks = []
        for messages in (given.messages // 10, given.messages):
            with made(messages) as (server, store, shape):
                peaks.append((messages, peak(store)))
                if messages == given.messages:
                    spent = measure(store, given.rounds)
                    said = _said(server, shape, spent)
        print("\n".join(report(said, spent, peaks)))


if __name__ == "__main__":
    main()
