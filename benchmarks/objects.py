"""How fast objects behind attachments are removed from a local S3 over HTTP: in bulk, some at a time, and one by one.

    python -m benchmarks.objects [--count 10000] [--attachments 1000000]

Each way removes objects of its own in turn, so many rounds, beside attachments that are kept and searched before each removal.
moto's server runs in a process of its own.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import Any
from unittest.mock import patch

import fsspec
import psycopg

from benchmarks.sweep import SERVER, machine
from sweeper import embedded, log
from sweeper.objects import file_systems, removal
from sweeper.postgres import database as databases
from tests.store import stores

FILL = """
SET session_replication_role = replica;
INSERT INTO store.attachments
SELECT gen_random_uuid(), gen_random_uuid(), 's3://bucket/kept/' || n FROM generate_series(1, {attachments}) n;
INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome)
SELECT 'store', now(), '', '', 1, now(), now(), 'completed';
VACUUM ANALYZE;
"""
PENDING = """
INSERT INTO sweeper.object_purges (uri, conversation_id, run_id)
SELECT 's3://bucket/' || n || '/an attachment.png', 'c', 1 FROM generate_series(1, %s) n
"""
WAYS = {"one by one": (False, 1, 10), "8 at a time": (False, 8, 10), "1,000 a request": (True, 8, 1)}
"""Whether one request removes many, how many go at the same time, and which part of the objects this way gets."""


def serve(pipe: Pipe) -> None:
    """Serve a bucket; put as many objects as the other side asks for, and say how many are left."""
    from tests.store.buckets import Bucket, serving  # only here: moto is large

    bucket = Bucket()
    with serving(bucket) as options:
        pipe.send(options)
        while count := pipe.recv():
            bucket.reset()
            bucket.put(f"{number}/an attachment.png" for number in range(1, count + 1))
            pipe.send(count)
            pipe.recv()
            pipe.send(len(bucket.keys))


@contextmanager
def served() -> Iterator[Pipe]:
    """A bucket's server in another process, as the s3:// of this one."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    fsspec.config.conf["s3"] = ours.recv()
    try:
        yield ours
    finally:
        ours.send(0)
        process.join()


def measured(store: stores.Store, pipe: Pipe, way: tuple[bool, int, int], count: int) -> float:
    """Objects a second of one way."""
    in_bulk, parallel, part = way
    pipe.send(count // part)
    count = pipe.recv()
    store.execute("DELETE FROM sweeper.object_purges")
    store.execute(PENDING, count)
    sections: dict[str, Any] = {"prefixes": ["s3://bucket/"], "parallel": parallel, "budget_seconds": 0}
    database = databases.connect(store.settings(objects=sections))
    with patch.object(file_systems, "removes_in_bulk", lambda _: in_bulk):
        started = time.perf_counter()
        left = removal.remove_pending(database, 2, datetime.now(UTC), lambda: None)
        seconds = time.perf_counter() - started
    database.engine.dispose()
    pipe.send("left")
    if left or pipe.recv():
        raise SystemExit("not all objects were removed")
    return count / seconds


def main() -> None:
    """Remove objects in each way, in turn, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objects")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--attachments", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    log.configure("warning")
    with embedded.server(settings=SERVER) as server, served() as pipe:
        print(machine(server))
        store = stores.copy(server, stores.create(server, "uuid"), "filled", "uuid")
        with psycopg.connect(store.libpq, autocommit=True) as connection:
            for part in FILL.format(attachments=given.attachments).split(";\n"):
                connection.execute(part.encode() or b"SELECT")
        found: dict[str, list[float]] = {}
        for _ in range(given.rounds):
            for name, way in WAYS.items():
                found.setdefault(name, []).append(measured(store, pipe, way, given.count))
                print(name, round(found[name][-1]), flush=True)
        base = found["one by one"]
        print("| way | objects a second | ratio |")
        print("|---|---:|---:|")
        for name, rates in found.items():
            ratio = statistics.median(rate / one for rate, one in zip(rates, base, strict=True))
            print(f"| {name} | {statistics.median(rates):,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
