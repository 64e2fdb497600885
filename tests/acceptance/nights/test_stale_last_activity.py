"""A night in which last_activity_at was older than the messages: most of what seemed due was skipped."""

from datetime import timedelta

from tests.acceptance.commands import Command
from tests.acceptance.nights import morning
from tests.acceptance.nights.morning import chat, due
from tests.store.operated import MONTH, world
from tests.store.stores import Store


def test_the_night(sweeper: Command, store: Store) -> None:
    """The run, status and explain name the column and the statement that mends it, and then nothing is wrong."""
    resumed = [due(f"c{number}", wrote=timedelta(days=1)) for number in range(3)]
    store.load(world(due("gone"), *resumed))
    run = sweeper("run")
    assert run.code == 0
    assert "3 records were skipped and 0 are in doubt, in 1 batches" in run.out
    [loud] = morning.advice(run.out)
    assert loud.startswith(
        "! 3 records are skipped (stale_last_activity): a user message is newer than last_activity_at"
    )
    assert "UPDATE store.conversations" in run.err  # the log, for whoever reads nothing else

    [line] = morning.advice(sweeper("status").out)
    assert "3 records are skipped (stale_last_activity, counted now)" in line
    assert morning.statement(line, "UPDATE") in loud

    told = sweeper("explain", str(store.id("c0"))).out
    assert "A run would skip it: a user message is newer than last_activity_at" in told
    written, true = (f"{store.execute(query, store.id('c0'))[0][0]:%Y-%m-%d}" for query in (WRITTEN, TRUE))
    assert f"Its true due date counts its newest user message, of {written}" in told
    assert f"it is due at {true}" in told

    store.execute(morning.statement(told, "UPDATE"))  # that conversation alone
    assert "2 records are skipped" in sweeper("status").out
    store.execute(morning.statement(line, "UPDATE"))
    assert morning.is_well(sweeper)


WRITTEN = "SELECT max(created_at) FROM messages WHERE conversation_id = %s"
TRUE = f"SELECT max(created_at) + interval '{MONTH.days} days' FROM messages WHERE conversation_id = %s"


def test_row_that_is_not_due(sweeper: Command, store: Store) -> None:
    """A conversation that is not due either way is told its true due date all the same."""
    store.load(world(chat("c1", timedelta(days=9), wrote=timedelta(days=1))))
    told = sweeper("explain", str(store.id("c1"))).out
    assert "KEPT: it is due at" in told
    assert "Its true due date counts its newest user message" in told
    assert "UPDATE store.conversations" in told
