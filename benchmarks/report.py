"""What a report on a whole store costs a conversation, beside deciding row by row and beside counting the rows of its tables.

    python -m benchmarks.report [--conversations 1000000] [--messages 8] [--rounds 3]

Invariant: the ways are measured in turn on one store, read into memory. Row by row only every twentieth conversation is decided.
The best of the rounds is printed with the median, because other work on the machine only adds.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.sweep import SERVER, Shape, Store, fresh, machine, make, opened
from sweeper import embedded, log
from sweeper.policy.evaluate import evaluate_stored
from sweeper.postgres import whole_store
from sweeper.report.report import report
from sweeper.runs.job import Job
from sweeper.runs.record_kind import conversations
from sweeper.runs.scan import portions

SHARE = 20
"""Row by row, one conversation of so many is decided."""
TABLES = ("conversations", "messages", "accounts", "plan_changes", "consent_events", "feedback")


def whole_report(job: Job, _: Store) -> int:
    """`report(job)` from call to return."""
    return report(job).counts.conversations.total


def row_by_row(job: Job, store: Store) -> int:
    """Facts by key, `evaluate` and `anomalies` in Python, as reports did before."""
    with store.connect() as connection:
        ids = [str(row[0]) for row in connection.execute("SELECT id FROM store.conversations ORDER BY id")][::SHARE]
    kind, started = conversations(job), time.perf_counter()
    for portion in portions(ids, job.settings.purge.batch):
        for facts in kind.facts(portion).values():
            evaluate_stored(facts, job.policy, job.as_of)
            tuple(kind.anomalies(facts))
    _spent.append(time.perf_counter() - started)
    return len(ids)


_spent: list[float] = []
"""What `row_by_row` took without the search for its ids."""


def count_rows(_: Job, store: Store) -> int:
    """`SELECT count(*)` over each table that a report reads."""
    with store.connect() as connection:
        for table in TABLES:
            connection.execute(f"SELECT count(*) FROM store.{table}".encode())
        found: tuple[Any, ...] | None = connection.execute("SELECT count(*) FROM store.conversations").fetchone()
    return int(found[0]) if found else 0


REPORT, BY_ROW, COUNT = (
    "whole report, in SQL",
    "decided row by row, in Python",
    "`SELECT count(*)` over the same tables",
)
WAYS: dict[str, Callable[[Job, Store], int]] = {REPORT: whole_report, BY_ROW: row_by_row, COUNT: count_rows}


def measure(store: Store, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds that each way took for a conversation, by round."""
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    with opened(store) as job:
        for round_ in range(rounds):
            for name, way in WAYS.items():
                started = time.perf_counter()
                number = way(job, store)
                seconds = time.perf_counter() - started if name != BY_ROW else _spent[-1]
                spent[name].append(seconds * 1e6 / number)
            print(f"round {round_ + 1} of {rounds} done", file=sys.stderr)
    return spent


def sizes(store: Store) -> str:
    """Say how large the temporary tables of a report are beside the indexes of the store."""
    with opened(store) as job, whole_store.opened(job.database, job.contract, job.as_of) as whole:
        verdicts = whole.judge(job.policy)
        tables = " + ".join(
            f"pg_total_relation_size(CAST('{name}' AS regclass))"
            for name in (verdicts.conversations, verdicts.feedback, "pg_temp.sweeper_messages_0")
        )
        indexes = " + ".join(f"pg_indexes_size(CAST('store.{name}' AS regclass))" for name in TABLES)
        (row,) = whole.execute(f"SELECT pg_size_pretty({tables}) AS temporary, pg_size_pretty({indexes}) AS indexes")
    return f"temporary tables {row.temporary}, indexes of the store {row.indexes}"


def lines(spent: dict[str, list[float]]) -> list[str]:
    """Return the table of all ways."""
    found = ["| way | µs a conversation, best | median | best to best of count |", "|---|---:|---:|---:|"]
    base = min(spent[COUNT])
    return found + [
        f"| {name} | {min(each):.1f} | {median(each):.1f} | {min(each) / base:.1f} |" for name, each in spent.items()
    ]


def main() -> None:
    """Make the store, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with Path(os.devnull).open("w") as nowhere, embedded.server(settings=SERVER) as server:
        log.configure(stream=nowhere)
        make(server, Shape(given.conversations, given.messages, 0.01, given.rounds))
        with fresh(server) as store:
            print(machine(server))
            print("\n".join(lines(measure(store, given.rounds))))
            print(sizes(store))


if __name__ == "__main__":
    main()
