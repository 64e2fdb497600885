"""What the program exports: every series with its labels and their values, taken from a text that has all of them."""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from functools import cache

from prometheus_client.parser import text_string_to_metric_families

from sweeper.copies.lag import CopyLag
from sweeper.postgres.unmatched import UnmatchedProtections
from sweeper.report import metrics
from sweeper.report.numbers import Numbers, Recorded
from sweeper.report.operation import Covered, EndedRun, Reported
from sweeper.report.overdue import Overdue
from sweeper.report.totals import LifetimeTotals
from sweeper.report.upkeep import Upkeep

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Exported = dict[str, dict[str, set[str]]]
"""Series → label → its values."""


def numbers() -> Numbers:
    """Numbers of which every part could be read."""
    part = {"unclassified": {"no_plan": 3}}
    reported = Reported(NOW, {"conversations": part, "feedback": {"unclassified": {}}, "anomalies": {}})
    totals = LifetimeTotals(
        purged={("conversation", "standard"): 5},
        runs={("run", "completed"): 2},
        refusals=Counter(),
        spared=Counter(),
        failed=0,
        batch_seconds=1.5,
        batch_buckets={"0.1": 3, "1": 9, "+Inf": 10},
        pauses=Counter(),
        pause_seconds={},
    )
    recorded = Recorded(
        totals=totals,
        ended=EndedRun("completed", NOW),
        paused=False,
        purged_lately={"conversation": 5},
        pace=10.0,
        reported=reported,
        covered=Covered(NOW, signed=True, was_signed=True, uncovered={}),
        upkeep=Upkeep(
            "store",
            (),
            2,
            {"m": "/gone"},
            {},
            (),
            (),
            (),
            (),
            0,
            0,
            [CopyLag("search", 3, 9.0, 0, None, NOW, "no answer")],
        ),
    )
    overdue = Overdue(
        NOW, ("standard", "zero_retention"), ("feedback",), ("zero_retention",), redacting_rules=("content",)
    )
    overdue.unmatched = UnmatchedProtections()
    return Numbers("app/store", "abc", NOW, recorded, overdue)


@cache
def exported() -> Exported:
    """Every series that the program exports."""
    found: Exported = {}
    for family in text_string_to_metric_families(metrics.text(numbers()).decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels[label].add(value)
    return found
