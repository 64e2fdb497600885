"""Random small worlds for hypothesis, in the shape of one parsed case.

The instants of one world come from a small palette and its neighbours (a microsecond, a period away), so that edges
meet often. A world is drawn sane first; with poison, a few of its cells then get what no store should hold.
"""

from calendar import isleap
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Instants = st.SearchStrategy[datetime]

MICROSECOND = timedelta(microseconds=1)
EARLIEST = datetime(2019, 1, 2, tzinfo=UTC)
LATEST = datetime(2045, 1, 1, tzinfo=UTC)

# Days on which a rule of the policy changes, days 30 days from those, and days around the leap day.
BASE_DAYS = [
    datetime(2025, 8, 1, tzinfo=UTC),
    datetime(2025, 8, 28, tzinfo=UTC),
    datetime(2025, 9, 8, tzinfo=UTC),
    datetime(2025, 9, 17, tzinfo=UTC),
    datetime(2025, 9, 27, tzinfo=UTC),
    datetime(2025, 10, 8, tzinfo=UTC),
    datetime(2025, 10, 17, tzinfo=UTC),
    datetime(2025, 11, 16, tzinfo=UTC),
    datetime(2025, 12, 1, 10, 30, tzinfo=UTC),
    datetime(2026, 1, 15, tzinfo=UTC),
    datetime(2028, 1, 30, 12, tzinfo=UTC),
    datetime(2028, 2, 29, 12, tzinfo=UTC),
    datetime(2028, 3, 30, 12, tzinfo=UTC),
    datetime(2030, 2, 28, 12, tzinfo=UTC),
    datetime(2033, 2, 28, 12, tzinfo=UTC),
]
# Days at whose end a calendar month is cut short, and days that a cut leads to.
MONTH_ENDS = [
    datetime(2025, 8, 31, 12, tzinfo=UTC),
    datetime(2025, 10, 31, tzinfo=UTC),
    datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 1, 29, 12, tzinfo=UTC),
    datetime(2026, 1, 31, 12, tzinfo=UTC),
    datetime(2026, 2, 28, 12, tzinfo=UTC),
    datetime(2026, 3, 31, tzinfo=UTC),
    datetime(2026, 8, 31, tzinfo=UTC),
    datetime(2028, 2, 29, 12, tzinfo=UTC),
    datetime(2028, 3, 31, 12, tzinfo=UTC),
]
SHIFTS = [timedelta(0), timedelta(0), timedelta(0), MICROSECOND, -MICROSECOND, timedelta(hours=1), timedelta(days=1)]

CONSUMER_PLANS = ["free", "pro", "max"]
COMMERCIAL_PLANS = ["team", "enterprise", "api", "gov", "education"]
# Weighted: most accounts are consumers, `api` is the one commercial plan with a purpose, `platinum` is nobody's.
PLANS = [*CONSUMER_PLANS * 6, *COMMERCIAL_PLANS, *["api"] * 6, "platinum"]

# What sets a conversation apart; most have nothing.
PLAIN = [""] * 24
TRAITS = [
    *PLAIN,
    "incognito",
    "zero_retention",
    "deleted_at",
    "deleted_at",
    "restored_at",
    "flagged_at",
    "bedrock",
    "vertex",
]

POISON_INSTANTS = [
    None,
    "infinity",
    "-infinity",
    "10000-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "2014-12-31T23:59:59.999999Z",
    "2015-01-01T00:00:00Z",
    "9998-11-30T00:00:00Z",
    "9999-01-01T00:00:00Z",
]


def text(instant: datetime) -> str:
    """An instant as RFC 3339 in UTC, microseconds only if not zero."""
    return instant.isoformat().replace("+00:00", "Z")


def years_later(instant: datetime, years: int) -> datetime:
    """The same day some years later (or earlier), 29 February clamped to the 28th."""
    leaps = instant.month == 2 and instant.day == 29 and not isleap(instant.year + years)
    return instant.replace(year=instant.year + years, day=28 if leaps else instant.day)


def neighbours(instant: datetime) -> list[datetime]:
    """The instant, a microsecond, a day and each of the policy's periods away from it."""
    return [
        instant,
        instant,
        instant,
        instant + MICROSECOND,
        instant - MICROSECOND,
        instant + timedelta(days=1),
        instant - timedelta(days=1),
        instant + timedelta(days=30),
        instant - timedelta(days=30),
    ]


def dues(instant: datetime) -> list[datetime]:
    """Instants at which a record anchored here may be due."""
    days = [instant + timedelta(days=number) for number in (0, 0, 1, 2, 10, 30, 30, 30, 30)]
    return [*days, years_later(instant, 2), years_later(instant, 5)]


@st.composite
def palettes(draw: st.DrawFn, among: Sequence[datetime] = BASE_DAYS) -> list[datetime]:
    """The few instants that one world is made of."""
    first = draw(st.integers(0, len(among) - 1))
    near = among[max(0, first - 3) : first + 4]
    days = draw(st.lists(st.sampled_from(near), min_size=2, max_size=4))
    if rarely(draw, 4):
        days.append(years_later(days[0], draw(st.sampled_from([2, 5, 5]))))
    return sorted(day + shift for day in days for shift in {timedelta(0), draw(st.sampled_from(SHIFTS))})


def instants(palette: Sequence[datetime]) -> Instants:
    """An instant of the palette or a neighbour of one."""
    return st.sampled_from([near for instant in palette for near in neighbours(instant)])


def rarely(draw: st.DrawFn, one_in: int) -> bool:
    """True about once in so many draws; the middle is asked for, since hypothesis likes both ends."""
    return draw(st.integers(0, one_in - 1)) == one_in // 2


@st.composite
def plan_changes(draw: st.DrawFn, when: Instants) -> list[Json]:
    """None to four plan changes, the first mostly long ago or since always."""
    if rarely(draw, 20):
        return []
    start = draw(st.sampled_from(["2024-01-01T00:00:00Z"] * 6 + ["-infinity"] * 2 + [""])) or text(draw(when))
    rows = [{"effective_at": start, "plan": draw(st.sampled_from(PLANS))}]
    later = range(draw(st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3])))
    rows += [{"effective_at": text(draw(when)), "plan": draw(st.sampled_from(PLANS))} for _ in later]
    return rows


@st.composite
def consent_events(draw: st.DrawFn, when: Instants, plans: Sequence[Json]) -> list[Json]:
    """None to five events, mostly on, off, on, …; some grants are future-dated, some withdrawals back-dated."""
    usual = "development_partner" if any(row["plan"] == "api" for row in plans) else "model_improvement"
    purposes = st.sampled_from([usual] * 9 + ["model_improvement", "development_partner", "newsletter"])
    recorded = [draw(when) for _ in range(draw(st.sampled_from([0, 1, 1, 2, 2, 2, 3, 4, 5])))]
    rows: list[Json] = []
    if recorded and rarely(draw, 3):
        recorded[0] = BASE_DAYS[0]  # before the regime, so that its epoch holds most of this world
    for position, instant in enumerate(recorded if rarely(draw, 6) else sorted(recorded)):
        row: Json = {"recorded_at": text(instant), "granted": (position % 2 == 0) != rarely(draw, 8)}
        purpose = draw(purposes)
        if purpose != "model_improvement" or position % 2:
            row["purpose"] = purpose
        if rarely(draw, 3):
            row["effective_at"] = text(draw(when))
        rows.append(row)
    return rows


@st.composite
def accounts(draw: st.DrawFn, name: str, when: Instants) -> Json:
    """An account with its plan changes and consent events."""
    plans = draw(plan_changes(when))
    account: Json = {"id": name, "plans": plans, "consent": draw(consent_events(when, plans))}
    if rarely(draw, 5):
        account["created_at"] = text(draw(when))
    if rarely(draw, 8):
        account["closed_at"] = text(draw(when))
    return account


@st.composite
def conversations(draw: st.DrawFn, name: str, owner: str, when: Instants) -> Json:
    """A conversation without its messages; its last activity mostly follows its creation."""
    one, other = draw(when), draw(when)
    if one > other and not rarely(draw, 20):
        one, other = other, one
    row: Json = {"id": name, "account": owner, "created_at": text(one), "last_activity_at": text(other)}
    for _ in range(2):
        trait = draw(st.sampled_from(TRAITS))
        if trait in {"incognito", "zero_retention"}:
            row[trait] = True
        elif trait.endswith("_at"):
            at = draw(when)
            row[trait] = text(at)
            if trait == "restored_at":  # mostly after a deletion, at times at the very same instant
                row["deleted_at"] = text(draw(st.sampled_from(neighbours(at))))
        elif trait:
            row["platform"] = trait
    if rarely(draw, 4):
        row |= {"kind": "coding_session"} | {
            column: row.get(column, False) for column in ("incognito", "zero_retention")
        }
    return row


@st.composite
def message_lists(draw: st.DrawFn, first: int, conversation: Json, when: Instants) -> list[Json]:
    """None to three messages, mostly at the conversation's own instants or between them."""
    own = [datetime.fromisoformat(conversation[column]) for column in ("created_at", "last_activity_at")]
    rows: list[Json] = []
    for number in range(first, first + draw(st.integers(0, 3))):
        written = draw(st.one_of(st.sampled_from(own), when))
        if not rarely(draw, 8):
            written = min(max(written, own[0]), own[1])
        author = draw(st.sampled_from(["user", "user", "assistant"]))
        rows.append({"id": f"m{number}", "created_at": text(written), "author": author})
    return rows


@st.composite
def targets(draw: st.DrawFn, owners: Sequence[str], chats: Sequence[Json], *, universal: int) -> Json:
    """What a hold or order names: an account, a conversation, both (mostly a pair), or neither."""
    kind = draw(st.sampled_from(["account"] * 3 + ["conversation"] * 3 + ["both"] * 3 + ["neither"] * universal))
    chat = draw(st.sampled_from(chats))
    owner = draw(st.sampled_from([chat["account"], chat["account"], *owners]))
    target: Json = {}
    if kind in {"account", "both"}:
        target["account"] = owner
    if kind in {"conversation", "both"}:
        target["conversation"] = "c99" if rarely(draw, 20) else chat["id"]
    return target


@st.composite
def holds(draw: st.DrawFn, owners: Sequence[str], chats: Sequence[Json], when: Instants) -> Json:
    """A legal hold, half of them released some time."""
    row: Json = draw(targets(owners, chats, universal=1))
    if not rarely(draw, 5):
        row["placed_at"] = text(draw(when))
    if draw(st.booleans()):
        row["released_at"] = text(draw(when))
    return row


@st.composite
def orders(draw: st.DrawFn, owners: Sequence[str], chats: Sequence[Json], when: Instants) -> Json:
    """An erasure order, some without a date of recording or of due."""
    row: Json = draw(targets(owners, chats, universal=1))
    if not rarely(draw, 5):
        row["recorded_at"] = text(draw(when))
    if not rarely(draw, 5):
        row["due_at"] = text(draw(when))
    return row


@st.composite
def feedback_rows(draw: st.DrawFn, name: str, owners: Sequence[str], chats: Sequence[Json], when: Instants) -> Json:
    """A feedback row, mostly on a conversation of its account, now and then on one that is gone or on none."""
    chat = draw(st.sampled_from(chats))
    return {
        "id": name,
        "account": draw(st.sampled_from([chat["account"]] * 4 + list(owners))),
        "conversation": draw(st.sampled_from([chat["id"]] * 4 + ["c99", None])),
        "kind": draw(st.sampled_from(["bug_report"] * 3 + ["thumbs", "thumbs", "survey", "survey", "haiku"])),
        "submitted_at": text(draw(when)),
        "transcript": draw(st.sampled_from([None, None, "what was said"])),
    }


def instants_of(world: Json) -> list[datetime]:
    """Every instant of a sane world that a due may be anchored at or that as-of may coincide with."""
    rows = [*world["accounts"], *world["conversations"], *world["holds"], *world["orders"], *world["feedback"]]
    for account in world["accounts"]:
        rows += account["plans"] + account["consent"]
    for conversation in world["conversations"]:
        rows += conversation["messages"]
    found = [value for row in rows for key, value in row.items() if key.endswith("_at") and value != "-infinity"]
    return sorted({datetime.fromisoformat(value) for value in found})


@st.composite
def as_ofs(draw: st.DrawFn, world: Json) -> str:
    """An as-of at, just before or just after an instant of the world or a due; mostly after most of what happened."""
    found = instants_of(world)
    anchor = draw(st.sampled_from(found + found[len(found) // 2 :] * 4))
    chosen = draw(st.sampled_from(dues(anchor))) + draw(
        st.sampled_from([timedelta(0), timedelta(0), MICROSECOND, -MICROSECOND])
    )
    return text(min(max(chosen, EARLIEST), LATEST))


def number_rows(draw: st.DrawFn, world: Json) -> None:
    """Give plans and consents explicit ids, unique in the world and in no order."""
    for column in ("plans", "consent"):
        rows = [row for account in world["accounts"] for row in account[column]]
        for row, number in zip(rows, draw(st.permutations(range(1, len(rows) + 1))), strict=True):
            row["id"] = number


def cells(world: Json) -> list[tuple[Json, str, list[Any]]]:
    """Every cell that can be poisoned: the row, its column, and the values no store should hold."""
    found: list[tuple[Json, str, list[Any]]] = []
    for account in world["accounts"]:
        found += [(account, column, POISON_INSTANTS) for column in ("created_at", "closed_at")]
        for row in account["plans"]:
            found += [(row, "effective_at", POISON_INSTANTS), (row, "plan", [None, "platinum", ""])]
        for row in account["consent"]:
            found += [(row, column, POISON_INSTANTS) for column in ("recorded_at", "effective_at")]
            found += [(row, "granted", [None]), (row, "purpose", [None, "newsletter"])]
    for chat in world["conversations"]:
        columns = ("created_at", "last_activity_at", "deleted_at", "restored_at", "flagged_at")
        found += [(chat, column, POISON_INSTANTS) for column in columns]
        found += [(chat, column, [None]) for column in ("incognito", "zero_retention", "kind")]
        found += [(chat, "platform", [None, "moonbase"]), (chat, "account", ["a99"])]
        found += [(message, "created_at", POISON_INSTANTS) for message in chat["messages"]]
    found += [(row, column, POISON_INSTANTS) for row in world["holds"] for column in ("placed_at", "released_at")]
    found += [(row, column, POISON_INSTANTS) for row in world["orders"] for column in ("recorded_at", "due_at")]
    for row in world["feedback"]:
        found += [(row, "submitted_at", POISON_INSTANTS), (row, "kind", [None, "haiku"])]
    return found


@st.composite
def worlds(draw: st.DrawFn, *, poison: bool, among: Sequence[datetime] = BASE_DAYS) -> Json:
    """A small random world; with poison, one to four of its cells hold what no store should hold."""
    when = instants(draw(palettes(among)))
    owners = [f"a{number}" for number in range(1, draw(st.integers(1, 3)) + 1)]
    world: Json = {"as_of": "", "accounts": [draw(accounts(owner, when)) for owner in owners]}
    chats: list[Json] = []
    written = 0
    for number in range(1, draw(st.integers(1, 5)) + 1):
        chat = draw(conversations(f"c{number}", draw(st.sampled_from(owners)), when))
        chat["messages"] = draw(message_lists(written + 1, chat, when))
        written += len(chat["messages"])
        chats.append(chat)
    world["conversations"] = chats
    world["holds"] = [draw(holds(owners, chats, when)) for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])))]
    world["orders"] = [draw(orders(owners, chats, when)) for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])))]
    count = draw(st.integers(0, 3))
    world["feedback"] = [draw(feedback_rows(f"f{n}", owners, chats, when)) for n in range(1, count + 1)]
    world["as_of"] = draw(as_ofs(world))
    if draw(st.booleans()):
        number_rows(draw, world)
    if poison:
        places = cells(world)
        for _ in range(draw(st.integers(1, 4))):
            row, column, values = draw(st.sampled_from(places))
            row[column] = draw(st.sampled_from(values))
    return world
