"""What a sweep costs, as a ratio to deleting the same rows with nothing but DELETE.

    python -m benchmarks.sweep [--conversations 300000] [--messages 8] [--due 0.01] [--rounds 5]

Invariant: the ways are measured in turn, each on a fresh copy of the same database, read into memory, and each
must leave exactly the same rows behind. Ratios are of one round, so that a noisy machine is noisy for all of them.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from string import Template
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from sqlalchemy import Connection, ForeignKey, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from sweeper import embedded, log
from sweeper.clock import Clock
from sweeper.demo import world as worlds
from sweeper.policy.evaluate import Proposal
from sweeper.policy.facts import Facts
from sweeper.postgres import database as databases
from sweeper.postgres import evidence, migrate, purge
from sweeper.postgres import lease as leases
from sweeper.postgres.database import Database
from sweeper.postgres.evidence import RunRecord
from sweeper.runs.batch import Purger
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.runs.job import Job, read_contract
from sweeper.runs.record_kind import conversations
from sweeper.runs.scan import portions
from sweeper.runs.sweep import sweep
from sweeper.settings import Settings, load_policy

ROOT = Path(__file__).parents[1]
AS_OF = datetime(2027, 12, 1, tzinfo=UTC)
"""Two years after the choice was offered, so that there are conversations which consent has kept for two years."""
SERVER = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",  # no checkpoint in the middle of a measurement
    "autovacuum": "off",  # nor a vacuum
}
BATCH = 500
TEMPLATE, COPY = "benchmark_template", "benchmark_copy"


@dataclass(frozen=True)
class Shape:
    """How large the store is, and how often it is measured."""

    conversations: int
    messages: int
    due: float
    rounds: int

    @property
    def accounts(self) -> int:
        """A fifteenth of the conversations, in whole hundreds."""
        return max(self.conversations // 1500, 1) * 100


@dataclass(frozen=True)
class Spent:
    """One measurement: seconds, and what else was seen."""

    seconds: float
    proposed: int = 0
    longest_write: float = 0.0
    longest_read: float = 0.0


@dataclass(frozen=True)
class Store:
    """One copy of the store, warm, with the ids of what is due."""

    url: str
    due: list[UUID] = field(repr=False)

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        """A plain connection; the transaction is the caller's."""
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            yield connection

    def count(self) -> tuple[int, ...]:
        """How many conversations, messages and attachments there are, and how many of the due conversations."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM store.conversations), (SELECT count(*) FROM store.messages), "
                "(SELECT count(*) FROM store.attachments), "
                "(SELECT count(*) FROM store.conversations c JOIN benchmark.due USING (id))"
            ).fetchone()
        return tuple(row or ())


@dataclass(frozen=True)
class Timed(Database):
    """A database that notes how long each transaction took, commit included, apart for those that wrote."""

    wrote: list[float] = field(default_factory=list)
    only_read: list[float] = field(default_factory=list)

    @contextmanager
    def transaction(
        self,
        *,
        lock_timeout_ms: int | None = None,
        statement_timeout_ms: int | None = None,
        idle_timeout_ms: int | None = None,
    ) -> Iterator[Connection]:
        """As the product's, with a stopwatch."""
        writes: list[bool] = []
        started = time.perf_counter()
        with super().transaction(
            lock_timeout_ms=lock_timeout_ms,
            statement_timeout_ms=statement_timeout_ms,
            idle_timeout_ms=idle_timeout_ms,
        ) as connection:

            def look(_c: Any, _cursor: Any, sql: str, *_: Any) -> None:
                lines = [line for line in sql.splitlines() if not line.startswith("--")]
                if any(word in " ".join(lines) for word in ("INSERT ", "UPDATE ", "DELETE ")):
                    writes.append(True)

            event.listen(connection, "before_cursor_execute", look)
            yield connection
        (self.wrote if writes else self.only_read).append(time.perf_counter() - started)


class Base(DeclarativeBase):
    """The usual models of an application."""


class Conversation(Base):
    """A conversation that takes its children along, as the ORM documentation shows it."""

    __tablename__ = "conversations"
    __table_args__ = {"schema": "store"}  # noqa: RUF012 -- SQLAlchemy's own way to name a schema

    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    kind: Mapped[str | None]
    platform: Mapped[str | None]
    incognito: Mapped[bool | None]
    created_at: Mapped[datetime | None]
    last_activity_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    messages: Mapped[list["Message"]] = relationship(cascade="all, delete-orphan")
    attachments: Mapped[list["Attachment"]] = relationship(cascade="all, delete-orphan")


class Message(Base):
    """A message."""

    __tablename__ = "messages"
    __table_args__ = {"schema": "store"}  # noqa: RUF012 -- as above

    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey(Conversation.id))
    author: Mapped[str | None]
    created_at: Mapped[datetime | None]
    body: Mapped[str | None]


class Attachment(Base):
    """An attachment."""

    __tablename__ = "attachments"
    __table_args__ = {"schema": "store"}  # noqa: RUF012 -- as above

    id: Mapped[UUID] = mapped_column(primary_key=True)
    conversation_id: Mapped[UUID] = mapped_column(ForeignKey(Conversation.id))
    uri: Mapped[str | None]


def bare(store: Store) -> Spent:
    """Three set-based DELETEs in one transaction, on ids that are known; nothing is checked, nothing is recorded."""
    return _set_based(store, "SELECT 1")


def bare_by_index(store: Store) -> Spent:
    """The same, with the planner kept from reading whole tables: the least that deleting these rows can cost."""
    return _set_based(store, "SET enable_seqscan = off")


def _set_based(store: Store, before: LiteralString) -> Spent:
    with store.connect() as connection:
        connection.execute(before)
        connection.commit()
        started = time.perf_counter()
        for table, key in (
            ("messages", "conversation_id"),
            ("attachments", "conversation_id"),
            ("conversations", "id"),
        ):
            connection.execute(f"DELETE FROM store.{table} t USING benchmark.due d WHERE t.{key} = d.id".encode())
        connection.commit()
        return Spent(time.perf_counter() - started)


def by_cascade(store: Store) -> Spent:
    """One set-based DELETE of the conversations; the children go by ON DELETE CASCADE."""
    with store.connect() as connection:
        connection.execute("SELECT 1")
        connection.commit()
        started = time.perf_counter()
        connection.execute("DELETE FROM store.conversations t USING benchmark.due d WHERE t.id = d.id")
        connection.commit()
        return Spent(time.perf_counter() - started)


def purge_alone(store: Store) -> Spent:
    """Lock, facts, decide, delete, tombstones, commit: every batch of a sweep, on proposals made beforehand."""
    with opened(store) as job:
        pages = [page.free for page in job.selector.pages()]
        purger = _purger(job)
        started = time.perf_counter()
        for page in pages:
            for portion in portions(page, job.settings.purge.batch):
                _complete(purger, portion)
        return Spent(time.perf_counter() - started, sum(map(len, pages)))


def whole_sweep(store: Store) -> Spent:
    """`sweep(job)` from call to return: lease, guards, proposals, purge, feedback, objects, run record."""
    with opened(store) as job:
        database = Timed(job.database.engine, job.database.settings)
        timed = replace(job, database=database)
        started = time.perf_counter()
        result = sweep(timed)
        seconds = time.perf_counter() - started
        if result.outcome != "completed":
            raise SystemExit(f"the sweep ended as {result.outcome}: its time says nothing")
        counts = result.counts
        proposed = counts.conversations.total
        return Spent(seconds, proposed, max(database.wrote), max(database.only_read))


def by_orm(store: Store) -> Spent:
    """The first usual way: load each conversation, `session.delete`, let the ORM load and delete what belongs to it."""
    engine = create_engine(store.url)
    with Session(engine) as session:
        session.execute(select(1))
        session.commit()
        started = time.perf_counter()
        for ids in portions(store.due, BATCH):
            for conversation in session.scalars(select(Conversation).where(Conversation.id.in_(ids))):
                session.delete(conversation)
            session.commit()
        spent = Spent(time.perf_counter() - started)
    engine.dispose()
    return spent


def by_chunks(store: Store) -> Spent:
    """The second usual way: chunks of ids, children first, one transaction a chunk."""
    with store.connect() as connection:
        connection.execute("SELECT 1")
        connection.commit()
        started = time.perf_counter()
        for ids in portions(store.due, BATCH):
            connection.execute("DELETE FROM store.messages WHERE conversation_id = ANY(%s)", [ids])
            connection.execute("DELETE FROM store.attachments WHERE conversation_id = ANY(%s)", [ids])
            connection.execute("DELETE FROM store.conversations WHERE id = ANY(%s)", [ids])
            connection.commit()
        return Spent(time.perf_counter() - started)


BARE = "bare set-based DELETE, ids known, no evidence"
BY_INDEX = "the same, kept from reading whole tables"
CASCADE = "the same by ON DELETE CASCADE"
SWEEP = "**whole sweep**"
WAYS: dict[str, Callable[[Store], Spent]] = {
    BARE: bare,
    BY_INDEX: bare_by_index,
    CASCADE: by_cascade,
    "**purge alone**, with evidence": purge_alone,
    SWEEP: whole_sweep,
    "usual: id chunks of 500, children first": by_chunks,
    "usual: ORM `session.delete`, 500 a commit": by_orm,
}


@contextmanager
def opened(store: Store) -> Iterator[Job]:
    """A job with its engine connected and its contract read."""
    settings = Settings.model_validate(
        {
            "database": {"url": store.url},
            "policy": {"file": ROOT / "config" / "policy.toml"},
            "objects": {"prefixes": ["memory://benchmark"]},
        }
    )
    policy = load_policy(settings)
    database = databases.connect(settings)
    yield Job(database, read_contract(database, policy), policy, Clock(lambda: AS_OF, lambda _: AS_OF), AS_OF)
    database.engine.dispose()


def _purger(job: Job) -> Purger[Facts]:
    """What a sweep has in hand when its first batch begins."""
    lease = leases.take(job.database)
    with job.database.transaction() as connection:
        lease.run_id = evidence.open_run(
            connection,
            store=lease.store,
            as_of=job.as_of,
            policy_name=job.policy.name,
            policy_digest=job.policy.digest,
            token=lease.token,
            approval=None,
            started_at=job.clock.now(),
            kind="run",
            backfill_id=None,
        )
        lock_budget = purge.read_lock_budget(connection)
    run = RunRecord(lease.run_id, lease.store, job.as_of, job.policy.digest, approved=False)
    pace = BatchSizer(job.settings.pace.target_batch_ms / 1000, job.settings.purge.batch)
    return Purger(conversations(job), run, lease, lock_budget, pace)


def _complete(purger: Purger[Facts], proposals: Sequence[Proposal]) -> None:
    report = purger.purge(proposals)
    if report.unlocked or report.counts.failed:
        raise SystemExit("rows were locked or failed: the time says nothing")


def make(server: embedded.Server, shape: Shape) -> None:
    """The template database: the sweeper's tables, the reference store, its rows; vacuumed and analysed."""
    with _maintenance(server) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}".encode())
    database = databases.connect(Settings.model_validate({"database": {"url": server.url(TEMPLATE)}}))
    migrate.migrate(database)
    database.engine.dispose()
    script = Template((Path(__file__).parent / "store.sql").read_text(encoding="utf-8"))
    rows = script.substitute(
        as_of=AS_OF.isoformat(),
        accounts=shape.accounts,
        conversations=shape.conversations,
        messages=shape.messages,
        due=shape.due,
    )
    with _maintenance(server, TEMPLATE) as connection:
        connection.execute(worlds.reference("store", "uuid").encode())
        connection.execute(rows.encode())
        connection.execute("VACUUM ANALYZE")


@contextmanager
def fresh(server: embedded.Server) -> Iterator[Store]:
    """A copy of the template, read into memory and on disk; dropped afterwards."""
    with _maintenance(server) as connection:
        connection.execute(f"CREATE DATABASE {COPY} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY".encode())
    try:
        with _maintenance(server, COPY) as connection:
            connection.execute(
                "SELECT benchmark.pg_prewarm(c.oid) FROM pg_class c "
                "WHERE c.relkind IN ('r', 'i') AND c.relnamespace = ANY('{store,sweeper,benchmark}'::regnamespace[])"
            )
            connection.execute("CHECKPOINT")
            due = [row[0] for row in connection.execute("SELECT id FROM benchmark.due ORDER BY id")]
        yield Store(server.url(COPY), due)
    finally:
        with _maintenance(server) as connection:
            connection.execute(f"DROP DATABASE {COPY} WITH (FORCE)".encode())


def measure(server: embedded.Server, shape: Shape) -> dict[str, list[Spent]]:
    """Every way in turn, as many rounds as asked for."""
    spent: dict[str, list[Spent]] = {name: [] for name in WAYS}
    left: set[tuple[int, ...]] = set()
    for round_ in range(shape.rounds):
        for name, way in WAYS.items():
            with fresh(server) as store:
                spent[name].append(way(store))
                left.add(store.count())
            print(f"round {round_ + 1}: {spent[name][-1].seconds:7.3f} s  {name}", file=sys.stderr)
            if len(left) != 1 or any(counts[3] for counts in left):
                raise SystemExit(f"{name} left other rows behind than the ways before it: {left}")
    return spent


def report(server: embedded.Server, shape: Shape, spent: dict[str, list[Spent]], due: int) -> Iterator[str]:
    """The table, ready for docs/performance.md."""
    yield (
        f"{shape.conversations:,} conversations of {shape.messages} messages in {shape.accounts:,} accounts, {due:,} due; "
        f"medians of {shape.rounds} rounds in turn, each on a fresh copy in memory. {machine(server)}. "
        "The sweep is timed from call to return; starting Python is not."
    )
    yield ""
    yield "| way | seconds | ratio to bare | ratio to bare by index | conversations/s |"
    yield "|---|---:|---:|---:|---:|"
    for name, found in spent.items():
        seconds = median(one.seconds for one in found)
        to_bare, by_index = (_ratio(found, spent[base]) for base in (BARE, BY_INDEX))
        yield f"| {name} | {seconds:.3f} | {to_bare:.2f} | {by_index:.2f} | {due / seconds:,.0f} |"
    sweeps = spent[SWEEP]
    writes, reads = (median(getattr(s, which) for s in sweeps) for which in ("longest_write", "longest_read"))
    yield ""
    yield (
        f"The sweep proposed {sweeps[0].proposed:,} conversations and purged {due:,}. Its longest writing transaction took "
        f"{writes:.3f} s (median; {max(s.longest_write for s in sweeps):.3f} s at most), its longest reading one {reads:.3f} s."
    )


def machine(server: embedded.Server) -> str:
    """What was measured on."""
    with _maintenance(server) as connection:
        version = (connection.execute("SHOW server_version").fetchone() or ("?",))[0]
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    settings = ", ".join(f"{name} {value}" for name, value in SERVER.items())
    return (
        f"{len(os.sched_getaffinity(0))} cores, {ram:.0f} GB, PostgreSQL {version} ({settings}), "
        f"Python {platform.python_version()}"
    )


def _ratio(found: Sequence[Spent], base: Sequence[Spent]) -> float:
    """The median of the ratios round by round."""
    return median(one.seconds / other.seconds for one, other in zip(found, base, strict=True))


@contextmanager
def _maintenance(server: embedded.Server, name: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.url(name).replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def main() -> None:
    """Make the store, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=300_000)
    parser.add_argument("--messages", type=int, default=8)
    parser.add_argument("--due", type=float, default=0.01, help="the share of the conversations that is due")
    parser.add_argument("--rounds", type=int, default=5)
    shape = Shape(**vars(parser.parse_args()))
    with Path(os.devnull).open("w") as nowhere, embedded.server(settings=SERVER) as server:
        log.configure(stream=nowhere)
        started = time.perf_counter()
        make(server, shape)
        print(f"store made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        with fresh(server) as store:
            due = len(store.due)
        spent = measure(server, shape)
        print("\n".join(report(server, shape, spent, due)))


if __name__ == "__main__":
    main()
