"""Threads of Chainlit: times as texts, columns in camel case, favorites, and files behind elements."""

from pathlib import Path

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "chainlit"
MOVED = """
UPDATE {0} SET "createdAt" = to_char("createdAt"::timestamp - %s * interval '1 day', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
WHERE {1}
"""
OF_NAME = '"threadId" = (SELECT id FROM threads WHERE name = %s)'
DAYS = {"old": 40, "favorite": 40, "no message": 40, "new": 29, "resumed": 1, "bad time": 40, "no time": 40}


def files(application: Application) -> Path:
    """Where the application keeps the files of its elements."""
    return application.folder.parent / "files"


def moved(application: Application, name: str, days: int, condition: str = "true") -> None:
    """Move the steps of a thread so many days back."""
    application.execute(MOVED.format("steps", f"{OF_NAME} AND {condition}"), days, name)


@pytest.fixture(scope="module")
def ids(application: Application) -> dict[str, str]:
    """The ids of the threads that the application wrote, by name."""
    found: dict[str, str] = application.drive("write", str(files(application)))
    return found


@pytest.fixture(scope="module")
def swept(application: Application, ids: dict[str, str]) -> Swept:
    """A store with threads that are due and others, swept once."""
    for name, days in DAYS.items():
        moved(application, name, days)
    moved(application, "answered lately", 40, "type = 'user_message'")
    # two hours ahead of UTC, as on a host in such a zone
    application.execute(MOVED.format("threads", "name <> %s"), 60, "old")
    application.execute(MOVED.format("threads", "name = %s"), 40 - 2 / 24, "old")
    application.execute(f"UPDATE steps SET type = 'run' WHERE type = 'user_message' AND {OF_NAME}", "no message")
    # a later message of the user whose time cannot be read
    for name, time in (("no time", "NULL"), ("bad time", "'28/11/2026 12:00'")):
        application.execute(
            'INSERT INTO steps (id, "threadId", name, type, streaming, "createdAt")'
            f" SELECT gen_random_uuid(), id, 'ada', 'user_message', false, {time} FROM threads WHERE name = %s",
            name,
        )
    place = f"file://{files(application)}/"
    application.init(lambda text: text.replace("'s3://your-bucket/'", f"'{place}'"))
    application.run_sql(application.folder / "store.sql")
    with (application.folder / "sweeper.toml").open("a") as settings:
        settings.write(f'[objects]\nprefixes = ["{place}"]\n')
    return application.swept()


def test_threads_that_are_due(swept: Swept, ids: dict[str, str]) -> None:
    """Threads in which the user has not written for 30 days go with steps, elements, feedback and files."""
    # a message of the user waits for the lock on its thread, by its foreign key; a favorite that is marked just then does not
    assert len(swept.complaints) == 2, swept.complaints
    assert all(text.startswith("store.conversations: it also reads public.steps") for text in swept.complaints)
    assert swept.canary.endswith("was purged, and no table that was written to meanwhile keeps any")
    assert swept.preview["would_purge"] == swept.result["purged"] == 2
    due = {ids["old"], ids["answered lately"]}
    assert {row["id"] for row in swept.gone["threads"]} == due
    gone = {table: {row["threadId"] for row in rows} for table, rows in swept.gone.items() if table != "threads"}
    assert gone == {"steps": due, "elements": due, "feedbacks": due}
    assert swept.changed == {}
    assert swept.tombstones == {id_: {"public.steps": 2, "public.elements": 1, "public.feedbacks": 1} for id_ in due}
    assert {row["objectKey"] for row in swept.after["elements"]} == {
        str(path.relative_to(files(swept.application))) for path in files(swept.application).rglob("*.txt")
    }


def test_threads_in_doubt(swept: Swept, ids: dict[str, str]) -> None:
    """A thread with a message of the user whose time cannot be read is kept, and one without any message of the user."""
    assert swept.application.in_doubt == {ids["no time"], ids["bad time"], ids["no message"]}


TIMES = {
    "2026-02-03T04:05:06Z": "2026-02-03 04:05:06+00",
    "2026-02-03T04:05:06.7Z": "2026-02-03 04:05:06.7+00",
    "2026-02-03T23:59:59.999999+00:00": "2026-02-03 23:59:59.999999+00",
    "2026-02-30T00:00:00Z": "2026-03-02 00:00:00+00",
    "0000-01-01T00:00:00Z": None,
    "2026-02-03T04:05:60Z": None,
    "2026-02-03T24:00:00Z": None,
    "2026-02-03T04:05:06": None,
    "2026-02-03T04:05:06+02:00": None,
    "2026-02-03T04:05:06Z\n": None,
    " 2026-02-03T04:05:06Z": None,
    "1764331200": None,
    "": None,
}


def test_times(swept: Swept) -> None:
    """A text that is no time of Chainlit's is no time, and never an error."""
    found = {
        at: swept.application.execute("SELECT (store.instant(%s) AT TIME ZONE 'UTC')::text || '+00'", at)
        for at in TIMES
    }
    assert {at: row for at, [(row,)] in found.items()} == TIMES


def test_application_goes_on(swept: Swept) -> None:
    """A second run purges nothing. Chainlit reads what is left, and writes on; a purged thread begins anew."""
    swept.runs_again()
    left = {name: [2, 1, 1] for name in ("resumed", "new", "favorite", "no message")}
    left |= {name: [3, 1, 1] for name in ("no time", "bad time")}
    assert swept.application.drive("read", str(files(swept.application))) == {
        "left": left,
        "later": left | {"old": [2, 1, 1], "resumed": [4, 2, 2]},
    }
