"""Writes the report as a page of HTML: what `sweeper report --html` shows to a privacy officer, an auditor or a regulator.

Invariant: it holds counts and ids, no content. Its verdict stands on the report's counts, which are of the whole store.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

from sweeper.policy.counts import Kind, RecordCounts
from sweeper.policy.remedies import DOUBTED, SKIPPED
from sweeper.policy.times import length
from sweeper.postgres.whole_store import Due, Step, StoreVerdicts
from sweeper.report import chart, numbers
from sweeper.report import report as reports
from sweeper.report.chart import Bar, Column
from sweeper.report.holdings import (
    AGES,
    DAYS_AHEAD,
    KINDS,
    MONTHS_AHEAD,
    RUN_DAYS,
    Holdings,
    Recent,
    months_from,
    read_holdings,
    read_recent,
)
from sweeper.report.operation import Covered
from sweeper.report.overdue import PATIENCE
from sweeper.report.page import Block, Code, Commands, Facts, Section, Table, Verdict, instant, page
from sweeper.report.report import DAYS, Report
from sweeper.runs.job import Job

WORDS: Mapping[Kind, tuple[str, str]] = {
    "conversation": ("conversation", "conversations"),
    "redaction": ("redaction", "redactions"),
    "feedback": ("feedback row", "feedback rows"),
}
RULES_SHOWN = 5
"""A table by day or month has a column for each of so many rules, and one for the others together."""
GAP = "\N{NO-BREAK SPACE}"
POINTS = 24
"""The chart of what may be trained on shows so many manifests."""
MANIFESTS_SHOWN = 50
VERDICTS_SHARE = 0.5
"""The share of the time that the verdicts take; the rest goes to what may be trained on."""


def paged(job: Job, step: Step = lambda _, __: None) -> tuple[Report, str]:
    """Build the report at the job's as-of, record it as an event, and return it with its page.

    Args:
        job: the store, the policy and the as-of.
        step: called when a step begins, for progress.
    """
    found: list[Holdings] = []

    def look(verdicts: StoreVerdicts) -> None:
        step("training", VERDICTS_SHARE)
        found.append(read_holdings(verdicts))

    report = reports.report(job, lambda name, done: step(name, done * VERDICTS_SHARE), look)
    recent = job.database.within(lambda connection: read_recent(connection, job))
    return report, store_page(report, found[-1], recent)


def store_page(report: Report, holdings: Holdings, recent: Recent) -> str:
    """Return the page of a report."""
    name = numbers.store_name(report.job.settings)
    sections = (
        Section("What is stored, by rule and age", [*_ages(holdings)]),
        Section("What comes due, and when", [*_due(report, holdings)]),
        Section("Overdue, and why", [*_overdue(report, recent)]),
        Section("Under a legal hold", [*_held(report, holdings)]),
        Section("In doubt", [*_in_doubt(report, holdings)]),
        Section("What may be trained on", [*_training(report, holdings, recent)]),
        Section(f"Runs of the last {RUN_DAYS} days", [*_runs(report, recent)]),
        Section("Copies elsewhere", [*_copies(report)]),
        Section("Evidence, and how to verify it", [*_evidence(report, recent)]),
        Section("What a purge does not reach", [*_beyond(report)]),
    )
    footer = f"Made by sweeper {numbers.version()} in {length(report.seconds)}. It holds counts and ids, no content."
    return page(f"Retention report for {name}", [*_summary(report, name)], sections, footer=footer)


def _summary(report: Report, name: str) -> Iterator[Block]:
    job, past, counts = report.job, report.past, report.counts
    yield _verdict(report)
    yield from report.alarms
    purged = past.purged_in_days[DAYS[-1]]
    covered, acted_on = past.evidence, _acted_on(report)
    yield Facts(
        [
            ("As of", job.as_of),
            ("Store", Code(name)),
            ("Policy", f"{job.policy.name}, {_number(len(job.policy.every_rule), 'rule', 'rules')}"),
            ("Policy digest", Code(job.policy.digest)),
            ("Looked at", f"{_each(report, KINDS, lambda found: found.total)}, which is all"),
            ("Overdue", _each(report, acted_on, lambda found: found.due.total())),
            ("Due, under legal hold", _each(report, acted_on, lambda found: found.held_past_due)),
            ("In doubt, kept", _each(report, KINDS, lambda found: found.unclassified.total())),
            (f"Purged in {DAYS[-1]} days", _join(_count(kind, purged[kind].total()) for kind in acted_on)),
            ("Last successful run", _before(past.last_success_at, job.as_of) or "none"),
            ("Newest checkpoint", _checkpoint(covered, job.as_of)),
            ("Evidence after it", _number(covered.rows, "row", "rows")),
        ]
    )
    if report.unmatched is None:
        yield "Not looked at: whether each hold and order matches a record, because that could not be searched."
    if counts.anomalies:
        yield f"{_number(counts.anomalies.total(), 'anomaly was', 'anomalies were')} found: see In doubt."
    yield (
        "This page does not verify the evidence of what was purged. The next command does. It computes the whole tree again, "
        "compares it with every checkpoint, and compares the state of the tables with it."
    )
    yield Commands(("sweeper audit verify",))


def _checkpoint(covered: Covered, as_of: datetime) -> str:
    taken = _before(covered.checkpoint_at, as_of)
    return f"{taken}, {'signed' if covered.signed else 'not signed'}" if taken else "none was taken"


def _before(at: datetime | None, as_of: datetime) -> str:
    """Return an instant with how long before as-of it was; nothing of none."""
    if at is None:
        return ""
    return f"{instant(at)} ({length(abs(as_of - at))} {'before' if at <= as_of else 'after'} as-of)"


def _verdict(report: Report) -> Verdict:
    """Say whether anything is overdue. The report has counted every record, or there is no report."""
    acted_on = _acted_on(report)
    kinds = [report.counts.of(kind) for kind in acted_on]
    oldest = min((due for found in kinds if (due := found.earliest_due) is not None), default=None)
    looked = f"All {_each(report, KINDS, lambda found: found.total)} of the store were looked at."
    if oldest is None:
        return Verdict(f"Nothing is overdue. {looked}{_but_kept(report)}", is_good=not report.alarms)
    age = report.job.as_of - oldest
    within = "within" if age <= PATIENCE else "more than"
    return Verdict(
        f"{_each(report, acted_on, lambda found: found.due.total())} are overdue, the oldest for "
        f"{length(age)}, {within} the {PATIENCE // timedelta(hours=1)} hours between nightly runs. {looked}{_but_kept(report)}",
        is_good=age <= PATIENCE and not report.alarms,
    )


def _but_kept(report: Report) -> str:
    """Name what is past its due date, or has none, and is kept for a reason."""
    held, doubted, skipped = (
        sum(report.counts.of(kind).held_past_due for kind in _acted_on(report)),
        report.counts.unclassified.total(),
        report.counts.skipped.total(),
    )
    kept = [
        *([f"{_number(held, 'record', 'records')} past their due date under a legal hold"] if held else ()),
        *([f"{_number(skipped, 'record', 'records')} that a run would skip"] if skipped else ()),
        *([f"{_number(doubted, 'record', 'records')} in doubt"] if doubted else ()),
    ]
    return f" Kept all the same: {_join(kept)}." if kept else ""


def _ages(holdings: Holdings) -> Iterator[Block]:
    names = [name for name, _ in AGES]
    for kind, by_rule in holdings.ages.items():
        bars = _largest_first(by_rule)
        if not bars:
            yield f"The store has no {WORDS[kind][1]} with a plausible date."
            continue
        total, most, old = (
            sum(sum(bar.counts) for bar in bars),
            sum(bars[0].counts),
            sum(bar.counts[-1] for bar in bars),
        )
        finding = (
            f"{_count(kind, total)} {'is' if total == 1 else 'are'} stored, {most:,} under {bars[0].name}; "
            f"{f'{old:,}' if old else 'none'} {'is' if old <= 1 else 'are'} {AGES[-1][0]} old."
        )
        rows = [(bar.name, *bar.counts, sum(bar.counts)) for bar in bars]
        table = Table(f"{WORDS[kind][1]} by rule and age", ("rule", *names, "all"), rows)
        yield chart.bars(finding, bars, series=names, x=WORDS[kind][1], table=table)
    yield (
        "The age counts from the creation of a conversation and from the submission of a feedback row. Records whose date is "
        "implausible are in doubt, and are not in these charts."
    )


def _due(report: Report, holdings: Holdings) -> Iterator[Block]:
    now = report.job.as_of
    days = [now.date() + timedelta(days=n) for n in range(DAYS_AHEAD + 1)]
    months = [months_from(now, n).date() for n in range(MONTHS_AHEAD + 1)]
    redacts = report.job.policy.redacting is not None
    kinds: tuple[Kind, ...] = ("conversation", "redaction") if redacts else ("conversation",)
    for kind in kinds:
        yield from _coming(
            kind,
            [(day, _day(day), f"{day.day} {day:%B}") for day in days],
            holdings.days,
            span=f"in the next {DAYS_AHEAD} days",
            x="day (UTC)",
        )
        yield from _coming(
            kind,
            [(month, f"{month:%b}{GAP}{month:%Y}", f"{month:%B %Y}") for month in months],
            holdings.months,
            span=f"in this month and the next {MONTHS_AHEAD}",
            x="month (UTC)",
        )
    yield (
        "What is overdue already, and what a legal hold keeps, is not in these charts. A withdrawal, a deletion or an erasure "
        "order that comes later makes more due."
    )
    if redacts:
        yield "Content that is empty already, or whose conversation is purged first, is not counted as a redaction."


def _coming(
    kind: Kind, begins: Sequence[tuple[date, str, str]], due: Mapping[Kind, Sequence[Due]], *, span: str, x: str
) -> Iterator[Block]:
    """Chart what comes due in consecutive days or months; `begins` has of each the first day, its label and its name.

    The table of conversations has the feedback rows, too.
    """
    one, more = WORDS[kind]
    beside = _by_begin(due["feedback"]) if kind == "conversation" else None
    found = _by_begin(due[kind])
    by_rule = sum(found.values(), Counter[str]())
    if not by_rule:
        yield f"No {one} comes due {span}."
        return
    most, _, name = max(begins, key=lambda begin: found.get(begin[0], Counter()).total())
    finding = (
        f"{_count(kind, by_rule.total())} {'comes' if by_rule.total() == 1 else 'come'} due {span}, "
        f"most {'on' if x.startswith('day') else 'in'} {name} ({found[most].total():,})."
    )
    shown = [rule for rule, _ in by_rule.most_common(RULES_SHOWN)]
    others = len(by_rule) > len(shown)
    rows = [
        (
            label,
            *(at.get(rule, 0) for rule in shown),
            *([sum(count for rule, count in at.items() if rule not in shown)] if others else ()),
            at.total(),
            *([beside.get(begin, Counter()).total()] if beside is not None else ()),
        )
        for begin, label, _ in begins
        for at in (found.get(begin, Counter()),)
    ]
    also = () if beside is None else ("feedback rows",)
    headers = (x, *shown, *(["other rules"] if others else ()), more, *also)
    columns = [Column(label, found.get(begin, Counter()).total()) for begin, label, _ in begins]
    yield chart.columns(finding, columns, x=x, y=more, table=Table(_titled(kind, span), headers, rows))


def _titled(kind: Kind, span: str) -> str:
    return f"Due {span}, by rule" if kind == "conversation" else f"Redactions due {span}, by rule"


def _overdue(report: Report, recent: Recent) -> Iterator[Block]:
    now = report.job.as_of
    rows = [
        (WORDS[kind][1], rule, count, found.oldest_due[rule], now - found.oldest_due[rule])
        for kind in _acted_on(report)
        for found in (report.counts.of(kind),)
        for rule, count in sorted(found.due.items())
    ]
    if rows:
        yield Table("Overdue", ("records", "rule", "count", "oldest due date", "overdue for"), rows)
        yield from _why(report, recent, min(row[3] for row in rows))
    else:
        yield "Nothing is overdue."
    skipped = [
        (reason, count, SKIPPED[reason].cause if reason in SKIPPED else "")
        for reason, count in sorted(report.counts.skipped.items())
    ]
    if skipped:
        yield Table("Due as stored, but a run would skip them", ("reason", "records", "why"), skipped)


def _why(report: Report, recent: Recent, oldest: datetime) -> Iterator[str]:
    """Say why what is overdue was not purged, as far as runs and pauses tell."""
    for pause in recent.pauses:
        yield f"Purging has been paused since {instant(pause.paused_at)}."
    success = report.past.last_success_at
    if success is None:
        yield "No run has completed yet."
    elif oldest > success:
        yield f"All of it came due after the last successful run, which ended {instant(success)}. The next run purges it."
    else:
        yield f"Some of it was due when the last successful run ended ({instant(success)})."
    last = next((run for run in recent.runs if run.outcome is not None and run.kind == "run"), None)
    if last is not None and last.outcome != "completed":
        why = last.said or last.stop_reason or f"{last.failed} records could not be purged"
        yield f"The newest run, {last.id}, was {last.outcome}: {why}"
    yield "`sweeper status` says more, and what to do."


def _held(report: Report, holdings: Holdings) -> Iterator[Block]:
    names = [f"held {name}" for name, _ in AGES]
    for kind, by_rule in holdings.held.items():
        bars = _largest_first(by_rule)
        if not bars:
            yield f"No {WORDS[kind][0]} is under a legal hold."
            continue
        total = sum(sum(bar.counts) for bar in bars)
        past = report.counts.of(kind).held_past_due
        finding = (
            f"{_count(kind, total)} {'is' if total == 1 else 'are'} under a legal hold; {f'{past:,}' if past else 'none'} of "
            "them would have been purged otherwise."
        )
        yield chart.bars(
            finding,
            bars,
            series=names,
            x=WORDS[kind][1],
            table=Table(
                f"{WORDS[kind][1]} under hold, by rule and how long",
                ("rule", *names),
                [(bar.name, *bar.counts) for bar in bars],
            ),
        )
    found = report.unmatched
    if found is not None and any((found.holds, found.orders, found.misspelt)):
        yield (
            f"Without effect, because the store has nothing with the ids that they name: {len(found.holds)} holds and "
            f"{len(found.orders)} erasure orders; {len(found.misspelt)} orders spell an id differently from the store. "
            "`sweeper hold list` and `sweeper order list` mark them."
        )


def _in_doubt(report: Report, holdings: Holdings) -> Iterator[Block]:
    rows = [
        (WORDS[kind][1], reason, count, DOUBTED[reason].cause, Code(", ".join(holdings.examples[kind].get(reason, ()))))
        for kind in KINDS
        for reason, count in report.counts.of(kind).unclassified.most_common()
    ]
    if rows:
        bars = [Bar(reason, (count,)) for reason, count in report.counts.unclassified.most_common()]
        total = report.counts.unclassified.total()
        finding = (
            f"{_number(total, 'record', 'records')} cannot be decided and {'is' if total == 1 else 'are'} kept, "
            f"{bars[0].counts[0]:,} for the reason {bars[0].name}."
        )
        table = Table("In doubt, with examples", ("records", "reason", "count", "why", "examples (ids)"), rows)
        yield chart.bars(finding, bars, series=("records",), x="records", table=table)
        yield "What is in doubt is kept and never trained on. `sweeper explain ID` says what would settle the doubt."
    else:
        yield "Nothing is in doubt: every record has a due date, or is one that never falls due."
    if report.counts.anomalies:
        yield Table(
            "Anomalies, which change no decision",
            ("anomaly", "records"),
            sorted(report.counts.anomalies.items()),
        )


def _training(report: Report, holdings: Holdings, recent: Recent) -> Iterator[Block]:
    points = [Column(f"{made['as_of']:%Y-%m-%d}", made["eligible"]) for made in recent.manifests[-POINTS:]]
    left_out = Counter(holdings.eligible or {})
    if holdings.eligible is None:
        yield "The policy has no [training]: nothing may be trained on under it."
    else:
        points.append(Column("as-of", left_out.pop(None, 0)))
    if points:
        finding = f"{points[-1].count:,.0f} messages {'could' if holdings.eligible is None else 'may'} be trained on"
        change = points[-1].count - points[-2].count if len(points) > 1 else 0
        since = (
            f", {abs(change):,.0f} {'more' if change > 0 else 'fewer'} than by the manifest before" if change else ""
        )
        yield chart.columns(f"{finding}{since}.", points, x="as-of of each manifest, and of this page", y="messages")
    if left_out:
        bars = [Bar(str(reason), (count,)) for reason, count in left_out.most_common()]
        finding = (
            f"{_number(left_out.total(), 'message', 'messages')} may not be trained on, {bars[0].counts[0]:,} for the reason "
            f"{bars[0].name}."
        )
        yield chart.bars(finding, bars, series=("messages",), x="messages")
    yield from _manifests(recent)


def _manifests(recent: Recent) -> Iterator[Block]:
    in_use = [made for made in recent.manifests if made["retired_at"] is None]
    if not in_use:
        yield "No manifest is in use."
        return
    rows = [
        (Code(made["id"]), made["state"], made["as_of"], made["eligible"], made["revoked"], made["recalled_at"])
        for made in reversed(in_use[-MANIFESTS_SHOWN:])
    ]
    never = sum(made["recalled_at"] is None for made in in_use)
    yield Table(
        f"Manifests outstanding: {len(in_use):,}, of which {never:,} were never recalled"
        + (f"; the newest {MANIFESTS_SHOWN}" if len(in_use) > len(rows) else ""),
        ("manifest", "state", "as of", "messages", "left it since", "last recall"),
        rows,
    )
    yield "`sweeper manifest recall` finds what has left each manifest since."


def _runs(report: Report, recent: Recent) -> Iterator[Block]:
    if not recent.days:
        yield f"No run began in the last {RUN_DAYS} days."
        return
    on = {each.day: each for each in recent.days}
    first = report.job.as_of.date() - timedelta(days=RUN_DAYS)
    days = [first + timedelta(days=n) for n in range(RUN_DAYS + 1)]
    done = {kind: sum(each.of(kind) for each in recent.days) for kind in WORDS}
    kinds = [kind for kind in WORDS if kind in KINDS or done[kind]]
    runs, not_well = sum(each.runs for each in recent.days), sum(each.not_well for each in recent.days)
    came = Table(
        "What was purged, by the day on which runs began (UTC); days without a run are left out",
        ("day", "runs", "of them not well", *(WORDS[kind][1] for kind in kinds)),
        [(each.day, each.runs, each.not_well, *map(each.of, kinds)) for each in reversed(recent.days)],
    )
    took = Table(
        "How long runs took, by the day on which they began (UTC)",
        ("day", "runs", "in all", "longest"),
        [
            (each.day, each.runs, timedelta(seconds=each.seconds), timedelta(seconds=each.longest))
            for each in reversed(recent.days)
        ],
    )
    yield chart.columns(
        f"{_number(runs, 'run', 'runs')} purged {_join(_count(kind, done[kind]) for kind in kinds)}; "
        f"{f'{not_well:,}' if not_well else 'none'} failed, were refused or were interrupted.",
        [Column(_day(day), on[day].conversations if day in on else 0) for day in days],
        x="day (UTC)",
        y="conversations purged",
        table=came,
    )
    longest = max(recent.days, key=lambda each: each.longest)
    yield chart.columns(
        f"The longest run took {length(longest.longest)}, on {longest.day.day} {longest.day:%B}.",
        [Column(_day(day), round(on[day].longest, 1) if day in on else 0) for day in days],
        x="day (UTC)",
        y="seconds, longest run of the day",
        table=took,
    )
    yield Table(
        "The newest runs",
        ("run", "kind", "began", "outcome", "why", "purged", "skipped", "took"),
        [
            (
                run.id,
                run.kind,
                run.started_at,
                run.outcome or "has not ended",
                run.stop_reason or run.guard,
                run.purged,
                run.skipped,
                timedelta(seconds=run.seconds) if run.seconds is not None else None,
            )
            for run in recent.runs
        ],
    )


def _copies(report: Report) -> Iterator[Block]:
    if report.past.copies:
        yield Table(
            "Purged records that each copy has not acknowledged",
            ("copy", "records", "oldest for", "last acknowledged", "last failure"),
            [
                (
                    copy.copy,
                    copy.records,
                    timedelta(seconds=copy.seconds),
                    copy.delivered_at,
                    copy.last_error if copy.failed_at else None,
                )
                for copy in report.past.copies
            ],
        )
    else:
        yield "No copy is named in the settings ([[copies]]): nothing outside of the store is told what was purged."
    yield f"Objects of purged attachments that are still to be removed: {report.past.objects_pending:,}."


def _evidence(report: Report, recent: Recent) -> Iterator[Block]:
    yield (
        "Every purge leaves a tombstone, and everything else that happens leaves an event. Both are leaves of a Merkle tree "
        "(RFC 6962)."
    )
    last = recent.checkpoint
    if last is None:
        yield "No checkpoint was ever taken."
    else:
        yield Facts(
            [
                ("Newest checkpoint", last.taken_at),
                ("Leaves under it", last.size),
                ("Signed by key", Code(last.signed_by) if last.signed_by else "not signed"),
                ("Rows since", report.past.evidence.rows),
            ]
        )
        yield "The checkpoint itself (C2SP tlog-checkpoint). Compare it with the one that was kept elsewhere:"
        yield Commands(last.note.splitlines())
    yield "To verify all evidence in the database, against a checkpoint that was kept elsewhere if there is one:"
    yield Commands(("sweeper audit verify", "sweeper audit verify --checkpoint checkpoint.txt"))
    yield "To verify it without the database and without trusting whoever runs it, with the public key:"
    yield Commands(
        (
            "sweeper audit key > sweeper.pub",
            "sweeper audit export ledger.jsonl",
            "sweeper audit check-export ledger.jsonl --key sweeper.pub",
        )
    )


def _beyond(report: Report) -> Iterator[Block]:
    yield "Where content that was purged from the store may live on, and what to do about it."
    rows = []
    for line in report.past.beyond_reach:
        place, _, rest = line.partition(": ")
        what, _, remedy = rest.partition(" → ")
        rows.append((place, what, remedy))
    yield Table("Beyond the reach of a purge", ("place", "what stays there", "what to do"), rows)


def _by_begin(due: Sequence[Due]) -> dict[date, Counter[str]]:
    """Return what comes due and is not held, by the first day of its interval and rule."""
    found: dict[date, Counter[str]] = {}
    for each in due:
        found.setdefault(each.begin.date(), Counter())[each.rule] += each.records
    return found


def _day(day: date) -> str:
    return f"{day.day}{GAP}{day:%b}"


def _largest_first(by_rule: Mapping[str, Sequence[int]]) -> list[Bar]:
    found = [Bar(rule, counts) for rule, counts in by_rule.items() if any(counts)]
    return sorted(found, key=lambda bar: (-sum(bar.counts), bar.name))


def _acted_on(report: Report) -> Sequence[Kind]:
    """Return what runs purge or redact under the policy."""
    return KINDS if report.job.policy.redacting is None else tuple(WORDS)


def _each(report: Report, kinds: Sequence[Kind], number: Callable[[RecordCounts], int]) -> str:
    return _join(_count(kind, number(report.counts.of(kind))) for kind in kinds)


def _count(kind: Kind, count: int) -> str:
    return _number(count, *WORDS[kind])


def _number(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _join(parts: Iterable[str]) -> str:
    found = list(parts)
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
