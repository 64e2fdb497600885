"""The policy once more, slow and obvious: an oracle that shares no code and no idea with the program it judges.

One world is one parsed case: plain dicts of strings. Nothing is cached, nothing is clever; every question is answered
by looking at all rows again. Where the policy leaves a choice, the docstring says which one was taken.
"""

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

World = Mapping[str, Any]
Row = Mapping[str, Any]
Instant = int  # microseconds since 1970 in UTC: infinity and year 10000 fit, which no datetime can hold

EPOCH_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)
ONE_DAY: Instant = 86_400_000_000
NEVER: Instant = 10**30  # also what the string "infinity" means
ALWAYS: Instant = -NEVER

CONSUMER = {"free", "pro", "max"}
COMMERCIAL = {"team", "enterprise", "api", "gov", "education"}
PLANS_OF = {"model_improvement": CONSUMER, "development_partner": {"api"}}


@dataclass(frozen=True)
class Verdict:
    """What holds for one record at as-of; a due of None is never."""

    rule: str | None
    due: datetime | None
    held: bool
    purge: bool
    unclassified: bool


@dataclass(frozen=True)
class PlanChange:
    """A row of plan_changes."""

    id: int
    effective_at: Instant | None
    plan: str | None


@dataclass(frozen=True)
class ConsentEvent:
    """A row of consent_events."""

    id: int
    purpose: str | None
    granted: bool | None
    recorded_at: Instant | None
    effective_at: Instant | None


@dataclass(frozen=True)
class Epoch:
    """An interval during which a purpose is granted; one that has not closed closes at NEVER."""

    opens: Instant
    closes: Instant

    def contains(self, instant: Instant) -> bool:
        """An instant equal to either edge of an epoch is outside."""
        return self.opens < instant < self.closes


# --- time -------------------------------------------------------------------------------------------------------------


def parse(text: str | None) -> Instant | None:
    """Instants are UTC with microseconds; NULL stays NULL; a year of five digits moves by 400-year cycles."""
    if text is None:
        return None
    if text == "infinity":
        return NEVER
    if text == "-infinity":
        return ALWAYS
    cycles = 0
    far = re.match(r"(\d{5,})-", text)
    if far:
        cycles, year = divmod(int(far[1]), 400)
        cycles -= 5
        text = f"{year + 2000}-{text[far.end() :]}"
    return (datetime.fromisoformat(text) - EPOCH_ZERO) // ONE_MICROSECOND + cycles * 146_097 * ONE_DAY


def known_instant(text: str) -> Instant:
    """An instant that the policy itself or as-of names, which is never NULL."""
    found = parse(text)
    assert found is not None
    return found


REGIME_BEGAN = known_instant("2025-08-28T00:00:00Z")
BUG_REPORTS_CHANGED = known_instant("2025-10-17T00:00:00Z")
YEAR_2015 = known_instant("2015-01-01T00:00:00Z")
YEAR_9999 = known_instant("9999-01-01T00:00:00Z")


def plausible(instant: Instant | None) -> TypeGuard[Instant]:
    """Plausible is a finite instant from 2015-01-01 to before year 9999."""
    return instant is not None and YEAR_2015 <= instant < YEAR_9999


def implausible(instant: Instant | None) -> bool:
    """Set, and not plausible."""
    return instant is not None and not plausible(instant)


def date_of(instant: Instant) -> datetime:
    """The datetime of an instant before year 9999."""
    return EPOCH_ZERO + timedelta(microseconds=instant)


def or_never(due: Instant) -> Instant:
    """A due at or after 9999-01-01 is never."""
    return NEVER if due >= YEAR_9999 else due


def after_days(anchor: Instant, days: int) -> Instant:
    """30 days = 2,592,000 s, counted forward from the anchor."""
    return or_never(anchor + days * ONE_DAY)


def after_years(anchor: Instant, years: int) -> Instant:
    """Calendar years in UTC, clamped to the last day of the month, counted forward from the anchor."""
    start = date_of(anchor)
    year = start.year + years
    if year >= 9999:
        return NEVER
    day = min(start.day, calendar.monthrange(year, start.month)[1])
    return or_never((start.replace(year=year, day=day) - EPOCH_ZERO) // ONE_MICROSECOND)


# --- the world --------------------------------------------------------------------------------------------------------


def now(world: World) -> Instant:
    """As-of: the one instant at which a run looks at the world."""
    return known_instant(world["as_of"])


def account_of(world: World, conversation: Row) -> Row | None:
    """The account a conversation names, or None when there is no such account."""
    for account in world["accounts"]:
        if account["id"] == conversation.get("account"):
            return dict(account)
    return None


def created(account: Row) -> Instant | None:
    """An account without `created_at` was created 2019-01-01T00:00:00Z; an explicit null is NULL."""
    return parse(account.get("created_at", "2019-01-01T00:00:00Z"))


def plan_changes(account: Row) -> list[PlanChange]:
    """All plan changes of the account; the order of the list is the order of ids unless a row brings its own."""
    return [
        PlanChange(row.get("id", position), parse(row.get("effective_at")), row.get("plan"))
        for position, row in enumerate(account.get("plans", []), start=1)
    ]


def consent_events(account: Row) -> list[ConsentEvent]:
    """All consent events but those of purposes that the policy does not know, which are somebody else's and ignored."""
    events = [
        ConsentEvent(
            row.get("id", position),
            row.get("purpose", "model_improvement"),
            row.get("granted"),
            parse(row.get("recorded_at")),
            parse(row.get("effective_at")),
        )
        for position, row in enumerate(account.get("consent", []), start=1)
    ]
    return [event for event in events if event.purpose is None or event.purpose in PLANS_OF]


def exists(world: World, conversation: Row) -> bool:
    """A conversation with a plausible `created_at` after as-of does not exist yet."""
    begun = parse(conversation.get("created_at"))
    return not (plausible(begun) and begun > now(world))


def platform(conversation: Row) -> str | None:
    """The platform; `first_party` when the column is absent."""
    found: str | None = conversation.get("platform", "first_party")
    return found


# --- plan in force ----------------------------------------------------------------------------------------------------


def in_force(account: Row, instant: Instant, as_of: Instant) -> PlanChange | None:
    """The plan at t is that of the latest plan change with `effective_at <= t` (same instant: the higher id).

    Plan changes after as-of are not known yet. The first plan counts from the account's creation on, if that is
    plausible: a creation before the first change moves it back; one after it does not take the plan away.
    """
    known = {row: at for row in plan_changes(account) if (at := row.effective_at) is not None and at <= as_of}
    born = created(account)
    begun: list[PlanChange] = []
    for row, at in known.items():
        is_first = at == min(known.values())
        begins = min(born, at) if is_first and plausible(born) else at
        if begins <= instant:
            begun.append(row)
    return max(begun, key=lambda row: (known[row], row.id), default=None)


def in_force_between(account: Row, start: Instant, end: Instant, as_of: Instant) -> list[PlanChange | None]:
    """All plans in force at any instant of `[start, end]`: asked at both ends and wherever a plan may begin."""
    breakpoints = [start, end, created(account), *(row.effective_at for row in plan_changes(account))]
    return [in_force(account, t, as_of) for t in breakpoints if t is not None and start <= t <= end]


def governing(account: Row, conversation: Row, as_of: Instant) -> set[str]:
    """The plans governing a conversation are all plans in force at any instant of `[created_at, last_activity_at]`."""
    start, end = parse(conversation["created_at"]), parse(conversation["last_activity_at"])
    assert start is not None
    assert end is not None
    found = {row.plan for row in in_force_between(account, start, end, as_of) if row is not None}
    return {plan for plan in found if plan is not None}


def on_plan_of(purpose: str, account: Row, instant: Instant, as_of: Instant) -> bool:
    """Whether the plan in force at an instant belongs to the purpose."""
    row = in_force(account, instant, as_of)
    return row is not None and row.plan in PLANS_OF[purpose]


# --- consent ----------------------------------------------------------------------------------------------------------


def takes_effect(grant: ConsentEvent) -> Instant:
    """A grant takes effect at `max(effective, recorded)`, for `model_improvement` not before the regime."""
    assert grant.recorded_at is not None
    effect = grant.recorded_at if grant.effective_at is None else max(grant.effective_at, grant.recorded_at)
    return max(effect, REGIME_BEGAN) if grant.purpose == "model_improvement" else effect


def bites(withdrawal: ConsentEvent, *, training: bool) -> Instant:
    """A withdrawal takes effect, for training, at `min(effective, recorded)`; for retention at `recorded`."""
    assert withdrawal.recorded_at is not None
    if training and withdrawal.effective_at is not None:
        return min(withdrawal.effective_at, withdrawal.recorded_at)
    return withdrawal.recorded_at


def recorded_later(one: ConsentEvent, other: ConsentEvent) -> bool:
    """Recorded after the other (same instant: the higher id is the later one)."""
    assert one.recorded_at is not None
    assert other.recorded_at is not None
    return (one.recorded_at, one.id) > (other.recorded_at, other.id)


def closing(account: Row, grant: ConsentEvent, as_of: Instant, *, training: bool) -> Instant:
    """The earliest of: a withdrawal recorded after that grant, the account's closing, leaving the purpose's plans."""
    assert grant.purpose is not None
    ends = [NEVER]
    for event in consent_events(account):
        known = event.recorded_at is not None and event.recorded_at <= as_of
        if event.purpose == grant.purpose and event.granted is False and known and recorded_later(event, grant):
            ends.append(bites(event, training=training))
    closed = parse(account.get("closed_at"))
    if closed is not None and closed <= as_of:
        ends.append(closed)
    for row in plan_changes(account):
        at = row.effective_at
        if at is not None and takes_effect(grant) < at <= as_of and not on_plan_of(grant.purpose, account, at, as_of):
            ends.append(at)
    return min(ends)


def epochs(account: Row, purpose: str, as_of: Instant, *, training: bool) -> list[Epoch]:
    """An epoch opens when a grant takes effect; a grant while the epoch is open opens no other.

    A grant counts only if the plan in force at that instant belongs to its purpose; one that takes effect after as-of
    has opened nothing yet. One that is over before it begins was never open.
    """
    grants = [
        event
        for event in consent_events(account)
        if event.purpose == purpose
        and event.granted is True
        and event.recorded_at is not None
        and event.recorded_at <= as_of
        and takes_effect(event) <= as_of
        and on_plan_of(purpose, account, takes_effect(event), as_of)
    ]
    found: list[Epoch] = []
    for grant in sorted(grants, key=takes_effect):
        epoch = Epoch(takes_effect(grant), closing(account, grant, as_of, training=training))
        already_open = any(other.opens <= epoch.opens < other.closes for other in found)
        if epoch.opens < epoch.closes and not already_open:
            found.append(epoch)
    return found


# --- what cannot be classified ----------------------------------------------------------------------------------------


def account_doubts(account: Row) -> list[str]:
    """What about the account itself leaves all its conversations unclassified, whether known at as-of or not."""
    doubts: list[str] = []
    if implausible(parse(account.get("closed_at"))):
        doubts.append("closed_at set and implausible")
    doubts += [
        "plan change with an implausible or NULL instant"
        for row in plan_changes(account)
        if row.effective_at != ALWAYS and not plausible(row.effective_at)
    ]
    for event in consent_events(account):
        if not plausible(event.recorded_at) or implausible(event.effective_at):
            doubts.append("consent event with an implausible instant or a NULL required one")
        if event.granted is None or event.purpose is None:
            doubts.append("NULL granted or NULL purpose")
    return doubts


def conversation_doubts(conversation: Row) -> list[str]:
    """What in the conversation's own columns leaves it unclassified."""
    begun, active = parse(conversation.get("created_at")), parse(conversation.get("last_activity_at"))
    doubts = [
        f"{column} NULL or implausible"
        for column in ("created_at", "last_activity_at")
        if not plausible(parse(conversation.get(column)))
    ]
    if begun is not None and active is not None and active < begun:
        doubts.append("last activity before creation")
    doubts += [
        f"{column} set and implausible"
        for column in ("deleted_at", "restored_at", "flagged_at")
        if implausible(parse(conversation.get(column)))
    ]
    if platform(conversation) is None:
        doubts.append("NULL in platform")
    doubts += [
        f"NULL in {column}" for column in ("incognito", "zero_retention") if conversation.get(column, False) is None
    ]
    return doubts


def doubts_about(world: World, conversation: Row) -> list[str]:
    """Everything that makes a conversation `unclassified`: kept, never trained on, reported."""
    account = account_of(world, conversation)
    doubts = conversation_doubts(conversation)
    if account is None:
        return [*doubts, "an account that does not exist"]
    doubts += account_doubts(account)
    if doubts:
        return doubts
    begun, active = parse(conversation["created_at"]), parse(conversation["last_activity_at"])
    assert begun is not None
    assert active is not None
    if None in in_force_between(account, begun, active, now(world)):
        doubts.append("an instant of the conversation's life without a plan in force")
    since = [row.plan for row in in_force_between(account, begun, now(world), now(world)) if row is not None]
    if any(plan is None or plan not in CONSUMER | COMMERCIAL for plan in since):
        doubts.append("a NULL or unknown plan name in force at any instant from created_at to as-of")
    return doubts


# --- retention --------------------------------------------------------------------------------------------------------


def is_deleted(conversation: Row, as_of: Instant) -> bool:
    """Deleted: `deleted_at <= as_of`, and not restored since (`restored_at` unset or before `deleted_at`)."""
    deleted, restored = parse(conversation.get("deleted_at")), parse(conversation.get("restored_at"))
    return deleted is not None and deleted <= as_of and (restored is None or restored < deleted)


def is_closed(account: Row | None, as_of: Instant) -> bool:
    """Closed: `closed_at <= as_of`."""
    closed = None if account is None else parse(account.get("closed_at"))
    return closed is not None and closed <= as_of


def dues_that_need_no_plan(world: World, conversation: Row) -> list[tuple[str, Instant]]:
    """Rules `zero_retention`, `deleted`, `account_closed` and `incognito`, each if its own anchor is plausible."""
    account = account_of(world, conversation)
    active, deleted = parse(conversation.get("last_activity_at")), parse(conversation.get("deleted_at"))
    closed = None if account is None else parse(account.get("closed_at"))
    dues: list[tuple[str, Instant]] = []
    if conversation.get("zero_retention") is True and plausible(active):
        dues.append(("zero_retention", active))
    if is_deleted(conversation, now(world)) and plausible(deleted):
        dues.append(("deleted", after_days(deleted, 30)))
    if is_closed(account, now(world)) and plausible(closed):
        dues.append(("account_closed", after_days(closed, 30)))
    if conversation.get("incognito") is True and plausible(active):
        dues.append(("incognito", after_days(active, 30)))
    return dues


def dues_that_follow_the_plan(world: World, conversation: Row) -> list[tuple[str, Instant]]:
    """Rules `commercial`, `partner`, `consent_ended`, `training_allowed`, `standard`, for what is classified."""
    as_of, account, active = now(world), account_of(world, conversation), parse(conversation["last_activity_at"])
    assert account is not None
    assert active is not None
    plans = governing(account, conversation, as_of)
    dues: list[tuple[str, Instant]] = []

    partner_epochs = epochs(account, "development_partner", as_of, training=False)
    in_partner_epoch = any(epoch.contains(active) for epoch in partner_epochs)
    partner = plans == {"api"} and platform(conversation) == "first_party" and in_partner_epoch
    if plans & COMMERCIAL and not partner:
        dues.append(("commercial", after_days(active, 30)))
    if partner:
        dues.append(("partner", after_years(active, 2)))

    if plans & CONSUMER:
        inside = [e for e in epochs(account, "model_improvement", as_of, training=False) if e.contains(active)]
        dues += [
            ("consent_ended", min(after_years(active, 5), after_days(e.closes, 30)))
            for e in inside
            if e.closes != NEVER
        ]
        dues += [("training_allowed", after_years(active, 5)) for e in inside if e.closes == NEVER]
        if not inside:
            dues.append(("standard", after_days(active, 30)))
    return dues


def rule_dues(world: World, conversation: Row) -> list[tuple[str, Instant]]:
    """Each applying rule names a due, in the order of the table.

    Of what is unclassified only those stand that need no plan, and none when `flagged_at` is implausible.
    """
    if not doubts_about(world, conversation):
        return dues_that_need_no_plan(world, conversation) + dues_that_follow_the_plan(world, conversation)
    if implausible(parse(conversation.get("flagged_at"))):
        return []
    return dues_that_need_no_plan(world, conversation)


def names(entry: Row, account: str | None, conversation: str | None) -> list[bool]:
    """For each column that a hold or order has set: whether it names the record."""
    found: list[bool] = []
    if entry.get("account") is not None:
        found.append(entry["account"] == account)
    if entry.get("conversation") is not None:
        found.append(entry["conversation"] == conversation)
    return found


def covering_orders(world: World, account: str | None, conversation: str | None, made_at: Instant | None) -> list[Row]:
    """An order naming the conversation, or its account, or exactly both, covers what was created by its `recorded_at`.

    NULL `recorded_at`: known since always, all it names. With one set, a record whose own instant is NULL or
    implausible is not covered. An order with neither column names nothing; one recorded after as-of is not known.
    """
    covering: list[Row] = []
    for order in world.get("orders", []):
        named = names(order, account, conversation)
        recorded = parse(order.get("recorded_at"))
        in_time = recorded is None or (recorded <= now(world) and plausible(made_at) and made_at <= recorded)
        if named and all(named) and in_time:
            covering.append(order)
    return covering


def at_most_the_orders(due: Instant, orders: list[Row]) -> Instant:
    """Due is at most the order's `due_at`; an order whose date is NULL or implausible leaves due as it is."""
    return min([due, *(at for order in orders if plausible(at := parse(order.get("due_at"))))])


def is_held(world: World, account: str | None, conversation: str | None) -> bool:
    """A legal hold active at as-of on the conversation, on its account, on either, or on everything.

    Doubt keeps: an implausible `placed_at` is active, an implausible `released_at` releases nothing.
    """
    for hold in world.get("holds", []):
        placed, released = parse(hold.get("placed_at")), parse(hold.get("released_at"))
        is_placed = not plausible(placed) or placed <= now(world)
        is_released = plausible(released) and released <= now(world)
        named = names(hold, account, conversation)
        if is_placed and not is_released and (not named or any(named)):
            return True
    return False


def orders_on(world: World, conversation: Row) -> list[Row]:
    """The erasure orders known at as-of that cover a conversation, dated or not."""
    made_at = parse(conversation.get("created_at"))
    return covering_orders(world, conversation.get("account"), conversation["id"], made_at)


def decided(world: World, conversation: Row) -> tuple[str | None, Instant]:
    """The earliest wins (equal dues: the rule listed first); the last step that moved due names the rule."""
    rule = "unclassified" if doubts_about(world, conversation) else None
    due = NEVER
    dues = rule_dues(world, conversation)
    if dues:
        due = min(at for _, at in dues)
        rule = next(name for name, at in dues if at == due)
    flagged = parse(conversation.get("flagged_at"))
    if plausible(flagged) and flagged <= now(world) and due < after_years(flagged, 2):
        due, rule = after_years(flagged, 2), "flagged"
    ordered = at_most_the_orders(due, orders_on(world, conversation))
    if ordered < due:
        due, rule = ordered, "erasure_order"
    return rule, due


def verdict_of(world: World, rule: str | None, due: Instant, *, held: bool, unclassified: bool) -> Verdict:
    """A record is kept while `as_of < due`, expired when `as_of >= due`, and not purged while held."""
    expired = due <= now(world)
    return Verdict(rule, None if due == NEVER else date_of(due), held, expired and not held, unclassified)


def verdicts(world: World) -> dict[str, Verdict]:
    """The verdict on each conversation that exists at as-of."""
    found: dict[str, Verdict] = {}
    for conversation in world["conversations"]:
        if exists(world, conversation):
            rule, due = decided(world, conversation)
            held = is_held(world, conversation.get("account"), conversation["id"])
            doubts = doubts_about(world, conversation)
            found[conversation["id"]] = verdict_of(world, rule, due, held=held, unclassified=bool(doubts))
    return found


# --- content ----------------------------------------------------------------------------------------------------------


def content_dues(world: World, conversation: Row) -> list[tuple[str, Instant]]:
    """By when content must be gone, by the rules of the tests that redact (`tests/redacting.py`), in their order."""
    active, account = parse(conversation.get("last_activity_at")), account_of(world, conversation)
    dues: list[tuple[str, Instant]] = []
    if conversation.get("incognito") is True and plausible(active):
        dues.append(("incognito_content", after_days(active, 1)))
    if not doubts_about(world, conversation):
        assert account is not None
        assert active is not None
        inside = [e for e in epochs(account, "model_improvement", now(world), training=False) if e.contains(active)]
        if any(e.closes == NEVER for e in inside):
            dues.append(("consented_content", after_years(active, 2)))
        elif not inside:
            dues.append(("other_content", after_days(active, 10)))
    return [] if implausible(parse(conversation.get("flagged_at"))) else dues


def content_decided(world: World, conversation: Row) -> tuple[str | None, Instant]:
    """The earliest wins, a flag moves it as it moves a purge, and an order does not."""
    dues = content_dues(world, conversation)
    due = min([NEVER, *(at for _, at in dues)])
    rule = next((name for name, at in dues if at == due), None)
    flagged = parse(conversation.get("flagged_at"))
    if plausible(flagged) and flagged <= now(world) and due < after_years(flagged, 2):
        due, rule = after_years(flagged, 2), "flagged"
    return rule, due


def redactions(world: World) -> dict[str, Verdict]:
    """The verdict on the content of each conversation that exists; `purge`: it is redacted now. What is expired is not."""
    found: dict[str, Verdict] = {}
    for conversation in world["conversations"]:
        if exists(world, conversation):
            rule, due = content_decided(world, conversation)
            held = is_held(world, conversation.get("account"), conversation["id"])
            is_left = decided(world, conversation)[1] <= now(world)
            found[conversation["id"]] = verdict_of(world, rule, due, held=held or is_left, unclassified=False)
    return found


# --- other records ----------------------------------------------------------------------------------------------------


def feedback_due(kind: str | None, submitted: Instant | None) -> Instant | None:
    """Feedback lives 5 years, a bug report submitted before 2025-10-17 30 days; None when either is unknown."""
    if not plausible(submitted) or kind not in {"thumbs", "survey", "bug_report"}:
        return None
    if kind == "bug_report" and submitted < BUG_REPORTS_CHANGED:
        return after_days(submitted, 30)
    return after_years(submitted, 5)


def feedback(world: World) -> dict[str, Verdict]:
    """Feedback carries its own clock; holds and orders that name its account or its conversation apply to it.

    The rule is the kind's name. What is of an unknown kind or has a NULL or implausible `submitted_at` is kept,
    whatever orders say.
    """
    found: dict[str, Verdict] = {}
    for row in world.get("feedback", []):
        account, conversation = row.get("account"), row.get("conversation")
        held = is_held(world, account, conversation)
        submitted = parse(row.get("submitted_at"))
        due = feedback_due(row.get("kind"), submitted)
        if due is None:
            found[row["id"]] = verdict_of(world, "unclassified", NEVER, held=held, unclassified=True)
            continue
        ordered = at_most_the_orders(due, covering_orders(world, account, conversation, submitted))
        rule = "erasure_order" if ordered < due else row["kind"]
        found[row["id"]] = verdict_of(world, rule, ordered, held=held, unclassified=False)
    return found


# --- training manifest ------------------------------------------------------------------------------------------------


def messages(world: World, resumed: str = "from_opt_in", *, redacts: bool = False) -> dict[str, str]:
    """Every message that exists at as-of: `eligible`, or the one reason that fails first.

    `redacts`: the rules of the tests that redact are in force.
    """
    found: dict[str, str] = {}
    for conversation in world["conversations"]:
        if not exists(world, conversation):
            continue
        for message in conversation.get("messages", []):
            written = parse(message.get("created_at"))
            if plausible(written) and written > now(world):
                continue  # messages with a plausible `created_at > T` do not exist yet
            found[message["id"]] = reason(world, conversation, written, resumed, redacts=redacts)
    return found


def reason(world: World, conversation: Row, written: Instant | None, resumed: str, *, redacts: bool) -> str:
    """The first reason that fails, in the order of the table; the first half asks about the conversation."""
    as_of, account = now(world), account_of(world, conversation)
    if doubts_about(world, conversation) or not plausible(written) or account is None:
        return "unclassified"
    if is_deleted(conversation, as_of) or conversation.get("restored_at") is not None:
        return "deleted"
    if is_closed(account, as_of):
        return "account_closed"
    if orders_on(world, conversation):
        return "erasure_order"
    if conversation.get("zero_retention") is True:
        return "zero_retention"
    if conversation.get("incognito") is True:
        return "incognito"
    flagged = parse(conversation.get("flagged_at"))
    if flagged is not None and flagged <= as_of:
        return "flagged"
    if as_of >= decided(world, conversation)[1]:
        return "expired"
    if redacts and as_of >= content_decided(world, conversation)[1]:
        return "redacted"
    if platform(conversation) != "first_party":
        return "platform"
    return reason_by_consent(world, conversation, account, written, resumed)


def reason_by_consent(world: World, conversation: Row, account: Row, written: Instant, resumed: str) -> str:
    """The second half of the table: `plan`, `no_consent`, `before_consent`, `too_old`. Epochs are those of training."""
    as_of = now(world)
    purpose = next((purpose for purpose in PLANS_OF if on_plan_of(purpose, account, as_of, as_of)), None)
    if purpose is None:
        return "plan"
    open_now = [epoch for epoch in epochs(account, purpose, as_of, training=True) if epoch.contains(as_of)]
    active = parse(conversation["last_activity_at"])
    assert active is not None
    whole = resumed == "entire" and any(epoch.contains(active) for epoch in open_now)
    whole_plan = whole and governing(account, conversation, as_of) <= PLANS_OF[purpose]
    if not on_plan_of(purpose, account, written, as_of) and not whole_plan:
        return "plan"
    if not open_now:
        return "no_consent"
    if not any(epoch.contains(written) for epoch in open_now) and not whole:
        return "before_consent"
    if as_of >= after_years(written, 5):
        return "too_old"
    return "eligible"
