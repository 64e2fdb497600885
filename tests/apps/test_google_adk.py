"""Sessions of Google ADK: keys of three columns, in which names may run into one another."""

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "google-adk"


@pytest.fixture(scope="module")
def swept(application: Application) -> Swept:
    """A store with sessions that are due and others, swept once."""
    application.drive("write")
    application.execute("UPDATE sessions SET create_time = create_time - interval '60 days'")
    # as an earlier version wrote it on a machine that is 12 hours behind UTC
    application.execute(
        "UPDATE events SET timestamp = timestamp - interval '12 hours', event_data = jsonb_set(event_data, '{timestamp}',"
        " to_jsonb(extract(epoch FROM now() - interval '29.7 days')))"
        " WHERE session_id = 'late' AND timestamp > now() - interval '50 days'"
    )
    application.execute(
        "UPDATE events SET event_data = event_data || '{\"timestamp\": 1e999}' WHERE session_id = 'old'"
    )
    application.execute("DELETE FROM user_states WHERE user_id = 'dave'")
    application.init()
    application.run_sql(application.folder / "store.sql")
    application.superuser.answer("hold", "place", "a matter", "--account", "4:shop:eve", "--yes")
    return application.swept()


def test_sessions_that_are_due(swept: Swept) -> None:
    """Sessions without an event for 30 days go with their events; others with the same letters in their keys stay."""
    assert swept.complaints == []
    assert swept.canary.startswith("not tried: the key of public.sessions is an expression")
    assert swept.preview["would_purge"] == swept.result["purged"] == 3
    due = {("shop", "alice", "old"), ("a", "bc", "same"), ("1", "x:y", "same")}
    assert {(row["app_name"], row["user_id"], row["id"]) for row in swept.gone.pop("sessions")} == due
    assert {(row["app_name"], row["user_id"], row["session_id"]) for row in swept.gone.pop("events")} == due
    assert swept.gone.keys() == {"sessions", "events"}
    assert swept.changed == {}
    assert swept.tombstones == {
        id_: {"public.events": 4} for id_ in ("4:shop:5:alice:old", "1:a:2:bc:same", "1:1:3:x:y:same")
    }


def test_sessions_that_stay(swept: Swept) -> None:
    """A later event of the user keeps a session, an account that is not there, and a legal hold on a user of an app."""
    assert (swept.preview["held"], swept.result["held"]) == (1, 1)
    assert swept.result["spared_by_reason"] == {"stale_last_activity": 1}
    assert swept.application.in_doubt == {"4:shop:4:dave:no account"}


def test_application_goes_on(swept: Swept) -> None:
    """A second run purges nothing. ADK reads what is left, and writes on; a purged session begins anew, its user is known."""
    swept.runs_again()
    kept = (
        "shop alice resumed",
        "shop alice new",
        "shop bob new",
        "ab c same",
        "1:x y same",
        "shop carol late",
        "shop eve held",
        "shop dave no account",
    )
    left = dict.fromkeys(kept, 4)
    assert swept.application.drive("read") == {
        "left": left,
        "later": left | {"shop alice old": 2, "shop alice resumed": 6},
    }
