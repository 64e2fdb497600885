"""`forecast`: every record is in one row, in the interval of its due date; bad dates are refused before anything is read."""

import csv
import io
import json

import pytest

from tests.acceptance.commands import Command
from tests.store.operated import NOW, mixed
from tests.store.stores import Store

UNTIL = ("--until", "2026-06-08")


def test_every_record_is_in_one_row(sweeper: Command, store: Store) -> None:
    """Overdue is first, what is skipped or held is apart, and what falls due after the end is one row by rule."""
    store.load(mixed())
    told = json.loads(sweeper("forecast", "--as-of", NOW, "--by", "day", *UNTIL, "--json").out)
    found = [
        (row["state"], row["begin"], row["record"][:4], row["rule"], row["records"]) for row in told["rows"]
    ]  # the end of --until is the end of that day
    assert found == [
        ("overdue", None, "conv", "deleted", 1),
        ("overdue", None, "conv", "standard", 3),
        ("overdue", None, "conv", "zero_retention", 1),
        ("overdue", None, "feed", "feedback", 1),
        ("skipped", None, "conv", "standard", 1),
        ("skipped", None, "feed", "feedback", 1),
        ("held", None, "conv", "standard", 1),
        ("held", None, "feed", "feedback", 1),
        ("due", NOW, "conv", "standard", 1),
        ("due", NOW, "feed", "feedback", 1),
        ("due", "2026-06-08T00:00:00Z", "conv", "standard", 2),
        ("later", None, "conv", "standard", 1),
        ("later", None, "feed", "feedback", 1),
    ]
    assert told["without_due_date"] == {"conversation": 1, "feedback": 1}
    sooner = json.loads(sweeper("forecast", "--as-of", NOW, "--until", "2026-06-08T00:00:00Z", "--json").out)
    assert [row["records"] for row in sooner["rows"] if (row["state"], row["rule"]) == ("later", "standard")] == [3]
    report = json.loads(sweeper("report", "--as-of", NOW, "--json").out)
    for kind, part in (("conversation", "conversations"), ("feedback", "feedback")):
        counted = sum(row["records"] for row in told["rows"] if row["record"] == kind) + told["without_due_date"][kind]
        assert counted == report[part]["total"]


def test_bytes_are_what_the_tables_occupy(sweeper: Command, store: Store) -> None:
    """All rows together are as large as the tables; a conversation with messages has the bytes of the tables below."""
    store.load(mixed())
    rows = json.loads(sweeper("forecast", "--as-of", NOW, "--json").out)["rows"]
    sizes = dict(
        store.execute(
            "SELECT relname::text, pg_total_relation_size(oid) FROM pg_class "
            "WHERE oid = ANY('{conversations,messages,attachments}'::regclass[])"
        )
    )
    found = {(row["state"], row["rule"]): row["bytes"] for row in rows if row["record"] == "conversation"}
    assert found["skipped", "standard"] == round(sizes["conversations"] / 12 + sizes["messages"] + sizes["attachments"])
    assert found["overdue", "deleted"] == round(sizes["conversations"] / 12)


def test_table_and_csv(sweeper: Command, store: Store) -> None:
    """A person sees bars and totals in words, a program CSV with a line for each row; nothing is recorded."""
    store.load(mixed())
    events = store.execute("SELECT count(*) FROM sweeper.events")
    shown = sweeper("forecast", "--as-of", NOW, "--by", "week")
    assert (shown.code, shown.err) == (0, "")
    assert "standard 3, deleted 1" in shown.out
    assert "without a due date: 1 conversations" in shown.out
    lines = list(csv.DictReader(io.StringIO(sweeper("forecast", "--as-of", NOW, "--csv").out)))
    assert list(lines[0]) == ["state", "begin", "end", "record", "rule", "records", "bytes"]
    assert lines[0]["state"] == "overdue"
    assert store.execute("SELECT count(*) FROM sweeper.events") == events


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--until yesterday", "is not an instant"),
        ("--until 2026-02-30", "is not an instant"),
        ("--until 2020-01-01", "a forecast looks ahead"),
        ("--until 9999-12-31", "is too late"),
        ("--by year", "--by"),
        ("--csv --json", "contradicts"),
    ],
)
def test_bad_dates(sweeper: Command, words: str, said: str) -> None:
    """What is no date, or lies in the past, is a usage error that says what was not done."""
    done = sweeper("forecast", *words.split())
    assert (done.code, done.out) == (2, "" if "--json" not in words else done.out)
    assert said in done.err
