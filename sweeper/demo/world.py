"""The demo's world: real conversations, and made-up accounts that show every rule of the policy at work.

Real are the people, who spoke when, and every word: all 7,168 conversations of the `chitchat-dataset` package, shifted
as one block so that the newest message was written an hour before now. Made up, from a seed, is what the dataset does
not know: plans, consents, marks on conversations, attachments, feedback, holds and orders. The same seed and now make
the same world.

What was found in the data, and what is done about it:

- 3,150 of the conversations have one speaker only: nobody answered. They stay, with user messages alone.
- 33 messages have no text: the empty string in the data, and here.
- In 2,123 conversations the assistant has the last word, so the last activity is earlier than the last message.
- Every conversation has a message and its messages are in the order of their instants; but instants are whole seconds,
  and in 1,047 conversations several messages share one: the message id, not the instant, tells them apart.
- `start` is hours off the first message (another time zone), so creation is the first message's instant. Prompts and
  the people's ratings of each other are left out.
- One person owns 1,150 conversations, a sixth of all, and 488 people own one. A life is therefore dealt by size: who
  owns many lets them be kept, or one account's opt-out would trip the guard against large purges.
- Nobody wrote from the 183rd to the 63rd day before the newest message: what was said in spring is old, what was said
  in autumn is not, and whoever changes something does it in the silent summer or lately.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeAlias, TypeVar
from uuid import UUID, uuid5

import psycopg
from psycopg import sql

from sweeper.uri import ODD

Row: TypeAlias = tuple[object, ...]
Span: TypeAlias = tuple[float, float]  # from so many days before now to so many
Item = TypeVar("Item")

# In the order of loading: what is referred to comes first. Where a relation numbers its rows, it numbers them in order.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "accounts": ("id", "created_at", "closed_at"),
    "plan_changes": ("account_id", "effective_at", "plan"),
    "consent_events": ("account_id", "purpose", "granted", "recorded_at", "effective_at"),
    "conversations": (
        *("id", "account_id", "kind", "platform", "incognito", "zero_retention"),
        *("created_at", "last_activity_at", "deleted_at", "restored_at", "flagged_at"),
    ),
    "messages": ("id", "conversation_id", "author", "created_at", "body"),
    "attachments": ("id", "conversation_id", "uri"),
    "feedback": ("id", "account_id", "conversation_id", "kind", "submitted_at", "rating", "transcript"),
}

NAMESPACE = UUID("5f6c1f0e-7d0b-5a52-9d0c-0f6a3c1e8b11")  # never changed: every id of the demo comes from it
LEAD = timedelta(hours=1)  # from the newest message to now
MOMENT = timedelta(minutes=5)  # what follows something else follows it at least so much later
FEW = 8  # conversations; who owns more is dealt a life that keeps them
LATELY = timedelta(days=28)  # whoever wrote since then owns something that is not yet due
LONG_AGO = timedelta(days=60)  # whoever wrote nothing since then owns only what 30 days have made due

SIGNED_UP: Span = (1000, 300)
BEFORE_ALL: Span = (290, 225)  # after the youngest account, before the first message (220 days before now)
SUMMER: Span = (150, 100)
LATE: Span = (25, 5)


@dataclass(frozen=True)
class Move:
    """A change to one of these plans."""

    when: Span
    plans: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A consent given or withdrawn, said to be effective so many days before it was recorded."""

    when: Span
    granted: bool
    back_dated: float | None = None
    purpose: str = "model_improvement"


@dataclass(frozen=True)
class Life:
    """What happens to an account. `few` and `many` are the shares, in a hundred, of the accounts that own as much."""

    name: str
    few: int
    many: int
    plans: tuple[str, ...]
    moves: tuple[Move, ...] = ()
    choices: tuple[Choice, ...] = ()
    closed: Span | None = None
    platforms: tuple[str, ...] = ("first_party",)


CONSUMER = ("free", "pro", "max")
IN = Choice(BEFORE_ALL, granted=True)
PARTNER = Choice(BEFORE_ALL, granted=True, purpose="development_partner")
OUT_IN_SUMMER = Choice(SUMMER, granted=False)
OUT_LATELY = Choice(LATE, granted=False)

LIVES = (
    Life("never chose", 19, 0, CONSUMER),
    Life("opted in", 30, 82, CONSUMER, choices=(IN,)),
    Life("opted in late", 6, 0, CONSUMER, choices=(Choice((70, 40), granted=True),)),
    Life("opted out in summer", 6, 0, CONSUMER, choices=(IN, OUT_IN_SUMMER)),
    Life("opted out lately", 5, 0, CONSUMER, choices=(IN, OUT_LATELY)),
    Life("in, out and in", 4, 0, CONSUMER, choices=(IN, OUT_IN_SUMMER, Choice((98, 80), granted=True))),
    Life("back-dated", 3, 0, CONSUMER, choices=(IN, Choice(LATE, granted=False, back_dated=60))),
    Life("team", 6, 0, ("team",)),
    Life("enterprise", 5, 0, ("enterprise",)),
    Life("api", 3, 0, ("api",), platforms=("first_party", "bedrock", "vertex")),
    Life("partner", 4, 10, ("api",), choices=(PARTNER,)),
    Life("partner once", 1, 0, ("api",), choices=(PARTNER, Choice(LATE, granted=False, purpose="development_partner"))),
    Life("upgraded", 1, 8, ("free",), moves=(Move(SUMMER, ("pro", "max")),), choices=(IN,)),
    Life("joined a team in summer", 1, 0, CONSUMER, moves=(Move(SUMMER, ("team",)),), choices=(IN,)),
    Life("joined a team lately", 1, 0, CONSUMER, moves=(Move(LATE, ("team",)),), choices=(IN,)),
    Life("closed", 2, 0, CONSUMER, choices=(IN,), closed=(75, 35)),
    Life("closed lately", 2, 0, CONSUMER, choices=(IN,), closed=LATE),
    Life("unknown plan", 1, 0, ("platinum",)),
)


@dataclass(frozen=True)
class Mark:
    """What sets so many conversations, of accounts with one of these lives (none named: of any), apart."""

    name: str
    count: int
    lives: tuple[str, ...] = ()
    incognito: bool = False
    zero_retention: bool = False
    deleted: Span | None = None
    restored: Span | None = None
    flagged: Span | None = None


PLAIN = Mark("plain", 0)
MARKS = (
    Mark("flagged zero-retention", 2, ("enterprise", "api"), zero_retention=True, flagged=(30, 1)),
    Mark("zero-retention", 20, ("enterprise", "api"), zero_retention=True),
    Mark("flagged while overdue", 10, ("never chose",), flagged=(90, 5)),
    Mark("flagged", 30, flagged=(90, 5)),
    Mark("incognito", 90, incognito=True),
    Mark("deleted", 60, ("opted in",), deleted=(110, 40)),
    Mark("deleted lately", 50, deleted=(25, 1)),
    Mark("deleted and restored", 30, deleted=(80, 60), restored=(50, 10)),
)

BUG_REPORTS_CHANGED = datetime(2025, 10, 17, tzinfo=UTC)  # what was reported before is kept for 30 days only
EARLY_BUG_REPORTS = 12
FEEDBACK = 120
ATTACHMENTS = 40
SHARED_OBJECTS = 4


@dataclass(frozen=True)
class DemoHold:
    """A row of `sweeper.legal_holds`."""

    matter: str
    account_id: str | None
    conversation_id: str | None
    placed_at: datetime | None
    released_at: datetime | None


@dataclass(frozen=True)
class DemoOrder:
    """A row of `sweeper.erasure_orders`."""

    reference: str
    account_id: str | None
    conversation_id: str | None
    recorded_at: datetime | None
    due_at: datetime | None


@dataclass(frozen=True)
class World:
    """The rows of the store, each relation in its columns of `COLUMNS`, and the sweeper's own holds and orders."""

    accounts: Sequence[Row]
    plan_changes: Sequence[Row]
    consent_events: Sequence[Row]
    conversations: Sequence[Row]
    messages: Sequence[Row]
    attachments: Sequence[Row]
    feedback: Sequence[Row]
    holds: Sequence[DemoHold]
    orders: Sequence[DemoOrder]


class DemoMessage(NamedTuple):
    """One real message."""

    author: str
    created_at: datetime
    body: str


@dataclass(frozen=True)
class Talk:
    """One real conversation."""

    id: str
    account_id: str
    messages: tuple[DemoMessage, ...]

    @property
    def ended_at(self) -> datetime:
        """The instant of its last message, whoever wrote it."""
        return self.messages[-1].created_at

    @property
    def last_activity_at(self) -> datetime:
        """The instant of its last user message; the first message is always one."""
        return next(message.created_at for message in reversed(self.messages) if message.author == "user")


@dataclass(frozen=True)
class Person:
    """Who began these conversations."""

    id: str
    talks: tuple[Talk, ...]

    @property
    def silent_since(self) -> datetime:
        """The instant of the last message in any of the conversations."""
        return max(talk.ended_at for talk in self.talks)


@dataclass(frozen=True)
class Dice:
    """Whatever is drawn at random, for one part of the world: a change to another part leaves these draws alone."""

    random: Random
    now: datetime

    @classmethod
    def of(cls, seed: int, part: str, now: datetime) -> "Dice":
        """The dice of that part of the world."""
        return cls(Random(f"{seed} {part}"), now)  # noqa: S311 - a seeded generator is wanted, nothing secret

    def instant(self, span: Span, after: datetime | None = None) -> datetime:
        """An instant within the span, or just after what it has to follow."""
        oldest, newest = (timedelta(days=days) // timedelta(seconds=1) for days in span)
        drawn = self.now - timedelta(seconds=self.random.randint(newest, oldest))
        return drawn if after is None else max(drawn, after + MOMENT)

    def shuffled(self, items: Iterable[Item]) -> list[Item]:
        """The items in another order."""
        shuffled = list(items)
        self.random.shuffle(shuffled)
        return shuffled


@dataclass(frozen=True)
class Cast:
    """Who is who: the people, the life dealt to each, and the mark on each conversation that has one."""

    people: tuple[Person, ...]
    lives: Mapping[str, Life]
    marks: Mapping[str, Mark]

    @property
    def talks(self) -> list[Talk]:
        """All conversations."""
        return [talk for person in self.people for talk in person.talks]

    def mark(self, talk: Talk) -> Mark:
        """The mark on a conversation."""
        return self.marks.get(talk.id, PLAIN)

    def silent(self, life: str, since: datetime) -> list[Person]:
        """Who lives so, owns few conversations, none of them marked, and has been silent since; the busiest first."""
        found = [
            person
            for person in self.people
            if self.lives[person.id].name == life and len(person.talks) <= FEW and person.silent_since < since
            if not any(talk.id in self.marks for talk in person.talks)
        ]
        return sorted(found, key=lambda person: (-len(person.talks), person.id))

    def marked(self, mark: str, before: datetime) -> list[Talk]:
        """The conversations with that mark that ended before."""
        return [talk for talk in self.talks if self.mark(talk).name == mark and talk.ended_at < before]

    def long_kept(self) -> list[Talk]:
        """Conversations that nothing can make due for years: of those who own many and opted in, and without a mark."""
        return [
            talk
            for person in self.people
            if self.lives[person.id].name == "opted in" and len(person.talks) > FEW
            for talk in person.talks
            if talk.id not in self.marks
        ]


def build(seed: int, now: datetime, objects: Path) -> World:
    """The world of that seed as of now; its attachments name files in the directory `objects`, which `load` writes.

    Meant for a now from mid-June 2026 on: earlier, the oldest conversations precede the choice that began on
    2025-08-28, and so many of them are due that a sweep must be approved.
    """
    if now.tzinfo is None:
        raise ValueError("now is naive: the demo's world was not built; pass an aware datetime")
    now = now.astimezone(UTC)
    cast = _cast(seed, _people(now - LEAD), now)
    accounts, plans, consents = _accounts(cast, Dice.of(seed, "accounts", now))
    return World(
        accounts=accounts,
        plan_changes=plans,
        consent_events=consents,
        conversations=_conversations(cast, Dice.of(seed, "conversations", now)),
        messages=_messages(cast.talks),
        attachments=_attachments(cast, Dice.of(seed, "attachments", now), objects),
        feedback=_feedback(cast, Dice.of(seed, "feedback", now), accounts),
        holds=_holds(cast, now),
        orders=_orders(cast, now),
    )


def create(connection: psycopg.Connection[Any], schema: str = "store") -> None:
    """Create the reference store, empty, in a new schema."""
    connection.execute(reference(sql.Identifier(schema).as_string(connection), "uuid").encode())


def reference(schema: str, id_type: str) -> str:
    """The SQL that creates the reference store; `schema` is quoted already."""
    template = Path(__file__).with_name("reference.sql").read_text(encoding="utf-8")
    return template.replace("{id}", id_type).replace("{schema}", schema).replace("{odd}", ODD)


def load(connection: psycopg.Connection[Any], world: World, schema: str = "store") -> None:
    """Create the reference store in a new schema, fill it with the world in one transaction, and write the objects."""
    with connection.transaction():
        create(connection, schema)
        for relation, columns in COLUMNS.items():
            _copy(connection, sql.Identifier(schema, relation), columns, getattr(world, relation))
    _write_objects(world)


def _copy(
    connection: psycopg.Connection[Any], table: sql.Identifier, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)) as copy:
            for row in rows:
                copy.write_row(row)
        cursor.execute(sql.SQL("ANALYZE {}").format(table))


def _write_objects(world: World) -> None:
    for _, conversation, uri in world.attachments:
        path = Path(str(uri).removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"attached to {conversation}\n", encoding="utf-8")


def _id(*name: object) -> str:
    return str(uuid5(NAMESPACE, ":".join(map(str, name))))


def _people(newest: datetime) -> tuple[Person, ...]:
    """The dataset's people in a fixed order, all their messages shifted so that the newest is where it should be."""
    # Not by the package's own classes: they leave the file open.
    path = resources.files("chitchat_dataset") / "dataset.json"
    raw = {key: [u for turn in talk["messages"] for u in turn] for key, talk in json.loads(path.read_bytes()).items()}
    shift = newest - max(datetime.fromisoformat(said[-1]["timestamp"]) for said in raw.values())
    owned: dict[str, list[Talk]] = defaultdict(list)
    for key in sorted(raw):
        talk = _talk(key, raw[key], shift)
        owned[talk.account_id].append(talk)
    return tuple(Person(account, tuple(owned[account])) for account in sorted(owned))


def _talk(key: str, said: list[dict[str, str]], shift: timedelta) -> Talk:
    owner = said[0]["sender"]
    messages = (
        DemoMessage(
            "user" if one["sender"] == owner else "assistant",
            datetime.fromisoformat(one["timestamp"]) + shift,
            one["text"],
        )
        for one in said
    )
    return Talk(_id("conversation", key), _id("account", owner), tuple(messages))


def _cast(seed: int, people: tuple[Person, ...], now: datetime) -> Cast:
    lives = _deal(people, Dice.of(seed, "lives", now))
    return Cast(people, lives, _mark(people, lives, Dice.of(seed, "marks", now)))


def _deal(people: Sequence[Person], dice: Dice) -> dict[str, Life]:
    """A life for everybody, from one deck each for those who own many, few and of late, few and not of late.

    Dealt and not drawn, so that with every seed every life is led, and led by somebody who owns something not yet due.
    """
    few = [life for life in LIVES for _ in range(life.few)]
    many = [life for life in LIVES for _ in range(life.many)]
    recent = dice.now - LATELY
    tables = (
        (many, [person for person in people if len(person.talks) > FEW]),
        (few, [person for person in people if len(person.talks) <= FEW and person.silent_since >= recent]),
        (few, [person for person in people if len(person.talks) <= FEW and person.silent_since < recent]),
    )
    return {person.id: life for deck, players in tables for person, life in _hand_out(deck, dice.shuffled(players))}


def _hand_out(deck: Sequence[Life], players: Sequence[Person]) -> list[tuple[Person, Life]]:
    return [(person, deck[place * len(deck) // len(players)]) for place, person in enumerate(players)]


def _mark(people: Sequence[Person], lives: Mapping[str, Life], dice: Dice) -> dict[str, Mark]:
    """The conversations that get a mark: at most one each."""
    left = dice.shuffled(talk for person in people for talk in person.talks)
    marks: dict[str, Mark] = {}
    for mark in MARKS:
        fitting = (
            talk
            for talk in left
            if talk.id not in marks and (not mark.lives or lives[talk.account_id].name in mark.lives)
        )
        marks |= {talk.id: mark for talk, _ in zip(list(fitting), range(mark.count), strict=False)}
    return marks


def _accounts(cast: Cast, dice: Dice) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows of accounts, plan changes and consent events."""
    accounts: list[Row] = []
    plans: list[Row] = []
    consents: list[Row] = []
    for person in cast.people:
        life = cast.lives[person.id]
        created = dice.instant(SIGNED_UP)
        # Nobody writes after closing.
        closed = dice.instant(life.closed, after=person.silent_since) if life.closed else None
        accounts.append((person.id, created, closed))
        plans.append((person.id, created, dice.random.choice(life.plans)))
        plans += [(person.id, dice.instant(move.when), dice.random.choice(move.plans)) for move in life.moves]
        consents += [_consent(person, choice, dice) for choice in life.choices]
    return accounts, plans, consents


def _consent(person: Person, choice: Choice, dice: Dice) -> Row:
    recorded = dice.instant(choice.when)
    effective = recorded - timedelta(days=choice.back_dated) if choice.back_dated else None
    return person.id, choice.purpose, choice.granted, recorded, effective


def _conversations(cast: Cast, dice: Dice) -> list[Row]:
    return [_conversation(talk, cast.lives[talk.account_id], cast.mark(talk), dice) for talk in cast.talks]


def _conversation(talk: Talk, life: Life, mark: Mark, dice: Dice) -> Row:
    # Nobody writes into what is deleted, and only what is deleted is restored.
    deleted = dice.instant(mark.deleted, after=talk.ended_at) if mark.deleted else None
    restored = dice.instant(mark.restored, after=deleted) if mark.restored else None
    flagged = dice.instant(mark.flagged, after=talk.messages[0].created_at) if mark.flagged else None
    kind = "coding_session" if dice.random.random() < 0.2 else "chat"
    platform = dice.random.choice(life.platforms)
    begun, active = talk.messages[0].created_at, talk.last_activity_at
    attributes = (kind, platform, mark.incognito, mark.zero_retention)
    return (talk.id, talk.account_id, *attributes, begun, active, deleted, restored, flagged)


def _messages(talks: Iterable[Talk]) -> list[Row]:
    return [
        (_id("message", talk.id, place), talk.id, message.author, message.created_at, message.body)
        for talk in talks
        for place, message in enumerate(talk.messages)
    ]


def _attachments(cast: Cast, dice: Dice, objects: Path) -> list[Row]:
    """Attachments with an object of their own, and pairs that share one: one conversation goes, the other stays."""
    own = [(talk, talk) for talk in dice.random.sample(cast.talks, ATTACHMENTS)]
    going = cast.marked("deleted", dice.now - LONG_AGO)
    pairs = list(zip(going, dice.shuffled(cast.long_kept()), range(SHARED_OBJECTS), strict=False))
    shared = [(talk, goes) for goes, stays, _ in pairs for talk in (goes, stays)]
    return [
        (_id("attachment", talk.id, origin.id, kind), talk.id, _uri(objects, kind, origin))
        for kind, attached in (("own", own), ("shared", shared))
        for talk, origin in attached
    ]


def place(objects: Path) -> str:
    """The place of the objects, as attachments and [objects] prefixes name it."""
    return f"file://{objects.resolve().as_posix()}/"


def _uri(objects: Path, kind: str, origin: Talk) -> str:
    # No percent-encoding: fsspec takes what follows the scheme as the path.
    return f"{place(objects)}{_id('object', kind, origin.id)}.txt"


def _feedback(cast: Cast, dice: Dice, accounts: Sequence[Row]) -> list[Row]:
    """Feedback on conversations of this world, and early bug reports on ones that are long gone."""
    kinds = ("thumbs", "survey", "bug_report")
    talks = dice.random.sample(cast.talks, FEEDBACK)
    rows = [_opinion(talk, kinds[place % len(kinds)], dice) for place, talk in enumerate(talks)]
    defect = next(place for place, row in enumerate(rows) if row[3] == "survey")
    rows[defect] = (*rows[defect][:-1], "a survey should not carry this")
    oldest = sorted(accounts, key=lambda row: str(row[1]))[:EARLY_BUG_REPORTS]
    return rows + [_early_bug_report(str(row[0]), dice) for row in oldest]


def _opinion(talk: Talk, kind: str, dice: Dice) -> Row:
    rating = {"thumbs": dice.random.choice((-1, 1)), "survey": dice.random.randint(1, 5), "bug_report": None}[kind]
    transcript = talk.messages[0].body if kind == "bug_report" else None
    submitted = talk.ended_at + MOMENT
    return _id("feedback", talk.id), talk.account_id, talk.id, kind, submitted, rating, transcript


def _early_bug_report(account: str, dice: Dice) -> Row:
    submitted = BUG_REPORTS_CHANGED - timedelta(seconds=dice.random.randint(1, 60 * 86_400))
    gone = _id("conversation long gone", account)
    return _id("early bug report", account), account, gone, "bug_report", submitted, None, "It forgot what I said."


def _holds(cast: Cast, now: datetime) -> list[DemoHold]:
    """Holds on what is overdue: on an account, on a conversation, and one that was released and so holds nothing."""
    held, once_held = cast.silent("never chose", now - LONG_AGO)[:2]
    talk = cast.marked("zero-retention", now)[0]
    placed = now - timedelta(days=50)
    return [
        DemoHold("Doe v. Example", held.id, None, placed, None),
        DemoHold("Inquiry 17", None, talk.id, placed, None),
        DemoHold("Roe v. Example", once_held.id, None, placed, now - timedelta(days=3)),
    ]


def _orders(cast: Cast, now: datetime) -> list[DemoOrder]:
    """Orders against what would stay for years: overdue, not yet due, for one conversation, and one without a date."""
    overdue, pending, partly, undated = cast.silent("opted in", now - LONG_AGO)[:4]
    month = timedelta(days=30)
    early, late = now - timedelta(days=45), now - timedelta(days=5)
    return [
        DemoOrder("erasure-1", overdue.id, None, early, early + month),
        DemoOrder("erasure-2", pending.id, None, late, late + month),
        DemoOrder("erasure-3", partly.id, partly.talks[0].id, early, early + month),
        DemoOrder("erasure-4", undated.id, None, late, None),
    ]
