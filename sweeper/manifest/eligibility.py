"""Which messages may be trained on, for a whole store at once: the policy's rules as SQL, for one as-of.

Invariant: it says the same as `core/training.py`, message by message; a law tests it. Values are written into the
statements as literals, so that every client can run them as they are; nothing in them reads a clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sweeper.errors import ConfigurationError
from sweeper.policy.conditions import Writer
from sweeper.policy.history import View
from sweeper.policy.schema import Policy, Training
from sweeper.postgres.contract import Contract
from sweeper.postgres.histories import history_sql, purposes
from sweeper.postgres.statement import filled, literal, source
from sweeper.postgres.verdicts import decided, writer

CALENDAR_END = "CAST('10000-01-01T00:00:00Z' AS timestamptz)"
"""From here on an instant is never: no reader of a manifest could hold it."""
NOT_BARRED_AS_A_WHOLE = " AND c.reason IS NULL AND a.purpose IS NOT NULL AND a.opened IS NOT NULL"
"""Leaves out conversations without an eligible message, so that the messages of the others alone are sorted and numbered."""
_STAYS, _EPOCHS, _ACCOUNTS = (f"pg_temp.sweeper_{name}" for name in ("stays", "epochs", "accounts"))


@dataclass(frozen=True)
class Eligibility:
    """The statements for one store, policy and as-of (UTC).

    With `ahead`, whatever excludes counts whatever its instant: a clock that ran ahead does not train anybody.
    """

    contract: Contract
    policy: Policy
    as_of: datetime
    ahead: bool = False

    @property
    def training(self) -> Training:
        """What may be trained on beyond consent.

        Raises:
            ConfigurationError: the policy trains on nothing.
        """
        if self.policy.training is None:
            raise ConfigurationError(
                f"policy {self.policy.name!r} has no [training]: nothing may be trained on under it, and no manifest was made. "
                "Write what may be trained on into [training], or build no manifest."
            )
        return self.policy.training

    def prepare(self) -> Iterator[str]:
        """Statements that lay out, in tables that end with the transaction, what is known of accounts and conversations."""
        yield source("manifest_memory")
        for name, key in (
            ("stays", "account_id"),
            ("epochs", "account_id"),
            ("accounts", "account_id"),
            ("conversations", "id"),
        ):
            yield self._table(name)
            yield f"CREATE INDEX ON pg_temp.sweeper_{name} ({key})"
            yield f"ANALYZE pg_temp.sweeper_{name}"

    @cached_property
    def reasoned(self) -> str:
        """Every message that exists, with the first reason that bars it; once `prepare` was run in the same transaction."""
        return self._reasoned()

    def counts(self) -> str:
        """How many messages there are by reason; NULL: eligible."""
        return filled("manifest_counts", reasoned=self.reasoned)

    def rows(self, *, with_text: bool = False) -> str:
        """The eligible messages in total order; the text of a message leaves the store only where it is asked for."""
        return filled(
            "manifest_rows",
            reasoned=self._reasoned(with_text=with_text, narrowed=NOT_BARRED_AS_A_WHOLE),
            text=",\n       r.body AS text" if with_text else "",
            by_conversation=self._ordered("r.conversation_id", "messages", "conversation_id"),
            by_message=self._ordered("r.id", "messages", "id"),
        )

    def load(self) -> str:
        """Make the table into which the rows of a manifest are read, to be checked by `lost`."""
        return filled("manifest_load", type=self.contract.type("messages"))

    def lost(self, manifest_id: str, *, only_new: bool) -> str:
        """Of the rows that were read, those that may not be trained on, with reason and since when; or only new ones."""
        return filled(
            "manifest_lost",
            reasoned=self.reasoned,
            as_of=self._as_of,
            store=literal(self.contract.schema, "text"),
            only_new="true" if only_new else "false",
            manifest_id=literal(manifest_id, "text"),
        )

    def texts(self, manifest_id: str) -> str:
        """The rows that were read, with the text of those that may be trained on and were never revoked, or with the reason."""
        return filled(
            "manifest_texts",
            reasoned=self._reasoned(with_text=True),
            as_of=self._as_of,
            manifest_id=literal(manifest_id, "text"),
            by_message=self._ordered("l.message_id", "messages", "id"),
        )

    def _reasoned(self, *, with_text: bool = False, narrowed: str = "") -> str:
        body = "m.body::text" if with_text else "NULL"
        return filled("manifest_reasoned", body=body, narrowed=narrowed, **self._message_names)

    def _ordered(self, expression: str, relation: str, column: str) -> str:
        """An order that no locale changes."""
        is_text = self.contract.type(relation, column) not in ("uuid", "bigint", "integer", "smallint")
        return f'{expression}::text COLLATE "C"' if is_text else expression

    @cached_property
    def _to(self) -> Writer:
        return writer(self.policy, self.as_of, ahead=self.ahead)

    @property
    def _as_of(self) -> str:
        return self._to.instant(self.as_of)

    def _reached(self, instant: str) -> str:
        """Return the test that an instant excludes: it lies at or before as-of or, with `ahead`, it is set."""
        return f"{instant} IS NOT NULL" if self.ahead else f"COALESCE({instant} <= {self._as_of}, false)"

    def _table(self, name: str) -> str:
        """Return the statement that creates one of the tables of `prepare`."""
        to = self._to
        if name == "stays":
            found = history_sql("stays", to)
        elif name == "epochs":
            found = history_sql("epochs", to, *View, stays=_STAYS)
        elif name == "accounts":
            found = filled(
                "manifest_accounts",
                owners=history_sql("owners", to, stays=_STAYS),
                purposes=purposes(to),
                as_of=self._as_of,
                ahead="true" if self.ahead else "false",
                closed=self._reached("a.closed_at"),
            )
        else:
            further = ", k.closed, k.closed_at, k.purpose, k.opened"
            found = filled(
                "manifest_conversations",
                decided=decided(self.contract, to, owners=_ACCOUNTS, epochs=_EPOCHS, further=further),
                as_of=self._as_of,
                whole="true" if self.training.resumed == "entire" else "false",
                purpose_plans=self._plans_of("d.purpose"),
                deleted=self._reached("d.deleted_at"),
                flagged=self._reached("d.flagged_at"),
                platforms=to.texts(self.training.platforms),
                content=self._content,
                store=literal(self.contract.schema, "text"),
            )
        return f"CREATE TEMPORARY TABLE sweeper_{name} ON COMMIT DROP AS\n{found}"

    @property
    def _content(self) -> str:
        """Return the query of when the content of each conversation must be gone."""
        if self.policy.redacting is None:
            return source("manifest_no_content")
        to = writer(self.policy.redacting, self.as_of, ahead=self.ahead)
        return filled("manifest_content", decided=decided(self.contract, to, owners=_ACCOUNTS, epochs=_EPOCHS))

    @cached_property
    def _message_names(self) -> dict[str, str]:
        trusted, cap = self._to.trusted("m.created_at"), self.training.max_age.sql("m.created_at")
        return {
            "as_of": self._as_of,
            "trusted": f"COALESCE({trusted}, false)",
            "capped": f"CASE WHEN {trusted} AND {cap} < {CALENDAR_END} THEN {cap} END",
            "purpose_plans": self._plans_of("a.purpose"),
        }

    def _plans_of(self, purpose: str) -> str:
        """Return the SQL of the plans of a purpose."""
        whens = [
            f"WHEN {literal(name, 'text')} THEN {self._to.texts(known.plans)}"
            for name, known in self.policy.purposes.items()
        ]
        return f"CASE {purpose} {' '.join(whens)} ELSE CAST('{{}}' AS text[]) END" if whens else "CAST('{}' AS text[])"
