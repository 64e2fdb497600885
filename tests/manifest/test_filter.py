"""The text filter: what it finds, what it withholds, its running time, and the worker processes."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import ConfigurationError
from sweeper.redact import contact, credential, filter, number, pool  # noqa: A004 — the module's name
from sweeper.redact.filter import DataKind, Filter, Filtered, find
from sweeper.redact.finding import Finding, merged
from tests.manifest import labelled
from tests.processes import children, is_running, started, until

ROOT = Path(__file__).parents[2]
EXAMPLES = labelled.load()
FILTER = Filter()
MEASURED = {
    DataKind.PRIVATE_KEY: (1.0, 1.0),
    DataKind.URL_CREDENTIALS: (0.97, 1.0),
    DataKind.API_KEY: (0.97, 1.0),
    DataKind.TOKEN: (1.0, 1.0),
    DataKind.PASSWORD: (0.85, 1.0),
    DataKind.IBAN: (1.0, 1.0),
    DataKind.PAYMENT_CARD: (0.94, 1.0),
    DataKind.NATIONAL_ID: (1.0, 1.0),
    DataKind.EMAIL: (0.98, 0.97),
    DataKind.IP_ADDRESS: (0.97, 1.0),
    DataKind.PHONE: (0.96, 0.97),
}
"""Recall and precision on the labelled texts, so that no change makes them worse unnoticed."""


def joined(*parts: str) -> str:
    """Join parts to a text that looks like a secret, which scanners of this file do not see."""
    return "".join(parts)


JWT = joined("eyJhbGciOiJIUzI1NiJ9", ".", "eyJzdWIiOiJmYWtlIn0", ".", "c2lnbmF0dXJlLWZha2U")
PEM = joined("-----BEGIN RSA PRIV", "ATE KEY-----\n", "RmFrZQ" * 10, "\n", "Zm9v\n-----END RSA PRIV", "ATE KEY-----")


# What is found


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("write to jane@example.com.", "write to [EMAIL]."),
        ("call (415) 555-0132 or +46 70 174 06 05", "call [PHONE] or [PHONE]"),
        ("visa 4111 1111 1111 1111, 12/26", "visa [PAYMENT_CARD], 12/26"),
        ("to DE89 3704 0044 0532 0130 00 today", "to [IBAN] today"),
        ("from 192.0.2.1 to [2001:db8::1]:80", "from [IP_ADDRESS] to [[IP_ADDRESS]]:80"),
        (joined("postgres://app:", "s3cret@db.example.com/x is it"), "[URL_CREDENTIALS] is it"),
        ("https://example.com/a?token=abcdef123 ok", "[URL_CREDENTIALS] ok"),
        (joined("use sk", "-proj-", "Fake0" * 6, ", ok"), "use [API_KEY], ok"),
        (joined("gh", "p_", "Fake0" * 7 + "1"), "[API_KEY]"),
        (joined("AK", "IAIOSFODNN7", "EXAMPLE"), "[API_KEY]"),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer [TOKEN]"),
        (f"key:\n{PEM}\nend", "key:\n[PRIVATE_KEY]\nend"),
        (joined("DB_PASS", "WORD=fake-Passw0rd"), joined("DB_PASS", "WORD=[PASSWORD]")),
        ("ssn 123-45-6789", "ssn [NATIONAL_ID]"),
        ("personnummer 811228-9874", "personnummer [NATIONAL_ID]"),
        ("Steuer-ID 36574261809", "Steuer-ID [NATIONAL_ID]"),
        ("nino AB 12 34 56 C", "nino [NATIONAL_ID]"),
        ("DNI 12345678Z, NIE X1234567L", "DNI [NATIONAL_ID], NIE [NATIONAL_ID]"),
        ("cf RSSMRA85T10A562S", "cf [NATIONAL_ID]"),
        ("NIR 2 95 10 99 126 111 93", "NIR [NATIONAL_ID]"),
        ("BSN 111222333", "BSN [NATIONAL_ID]"),
    ],
)
def test_each_kind_becomes_its_placeholder(text: str, filtered: str) -> None:
    """A finding is replaced as a whole by the name of its kind; the text around it stays."""
    result = FILTER.apply(text)
    assert (result.text, result.passed) == (filtered, True)
    assert sum(result.found.values()) == len(re.findall(r"\[[A-Z_]+\]", filtered))


@pytest.mark.parametrize("kind", DataKind)
def test_recall_and_precision(kind: DataKind) -> None:
    """Recall and precision of each kind are no worse than measured before."""
    scores = labelled.score(find, EXAMPLES)
    recall, precision = MEASURED[kind]
    assert scores[kind].right + scores[kind].missed >= 10
    assert scores[kind].recall >= recall
    assert scores[kind].precision >= precision


def test_labels_are_sound() -> None:
    """Every label lies within its text, and a secret scanner finds nothing in the file."""
    for example in EXAMPLES:
        assert all(0 <= span.start < span.end <= len(example.text) for span in example.spans), example
    secrets = {DataKind.API_KEY, DataKind.TOKEN, DataKind.PRIVATE_KEY, DataKind.URL_CREDENTIALS}
    for line in labelled.FILE.read_text(encoding="utf-8").splitlines():
        assert not secrets & {finding.kind for finding in find(line)}, line


def test_counts_by_kind() -> None:
    """Findings are counted by kind, over all searches of the text."""
    text = "a@example.com b@example.com 192.0.2.1"
    assert FILTER.apply(text) == Filtered("[EMAIL] [EMAIL] [IP_ADDRESS]", {DataKind.EMAIL: 2, DataKind.IP_ADDRESS: 1})


def test_wide_digits_and_fancy_hyphens() -> None:
    """Digits, hyphens and spaces of other scripts are recognised, and the rest of the text is left as it is."""
    assert (
        FILTER.apply(
            "№ \uff14\uff11\uff11\uff11 \uff11\uff11\uff11\uff11 \uff11\uff11\uff11\uff11 \uff11\uff11\uff11\uff11 …"
        ).text
        == "№ [PAYMENT_CARD] …"
    )
    assert FILTER.apply("call +1\u00a0415\u2011555\u20110132").text == "call [PHONE]"


# Overlaps


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        (joined("https://jane:", "pw12@example.com/x"), "[URL_CREDENTIALS]"),  # not the e-mail inside
        (f"token={JWT}", "token=[TOKEN]"),
        (joined("Bearer sk", "-", "Fake0" * 8), "Bearer [API_KEY]"),
        (joined("api_key=gh", "p_", "Fake0" * 8), "api_key=[API_KEY]"),
        ("a@example.com@b.example.org", "[EMAIL]@b.example.org"),  # which is no longer an address
        ("http://192.0.2.1/?password=12345678", "[URL_CREDENTIALS]"),
    ],
)
def test_overlapping_findings_are_merged(text: str, filtered: str) -> None:
    """Overlapping findings become one of the kind of the longest, and no part of any of them remains."""
    assert FILTER.apply(text).text == filtered


SPANS = st.builds(
    lambda start, length, kind: Finding(start, start + length, kind),
    st.integers(0, 50),
    st.integers(1, 20),
    st.sampled_from(DataKind),
)


@given(st.lists(SPANS, max_size=12))
def test_merging_covers_all_and_overlaps_nothing(findings: list[Finding]) -> None:
    """Merged findings are in order and disjoint, cover the same characters, and do not depend on the order of the rules."""
    result = merged(findings)
    assert all(one.end <= other.start for one, other in pairwise(result))
    assert covered(result) == covered(findings)
    assert result == merged(reversed(findings))


def covered(findings: Iterable[Finding]) -> set[int]:
    """Return the positions that findings cover."""
    return {place for one in findings for place in range(one.start, one.end)}


# Laws

PIECES = [
    example.text[span.start : span.end] for example in EXAMPLES for span in example.spans if len(example.text) < 200
]
SENTENCES = [example.text for example in EXAMPLES if len(example.text) < 200]
JOINTS = [
    "",
    " ",
    "-",
    ".",
    ":",
    "@",
    "/",
    ",",
    "\n",
    "1",
    "x",
    "=",
    '"',
    "[",
    "]",
    "phone ",
    "ssn ",
    "token: ",
    "é",
    "号",
]
MIXED = st.lists(
    st.one_of(st.sampled_from(PIECES), st.sampled_from(SENTENCES), st.sampled_from(JOINTS), st.text(max_size=8)),
    max_size=8,
).map("".join)


@given(MIXED)
def test_filtering_twice_is_filtering_once(text: str) -> None:
    """Nothing is found in a filtered text, however close the findings were to each other."""
    once = FILTER.apply(text)
    if once.text is None:
        assert not once.passed
        return
    assert not find(once.text)
    assert FILTER.apply(once.text) == Filtered(once.text)


@given(st.text(st.characters(), max_size=60))
def test_any_text_passes_or_is_withheld(text: str) -> None:
    """Filtering any characters raises nothing, and a text that passes can be written as UTF-8."""
    result = FILTER.apply(text)
    if result.passed:
        assert result.text is not None
        assert "\0" not in result.text.encode().decode()
    else:
        assert result == Filtered(None, {}, passed=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: repr(example.text[:30]))
def test_labelled_texts_leave_clean(example: labelled.Example) -> None:
    """Every labelled text passes, and nothing is found in the result."""
    result = FILTER.apply(example.text)
    assert result.passed
    assert result.text is not None
    assert not find(result.text)


@pytest.mark.parametrize("clock", ["1970-01-01", "2028-02-29 23:59:59", "2099-12-31"])
def test_filtering_reads_no_clock(clock: str) -> None:
    """Ids with birth dates after today are found as well, so that the time of a build does not matter."""
    texts = [example.text for example in EXAMPLES] + [
        "211262-5629 and 020228-9874",
        "fnr 01015098792",
        "32.07.30-033.61",
    ]
    expected = [FILTER.apply(text) for text in texts]
    with freeze_time(clock):
        assert [FILTER.apply(text) for text in texts] == expected


# Withheld texts


def test_null_stays_null() -> None:
    """NULL and the empty text pass unchanged, without findings."""
    assert FILTER.apply(None) == Filtered(None)
    assert FILTER.apply("") == Filtered("")


@pytest.mark.parametrize("text", ["nul \0 inside", "half a character \ud83d", "\udfff"])
def test_text_that_cannot_be_stored_is_withheld(text: str) -> None:
    """A text with NUL or a lone surrogate is withheld."""
    assert FILTER.apply(text) == Filtered(None, {}, passed=False)


def test_too_long_a_text_is_withheld() -> None:
    """A text with as many characters as the limit passes; one more character is too many."""
    short = Filter(longest=100)
    assert [short.apply("x" * length).passed for length in (99, 100, 101)] == [True, True, False]


def test_text_is_withheld_if_a_rule_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a rule raises, the text is withheld, and the next text is filtered as usual."""
    with monkeypatch.context() as patched:
        patched.setattr(filter, "find", lambda text, rules: 1 / 0)
        assert FILTER.apply("jane@example.com") == Filtered(None, {}, passed=False)
    assert FILTER.apply("jane@example.com").text == "[EMAIL]"


def test_text_that_never_comes_clean_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in which every search finds something is withheld."""
    monkeypatch.setattr(filter, "find", lambda text, rules: [Finding(0, 1, DataKind.EMAIL)])
    assert FILTER.apply("x") == Filtered(None, {}, passed=False)


# Linear in the length of the text

HOSTILE = [
    *(
        "1",
        "a",
        "a@",
        "@",
        "http://",
        joined("http://", "a:b@"),
        "1 ",
        "12 ",
        "012 3456 789 ",
        "070-174 06 05 ",
        "+1",
        "1-",
    ),
    *(
        "(0",
        "1.",
        "a@a.",
        "a@a.a@",
        "sk-",
        "eyJ",
        "eyJaaaaaaaaa.",
        "token=",
        "token=a",
        "key is ",
        "password: a1",
        "bearer ",
    ),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY----- -", "DE89", "DE89 ", "A1B2 ", "4111 1111 1111 1112 "),
    *(
        ":",
        "a:",
        "::1",
        "2001:db8:",
        "SG.",
        "SG.aaaaaaaaaaaaaaaaaa",
        "é",
        "1é",
        "\uff11",
        "?token=",
        "http://h/?token=&",
        "%40",
    ),
    *("call 12345678 ", "ssn 123456789 ", "811228-9874 ", "[", " ", "\n", "-", "_", "00 "),
]
SMALL, TIMES = 2_000, 16


def seconds(text: str) -> float:
    """Return the processor time that filtering the text takes."""
    started = time.process_time()
    FILTER.apply(text)
    return time.process_time() - started


@pytest.mark.parametrize("unit", HOSTILE, ids=repr)
def test_time_is_linear(unit: str) -> None:
    """Sixteen times the text takes about sixteen times the processor time; a quadratic pattern would take 256 times as much."""
    text = unit * (SMALL * TIMES // len(unit))
    few = max(min(seconds(text[:SMALL]) for _ in range(3)), 0.002)
    assert any(seconds(text) < few * TIMES * 5 for _ in range(5)), "too slow each time, whatever else the machine does"


def test_200_000_characters_are_examined() -> None:
    """Long hostile texts pass, and a finding at their end is replaced."""
    for unit in ("1", "a@", "http://"):
        text = unit * (200_000 // len(unit)) + " jane@example.com"
        assert (FILTER.apply(text).text or "").endswith(" [EMAIL]"), unit


def repeats(parsed: Any) -> Iterator[tuple[str, int]]:
    """Yield the backtracking repetitions of a parsed pattern, each with its upper bound."""
    for operation, argument in parsed:
        if str(operation) in ("MAX_REPEAT", "MIN_REPEAT"):
            yield str(operation), int(argument[1])
        inner = argument if isinstance(argument, (list, tuple)) else [argument]
        for part in inner:
            if hasattr(part, "getwidth"):
                yield from repeats(part)
            elif isinstance(part, list):
                for branch in part:
                    yield from repeats(branch) if hasattr(branch, "getwidth") else ()


def test_no_pattern_backtracks_without_bound() -> None:
    """Every repetition of every rule is possessive or bounded, so that each start position costs a constant at most."""
    from re import _parser  # type: ignore[attr-defined]  # the only access to a parsed pattern

    for rule in (*credential.RULES, *number.rules(), *contact.rules()):
        for operation, most in repeats(_parser.parse(rule.pattern.pattern)):
            assert most <= 255, (operation, rule)


# Worker processes


@dataclass(frozen=True)
class Numbered(Filter):
    """Returns each text in brackets, so that the test can tell the results apart."""

    def apply(self, text: str | None) -> Filtered:
        """Return the text in brackets."""
        return Filtered(f"<{text}>")


@dataclass(frozen=True)
class Dying(Filter):
    """Kills its worker at the text `boom` as long as the file `fuse` exists, as if memory had run out."""

    fuse: str = ""
    forever: bool = False

    def apply(self, text: str | None) -> Filtered:
        """Die once, or each time if `forever`."""
        if text == "boom" and os.path.exists(self.fuse):
            if not self.forever:
                os.unlink(self.fuse)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(text)


@dataclass(frozen=True)
class Raising(Filter):
    """Raises at the text `boom`."""

    def _is_examinable(self, text: str) -> bool:
        if text == "boom":
            raise RuntimeError(text)
        return super()._is_examinable(text)


MANY = pool.TEXTS * 5 + 7


def numbers() -> list[str | None]:
    """Return more texts than one chunk holds, all different."""
    return [f"{index} to u{index}@example.com" for index in range(MANY)]


def fail(*_: object) -> None:
    raise AssertionError("a pool was started")


def test_order_is_kept() -> None:
    """Each text yields one result, in order, from any number of workers."""
    texts = numbers()
    texts[3] = None
    texts[5000] = "nul \0"
    texts[7000:7002] = ["What is the weather like today?", "Write to jane@example.com, she knows about the weather."]
    for chosen in (FILTER, Filter(with_language=True)):
        expected = [chosen.apply(text) for text in texts]
        assert list(pool.apply_all(chosen, iter(texts), workers=2)) == expected
    assert [result.language for result in expected[7000:7002]] == ["en", "en"]
    assert [result.text for result in pool.apply_all(Numbered(), texts, workers=3)] == [f"<{text}>" for text in texts]
    assert not multiprocessing.active_children()


def test_few_texts_and_one_core_start_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small numbers of texts, and all texts on a single core, are filtered in this process."""
    monkeypatch.setattr(pool, "_Pool", fail)
    assert [result.text for result in pool.apply_all(FILTER, ["a@example.com"] * 3, workers=8)] == ["[EMAIL]"] * 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert sum(1 for _ in pool.apply_all(FILTER, numbers())) == MANY
    assert list(pool.apply_all(FILTER, [])) == []


def test_texts_are_consumed_as_results_are_taken() -> None:
    """Only a few chunks per worker of an endless stream are held, and stopping early ends all workers."""
    taken = count()
    results = pool.apply_all(FILTER, (f"text {next(taken)}" for _ in count()), workers=2)
    assert len(list(islice(results, 10))) == 10
    assert len(multiprocessing.active_children()) == 2
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert next(taken) <= pool.TEXTS * (2 * pool.AHEAD + 2)
    assert not multiprocessing.active_children()


def test_workers_end_if_the_source_fails() -> None:
    """An error from the iterator of texts reaches the caller after the workers have ended."""

    def source() -> Iterator[str]:
        yield from (f"text {index}" for index in range(MANY))
        raise OSError("the store went away")

    with pytest.raises(OSError, match="went away"):
        list(pool.apply_all(FILTER, source(), workers=2))
    assert not multiprocessing.active_children()


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """The chunks of a killed worker are filtered by another one."""
    fuse = tmp_path / "fuse"
    fuse.touch()
    texts = numbers()
    texts[3000] = "boom"
    results = list(pool.apply_all(Dying(fuse=str(fuse)), texts, workers=2))
    assert not fuse.exists()
    assert results == [FILTER.apply(text) for text in texts]


def test_a_text_that_kills_every_worker_ends_in_an_error(tmp_path: Path) -> None:
    """If workers die repeatedly, filtering ends with an error after the results of the earlier texts."""
    fuse = tmp_path / "fuse"
    fuse.touch()
    texts = numbers()
    texts[-1] = "boom"
    results: list[Filtered] = []
    with pytest.raises(pool.FilterBrokenError, match="no more text was filtered"):
        results.extend(pool.apply_all(Dying(fuse=str(fuse), forever=True), texts, workers=2))
    assert all(result.found == {DataKind.EMAIL: 1} for result in results)
    assert not multiprocessing.active_children()


def test_only_the_text_at_which_a_worker_raises_is_withheld() -> None:
    """An error at one text does not affect the other texts of its chunk."""
    texts = numbers()
    texts[3000] = "boom"
    results = list(pool.apply_all(Raising(), texts, workers=2))
    assert [index for index, result in enumerate(results) if not result.passed] == [3000]
    assert len(results) == MANY


ENDLESS = """
import sys
from itertools import count
from sweeper.redact import pool
from sweeper.redact.filter import Filter

if __name__ == "__main__":
    for index, _ in enumerate(pool.apply_all(Filter(), (f"text {i}" for i in count()), workers=2)):
        if index == 5000:
            print("running", flush=True)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_caller(sign: signal.Signals, tmp_path: Path) -> None:
    """The workers end with the caller, whichever signal ends it."""
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    with started([sys.executable, script], stderr=subprocess.DEVNULL, cwd=ROOT) as caller:
        assert caller.stdout
        assert caller.stdout.readline() == "running\n"
        workers = children(caller.pid)
        assert len(workers) >= 2
        caller.send_signal(sign)
        caller.wait()
        until(lambda: not any(map(is_running, workers)))


# Version and imports


def test_version_names_the_libraries() -> None:
    """The version names the rules and the libraries they use."""
    assert FILTER.name == "sweeper.manifest.filter"
    assert re.fullmatch(r"\d+ \(phonenumbers [\d.]+, python-stdnum [\d.]+\)", FILTER.version)


def test_without_the_extra_nothing_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the libraries are missing, the error names the remedy before any text is read."""
    filter.recognisers.cache_clear()
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    monkeypatch.delitem(sys.modules, "sweeper.redact.contact")
    monkeypatch.delattr("sweeper.redact.contact")
    for attempt in (
        lambda: Filter().apply("text"),
        lambda: pool.apply_all(Filter(), ["text"]),
        lambda: Filter().version,
    ):
        with pytest.raises(ConfigurationError, match=r"pip install '\.\[text\]'"):
            attempt()


def test_importing_is_cheap() -> None:
    """Importing the module imports neither the libraries nor multiprocessing."""
    code = (
        "import sys, sweeper.redact.filter;"
        "print(sorted({'phonenumbers', 'stdnum', 'multiprocessing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
