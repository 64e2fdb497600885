"""SQL of the plan and consent histories that proposals, manifests and verdicts share, as `policy/history.py` has them."""

import json

from sweeper.policy.conditions import Writer
from sweeper.policy.history import View
from sweeper.postgres.statement import filled


def history_sql(name: str, to: Writer, *views: View, **names: str) -> str:
    """Return the query of `stays` on plans, of consent `epochs`, or of what conversations share of their `owners`.

    Args:
        name: Which query.
        to: Writes the values.
        views: The views of a withdrawal for which epochs are returned.
        names: The relations `stays` and `accounts`, and conditions that select among `plan_changes` and `consent_events`.
    """
    as_of = to.instant(to.as_of)
    names = {"stays": "stays", "accounts": "accounts", "plan_changes": "true", "consent_events": "true", **names}
    return filled(
        name,
        **names,
        as_of=as_of,
        created_trusted=to.trusted("a.created_at"),
        closed_trusted=to.trusted("a.closed_at"),
        change_trusted=to.trusted("p.effective_at"),
        recorded_trusted=to.trusted("e.recorded_at"),
        effective_trusted=to.trusted("e.effective_at"),
        known=f"(e.recorded_at <= {as_of}{' OR NOT e.granted' if to.ahead else ''})",
        closed="a.closed_at IS NOT NULL" if to.ahead else f"a.closed_at <= {as_of}",
        views=", ".join(f"('{view}', e.withdrawn_for_{view})" for view in views),
        purposes=purposes(to),
        purpose_names=to.texts(to.policy.purposes),
        uses_plans="true" if to.policy.uses_plans else "false",
        uses_purposes="true" if to.policy.purposes else "false",
    )


def purposes(to: Writer) -> str:
    """Write the purposes of the policy as JSON: their plans and the instant before which no grant takes effect."""
    found = [
        {
            "purpose": name,
            "plans": sorted(purpose.plans),
            "not_before": purpose.not_before and purpose.not_before.isoformat(),
        }
        for name, purpose in to.policy.purposes.items()
    ]
    return to.bind(json.dumps(found), "jsonb")
