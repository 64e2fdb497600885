"""The facts that a decision is based on, exactly as the store holds them; no field has a default that could hide a NULL."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from sweeper.policy.instant import StoredTimestamp, at_or_before


@dataclass(frozen=True, slots=True)
class PlanChange:
    """The account is on `plan` from `effective_at` until its next change."""

    id: int | None
    effective_at: StoredTimestamp
    plan: str | None


@dataclass(frozen=True, slots=True)
class ConsentEvent:
    """A grant or a withdrawal of consent to one purpose."""

    id: int | None
    purpose: str | None
    granted: bool | None
    recorded_at: StoredTimestamp
    effective_at: StoredTimestamp


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """A person or an organisation with its whole plan and consent history. Compared and cached by object identity."""

    id: str
    created_at: StoredTimestamp
    closed_at: StoredTimestamp
    plan_changes: tuple[PlanChange, ...]
    consent_events: tuple[ConsentEvent, ...]
    columns: Mapping[str, object] = field(default_factory=dict)

    def reads_as(self, other: "Account | None") -> bool:
        """Return True if every field of the other account is equal."""
        return other is not None and all(getattr(self, each.name) == getattr(other, each.name) for each in fields(self))


@dataclass(frozen=True, slots=True)
class Conversation:
    """The row of a chat or a coding session."""

    id: str
    account_id: str | None
    kind: str | None
    platform: str | None
    incognito: bool | None
    zero_retention: bool | None
    created_at: StoredTimestamp
    last_activity_at: StoredTimestamp
    deleted_at: StoredTimestamp
    restored_at: StoredTimestamp
    flagged_at: StoredTimestamp
    columns: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on a conversation, on an account, on both, or (if it names neither) on everything."""

    matter: str
    account_id: str | None
    conversation_id: str | None
    placed_at: StoredTimestamp
    released_at: StoredTimestamp

    def names(self, account_id: str | None, conversation_id: str | None) -> bool:
        """Return True if the hold covers a record of this account or conversation."""
        if self.account_id is None and self.conversation_id is None:
            return True
        return (account_id is not None and self.account_id == account_id) or (
            conversation_id is not None and self.conversation_id == conversation_id
        )


@dataclass(frozen=True, slots=True)
class Order:
    """An erasure order for a conversation, an account, or (both named) exactly both."""

    reference: str
    account_id: str | None
    conversation_id: str | None
    recorded_at: StoredTimestamp
    due_at: StoredTimestamp

    def names(self, account_id: str | None, conversation_id: str | None) -> bool:
        """Return True if the order covers a record of this account and conversation; one that names neither covers nothing."""
        if self.account_id is None and self.conversation_id is None:
            return False
        return self.account_id in (None, account_id) and self.conversation_id in (None, conversation_id)


@dataclass(frozen=True, slots=True)
class Message:
    """A message without its text."""

    id: str
    author: str | None
    created_at: StoredTimestamp


@dataclass(frozen=True, slots=True)
class Feedback:
    """The row of a rating, a survey answer or a bug report, which has its own retention."""

    id: str
    account_id: str | None
    conversation_id: str | None
    kind: str | None
    submitted_at: StoredTimestamp
    has_transcript: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts that a decision on one conversation may use.

    `holds` and `orders` are those that cover it. `latest_user_message_at` is the time of its newest user message, and
    `messages` is the number of its messages.
    """

    conversation: Conversation
    account: Account | None
    holds: tuple[Hold, ...] = ()
    orders: tuple[Order, ...] = ()
    latest_user_message_at: StoredTimestamp = None
    messages: int = 0
    late_user_message_at: StoredTimestamp = None
    """The time of its first user message at or after the policy's earliest deadline for choosing, if there is a deadline."""
    repeated: bool = False
    """True if the store shows the conversation or its account more than once, so that no version of it can be trusted."""
    redacted_at: StoredTimestamp = None
    """When its content was last redacted, as the evidence says; read for an explanation only."""

    def reads_as(self, other: "Facts") -> bool:
        """Return True if account, history, holds and orders are equal; nothing else is compared."""
        same = self.account.reads_as(other.account) if self.account is not None else other.account is None
        return same and (self.holds, self.orders, self.repeated) == (other.holds, other.orders, other.repeated)

    def protected(self, as_of: datetime) -> "Facts":
        """Return the facts with holds and flags recorded after `as_of` treated as recorded at `as_of` (policy, Purge).

        Facts without such a hold or flag are returned unchanged.
        """
        flagged_at = self.conversation.flagged_at
        late = isinstance(flagged_at, datetime) and flagged_at > as_of
        if not late and not self.holds:
            return self
        return replace(
            self,
            conversation=replace(self.conversation, flagged_at=as_of) if late else self.conversation,
            holds=tuple(h if at_or_before(h.placed_at, as_of) else replace(h, placed_at=as_of) for h in self.holds),
        )

    def with_activity(self, last_activity_at: StoredTimestamp) -> "Facts":
        """Return the facts with another last activity."""
        return replace(self, conversation=replace(self.conversation, last_activity_at=last_activity_at))
