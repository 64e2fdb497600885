"""A night in which every batch read a whole table, because an index had been dropped."""

from tests.acceptance.commands import Command
from tests.acceptance.nights import morning
from tests.acceptance.nights.morning import due
from tests.store.operated import world
from tests.store.stores import Store


def test_the_night(sweeper: Command, store: Store) -> None:
    """Status and check each name the index once, and its statement mends it."""
    store.load(world(due("c1")))
    store.execute("DROP INDEX messages_conversation_id_idx")
    assert sweeper("run").code == 0
    [line] = morning.advice(sweeper("status").out)
    assert "store.messages: messages_conversation_id_fkey" in line
    assert "every batch would read the whole table" in line
    create = morning.statement(line, "CREATE INDEX")
    assert sweeper("check").out.count(create.rstrip(";")) == 1
    store.execute(create)
    assert morning.is_well(sweeper)
