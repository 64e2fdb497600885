"""Builds the demo's world: real conversations of accounts with invented histories that exercise every rule of the policy.

The people, the texts and the relative times are real: all 7,168 conversations of the `chitchat-dataset` package, shifted as one
block so that the newest message was written an hour before now. Plans, consents, marks on conversations, attachments, feedback,
holds and orders are invented from a seed. The same seed and the same now give the same world.

Properties of the data, and how they are treated:

- 3,150 conversations have a single speaker, because nobody answered. They are loaded with user messages only.
- 33 messages have an empty text.
- In 2,123 conversations the last message is the assistant's, so the last activity is earlier than the last message.
- Every conversation has messages, in the order of their timestamps. Timestamps are whole seconds, so in 1,047 conversations
  several messages share one.
- `start` differs from the first message by hours (another time zone), so the first message's timestamp is the creation. Prompts
  and ratings of people are left out.
- One person owns 1,150 conversations, a sixth of all, and 488 people own one. Accounts with many conversations get profiles
  that keep them; otherwise the opt-out of one account would trip the guard against large purges.
- Nobody wrote between the 183rd and the 63rd day before the newest message. Conversations are either from spring or from
  autumn, and accounts change something in the summer between them or recently.
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

from sweeper import files

Row: TypeAlias = tuple[object, ...]
DaysAgo: TypeAlias = tuple[float, float]  # start and end in days before now
Item = TypeVar("Item")

# In the order of loading, referenced relations first.
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

NAMESPACE = UUID("5f6c1f0e-7d0b-5a52-9d0c-0f6a3c1e8b11")  # never change it: every id of the demo derives from it
LEAD = timedelta(hours=1)  # between the newest message and now
PAUSE = timedelta(minutes=5)  # least time between an event and one that must follow it
FEW = 8  # conversations; accounts with more get a profile that keeps them
RECENT = timedelta(days=28)  # who wrote since then owns a conversation that is not yet due
LONG_AGO = timedelta(days=60)  # who has written nothing since then owns only conversations older than 30 days

SIGNED_UP: DaysAgo = (1000, 300)
BEFORE_FIRST_MESSAGE: DaysAgo = (290, 225)  # after the youngest account, before the first message (220 days before now)
SUMMER: DaysAgo = (150, 100)
LATE: DaysAgo = (25, 5)


@dataclass(frozen=True)
class DemoPlanChange:
    """A change to one of `plans`, chosen at random."""

    when: DaysAgo
    plans: tuple[str, ...]


@dataclass(frozen=True)
class DemoConsent:
    """A grant or withdrawal of consent; `back_dated` is the number of days between its effect and its recording."""

    when: DaysAgo
    granted: bool
    back_dated: float | None = None
    purpose: str = "model_improvement"


@dataclass(frozen=True)
class Profile:
    """The history of an account. `few` and `many` are percentages of the accounts with few and with many conversations."""

    name: str
    few: int
    many: int
    plans: tuple[str, ...]
    plan_changes: tuple[DemoPlanChange, ...] = ()
    consents: tuple[DemoConsent, ...] = ()
    closed: DaysAgo | None = None
    platforms: tuple[str, ...] = ("first_party",)


CONSUMER = ("free", "pro", "max")
OPT_IN = DemoConsent(BEFORE_FIRST_MESSAGE, granted=True)
PARTNER = DemoConsent(BEFORE_FIRST_MESSAGE, granted=True, purpose="development_partner")
OPT_OUT_SUMMER = DemoConsent(SUMMER, granted=False)
OPT_OUT_LATE = DemoConsent(LATE, granted=False)
PARTNER_ENDED = DemoConsent(LATE, granted=False, purpose="development_partner")

PROFILES = (
    Profile("never chose", 19, 0, CONSUMER),
    Profile("opted in", 30, 82, CONSUMER, consents=(OPT_IN,)),
    Profile("opted in late", 6, 0, CONSUMER, consents=(DemoConsent((70, 40), granted=True),)),
    Profile("opted out in summer", 6, 0, CONSUMER, consents=(OPT_IN, OPT_OUT_SUMMER)),
    Profile("opted out lately", 5, 0, CONSUMER, consents=(OPT_IN, OPT_OUT_LATE)),
    Profile("in, out and in", 4, 0, CONSUMER, consents=(OPT_IN, OPT_OUT_SUMMER, DemoConsent((98, 80), granted=True))),
    Profile("back-dated", 3, 0, CONSUMER, consents=(OPT_IN, DemoConsent(LATE, granted=False, back_dated=60))),
    Profile("team", 6, 0, ("team",)),
    Profile("enterprise", 5, 0, ("enterprise",)),
    Profile("api", 3, 0, ("api",), platforms=("first_party", "bedrock", "vertex")),
    Profile("partner", 4, 10, ("api",), consents=(PARTNER,)),
    Profile("partner once", 1, 0, ("api",), consents=(PARTNER, PARTNER_ENDED)),
    Profile("upgraded", 1, 8, ("free",), plan_changes=(DemoPlanChange(SUMMER, ("pro", "max")),), consents=(OPT_IN,)),
    Profile(
        "joined a team in summer", 1, 0, CONSUMER, plan_changes=(DemoPlanChange(SUMMER, ("team",)),), consents=(OPT_IN,)
    ),
    Profile(
        "joined a team lately", 1, 0, CONSUMER, plan_changes=(DemoPlanChange(LATE, ("team",)),), consents=(OPT_IN,)
    ),
    Profile("closed", 2, 0, CONSUMER, consents=(OPT_IN,), closed=(75, 35)),
    Profile("closed lately", 2, 0, CONSUMER, consents=(OPT_IN,), closed=LATE),
    Profile("unknown plan", 1, 0, ("platinum",)),
)


@dataclass(frozen=True)
class Mark:
    """Attributes of `count` conversations of accounts with one of the named profiles, or with any if none is named."""

    name: str
    count: int
    profiles: tuple[str, ...] = ()
    incognito: bool = False
    zero_retention: bool = False
    deleted: DaysAgo | None = None
    restored: DaysAgo | None = None
    flagged: DaysAgo | None = None


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

BUG_REPORTS_CHANGED = datetime(2025, 10, 17, tzinfo=UTC)  # earlier bug reports are kept for 30 days only
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
    """The rows of the store, with the columns of `COLUMNS`, and the holds and orders."""

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
class DemoChat:
    """One real conversation."""

    id: str
    account_id: str
    messages: tuple[DemoMessage, ...]

    @property
    def ended_at(self) -> datetime:
        """The time of its last message."""
        return self.messages[-1].created_at

    @property
    def last_activity_at(self) -> datetime:
        """The time of its last user message; the first message always is one."""
        return next(message.created_at for message in reversed(self.messages) if message.author == "user")


@dataclass(frozen=True)
class Person:
    """A person and the conversations that the person began."""

    id: str
    chats: tuple[DemoChat, ...]

    @property
    def last_message_at(self) -> datetime:
        """The time of the last message in any of the conversations."""
        return max(chat.ended_at for chat in self.chats)


@dataclass(frozen=True)
class RandomSource:
    """Random values for one part of the world, independent of the other parts."""

    random: Random
    now: datetime

    @classmethod
    def of(cls, seed: int, part: str, now: datetime) -> "RandomSource":
        """Return the source for a part of the world."""
        return cls(Random(f"{seed} {part}"), now)  # noqa: S311 - seeded on purpose, nothing secret

    def instant(self, span: DaysAgo, after: datetime | None = None) -> datetime:
        """Return an instant within the span, or shortly after `after` if that is later."""
        oldest, newest = (timedelta(days=days) // timedelta(seconds=1) for days in span)
        instant = self.now - timedelta(seconds=self.random.randint(newest, oldest))
        return instant if after is None else max(instant, after + PAUSE)

    def shuffled(self, items: Iterable[Item]) -> list[Item]:
        """Return the items in random order."""
        shuffled = list(items)
        self.random.shuffle(shuffled)
        return shuffled


@dataclass(frozen=True)
class Population:
    """The people, the profile of each account by id, and the marks of conversations by id."""

    people: tuple[Person, ...]
    profiles: Mapping[str, Profile]
    marks: Mapping[str, Mark]

    @property
    def chats(self) -> list[DemoChat]:
        """All conversations."""
        return [chat for person in self.people for chat in person.chats]

    def mark(self, chat: DemoChat) -> Mark:
        """Return the mark of a conversation."""
        return self.marks.get(chat.id, PLAIN)

    def inactive(self, profile: str, since: datetime) -> list[Person]:
        """Return the accounts of a profile with few conversations, none marked or newer than `since`; the largest first."""
        found = [
            person
            for person in self.people
            if self.profiles[person.id].name == profile and len(person.chats) <= FEW and person.last_message_at < since
            if not any(chat.id in self.marks for chat in person.chats)
        ]
        return sorted(found, key=lambda person: (-len(person.chats), person.id))

    def marked(self, mark: str, before: datetime) -> list[DemoChat]:
        """Return the conversations with a mark whose last message is older than `before`."""
        return [chat for chat in self.chats if self.mark(chat).name == mark and chat.ended_at < before]

    def long_kept(self) -> list[DemoChat]:
        """Return conversations that are kept for years: unmarked ones of accounts that own many and opted in."""
        return [
            chat
            for person in self.people
            if self.profiles[person.id].name == "opted in" and len(person.chats) > FEW
            for chat in person.chats
            if chat.id not in self.marks
        ]


def build(seed: int, now: datetime, objects: Path) -> World:
    """Build the world of a seed as of `now`; its attachments refer to files in the directory `objects`, which `load` writes.

    If `now` is before mid-June 2026, the oldest conversations precede the consent regime of 2025-08-28, and so many are due that
    a run needs approval.

    Raises:
        ValueError: `now` is naive.
    """
    if now.tzinfo is None:
        raise ValueError("now is naive: the demo's world was not built; pass an aware datetime")
    now = now.astimezone(UTC)
    population = _population(seed, _people(now - LEAD), now)
    accounts, plans, consents = _accounts(population, RandomSource.of(seed, "accounts", now))
    return World(
        accounts=accounts,
        plan_changes=plans,
        consent_events=consents,
        conversations=_conversations(population, RandomSource.of(seed, "conversations", now)),
        messages=_messages(population.chats),
        attachments=_attachments(population, RandomSource.of(seed, "attachments", now), objects),
        feedback=_feedback(population, RandomSource.of(seed, "feedback", now), accounts),
        holds=_holds(population, now),
        orders=_orders(population, now),
    )


def create(connection: psycopg.Connection[Any], schema: str = "store") -> None:
    """Create the empty reference store in a new schema."""
    connection.execute(reference(sql.Identifier(schema).as_string(connection), "uuid").encode())


def reference(schema: str, id_type: str) -> str:
    """Return the SQL that creates the reference store; `schema` must be quoted."""
    template = (files.PACKAGE / "apps" / "reference" / "store.sql").read_text(encoding="utf-8")
    return (
        template.replace(" uuid", f" {id_type}")
        .replace("SCHEMA store", f"SCHEMA {schema}")
        .replace("store.", f"{schema}.")
    )


def load(connection: psycopg.Connection[Any], world: World, schema: str = "store") -> None:
    """Create the reference store in a new schema and fill it with the world in one transaction; then write the objects."""
    with connection.transaction():
        create(connection, schema)
        for relation, columns in COLUMNS.items():
            copy(connection, sql.Identifier(schema, relation), columns, getattr(world, relation))
    _write_objects(world)


def copy(
    connection: psycopg.Connection[Any], table: sql.Identifier, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    """Load rows into a table by COPY and analyze it."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(table, names)) as writer:
            for row in rows:
                writer.write_row(row)
        cursor.execute(sql.SQL("ANALYZE {}").format(table))


def _write_objects(world: World) -> None:
    for _, conversation, uri in world.attachments:
        path = Path(str(uri).removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"attached to {conversation}\n", encoding="utf-8")


def _id(*name: object) -> str:
    return str(uuid5(NAMESPACE, ":".join(map(str, name))))


def _people(newest: datetime) -> tuple[Person, ...]:
    """Return the dataset's people in a fixed order, with all messages shifted so that the newest is at `newest`."""
    # The package's own classes would leave the file open.
    path = resources.files("chitchat_dataset") / "dataset.json"
    dataset = json.loads(path.read_bytes())
    raw = {key: [message for turn in chat["messages"] for message in turn] for key, chat in dataset.items()}
    shift = newest - max(datetime.fromisoformat(messages[-1]["timestamp"]) for messages in raw.values())
    owned: dict[str, list[DemoChat]] = defaultdict(list)
    for key in sorted(raw):
        chat = _chat(key, raw[key], shift)
        owned[chat.account_id].append(chat)
    return tuple(Person(account, tuple(owned[account])) for account in sorted(owned))


def _chat(key: str, raw: list[dict[str, str]], shift: timedelta) -> DemoChat:
    owner = raw[0]["sender"]
    messages = (
        DemoMessage(
            "user" if message["sender"] == owner else "assistant",
            datetime.fromisoformat(message["timestamp"]) + shift,
            message["text"],
        )
        for message in raw
    )
    return DemoChat(_id("conversation", key), _id("account", owner), tuple(messages))


def _population(seed: int, people: tuple[Person, ...], now: datetime) -> Population:
    profiles = _assign_profiles(people, RandomSource.of(seed, "lives", now))
    return Population(people, profiles, _assign_marks(people, profiles, RandomSource.of(seed, "marks", now)))


def _assign_profiles(people: Sequence[Person], source: RandomSource) -> dict[str, Profile]:
    """Assign a profile to everybody, in their exact shares among the owners of many, of few recent and of few older chats.

    So with every seed each profile occurs, and somebody with it owns a conversation that is not yet due.
    """
    few = [profile for profile in PROFILES for _ in range(profile.few)]
    many = [profile for profile in PROFILES for _ in range(profile.many)]
    recent = source.now - RECENT
    groups = (
        (many, [person for person in people if len(person.chats) > FEW]),
        (few, [person for person in people if len(person.chats) <= FEW and person.last_message_at >= recent]),
        (few, [person for person in people if len(person.chats) <= FEW and person.last_message_at < recent]),
    )
    return {
        person.id: profiles[index * len(profiles) // len(members)]
        for profiles, members in groups
        for index, person in enumerate(source.shuffled(members))
    }


def _assign_marks(people: Sequence[Person], profiles: Mapping[str, Profile], source: RandomSource) -> dict[str, Mark]:
    """Return the marks by conversation id; a conversation gets at most one."""
    candidates = source.shuffled(chat for person in people for chat in person.chats)
    marks: dict[str, Mark] = {}
    for mark in MARKS:
        matching = (
            chat
            for chat in candidates
            if chat.id not in marks and (not mark.profiles or profiles[chat.account_id].name in mark.profiles)
        )
        marks |= {chat.id: mark for chat, _ in zip(list(matching), range(mark.count), strict=False)}
    return marks


def _accounts(population: Population, source: RandomSource) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the rows of accounts, plan changes and consent events."""
    accounts: list[Row] = []
    plans: list[Row] = []
    consents: list[Row] = []
    for person in population.people:
        profile = population.profiles[person.id]
        created = source.instant(SIGNED_UP)
        # Nobody writes after the account is closed.
        closed = source.instant(profile.closed, after=person.last_message_at) if profile.closed else None
        accounts.append((person.id, created, closed))
        plans.append((person.id, created, source.random.choice(profile.plans)))
        plans += [
            (person.id, source.instant(new.when), source.random.choice(new.plans)) for new in profile.plan_changes
        ]
        consents += [_consent(person, consent, source) for consent in profile.consents]
    return accounts, plans, consents


def _consent(person: Person, consent: DemoConsent, source: RandomSource) -> Row:
    recorded = source.instant(consent.when)
    effective = recorded - timedelta(days=consent.back_dated) if consent.back_dated else None
    return person.id, consent.purpose, consent.granted, recorded, effective


def _conversations(population: Population, source: RandomSource) -> list[Row]:
    return [
        _conversation(chat, population.profiles[chat.account_id], population.mark(chat), source)
        for chat in population.chats
    ]


def _conversation(chat: DemoChat, profile: Profile, mark: Mark, source: RandomSource) -> Row:
    # Nobody writes into a deleted conversation, and only a deleted one can be restored.
    deleted = source.instant(mark.deleted, after=chat.ended_at) if mark.deleted else None
    restored = source.instant(mark.restored, after=deleted) if mark.restored else None
    flagged = source.instant(mark.flagged, after=chat.messages[0].created_at) if mark.flagged else None
    kind = "coding_session" if source.random.random() < 0.2 else "chat"
    platform = source.random.choice(profile.platforms)
    created, active = chat.messages[0].created_at, chat.last_activity_at
    attributes = (kind, platform, mark.incognito, mark.zero_retention)
    return (chat.id, chat.account_id, *attributes, created, active, deleted, restored, flagged)


def _messages(chats: Iterable[DemoChat]) -> list[Row]:
    return [
        (_id("message", chat.id, index), chat.id, message.author, message.created_at, message.body)
        for chat in chats
        for index, message in enumerate(chat.messages)
    ]


def _attachments(population: Population, source: RandomSource, objects: Path) -> list[Row]:
    """Return attachments with an object each, and pairs that share one, of a conversation to purge and one to keep."""
    own = [(chat, chat) for chat in source.random.sample(population.chats, ATTACHMENTS)]
    deleted = population.marked("deleted", source.now - LONG_AGO)
    pairs = list(zip(deleted, source.shuffled(population.long_kept()), range(SHARED_OBJECTS), strict=False))
    shared = [(chat, purged) for purged, kept, _ in pairs for chat in (purged, kept)]
    return [
        (_id("attachment", chat.id, origin.id, kind), chat.id, _uri(objects, kind, origin))
        for kind, attached in (("own", own), ("shared", shared))
        for chat, origin in attached
    ]


def object_prefix(objects: Path) -> str:
    """Return the URI of the directory of the objects, as in attachments and in [objects] prefixes."""
    return f"file://{objects.resolve().as_posix()}/"


def _uri(objects: Path, kind: str, origin: DemoChat) -> str:
    # Not percent-encoded, because fsspec uses the text after the scheme as the path.
    return f"{object_prefix(objects)}{_id('object', kind, origin.id)}.txt"


def _feedback(population: Population, source: RandomSource, accounts: Sequence[Row]) -> list[Row]:
    """Return feedback on conversations of this world, and early bug reports on ones that no longer exist."""
    kinds = ("thumbs", "survey", "bug_report")
    chats = source.random.sample(population.chats, FEEDBACK)
    rows = [_feedback_row(chat, kinds[index % len(kinds)], source) for index, chat in enumerate(chats)]
    defect = next(index for index, row in enumerate(rows) if row[3] == "survey")
    rows[defect] = (*rows[defect][:-1], "a survey should not carry this")
    oldest = sorted(accounts, key=lambda row: str(row[1]))[:EARLY_BUG_REPORTS]
    return rows + [_early_bug_report(str(row[0]), source) for row in oldest]


def _feedback_row(chat: DemoChat, kind: str, source: RandomSource) -> Row:
    rating = {"thumbs": source.random.choice((-1, 1)), "survey": source.random.randint(1, 5), "bug_report": None}[kind]
    transcript = chat.messages[0].body if kind == "bug_report" else None
    submitted = chat.ended_at + PAUSE
    return _id("feedback", chat.id), chat.account_id, chat.id, kind, submitted, rating, transcript


def _early_bug_report(account: str, source: RandomSource) -> Row:
    submitted = BUG_REPORTS_CHANGED - timedelta(seconds=source.random.randint(1, 60 * 86_400))
    missing = _id("conversation long gone", account)
    return _id("early bug report", account), account, missing, "bug_report", submitted, None, "It forgot what I said."


def _holds(population: Population, now: datetime) -> list[DemoHold]:
    """Return holds on overdue conversations: on an account, on a conversation, and a released one."""
    held, released = population.inactive("never chose", now - LONG_AGO)[:2]
    chat = population.marked("zero-retention", now)[0]
    placed = now - timedelta(days=50)
    return [
        DemoHold("Doe v. Example", held.id, None, placed, None),
        DemoHold("Inquiry 17", None, chat.id, placed, None),
        DemoHold("Roe v. Example", released.id, None, placed, now - timedelta(days=3)),
    ]


def _orders(population: Population, now: datetime) -> list[DemoOrder]:
    """Return orders on accounts whose data would be kept for years: overdue, pending, partial, and without a due date."""
    overdue, pending, partly, undated = population.inactive("opted in", now - LONG_AGO)[:4]
    month = timedelta(days=30)
    early, late = now - timedelta(days=45), now - timedelta(days=5)
    return [
        DemoOrder("erasure-1", overdue.id, None, early, early + month),
        DemoOrder("erasure-2", pending.id, None, late, late + month),
        DemoOrder("erasure-3", partly.id, partly.chats[0].id, early, early + month),
        DemoOrder("erasure-4", undated.id, None, late, None),
    ]
