"""Says why a record is skipped or in doubt, and what mends that. Runs, `status` and `explain` print these texts.

`{schema}` stands for the schema of the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.policy.decide import Doubt
from sweeper.policy.evaluate import Spared


@dataclass(frozen=True)
class Remedy:
    """Why one record is skipped or in doubt, and what mends the data of all such records."""

    cause: str
    mend: str


SKIPPED: Mapping[str, Remedy] = {
    Spared.PROTECTED: Remedy(
        "a hold or a flag recorded after as-of protects it",
        "a hold that is new counts as held in the next run; if its time lies in the future, fix the clock that wrote it: "
        "SELECT * FROM sweeper.legal_holds WHERE placed_at > now(); "
        "SELECT id, flagged_at FROM {schema}.conversations WHERE flagged_at > now();",
    ),
    Spared.STALE: Remedy(
        "a user message is newer than last_activity_at says, and counts as the last activity",
        "fix what writes messages without updating last_activity_at, then run: "
        "UPDATE {schema}.conversations c SET last_activity_at = m.newest FROM (SELECT conversation_id, max(created_at) AS newest "
        "FROM {schema}.messages WHERE author = 'user' GROUP BY conversation_id) m "
        "WHERE m.conversation_id = c.id AND (m.newest > c.last_activity_at) IS NOT FALSE; "
        "if conversations is a view, mend the column of last_activity_at behind it",
    ),
    Spared.CHANGED: Remedy(
        "it changed after it was proposed, and is no longer due",
        "nothing, unless this repeats every night: then look at what keeps updating last_activity_at or deleted_at in "
        "{schema}.conversations, and plans and consent in {schema}.plan_changes and {schema}.consent_events",
    ),
    Spared.LOCKED: Remedy(
        "another session kept it locked",
        "find that session and end it, then `sweeper run`: SELECT pid, usename, application_name, state, xact_start "
        "FROM pg_stat_activity WHERE xact_start < now() - interval '1 minute';",
    ),
    Spared.NOT_APPROVED: Remedy(
        "more was due than was approved",
        "preview and approve the rest: `sweeper run --dry-run`, then `sweeper run --approve DIGEST`",
    ),
}
DOUBTED: Mapping[str, Remedy] = {
    Doubt.ACCOUNT: Remedy(
        "its account does not exist",
        "add the accounts that are missing: SELECT DISTINCT c.account_id FROM {schema}.conversations c "
        "LEFT JOIN {schema}.accounts a ON a.id = c.account_id WHERE a.id IS NULL;",
    ),
    Doubt.NO_PLAN: Remedy(
        "no plan was in force during part of its life",
        "add the first plan of its account to {schema}.plan_changes, in force since the account exists; if the application keeps "
        "no plans, record it: `sweeper plan record ACCOUNT PLAN --effective=-infinity`",
    ),
    Doubt.UNKNOWN_PLAN: Remedy(
        "a plan that the policy does not know has been in force since it began",
        "add the plan to a class of [plans] in the policy, or fix it in {schema}.plan_changes: "
        "SELECT plan, count(*) FROM {schema}.plan_changes GROUP BY plan;",
    ),
    Doubt.PLAN_CHANGE: Remedy(
        "the account has a plan change whose time cannot be trusted",
        "fix effective_at in {schema}.plan_changes where it is unset or implausible",
    ),
    Doubt.CONSENT_EVENT: Remedy(
        "the account has a consent event that cannot be trusted",
        "fix what is unset or implausible in {schema}.consent_events: purpose, granted, recorded_at or effective_at",
    ),
    Doubt.CREATED: Remedy("its creation time is unset or implausible", "fix created_at in {schema}.conversations"),
    Doubt.LAST_ACTIVITY: Remedy(
        "the time of its last activity is unset or implausible",
        "fix last_activity_at in {schema}.conversations: the newest message of the user in {schema}.messages tells it",
    ),
    Doubt.ORDER_OF_LIFE: Remedy(
        "its last activity is before its creation",
        "fix created_at or last_activity_at: "
        "SELECT id, created_at, last_activity_at FROM {schema}.conversations WHERE last_activity_at < created_at;",
    ),
    Doubt.DELETED: Remedy("its deletion time is implausible", "fix deleted_at in {schema}.conversations"),
    Doubt.RESTORED: Remedy("its restoration time is implausible", "fix restored_at in {schema}.conversations"),
    Doubt.FLAGGED: Remedy("the time of its flag is implausible", "fix flagged_at in {schema}.conversations"),
    Doubt.CLOSED: Remedy(
        "the time at which its account was closed is implausible", "fix closed_at in {schema}.accounts"
    ),
    Doubt.PLATFORM: Remedy("its platform is not set", "set platform in {schema}.conversations"),
    Doubt.INCOGNITO: Remedy("whether it is incognito is not set", "set incognito in {schema}.conversations"),
    Doubt.ZERO_RETENTION: Remedy(
        "whether it is zero-retention is not set", "set zero_retention in {schema}.conversations"
    ),
    Doubt.REPEATED: Remedy(
        "the store has more than one row for it or its account, and the rows may differ",
        "make id unique in {schema}.conversations and {schema}.accounts",
    ),
    Doubt.PERIOD: Remedy(
        "the column that holds its period cannot be used",
        "fix the column that the policy reads the period from, in {schema}.accounts or {schema}.conversations",
    ),
    Doubt.FEEDBACK_KIND: Remedy("its kind is not known to the policy", "fix kind in {schema}.feedback"),
    Doubt.FEEDBACK_SUBMITTED: Remedy(
        "its time of submission is unset or implausible", "fix submitted_at in {schema}.feedback"
    ),
    Doubt.FEEDBACK_REPEATED: Remedy(
        "the store has more than one row for it, and the rows may differ", "make id unique in {schema}.feedback"
    ),
}


UNKNOWN = Remedy("another version of the program wrote this reason", "`sweeper run`, so that this version counts again")
"""For reasons that a run of another version recorded."""
USUAL = 10
"""So many records may change while a run is at work without anything being wrong."""


def is_usual(reason: str, count: int, purged: int) -> bool:
    """Return True if nothing is wrong with records that were skipped because they changed: they are few beside those purged."""
    return reason == Spared.CHANGED and count <= USUAL + purged


def mend(remedy: Remedy, schema: str) -> str:
    """Return what mends the data of all such records."""
    return remedy.mend.format(schema=schema)


ONE_LAST_ACTIVITY = (
    "UPDATE {schema}.conversations c SET last_activity_at = (SELECT max(created_at) FROM {schema}.messages m "
    "WHERE m.conversation_id = c.id AND m.author = 'user') WHERE c.id = '{id}';"
)


def mend_last_activity(schema: str, conversation_id: str) -> str:
    """Return the statement that mends the last activity of one conversation."""
    return ONE_LAST_ACTIVITY.format(schema=schema, id=conversation_id.replace("'", "''"))


def skipped(reason: str, count: int, schema: str, source: str = "") -> str:
    """Return how many records are skipped for a reason, why, and what mends it; `source` says who counted them."""
    listed = reason in (Spared.STALE, Spared.PROTECTED)
    return _advice(
        f"{count:,} records are skipped", reason, source, SKIPPED.get(reason, UNKNOWN), schema, listed=listed
    )


def in_doubt(reason: str, count: int, schema: str, source: str = "") -> str:
    """Return how many records are kept because of a doubt, why, and what mends it; `source` says who counted them."""
    listed, remedy = reason in Doubt.of_conversations(), DOUBTED.get(reason, UNKNOWN)
    return _advice(f"{count:,} records are in doubt and kept", reason, source, remedy, schema, listed=listed)


def _advice(what: str, reason: str, source: str, remedy: Remedy, schema: str, *, listed: bool) -> str:
    who = f", {source}" if source else ""
    list_them = " `sweeper explain --all` lists them." if listed else ""
    return f"{what} ({reason}{who}): {remedy.cause}.{list_them} To mend it: {_sentence(mend(remedy, schema))}"


def _sentence(text: str) -> str:
    return text if text.endswith(";") else f"{text}."
