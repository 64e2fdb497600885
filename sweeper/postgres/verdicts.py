"""SQL of the verdict on every conversation of a store: `policy/decide.py` in one statement, from the same conditions.

Invariant: rule, due time and first doubt are those of `decide`. Values are written as literals, so that any client can run the
statements, with no parameters and in a session in UTC; they read no clock.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from sweeper.policy.conditions import Writer, applies_sql, due_sql
from sweeper.policy.decide import Doubt
from sweeper.policy.history import View
from sweeper.policy.schema import Action, ColumnPeriod, Policy, Rule
from sweeper.postgres.contract import Contract
from sweeper.postgres.statement import filled, literal, spelling


def writer(policy: Policy, as_of: datetime, *, ahead: bool = False) -> Writer:
    """Return the writer of exact statements: values are literals, and each purpose that a rule asks for has its epoch joined."""
    purposes = sorted({rule.when.consent.purpose for rule in policy.rules if rule.when.consent is not None})
    return Writer(policy, as_of, literal, {purpose: f"e{number}" for number, purpose in enumerate(purposes)}, ahead)


def ruled(contract: Contract, to: Writer, *, conversations: str = "conversations", further: str = "") -> str:
    """Return the query of `decided` with `last_rule` and `last_due`, after floors and orders; `owners` and `epochs` are there.

    `last_due` is NULL for none and for never. Orders set no date for a redaction.
    """
    known = f"{to.trusted('v.flagged_at')} AND v.flagged_at <= {to.instant(to.as_of)}"
    floors = [to.never_after(floor.period.sql("v.flagged_at")) for floor in to.policy.floors]
    return filled(
        "ruled",
        decided=decided(contract, to, owners="owners", epochs="epochs", conversations=conversations, further=further),
        least=", ".join(f"CASE WHEN {known} THEN {due} END AS due_{n}" for n, due in enumerate(floors)) or "NULL",
        names="".join(f", f.due_{n}" for n in range(len(floors))),
        floors=named("f", [floor.name for floor in to.policy.floors]),
        order_due="v.order_due" if to.policy.enforced is Action.PURGE else "CAST(NULL AS timestamptz)",
    )


def decided(
    contract: Contract,
    to: Writer,
    *,
    owners: str,
    epochs: str,
    conversations: str = "conversations",
    further: str = "",
) -> str:
    """Return the query of what the rules decide for each conversation, before floors, orders and holds.

    Args:
        contract: The store.
        to: Writes the values; made by `writer`.
        owners: The relation that holds the result of the query `owners`, joined as `k`.
        epochs: The relation that holds the result of the query `epochs`.
        conversations: The relation of the conversations.
        further: Further columns, each after a comma.
    """
    rules = to.policy.rules
    repeated = (
        "SELECT c.id FROM conversations c LEFT JOIN accounts a ON a.id = c.account_id GROUP BY c.id HAVING count(*) > 1"
    )
    unusable = [
        f"({'NOT d.no_rule' if rule.stands_unclassified else 'd.doubt IS NULL'} AND {applies_sql(rule, to)} "
        f"AND NOT {term.period.usable_sql})"
        for rule in rules
        for term in rule.due
        if isinstance(term.period, ColumnPeriod)
    ]
    return filled(
        "decided",
        as_of=to.instant(to.as_of),
        store=literal(contract.schema, "text"),
        ahead="true" if to.ahead else "false",
        account_spelling=spelling("c.account_id", contract.type("conversations", "account_id")),
        conversation_spelling=spelling("c.id", contract.type("conversations")),
        ordered_trusted=to.trusted("o.created_at"),
        due_trusted=to.trusted("o.due_at"),
        created_trusted=to.trusted("c.created_at"),
        distinct=" DISTINCT ON (c.id)" if contract.unkeyed else "",
        repeated=f"c.id IN ({repeated})" if contract.unkeyed else "false",
        owners=owners,
        conversations=conversations,
        epochs="".join(_epoch(purpose, alias, epochs, to) for purpose, alias in to.epochs.items()),
        further=further,
        doubts=" ".join(f"WHEN {condition} THEN {doubt}" for condition, doubt in _doubts(to)),
        flag_doubt=_is_doubtful("flagged_at", to),
        period_doubt=f"CASE WHEN {' OR '.join(unusable)} THEN '{Doubt.PERIOD}' END" if unusable else "NULL",
        dues=", ".join(f"{_due(rule, to)} AS due_{number}" for number, rule in enumerate(rules)) or "NULL",
        names=", ".join(f"t.due_{number}" for number in range(len(rules))) or "CAST(NULL AS timestamptz)",
        rules=named("t", [rule.name for rule in rules]),
    )


def _epoch(purpose: str, alias: str, epochs: str, to: Writer) -> str:
    """Join the retention epoch of a purpose that contains the last activity; its edges are outside (policy, Consent 4)."""
    return (
        f"\nLEFT JOIN {epochs} {alias} ON {alias}.account_id = c.account_id AND {alias}.side = '{View.RETENTION}' "
        f"AND {alias}.purpose = {to.bind(purpose, 'text')} AND {alias}.opened < c.last_activity_at "
        f"AND ({alias}.closed IS NULL OR c.last_activity_at < {alias}.closed)"
    )


def _due(rule: Rule, to: Writer) -> str:
    """Return the due time of a rule if it applies; only `stands_unclassified` rules count for an unclassified conversation."""
    counts = "NOT d.no_rule" if rule.stands_unclassified else "p.doubt IS NULL"
    return f"CASE WHEN {counts} AND {applies_sql(rule, to)} THEN {due_sql(rule, to)} END"


def named(alias: str, names: Sequence[str]) -> str:
    """Return the arms of a CASE on a due time that select the first name with the same due time."""
    arms = [f"WHEN {alias}.due_{number} THEN {literal(name, 'text')}" for number, name in enumerate(names)]
    return " ".join(arms) or "WHEN NULL THEN NULL"


def _is_doubtful(column: str, to: Writer) -> str:
    return f"NOT COALESCE({to.trusted(f'c.{column}')}, true)"


def _doubts(to: Writer) -> Iterator[tuple[str, str]]:
    """Yield each reason why a conversation is unclassified, in the order of `decide`, with the doubt."""
    yield "h.repeated", f"'{Doubt.REPEATED}'"
    yield "k.account_id IS NULL", f"'{Doubt.ACCOUNT}'"
    yield "k.doubt IS NOT NULL", "k.doubt"
    yield from (
        (f"c.{doubt} IS NULL", f"'{doubt}'") for doubt in (Doubt.PLATFORM, Doubt.INCOGNITO, Doubt.ZERO_RETENTION)
    )
    yield from ((_is_doubtful(doubt, to), f"'{doubt}'") for doubt in (Doubt.DELETED, Doubt.RESTORED, Doubt.FLAGGED))
    yield from (
        (f"{to.trusted(f'c.{doubt}')} IS NOT TRUE", f"'{doubt}'") for doubt in (Doubt.CREATED, Doubt.LAST_ACTIVITY)
    )
    yield "c.last_activity_at < c.created_at", f"'{Doubt.ORDER_OF_LIFE}'"
    if to.policy.uses_plans:
        first = "width_bucket(c.created_at, k.starts)"
        yield f"COALESCE({first}, 0) = 0", f"'{Doubt.NO_PLAN}'"
        yield f"NOT k.plans[GREATEST({first}, 1):] <@ {to.texts(to.policy.known_plans)}", f"'{Doubt.UNKNOWN_PLAN}'"
