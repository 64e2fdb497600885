"""Recognises numbers with a checksum: payment cards, IBANs and national ids.

Invariant: where the checksum is weak, the format or the words beside the number must agree. No check depends on today's date, so
that the same text is filtered in the same way at any time.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from stdnum import get_cc_module, iban, luhn, numdb
from stdnum.dk import cpr
from stdnum.exceptions import ValidationError
from stdnum.no import fodselsnummer
from stdnum.se import personnummer

from sweeper.redact.finding import LETTER, DataKind, Recogniser, TextSpan

CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|62\d{14,17}|(?:2131|1800)\d{11}|(?:5[06-8]|6\d)\d{14,17}"
    r"|(?:50(?:18|20|38)|5893|6304|6759|676[1-3])\d{8,15}"
)
"""Number ranges of the card schemes."""
LONGEST_CARD, SHORTEST_GROUP = 19, 3
"""Most digits of a card; fewest digits of any group but the last, so that rows of small numbers do not match."""

WORDS = (
    r"(?:ssn|social security|national (?:id|insurance|number)|tax (?:id|number)|tin|nino?|identity"
    r"|id(?:entity)? ?(?:card|number|no)"
    r"|personn(?:umme)?r|pnr|samordningsnummer|personalausweis|steuer\w*|idnr|tax-id|dni|nie|nif|codice fiscale|cf|nir"
    r"|s[ée]curit[ée] sociale|num[ée]ro (?:de s[ée]cu|insee)|bsn|burger ?service ?nummer|sofinummer|pesel|cpr(?:-nr)?"
    r"|fødselsnummer|fnr|henkilötunnus|hetu|rijksregister\w*|niss|rrn|ahv|avs|rodné číslo|pps|cpf|sin|aadhaar|cnp|curp|oib"
    r"|egn|amka|tckn|t\.?c\.? kimlik)"
)
WORDS_BEFORE = re.compile(rf"(?i)\b{WORDS}\b[^\d\n\]]{{0,32}}\Z")
WORDS_AFTER = re.compile(rf"(?i)[^\d\n\[]{{0,24}}\b{WORDS}\b")
BEFORE = 64


def _is_swedish(number: str) -> bool:
    """Return True if the number is valid in any century; the library tries only the one nearest to today."""
    digits = re.sub(r"\D", "", number)
    centuries = ("",) if len(digits) == 12 else ("18", "19", "20")
    return any(personnummer.is_valid(century + digits) for century in centuries)


def _is_danish(number: str) -> bool:
    """Return True for ten digits that begin with a date; new numbers have no checksum."""
    try:
        return len(digits := cpr.compact(number)) == 10 and bool(cpr.get_birth_date(digits))
    except ValidationError:
        return False


def _is_norwegian(number: str) -> bool:
    """Return True if both check digits and the date are valid."""
    try:
        digits = fodselsnummer.compact(number)
        checks = fodselsnummer.calc_check_digit1(digits) + fodselsnummer.calc_check_digit2(digits)
        return checks == digits[-2:] and bool(fodselsnummer.get_birth_date(digits))
    except ValidationError:
        return False


def _is_belgian(number: str) -> bool:
    """Return True if date and checksum are valid; for births since 2000 the checksum is computed with a leading 2."""
    digits = re.sub(r"\D", "", number)
    month, day, base, check = int(digits[2:4]), int(digits[4:6]), int(digits[:9]), int(digits[9:])
    return 1 <= month <= 12 and 1 <= day <= 31 and check in (97 - base % 97, 97 - (2_000_000_000 + base) % 97)


TIMELESS_CHECKS: Mapping[tuple[str, str], Callable[[str], bool]] = {
    ("se", "personnummer"): _is_swedish,
    ("dk", "cpr"): _is_danish,
    ("no", "fodselsnummer"): _is_norwegian,
    ("be", "nn"): _is_belgian,
}
"""Checks used instead of the library's, which reject birth dates after today, by country and name."""


@dataclass(frozen=True, slots=True)
class NationalId:
    """A format of a national id, and the library's module for it; `alone` is False if words beside it must mention an id."""

    country: str
    name: str
    form: str
    alone: bool = True

    def check(self) -> Callable[[str], bool]:
        """Return the function that validates a number.

        Raises:
            LookupError: the library does not know the id.
        """
        module = get_cc_module(self.country, self.name)
        if module is None:
            raise LookupError(f"python-stdnum has no {self.country}.{self.name}: no text was filtered")
        return TIMELESS_CHECKS.get((self.country, self.name), module.is_valid)


IDS = (
    NationalId("us", "ssn", r"\d{3}-\d{2}-\d{4}"),
    NationalId("us", "ssn", r"\d{3} ?\d{2} ?\d{4}", alone=False),
    NationalId("us", "itin", r"9\d{2}-\d{2}-\d{4}"),
    NationalId("se", "personnummer", r"(?:19|20)?\d{6}[-+]\d{4}"),
    NationalId("se", "personnummer", r"(?:19|20)\d{6} ?\d{4}"),
    NationalId("se", "personnummer", r"\d{6} ?\d{4}", alone=False),
    NationalId("de", "idnr", r"\d{2} \d{3} \d{3} \d{3}"),
    NationalId("de", "idnr", r"\d{11}", alone=False),
    NationalId("es", "dni", r"\d{8}[- ]?[A-Za-z]"),
    NationalId("es", "dni", r"\d{2}\.\d{3}\.\d{3}[- ]?[A-Za-z]"),
    NationalId("es", "nie", r"[XYZxyz][- ]?\d{7}[- ]?[A-Za-z]"),
    NationalId("it", "codicefiscale", r"[A-Za-z]{6}[\dL-Vl-v]{2}[A-Za-z][\dL-Vl-v]{2}[A-Za-z][\dL-Vl-v]{3}[A-Za-z]"),
    NationalId("it", "codicefiscale", r"[A-Za-z]{3} [A-Za-z]{3} \d{2}[A-Za-z]\d{2} [A-Za-z]\d{3}[A-Za-z]"),
    NationalId("fr", "nir", r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}"),
    NationalId("nl", "bsn", r"\d{4}[. ]?\d{2}[. ]?\d{3}|\d{3}[. ]?\d{3}[. ]?\d{3}", alone=False),
    NationalId("pl", "pesel", r"\d{11}", alone=False),
    NationalId("dk", "cpr", r"\d{6}-\d{4}"),
    NationalId("dk", "cpr", r"\d{6} ?\d{4}", alone=False),
    NationalId("fi", "hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]"),
    NationalId("no", "fodselsnummer", r"\d{6} ?\d{5}"),
    NationalId("be", "nn", r"\d{2}\.\d{2}\.\d{2}[- ]\d{3}[. ]\d{2}|\d{6}[- ]\d{3}[. ]\d{2}"),
    NationalId("be", "nn", r"\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{2}", alone=False),
    NationalId("hr", "oib", r"\d{11}", alone=False),
    NationalId("bg", "egn", r"\d{10}", alone=False),
    NationalId("gr", "amka", r"\d{11}", alone=False),
    NationalId("tr", "tckimlik", r"\d{11}", alone=False),
    NationalId("kr", "rrn", r"\d{6}-\d{7}"),
    NationalId("mx", "curp", r"[A-Z]{4}\d{6}[A-Z]{6}[A-Z0-9]\d"),
    NationalId("ch", "ssn", r"756\.?\d{4}\.?\d{4}\.?\d{2}"),
    NationalId("cz", "rc", r"\d{6}/\d{3,4}"),
    NationalId("ie", "pps", r"\d{7}[A-W][A-IW]?"),
    NationalId("ro", "cnp", r"[1-8]\d{12}", alone=False),
    NationalId("pt", "nif", r"\d{3} ?\d{3} ?\d{3}", alone=False),
    NationalId("br", "cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    NationalId("br", "cpf", r"\d{11}", alone=False),
    NationalId("cn", "ric", r"\d{17}[\dXx]"),
    NationalId("ca", "sin", r"\d{3}[- ]?\d{3}[- ]?\d{3}", alone=False),
    NationalId("in", "aadhaar", r"\d{4} ?\d{4} ?\d{4}", alone=False),
)
NINO = re.compile(
    r"(?i)(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D](?!\w)"
)
"""The National Insurance number of the United Kingdom, which has no checksum and is unknown to the library."""


JOINED_BEFORE = re.compile(rf"(?:{LETTER}|\d\.)\Z")
JOINED_AFTER = re.compile(rf"{LETTER}|\.\d")


def _card(match: re.Match[str]) -> Iterator[TextSpan]:
    """Yield the card numbers in a row of digit groups; each begins and ends with a whole group."""
    text = match.string
    groups = [TextSpan(*group.span()) for group in re.compile(r"\d+").finditer(text, *match.span())]
    first = 0
    while first < len(groups):
        last = _last_group(text, groups[first : first + LONGEST_CARD])
        if last is not None:
            yield TextSpan(groups[first].start, groups[first + last].end)
            first += last
        first += 1


def _last_group(text: str, groups: list[TextSpan]) -> int | None:
    """Return the index of the last group of the longest card number that begins with the first group; None if none does."""
    start = groups[0].start
    if text[start] not in "123456" or JOINED_BEFORE.search(text[max(0, start - 2) : start]):
        return None
    digits, found = "", None
    for last, (begin, end) in enumerate(groups):
        if last and groups[last - 1].end - groups[last - 1].start < SHORTEST_GROUP:
            break
        digits += text[begin : min(end, begin + LONGEST_CARD + 1)]
        if len(digits) > LONGEST_CARD:
            break
        if CARDS.fullmatch(digits) and luhn.is_valid(digits) and not JOINED_AFTER.match(text, end):
            found = last
    return found


def _iban(match: re.Match[str]) -> Iterator[TextSpan]:
    """Yield the IBAN, cut to its country's length, since capital letters may follow it."""
    length = _iban_length(match[0][:2].upper())
    number = re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length}}}(?!{LETTER})").match(match.string, match.start())
    if length and number and iban.is_valid(number[0], check_country=False):
        yield TextSpan(*number.span())


@cache
def _iban_length(country: str) -> int:
    """Return the length of the IBANs of a country; 0 if it has none."""
    bban = numdb.get("iban").info(country)[0][1].get("bban", "")
    return sum(int(part) for part in re.findall(r"(\d+)!", bban)) + 4 if bban else 0


def _national_id(id_: NationalId) -> Recogniser:
    is_valid = id_.check()

    def locate(match: re.Match[str]) -> Iterator[TextSpan]:
        number = re.sub(r"[ .]", "", match[0])  # hyphens and plus signs are significant
        if (id_.alone or _is_mentioned(match)) and is_valid(number):
            yield TextSpan(*match.span())

    pattern = re.compile(rf"(?<![\w./+-])(?:{id_.form})(?![\w/]|[.-]\d)")
    return Recogniser(DataKind.NATIONAL_ID, pattern, locate, digits=7)


def _is_mentioned(match: re.Match[str]) -> bool:
    """Return True if words beside the number mention an id."""
    before = match.string[max(0, match.start() - BEFORE) : match.start()]
    return bool(WORDS_BEFORE.search(before) or WORDS_AFTER.match(match.string, match.end()))


@cache
def rules() -> tuple[Recogniser, ...]:
    """Return the recognisers of this module."""
    return (
        Recogniser(DataKind.PAYMENT_CARD, re.compile(r"\d++(?:[ ._-]{1,3}\d++)*+"), _card, digits=12),
        Recogniser(
            DataKind.IBAN,
            re.compile(r"(?:(?<![A-Za-z0-9])|(?<=IBAN))[A-Za-z]{2} ?\d{2}(?=[ -]?[A-Za-z0-9]{2})"),
            _iban,
            digits=10,
        ),
        Recogniser(DataKind.NATIONAL_ID, NINO, digits=6),
        *map(_national_id, IDS),
    )
