"""The picture of an account's plans and consent."""

from datetime import datetime, timedelta

from sweeper.policy.history import history
from sweeper.policy.schema import Policy
from sweeper.report import timeline
from tests.facts import World, account_of, instant

AS_OF = "2026-07-01T00:00:00Z"


def line(policy: Policy, account: World) -> timeline.LifeLine:
    """The picture of an account at AS_OF."""
    found = account_of({"accounts": [{"id": "a", "consent": [], **account}]}, "a")
    assert found is not None
    return timeline.of(history(found, policy, instant(AS_OF)))


def test_drawn(policy: Policy) -> None:
    """Ends are where they happened, what goes on is open, and a withdrawal that was dated back has a lane for retention."""
    found = line(
        policy,
        {
            "created_at": "2025-07-01T00:00:00Z",
            "plans": [
                {"effective_at": "2025-07-01T00:00:00Z", "plan": "free"},
                {"effective_at": "2026-01-01T00:00:00Z", "plan": "max"},
            ],
            "consent": [
                {"recorded_at": "2025-10-01T00:00:00Z", "granted": True},
                {"recorded_at": "2026-04-01T00:00:00Z", "effective_at": "2026-02-01T00:00:00Z", "granted": False},
            ],
        },
    )
    assert timeline.drawn(found) == [
        "                          2025-07-01                                  2026-07-01",
        "account                   [====================================================>",
        "plan free                 [==========================]",
        "plan max                                             [=========================>",
        "consent model_improvement              [=================]",
        "retention model_improvem~              [==========================]",
    ]
    assert list(found.listed(9))[-1] == (
        "consent model_improvement, for retention: from 2025-10-01T00:00:00Z to 2026-04-01T00:00:00Z (withdrawal)"
    )
    assert timeline.figure(found).finding == "On 2026-07-01 the plan max is in force, and no consent is in force."


def test_always_and_nothing(policy: Policy) -> None:
    """A plan that was always in force is open on the left; an account without any entry has a line of its own all the same."""
    always = line(policy, {"created_at": None, "plans": [{"effective_at": "-infinity", "plan": "pro"}]})
    assert timeline.drawn(always)[-1].split()[-1] == f"<{'=' * 52}>"
    assert list(always.listed(9)) == ["account: always", "plan pro: always"]
    nothing = line(policy, {"created_at": None, "plans": []})
    assert [lane.kind for lane in nothing.lanes] == ["account"]


def test_fits_a_terminal(policy: Policy) -> None:
    """However often plans change, no line is longer than a terminal is wide, and the list is short."""
    begin = datetime.fromisoformat("2025-01-01T00:00:00+00:00")
    plans = [
        {"effective_at": (begin + timedelta(days=n)).isoformat(), "plan": f"{'p' * 40} {n % 40}"} for n in range(400)
    ]
    found = line(policy, {"plans": plans})
    drawn = timeline.drawn(found)
    assert max(map(len, drawn)) <= timeline.WIDTH
    assert (len(drawn), drawn[-1]) == (timeline.MOST + 2, "... and 29 more")
    assert len(list(found.listed(3))) == 1 + 40 * 4
