"""What legal holds and erasure orders cost: one sweep of the same store beside so many of them, as ratios to none.

    python -m benchmarks.protections [--count 1000000]

Each way sweeps a copy of one store of its own, in turn, so many rounds; what is in the copy beside the store is named in WAYS.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from benchmarks.sweep import SERVER, machine
from sweeper import embedded, log
from sweeper.clock import Clock
from sweeper.policy import schema as policies
from sweeper.postgres import database as databases
from sweeper.postgres import unmatched
from sweeper.runs.job import Job, read_contract
from sweeper.runs.sweep import sweep
from sweeper.settings import Settings
from tests.store import stores

DUE = 3_000
"""So many of the conversations are due, and go."""
FILL = """
SET session_replication_role = replica;
INSERT INTO store.accounts (id, created_at) SELECT gen_random_uuid(), '2019-01-01Z' FROM generate_series(1, 2000);
INSERT INTO store.plan_changes (account_id, effective_at, plan) SELECT id, '-infinity', 'free' FROM store.accounts;
INSERT INTO store.conversations
SELECT gen_random_uuid(), a.id, 'chat', 'first_party', false, false, at, at
FROM store.accounts a, generate_series(1, 15) n,
     LATERAL (SELECT CASE WHEN n * 2000 <= {due} * 1.34 AND a.id::text < 'c' THEN timestamptz '2024-01-01Z'
                          ELSE now() - interval '1 day' END AS at) AS t;
INSERT INTO store.messages (id, conversation_id, author, created_at, body)
SELECT gen_random_uuid(), c.id, 'user', c.last_activity_at, 'words' FROM store.conversations c, generate_series(1, 2);
"""
UNTOUCHED = "(SELECT id::text FROM store.accounts ORDER BY id DESC LIMIT 1)"
"""An account of which nothing is due."""
TOUCHED = (
    "(SELECT account_id::text FROM store.conversations WHERE last_activity_at < '2025-01-01Z' ORDER BY id LIMIT 1)"
)
HOLD = "INSERT INTO sweeper.legal_holds (matter, account_id, conversation_id, placed_at, released_at) SELECT 'm', "
ORDER = "INSERT INTO sweeper.erasure_orders (reference, account_id, conversation_id, recorded_at, due_at) SELECT 'o', "
SERIES = " FROM generate_series(1, {count})"
WAYS = {
    "none": "",
    "holds in force on what is not here": f"{HOLD} NULL, gen_random_uuid(), now(), NULL{SERIES}",
    "holds in force on one account that is here": f"{HOLD} {UNTOUCHED}, NULL, now(), NULL{SERIES}",
    "holds in force on one account with something due": f"{HOLD} {TOUCHED}, NULL, '2025-01-01Z', NULL{SERIES}",
    "released holds on everything": f"{HOLD} NULL, NULL, now() - interval '2 h', now() - interval '1 h'{SERIES}",
    "released holds on one account with something due": f"{HOLD} {TOUCHED}, NULL, '2025-01-01Z', '2025-02-01Z'{SERIES}",
    "orders carried out long ago": f"{ORDER} NULL, gen_random_uuid(), '2025-01-01Z', '2025-02-01Z'{SERIES}",
    "orders on accounts that are gone": f"{ORDER} gen_random_uuid(), NULL, '2025-01-01Z', '2025-02-01Z'{SERIES}",
    "orders on one account with something due": f"{ORDER} {TOUCHED}, NULL, '2023-01-01Z', '2025-02-01Z'{SERIES}",
}
"""What lies beside the store. On one account means that all of them reach each of its 15 conversations."""


@contextmanager
def job(url: str) -> Iterator[Job]:
    """A job on the store as it is now."""
    policy = policies.parse(Path(stores.POLICY).read_text(encoding="utf-8"))
    settings = Settings.model_validate(
        {"database": {"url": url}, "policy": {"file": stores.POLICY}, "guards": {"history": False, "volume": False}}
    )
    opened = databases.connect(settings)
    yield Job(opened, read_contract(opened, policy), policy, Clock(), datetime.now(UTC))
    opened.engine.dispose()


def measured(server: embedded.Server, template: str, script: str) -> tuple[float, int, float, str]:
    """Seconds of one sweep and what it purged; seconds of looking for what finds nothing, and what was found."""
    store = stores.copy(server, template, "measured", "uuid")
    with psycopg.connect(store.libpq, autocommit=True) as connection:
        for table in (
            "legal_holds",
            "erasure_orders",
        ):  # whose events a checkpoint would number: that is another benchmark
            connection.execute(f"ALTER TABLE sweeper.{table} DISABLE TRIGGER USER".encode())
        connection.execute(script.encode() or b"SELECT")
        connection.execute("ALTER TABLE sweeper.legal_holds ENABLE ALWAYS TRIGGER fence")
        connection.execute("VACUUM ANALYZE")
    with job(store.url) as ready:
        started = time.perf_counter()
        purged = sweep(ready).count
        swept = time.perf_counter() - started
        found = unmatched.attempt(ready.database, ready.as_of)
        looked = time.perf_counter() - started - swept
    stores.drop(server, "measured")
    return swept, purged, looked, str(found.as_json() if found else None)


def main() -> None:
    """Sweep beside each kind of protections, in turn, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.protections")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    log.configure("warning")
    with embedded.server(settings=SERVER) as server:
        print(machine(server))
        template = stores.create(server, "uuid")
        filled = stores.copy(server, template, "filled", "uuid")
        with psycopg.connect(filled.libpq, autocommit=True) as connection:
            connection.execute(FILL.format(due=DUE).encode())
        found: dict[str, list[tuple[float, int, float, str]]] = {}
        for _ in range(given.rounds):
            for name, script in WAYS.items():
                found.setdefault(name, []).append(measured(server, "filled", script.format(count=given.count)))
                print(name, found[name][-1], flush=True)
        base = statistics.median(swept for swept, *_ in found["none"])
        print(f"| {given.count:,} of | seconds of a sweep | ratio | purged | seconds to look for what finds nothing |")
        print("|---|---:|---:|---:|---:|")
        for name, rounds in found.items():
            swept = statistics.median(each[0] for each in rounds)
            looked = statistics.median(each[2] for each in rounds)
            print(f"| {name} | {swept:.2f} | {swept / base:.2f} | {rounds[0][1]:,} | {looked:.2f} |")


if __name__ == "__main__":
    main()
