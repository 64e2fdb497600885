"""LangGraph's threads: no rows of their own, and their times inside of ids."""

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "langgraph"
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


@pytest.fixture(scope="module")
def swept(application: Application) -> Swept:
    """A store with threads that are due and others, swept once."""
    application.drive("write")
    for thread, id_ in (("no time", "by hand"), ("later without time", "0")):
        application.execute(
            "INSERT INTO checkpoints SELECT %s, '', checkpoint_id, NULL, type, checkpoint, metadata FROM checkpoints"
            " WHERE thread_id = 'old' AND checkpoint_ns = ''",
            thread,
        )
        application.execute(
            "INSERT INTO checkpoints SELECT %s, '', %s, NULL, type, checkpoint, metadata FROM checkpoints"
            " WHERE thread_id = 'old' LIMIT 1",
            thread,
            id_,
        )
    application.init()
    application.run_sql(application.folder / "store.sql")
    return application.swept()


def threads(rows: dict[str, list[dict[str, str]]]) -> dict[str, set[str]]:
    """The threads that rows belong to, by table."""
    return {table: {row["thread_id"] for row in rows} for table, rows in rows.items()}


def test_threads_that_are_due(swept: Swept) -> None:
    """Threads whose newest checkpoint is older than 30 days go with all that they have; nothing else is touched."""
    # a view of the newest checkpoints reads all of an index; `check` says so unless it knows that the table is small
    assert all("(account_id, last_activity_at), and the table is read whole" in text for text in swept.complaints)
    assert swept.canary.endswith("was purged, and no table that was written to meanwhile keeps any")
    assert (swept.preview["would_purge"], swept.result["purged"], swept.result["failed"]) == (2, 2, 0)
    assert threads(swept.gone) == {table: {"old", "interrupted"} for table in TABLES}
    kept = {"resumed", "new"}
    assert threads({table: swept.after[table] for table in TABLES}) == {
        "checkpoints": {*kept, "no time", "later without time"},
        "checkpoint_blobs": kept,
        "checkpoint_writes": kept,
    }
    assert swept.changed == {}
    assert swept.tombstones == {
        thread: {f"public.{table}": sum(row["thread_id"] == thread for row in swept.before[table]) for table in TABLES}
        for thread in ("old", "interrupted")
    }


def test_threads_in_doubt(swept: Swept) -> None:
    """A thread with a checkpoint whose id has no time is counted as in doubt, even if its other checkpoints are old."""
    assert swept.application.in_doubt == {"no time", "later without time"}


def test_application_goes_on(swept: Swept) -> None:
    """A second run purges nothing. LangGraph reads what is left, and writes on; a purged thread begins anew."""
    swept.runs_again()
    left = {
        "new": ["hello", "answer to hello"],
        "resumed": ["hello", "answer to hello", "again", "answer to again"],
        "no time": [],
        "later without time": [],
    }
    more = ["more", "answer to more"]
    assert swept.application.drive("read") == {
        "left": left,
        "later": left | {"old": more, "resumed": [*left["resumed"], *more]},
    }
