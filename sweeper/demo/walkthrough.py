"""Runs the demo: loads real conversations into a private PostgreSQL server and runs the program's commands on them."""

import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper import console, log
from sweeper.clock import Clock
from sweeper.demo.fixture import DemoFixture, set_up
from sweeper.demo.manifest import show_manifest
from sweeper.demo.page import DemoPage
from sweeper.policy.counts import RecordCounts
from sweeper.policy.decide import ERASURE_ORDER, UNCLASSIFIED
from sweeper.policy.evaluate import Outcome
from sweeper.policy.schema import Policy
from sweeper.runs import guards
from sweeper.runs import sweep as sweeps
from sweeper.runs.approval import Approval
from sweeper.runs.job import Job, prepare
from sweeper.runs.result import Result
from sweeper.runs.scan import verdicts
from sweeper.settings import Settings

FEW_MESSAGES = 8
"""Most messages of an example, for a readable explanation."""


@dataclass
class Examples:
    """Per rule, one conversation that a run keeps, one that it purges, and the numbers (purged, kept) of both."""

    rules: list[str]
    counts: RecordCounts = field(default_factory=RecordCounts)
    kept: dict[str, str] = field(default_factory=dict)
    purged: dict[str, str] = field(default_factory=dict)

    def typical(self) -> str | None:
        """Return the rule that purges most, if any has an example."""
        return max(self.purged, key=lambda rule: self.counts.due[rule], default=None)

    def by_rule(self) -> dict[str, dict[str, int]]:
        """How many conversations of each rule are to be purged and kept, in the policy's order."""
        due = self.counts.due
        return {
            rule: {"purged": due[rule], "kept": self.counts.by_rule[rule].total() - due[rule]} for rule in self._named()
        }

    def _named(self) -> list[str]:
        return [*self.rules, *(rule for rule in self.counts.by_rule if rule not in self.rules)]


def show(page: DemoPage, config: Path | None, clock: Clock, seed: int, keep: Path | None) -> None:
    """Run the demo and print it on the page; with `keep` its data stay in that directory.

    Raises:
        ConfigurationError: settings, policy or directory cannot be used; nothing was loaded.
    """
    log.configure("warning")
    page.heading("A store with real conversations")
    with set_up(config, clock, seed, keep) as fixture:
        _show_loaded(page, fixture, seed)
        _show_sweep(page, fixture, clock)
        show_manifest(page, fixture, clock)
        file = _show_report(page, keep)
    _show_end(page, keep, file)


def summary(config: Path | None, clock: Clock, seed: int, keep: Path | None) -> dict[str, Any]:
    """Run the demo and return for JSON output what was loaded, the results of two runs, and counts and examples by rule.

    Raises:
        ConfigurationError: settings, policy or directory cannot be used; nothing was loaded.
    """
    log.configure("warning")
    with set_up(config, clock, seed, keep) as fixture:
        examples, approval = _preview(fixture.settings, clock)
        results = [_sweep(fixture.settings, clock, token) for token in (approval, None)]
        return {
            "conversations": len(fixture.world.conversations),
            "accounts": len(fixture.world.accounts),
            "messages": len(fixture.world.messages),
            "policy": fixture.policy.digest,
            "rules": examples.by_rule(),
            "examples": {"purged": examples.purged, "kept": examples.kept},
            "runs": results,
        }


def _sweep(settings: Settings, clock: Clock, approval: Approval | None) -> Result:
    job = prepare(settings, clock, approval.as_of if approval else None)
    try:
        return sweeps.sweep(job, approval=approval)
    finally:
        job.database.engine.dispose()


def _preview(settings: Settings, clock: Clock) -> tuple[Examples, Approval | None]:
    """Return the examples, and an approval if so much is due that a run needs one."""
    job = prepare(settings, clock)
    try:
        examples = _examples(job)
        needed = any(guards.volume(job, examples.counts.due.total()))
        return examples, sweeps.preview(job).approval if needed else None
    finally:
        job.database.engine.dispose()


def _examples(job: Job) -> Examples:
    with verdicts(job) as decided:
        found = Examples(_rules(job.policy), decided.counts("conversation"))
        for rule, outcome, id_ in decided.first_ids(f"t.messages <= {FEW_MESSAGES}"):
            (found.purged if outcome is Outcome.PURGE else found.kept).setdefault(rule, id_)
    return found


def _rules(policy: Policy) -> list[str]:
    """Return every rule that a verdict may name, in the policy's order."""
    named = [rule.name for rule in policy.rules] + [floor.name for floor in policy.floors]
    return [*named, ERASURE_ORDER, UNCLASSIFIED]


def _show_loaded(page: DemoPage, fixture: DemoFixture, seed: int) -> None:
    world = fixture.world
    released = sum(hold.released_at is not None for hold in world.holds)
    page.explain(
        f"Loaded {len(world.conversations):,} real conversations of {len(world.accounts):,} people with "
        f"{len(world.messages):,} messages, shifted as one block to end shortly before now. Plans, consent, deletions and "
        f"flags are invented from seed {seed}, so that every rule of the policy purges or keeps something. There are "
        f"{len(world.holds)} legal holds ({released} released) and {len(world.orders)} erasure orders."
    )


def _show_sweep(page: DemoPage, fixture: DemoFixture, clock: Clock) -> None:
    examples, approval = _preview(fixture.settings, clock)
    typical = examples.typical()
    page.heading("1. Preview: what would be purged, and why")
    page.explain("A dry run writes nothing. It counts what is due by rule and prints a digest that can be approved.")
    page.command("run", "--dry-run")
    if typical is not None:
        page.heading("2. One conversation to purge, explained")
        page.command("explain", examples.purged[typical])
    page.heading("3. Sweep: purge with evidence")
    page.explain("Batches are locked, decided again on the locked rows, deleted, and recorded in the same transaction.")
    if approval is not None:
        page.explain("So much is due that a run without approval would refuse. The digest of a preview approves it.")
        page.command("run", "--approve", approval.token())
    else:
        page.command("run")
    page.heading("4. Sweep again")
    page.command("run")
    page.heading("5. Every rule, and one conversation that it keeps, explained")
    _show_counts(examples)
    for rule in examples.by_rule():
        if rule in examples.kept:
            page.command("explain", examples.kept[rule])
    if typical is not None:
        page.heading("6. The purged conversation, explained")
        page.command("explain", examples.purged[typical])


def _show_counts(examples: Examples) -> None:
    console.say(f"{'rule':<18}{'purged':>8}{'kept':>8}")
    for rule, counts in examples.by_rule().items():
        console.say(f"{rule:<18}{counts['purged']:>8,}{counts['kept']:>8,}")


def _show_report(page: DemoPage, keep: Path | None) -> Path:
    """Write the report as a page of HTML to the directory that is kept, or to one of its own, which stays."""
    file = (keep or Path(tempfile.mkdtemp(prefix="sweeper-report-"))) / "report.html"
    page.heading("8. The whole store on one page")
    page.explain("A report decides every record. The page is one file without scripts, to read, print or hand on.")
    page.command("report", "--html", str(file))
    return file


def _show_end(page: DemoPage, keep: Path | None, file: Path) -> None:
    page.heading("Done")
    page.explain(f"The report is {file}: open it in a browser.")
    if keep is None:
        page.explain(
            "The server is stopped and its data are removed. To keep them and try commands: sweeper demo --keep DIR"
        )
        return
    page.explain(f"The server is stopped; the data stay in {keep}. A command starts the server for as long as it runs:")
    if shutil.which("sweeper") is None:
        console.say(f"  {_path_command()}")
    console.say(f"  export SWEEPER_DATABASE_URL={shlex.quote(f'embedded:{keep.resolve()}')}")
    console.say("  sweeper explain --all | head")


def _path_command() -> str:
    """Return the command by which the shell finds `sweeper`."""
    activate = Path(sys.prefix) / "bin" / "activate"
    return (
        f". {shlex.quote(str(activate))}" if activate.is_file() else f"alias sweeper='{sys.executable} -m sweeper.cli'"
    )
