"""The heartbeat of a backfill: tells others that its process is alive, whatever it does or waits for."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from sqlalchemy.exc import SQLAlchemyError

from sweeper.clock import Clock
from sweeper.postgres import backfills
from sweeper.postgres.backfills import BackfillPlan
from sweeper.postgres.database import Database


@contextmanager
def heartbeat(database: Database, plan: BackfillPlan, clock: Clock) -> Iterator[None]:
    """Context manager: record every `HEARTBEAT` that a process works on the plan, in a thread, until the block ends."""
    ended = Event()
    thread = Thread(target=_beat, args=(database, plan, clock, ended), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(database: Database, plan: BackfillPlan, clock: Clock, ended: Event) -> None:
    """A heartbeat that fails is left out: the work itself reports what is wrong with the server."""
    while not ended.is_set():
        with suppress(SQLAlchemyError), database.transaction() as connection:
            backfills.record_seen(connection, plan, clock.now())
        ended.wait(backfills.HEARTBEAT.total_seconds())
