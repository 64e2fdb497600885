"""Draws the plans and the consent of an account over time: in characters for a terminal, as SVG for a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from sweeper.errors import printable
from sweeper.policy.history import BEGINNING, History, View
from sweeper.policy.instant import rfc3339
from sweeper.report.page import Figure, Table

WIDTH = 80
"""Characters of a line on a terminal."""
NAME = 26
"""Characters of a lane's name on a terminal."""
ROW, THICKNESS = 26, 14
"""Pixels of a lane and of its bar on a page."""
MOST = 12
"""How many lanes are drawn; the others are in the list of spans."""


@dataclass(frozen=True)
class Stretch:
    """From when to when something was in force; None: always, or still. `ended_by` says what ended a consent."""

    since: datetime | None
    until: datetime | None
    ended_by: str | None = None

    @property
    def words(self) -> str:
        """The stretch in words."""
        if self.until is None:
            return f"since {rfc3339(self.since)}" if self.since else "always"
        since = f"from {rfc3339(self.since)} " if self.since else ""
        return f"{since}to {rfc3339(self.until)}{f' ({self.ended_by})' if self.ended_by else ''}"


@dataclass(frozen=True)
class Lane:
    """One line of the picture: `kind` is account, plan, consent, or retention (a consent as it counts for retention)."""

    kind: str
    name: str
    stretches: tuple[Stretch, ...]

    @property
    def label(self) -> str:
        """What the line is called beside its bar."""
        return self.name if self.kind == "account" else f"{self.kind} {self.name}"

    @property
    def title(self) -> str:
        """What the line is called where there is room."""
        return f"consent {self.name}, for retention" if self.kind == "retention" else self.label


@dataclass(frozen=True)
class LifeLine:
    """The lanes of an account, from the first known instant to as-of."""

    lanes: tuple[Lane, ...]
    begin: datetime
    end: datetime

    def place(self, instant: datetime | None, otherwise: float) -> float:
        """Return where an instant lies: 0 is the beginning, 1 the end."""
        if instant is None:
            return otherwise
        return min(max((instant - self.begin) / (self.end - self.begin), 0.0), 1.0)

    def listed(self, most: int) -> Iterator[str]:
        """Yield the exact instants of the newest stretches of each lane, a line each."""
        for lane in self.lanes:
            if len(lane.stretches) > most:
                yield f"{lane.title}: {len(lane.stretches)} stretches, of which these are the last {most}"
            if not lane.stretches:
                yield f"{lane.title}: never in force"
            yield from (f"{lane.title}: {each.words}" for each in lane.stretches[-most:])


def of(known: History) -> LifeLine:
    """Return the plans and the consent of an account as known at as-of.

    Consent is shown as it counts for training. Where it counts otherwise for retention (a withdrawal that was dated back), that
    is a lane of its own.
    """
    lanes = (_life(known), *_plans(known), *_consents(known))
    instants = [at for lane in lanes for each in lane.stretches for at in (each.since, each.until) if at is not None]
    begin = min(instants, default=known.as_of)
    return LifeLine(lanes, min(begin, known.as_of - timedelta(days=1)), known.as_of)


def drawn(line: LifeLine) -> list[str]:
    """Return the picture as lines of at most 80 characters, below the dates of its ends."""
    room = WIDTH - NAME
    first, last = line.begin.date().isoformat(), line.end.date().isoformat()
    shown = [f"{'':{NAME}}{first}{last:>{room - len(first)}}"]
    shown += [f"{_cut(lane.label):{NAME}}{_bar(line, lane, room)}".rstrip() for lane in line.lanes[:MOST]]
    if len(line.lanes) > MOST:
        shown.append(f"... and {len(line.lanes) - MOST} more")
    return shown


def figure(line: LifeLine) -> Figure:
    """Return the picture for a page."""
    rows = [(lane.title, each.since, each.until, each.ended_by) for lane in line.lanes for each in lane.stretches]
    table = Table("Plans and consent over time", ("what", "from", "until", "ended by"), rows)
    lanes = line.lanes[:MOST]
    parts = [part for n, lane in enumerate(lanes) for part in _drawn(line, lane, n * ROW)]
    height = len(lanes) * ROW
    first, last = line.begin.date().isoformat(), line.end.date().isoformat()
    parts.append(Markup('<line class="axis" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(height))
    parts.append(Markup('<text class="tick" x="0" y="{}">{}</text>').format(height + 18, first))
    parts.append(Markup('<text class="tick" x="100%" y="{}" text-anchor="end">{}</text>').format(height + 18, last))
    svg = Markup('<svg class="timeline" width="100%" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height + 24, _finding(line), Markup("").join(parts)
    )
    return Figure(_finding(line), svg, table, margin=min(NAME, max(len(lane.label) for lane in lanes)) + 1)


def _life(known: History) -> Lane:
    created = known.account.created_at
    since = created if isinstance(created, datetime) and known.policy.plausible.holds(created) else None
    return Lane("account", "account", (Stretch(since, known.closed_at, "closed" if known.closed_at else None),))


def _plans(known: History) -> Iterator[Lane]:
    starts, plans = known.timeline.starts, known.timeline.plans
    ends: Sequence[datetime | None] = (*starts[1:], None)
    for plan in dict.fromkeys(plans):
        found = [
            Stretch(None if start == BEGINNING else start, end)
            for start, end, each in zip(starts, ends, plans, strict=True)
            if each == plan
        ]
        yield Lane("plan", printable(plan or "without a name"), tuple(found))


def _consents(known: History) -> Iterator[Lane]:
    for purpose in known.policy.purposes:
        training, retention = (
            tuple(Stretch(epoch.opened, epoch.closed, epoch.ended_by) for epoch in known.epochs(purpose, view))
            for view in (View.TRAINING, View.RETENTION)
        )
        if training or retention or known.has_chosen(purpose):
            yield Lane("consent", purpose, training)
        if training != retention:
            yield Lane("retention", purpose, retention)


def _cut(label: str) -> str:
    return label if len(label) < NAME else f"{label[: NAME - 2]}~"


def _bar(line: LifeLine, lane: Lane, room: int) -> str:
    """Return a lane in characters: [ and ] are the ends of a stretch, < and > say that it goes on."""
    cells = [" "] * room
    for stretch in lane.stretches:
        left = round(line.place(stretch.since, 0.0) * (room - 1))
        right = max(round(line.place(stretch.until, 1.0) * (room - 1)), left)
        cells[left : right + 1] = "=" * (right - left + 1)
        if left == right:
            cells[left] = "|"
            continue
        cells[left] = "[" if stretch.since else "<"
        cells[right] = "]" if stretch.until else ">"
    return "".join(cells)


def _drawn(line: LifeLine, lane: Lane, y: int) -> Iterator[Markup]:
    yield Markup('<text class="name" x="-8" y="{}" text-anchor="end">{}</text>').format(
        y + ROW // 2 + 4, _cut(lane.label)
    )
    for stretch in lane.stretches:
        left, right = line.place(stretch.since, 0.0) * 100, line.place(stretch.until, 1.0) * 100
        yield Markup(
            '<rect class="bar" x="{:.3f}%" width="{:.3f}%" y="{}" height="{}"><title>{}: {}</title></rect>'
        ).format(left, max(right - left, 0.3), y + (ROW - THICKNESS) // 2, THICKNESS, lane.title, stretch.words)


def _finding(line: LifeLine) -> str:
    """Return what the picture shows, as a sentence."""
    plans = [lane.name for lane in line.lanes if lane.kind == "plan" and lane.stretches[-1].until is None]
    consents = [
        lane.name
        for lane in line.lanes
        if lane.kind == "consent" and lane.stretches and lane.stretches[-1].until is None
    ]
    plan = f"the plan {plans[0]} is in force" if plans else "no plan is in force"
    consent = f"consent is in force for {', '.join(consents)}" if consents else "no consent is in force"
    return f"On {line.end.date().isoformat()} {plan}, and {consent}."
