"""What `policy diff` counts is what `decide` says of each record under both policies; the command reads only."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.policy.counts import NO_RULE
from sweeper.policy.decide import Verdict, decide, exists
from sweeper.policy.feedback import decide_feedback
from sweeper.policy.instant import rfc3339
from sweeper.policy.redaction import decide_redaction
from sweeper.policy.schema import Policy, PolicyError, checked, parse
from sweeper.policy.training import exclusions
from sweeper.policy.words import because
from sweeper.report import policy_diff
from sweeper.report.policy_diff import ABSENT, EXAMPLES, PolicyDiff, RecordsDiff
from sweeper.runs.job import Job
from tests.acceptance.commands import Command, in_process
from tests.acceptance.test_explain import DUE, EIGHTEEN
from tests.core.test_difference import changed, raw
from tests.core.test_policy import SHIPPED
from tests.facts import World, facts_of, feedback_of, instant, messages_of
from tests.store.stores import POLICY, Store, frozen
from tests.store.test_guards import NOW, another, world
from tests.store.test_propose import Bench, furnished
from tests.store.test_verdicts import bench as bench
from tests.store.test_verdicts import several_rules
from tests.worlds import MICROSECOND

NEVER = datetime.max.replace(tzinfo=UTC)
Pair = tuple[Verdict | None, Verdict | None]


def at(verdict: Verdict | None) -> datetime:
    """The due date, or the end of time."""
    return NEVER if verdict is None or verdict.due is None else verdict.due


def named(verdict: Verdict | None) -> str:
    """The rule as the matrix names it."""
    return ABSENT if verdict is None else verdict.rule or NO_RULE


def expected(pairs: Iterable[Pair], as_of: datetime) -> dict[tuple[str, str], Counter[str]]:
    """What the moves must count."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for old, new in pairs:
        if old is None and new is None:
            continue
        held = any(verdict.held for verdict in (old, new) if verdict is not None)
        counts = {
            "records": True,
            "shorter": at(new) < at(old),
            "longer": at(new) > at(old),
            "not_due_any_more": at(old) <= as_of < at(new) and not held,
            "shorter_held": at(new) < at(old) and held,
        }
        for name, days in (("due_at_once", 0), ("due_in_7_days", 7), ("due_in_30_days", 30)):
            counts[name] = at(new) <= as_of + timedelta(days=days) and at(new) < at(old) > as_of and not held
        found[named(old), named(new)].update({name: int(is_so) for name, is_so in counts.items()})
    return found


def agrees(found: RecordsDiff, pairs: dict[str, Pair], policies: tuple[Policy, Policy], as_of: datetime) -> None:
    """Moves and examples are those of the pairs of verdicts, and there are as many examples as there can be."""
    moves = {
        (move.old_rule, move.new_rule): {name: n for name, n in vars(move).items() if not name.endswith("_rule")}
        for move in found.moves
    }
    wanted = expected(pairs.values(), as_of)
    assert moves == {key: dict(counts) for key, counts in wanted.items()}
    directions: Counter[Any] = Counter()
    for example in found.examples:
        old, new = pairs[example.id]
        assert (named(old), named(new)) != (named(new), named(old)) or at(old) != at(new)
        for said, verdict, policy in zip((example.old, example.new), (old, new), policies, strict=True):
            assert said.due_at == (verdict.due if verdict else None)
            if verdict is not None and verdict.rule is not None:
                doubt = verdict.doubts[0] if verdict.doubts else None
                assert (said.rule, said.because) == (verdict.rule, because(policy, verdict.rule, doubt))
        directions[named(old), named(new), at(new) < at(old), at(new) > at(old)] += 1
    there = Counter(
        (named(old), named(new), at(new) < at(old), at(new) > at(old))
        for old, new in pairs.values()
        if (old or new) and (named(old) != named(new) or at(old) != at(new))
    )
    assert directions == {key: min(count, EXAMPLES) for key, count in there.items()}


def compared(bench: Bench, policies: tuple[Policy, Policy], as_of: datetime) -> PolicyDiff:
    """The difference on the store of a bench."""
    old, new = policies
    job = Job(bench.database, bench.contract, new, frozen("2026-06-01T00:00:00Z"), as_of)
    return policy_diff.compare(job, old)


def law(bench: Bench, world: World, policies: tuple[Policy, Policy]) -> None:
    """Every count of the difference is that of `decide`, record by record."""
    bench.load(world)
    as_of, id_of = instant(world["as_of"]), bench.store.id
    found = compared(bench, policies, as_of)
    stored = [bench.facts(policy, as_of) for policy in policies]
    chats: dict[str, Any] = {
        name: tuple(
            decide(known[name], policy, as_of) if exists(known[name].conversation, policy, as_of) else None
            for known, policy in zip(stored, policies, strict=True)
        )
        for name in stored[0]
    }
    agrees(found.conversations, chats, policies, as_of)
    rows: dict[str, Any] = {
        str(id_of(row.feedback.id)): tuple(decide_feedback(row, policy, as_of) for policy in policies)
        for row in feedback_of(world)
    }
    agrees(found.feedback, rows, policies, as_of)
    if found.redactions is not None:
        contents: dict[str, Any] = {
            name: tuple(
                (decide_redaction(known[name], policy, as_of) or replace(verdict, rule=None, due=None, doubts=()))
                if verdict is not None
                else None
                for known, policy, verdict in zip(stored, policies, pair, strict=True)
            )
            for name, pair in chats.items()
        }
        agrees(found.redactions, contents, policies, as_of)
    assert (found.redactions is None) is all(policy.redacting is None for policy in policies)
    owners = {str(id_of(chat["id"])): str(id_of(chat["account"])) for chat in world["conversations"]}
    concerned = Counter(owners[name] for name, (old, new) in chats.items() if at(old) != at(new))
    assert {each.account_id: each.conversations for each in found.accounts} == concerned
    trained_on(found, world, policies, as_of)


def trained_on(found: PolicyDiff, world: World, policies: tuple[Policy, Policy], as_of: datetime) -> None:
    """What enters and leaves eligibility is what `exclusions` says of each message."""
    if found.training is None:
        assert [policy.training for policy in policies] == [None, None]
        return
    eligible = [
        {
            (chat["id"], message.id)
            for chat in world["conversations"]
            for message, reason in exclusions(
                facts_of(world, chat["id"]), messages_of(world, chat["id"]), policy, as_of
            )
            if reason is None
        }
        for policy in policies
    ]
    old, new = eligible
    change = found.training
    assert (change.both, change.enter, change.leave) == (len(old & new), len(new - old), len(old - new))
    assert change.enter_conversations == len({chat for chat, _ in new - old})
    assert change.leave_conversations == len({chat for chat, _ in old - new})


@given(world=furnished(), old=several_rules(), other=several_rules(), data=st.data())
@settings(max_examples=10)
def test_counts_are_those_of_decide(
    bench: Bench, world: World, old: Policy, other: Policy, data: st.DataObject
) -> None:
    """Between two random policies, and between one and itself after some changes, in any world."""
    before, after = checked(raw(old)), redacting(other, data.draw(st.integers(0, 5)))
    law(bench, world, (before, after))
    law(bench, world, (after, data.draw(changed(after)) or before))


def redacting(policy: Policy, number: int) -> Policy:
    """The policy in which one of its rules redacts, if it has that many and no rule yields to another."""
    found = raw(policy)
    if number < len(found["rules"]) > 1:
        found["rules"][number]["action"] = "redact"
    try:
        return checked(found)
    except PolicyError:
        return checked(raw(policy))


ENTIRE = parse(SHIPPED.replace('resumed = "from_opt_in"', 'resumed = "entire"').replace("30 days", "40 days"))


@given(world=furnished())
@settings(max_examples=4)
def test_shipped_policy(bench: Bench, policy: Policy, world: World) -> None:
    """From the shipped policy to one that trains on more and keeps longer, and back, and to one that trains on nothing."""
    none = {**json.loads(policy.normal_form), "training": None}
    for pair in ((policy, ENTIRE), (ENTIRE, policy), (policy, checked(none))):
        law(bench, world, pair)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The shipped policy with a longer period."""
    (tmp_path / "new.toml").write_text(
        SHIPPED.replace('anchor = "consent_ended", period = "30 days"', 'anchor = "consent_ended", period = "31 days"')
    )
    return tmp_path / "new.toml"


def test_command(sweeper: Command, store: Store, file: Path) -> None:
    """A file is compared with the settings' policy; both verdicts on an example are those of `explain`; nothing is written."""
    store.load(DUE)
    at_ = ("--as-of", DUE["as_of"])
    done = sweeper("policy", "diff", str(file), *at_)
    assert done.code == 0
    for text in (
        "  rule consent_ended: due the earliest of last activity + 5 years and end of consent + 31 days instead of",
        "Of 1 conversations, 0 would live shorter and 1 longer",
        "1 are due now and would not be",
    ):
        assert text in done.out
    found = json.loads(sweeper("policy", "diff", str(file), *at_, "--json").out)
    (example,) = found["conversations"]["examples"]
    for side, chosen in (("old", POLICY), ("new", str(file))):
        told = json.loads(sweeper("explain", example["id"], "--json", *at_, SWEEPER_POLICY_FILE=chosen).out)
        assert {key: told[key] for key in ("rule", "due_at")} == {key: example[side][key] for key in ("rule", "due_at")}
    assert (found["only_lengthens"], found["conversations"]["not_due_any_more"]) == (True, 1)
    assert (
        store.execute("SELECT count(*) FROM sweeper.events")
        == store.execute("SELECT count(*) FROM sweeper.runs")
        == [(0,)]
    )


def test_policy_of_the_last_run(sweeper: Command, store: Store, file: Path) -> None:
    """A policy that is in use already is compared with that of the last run; without one, it is the same."""
    store.load(DUE)
    at_ = ("--as-of", DUE["as_of"])
    assert "Both are the same policy" in sweeper("policy", "diff", *at_).out
    assert sweeper("run", "--as-of", "2026-01-01T00:00:00Z", "--accept-history").code == 0
    for words in ((), (str(file),)):
        found = json.loads(sweeper("policy", "diff", *words, "--json", *at_, SWEEPER_POLICY_FILE=str(file)).out)
        assert [each["part"] for each in found["differences"]] == ["rule consent_ended"]
    store.execute("SET session_replication_role = replica; DELETE FROM sweeper.events WHERE kind = 'policy_recorded'")
    unknown = sweeper("policy", "diff", *at_, SWEEPER_POLICY_FILE=str(file))
    assert (unknown.code, "Name its file with --against" in unknown.err) == (2, True)
    assert sweeper("policy", "diff", "--against", POLICY, *at_, SWEEPER_POLICY_FILE=str(file)).code == 0


def test_page(sweeper: Command, store: Store, file: Path, tmp_path: Path) -> None:
    """The page has what the text says, and no content; the file is there once it is whole."""
    store.load(DUE)
    page = tmp_path / "changes.html"
    assert sweeper("policy", "diff", str(file), "--as-of", DUE["as_of"], "--html", str(page)).code == 0
    text = page.read_text()
    assert str(store.id("c1")) in text
    assert "0 would live shorter and 1 longer" in text
    assert "<script" not in text


def test_bad_input(sweeper: Command, store: Store, file: Path, tmp_path: Path) -> None:
    """A broken file, a column that the store lacks, a page that cannot be written and no database: one error, nothing written."""
    page = tmp_path / "nowhere" / "changes.html"
    text = file.read_text()
    done = sweeper("policy", "diff", str(file), "--html", str(page))
    assert (done.code, "cannot be written" in done.err, done.out) == (2, True, "")
    file.write_text(text.replace("5 years", "5 yaers").replace("closed = true", "closd = true"))
    page = tmp_path / "changes.html"
    page.write_text("before")
    done = in_process(None, "policy", "diff", str(file), "--html", str(page))
    assert (done.code, "yaers" in done.err, "closd" in done.err) == (2, True, True)
    file.write_text(text.replace("{ closed = true }", '{ closed = true, account = { tier_of = ["gold"] } }'))
    done = sweeper("policy", "diff", str(file), "--html", str(page))
    assert (done.code, "tier_of" in done.err, page.read_text()) == (2, True, "before")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["changes.html", "new.toml"]
    done = sweeper("policy", "diff", EIGHTEEN, "--as-of", "1999-01-01T00:00:00Z")
    assert (done.code, "is not believed" in done.err) == (2, True)


def test_missing_index(sweeper: Command, store: Store, file: Path) -> None:
    """An index that is missing is told as `check` tells it, and the comparison is made."""
    store.load(DUE)
    store.execute("DROP INDEX store.messages_conversation_id_idx")
    done = sweeper("policy", "diff", str(file), "--as-of", DUE["as_of"])
    assert done.code == 0
    assert 'CREATE INDEX CONCURRENTLY ON store.messages ("conversation_id");' in done.err


def diff(store: Store, old: Policy, new: Policy) -> RecordsDiff:
    """What changes for conversations at NOW."""
    return policy_diff.compare(store.job(new, NOW), old).conversations


def test_edges(store: Store, policy: Policy) -> None:
    """What is due at as-of, at 7 and at 30 days is counted, a microsecond later it is not; nor is what is held or was due."""
    found = world(0, 7)
    ends = [timedelta(0), timedelta(days=7), timedelta(days=30)]
    dues = [end + tick for end in ends for tick in (timedelta(0), MICROSECOND)] + [timedelta(0)]
    for chat, due in zip(found["conversations"], dues, strict=True):
        chat["created_at"] = chat["last_activity_at"] = rfc3339(instant(NOW) + due - timedelta(days=40))
    found["holds"] = [{"conversation": "c6"}]
    store.load(found)
    forty, longer, eighty = (another(policy, days) for days in (40, 42, 80))
    total = diff(store, eighty, forty).total
    assert (total.records, total.shorter, total.longer, total.shorter_held) == (7, 7, 0, 1)
    assert (total.due_at_once, total.due_in_7_days, total.due_in_30_days) == (1, 3, 5)
    back = diff(store, forty, longer).total
    assert (back.longer, back.not_due_any_more, back.due_at_once, back.due_in_7_days, back.due_in_30_days) == (
        7,
        1,
        0,
        0,
        0,
    )


def test_another_name(store: Store, policy: Policy) -> None:
    """A rule under another name moves its conversations and no due date; three of them are examples."""
    store.load(world(5, 0))
    renamed = json.loads(policy.normal_form)
    renamed["rules"][-1]["name"] = "usual"
    found = diff(store, policy, checked(renamed))
    assert [(move.old_rule, move.new_rule, move.records) for move in found.moves] == [("standard", "usual", 5)]
    assert (found.total.shorter, found.total.longer, len(found.examples)) == (0, 0, EXAMPLES)


def test_content(bench: Bench, policy: Policy) -> None:
    """A rule that redacts is told apart: no erasure order sets its date. A policy may redact only, and then purges nothing."""
    found = world(2, 0)
    found["orders"] = [{"conversation": "c0", "recorded_at": "2026-01-02T00:00:00Z", "due_at": "2026-01-03T00:00:00Z"}]
    bench.load(found)
    rule = {
        "name": "content",
        "because": "it is old",
        "due": [{"anchor": "last_activity", "period": "7 days"}],
        "action": "redact",
    }
    only = checked({**json.loads(policy.normal_form), "rules": [rule]})
    change = compared(bench, (policy, only), instant(NOW))
    assert change.redactions is not None
    assert {(move.old_rule, move.new_rule, move.due_at_once) for move in change.redactions.moves} == {
        (NO_RULE, "content", 2)
    }
    assert {example.new.due_at for example in change.redactions.examples} == {instant("2026-01-08T00:00:00Z")}
    assert {move.new_rule for move in change.conversations.moves} == {"erasure_order", NO_RULE}
