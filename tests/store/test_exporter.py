"""The exporter: it keeps what it read for a while, and never hands out an old number as a new one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sweeper.clock import Clock
from sweeper.report.exporter import Exporter
from tests.facts import instant
from tests.processes import until
from tests.store.operated import NOW, TICK
from tests.store.stores import Store


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = instant(NOW)

    def clock(self) -> Clock:
        """The clock."""
        return Clock(lambda: self.now, lambda _: self.now)


def value(text: bytes, series: str) -> float:
    """The value of a series that has no other label than its store's; -1 where it is not there."""
    lines = [line for line in text.decode().splitlines() if line.startswith(f"{series}{{")]
    return float(lines[0].split()[-1]) if lines else -1


def counted(exporter: Exporter) -> bytes:
    """The text of the first reading, once its count of overdue records is done."""
    until(lambda: value(exporter.text(), "sweeper_overdue_conversations") == 0)
    return exporter.text()


@contextmanager
def locked(store: Store, table: str = "sweeper.runs") -> Iterator[None]:
    """Nobody reads a table while the block lasts."""
    with store.connect() as other, other.transaction():
        other.execute(f"LOCK TABLE {table}".encode())
        yield


def test_exporter_keeps_what_it_read(store: Store) -> None:
    """A text is handed out again until [serve] numbers_seconds have passed; then it is read anew."""
    time = Time()
    exporter = Exporter(store.settings(serve={"numbers_seconds": 60}), time.clock())
    first = counted(exporter)
    assert (value(first, "sweeper_up"), value(first, "sweeper_paused")) == (1, 0)
    store.execute("INSERT INTO sweeper.pauses (reason) VALUES ('r')")
    time.now += timedelta(seconds=60) - TICK
    assert exporter.text() is first
    time.now += TICK
    assert value(exporter.text(), "sweeper_paused") == 1


def test_exporter_tells_no_old_numbers(store: Store) -> None:
    """Where reading fails there are no numbers, and it is tried again soon; where it works again there are new ones."""
    time = Time()
    exporter = Exporter(store.settings(), time.clock())
    assert value(counted(exporter), "sweeper_up") == 1
    time.now += timedelta(seconds=300)
    with locked(store):
        failed = exporter.text()
    assert (value(failed, "sweeper_up"), value(failed, "sweeper_paused")) == (0, -1)
    time.now += timedelta(seconds=15) - TICK
    assert exporter.text() is failed
    time.now += TICK
    assert value(exporter.text(), "sweeper_up") == 1


def test_first_scrape_does_not_wait_for_the_count(store: Store) -> None:
    """While the first count of overdue records lasts, a scrape gets all other numbers, and the count once it is there."""
    patient = {"lock_timeout_ms": 60_000, "url": store.url}
    exporter = Exporter(store.settings(database=patient), Time().clock(), wait=0.01)
    with locked(store, "store.feedback"):
        until(lambda: value(exporter.text(), "sweeper_up") == 1)
        first = exporter.text()
        assert value(first, "sweeper_last_success_timestamp_seconds") == 0
        assert value(first, "sweeper_overdue_conversations") == -1
    assert value(counted(exporter), "sweeper_up") == 1


def test_exporter_does_not_make_a_scrape_wait(store: Store) -> None:
    """While a reading takes long, the text before is handed out, up to twice its time; then it is said that there is none."""
    time = Time()
    patient = {"lock_timeout_ms": 60_000, "url": store.url}
    exporter = Exporter(store.settings(database=patient), time.clock(), wait=0.01)
    known = counted(exporter)
    with locked(store):
        time.now += timedelta(seconds=300)
        assert exporter.text() is known
        time.now += timedelta(seconds=300)
        assert value(exporter.text(), "sweeper_up") == 0
    until(lambda: value(exporter.text(), "sweeper_up") == 1)
    assert value(exporter.text(), "sweeper_numbers_timestamp_seconds") > value(
        known, "sweeper_numbers_timestamp_seconds"
    )
