"""Recognises numbers that prove themselves: cards, accounts, national ids.

The law of this file: a checksum decides; where it is weak, the form or the words before have to agree.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from stdnum import get_cc_module, iban, luhn, numdb

from sweeper.redact.finding import LETTER, DataKind, Recogniser, TextSpan
from sweeper.redact.timeless import CHECKS

CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|62\d{14,17}|(?:2131|1800)\d{11}|(?:5[06-8]|6\d)\d{14,17}"
    r"|(?:50(?:18|20|38)|5893|6304|6759|676[1-3])\d{8,15}"
)
"""Which numbers card schemes give out."""
LONGEST_CARD, SHORTEST_GROUP = 19, 3
"""The most digits of a card; the fewest in a group that another follows, or many a row of small numbers would be one."""

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


@dataclass(frozen=True, slots=True)
class Id:
    """A national id: its module in the library, its form, and whether that form may stand without words before it."""

    country: str
    name: str
    form: str
    alone: bool = True

    def check(self) -> Callable[[str], bool]:
        """What finds fault with such a number.

        Raises:
            LookupError: the library does not know the id; without it the rule would find nothing, and nobody would know.
        """
        module = get_cc_module(self.country, self.name)
        if module is None:
            raise LookupError(f"python-stdnum has no {self.country}.{self.name}: no text was filtered")
        return CHECKS.get((self.country, self.name), module.is_valid)


IDS = (
    Id("us", "ssn", r"\d{3}-\d{2}-\d{4}"),
    Id("us", "ssn", r"\d{3} ?\d{2} ?\d{4}", alone=False),
    Id("us", "itin", r"9\d{2}-\d{2}-\d{4}"),
    Id("se", "personnummer", r"(?:19|20)?\d{6}[-+]\d{4}"),
    Id("se", "personnummer", r"(?:19|20)\d{6} ?\d{4}"),
    Id("se", "personnummer", r"\d{6} ?\d{4}", alone=False),
    Id("de", "idnr", r"\d{2} \d{3} \d{3} \d{3}"),
    Id("de", "idnr", r"\d{11}", alone=False),
    Id("es", "dni", r"\d{8}[- ]?[A-Za-z]"),
    Id("es", "dni", r"\d{2}\.\d{3}\.\d{3}[- ]?[A-Za-z]"),
    Id("es", "nie", r"[XYZxyz][- ]?\d{7}[- ]?[A-Za-z]"),
    Id("it", "codicefiscale", r"[A-Za-z]{6}[\dL-Vl-v]{2}[A-Za-z][\dL-Vl-v]{2}[A-Za-z][\dL-Vl-v]{3}[A-Za-z]"),
    Id("it", "codicefiscale", r"[A-Za-z]{3} [A-Za-z]{3} \d{2}[A-Za-z]\d{2} [A-Za-z]\d{3}[A-Za-z]"),
    Id("fr", "nir", r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}"),
    Id("nl", "bsn", r"\d{4}[. ]?\d{2}[. ]?\d{3}|\d{3}[. ]?\d{3}[. ]?\d{3}", alone=False),
    Id("pl", "pesel", r"\d{11}", alone=False),
    Id("dk", "cpr", r"\d{6}-\d{4}"),
    Id("dk", "cpr", r"\d{6} ?\d{4}", alone=False),
    Id("fi", "hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]"),
    Id("no", "fodselsnummer", r"\d{6} ?\d{5}"),
    Id("be", "nn", r"\d{2}\.\d{2}\.\d{2}[- ]\d{3}[. ]\d{2}|\d{6}[- ]\d{3}[. ]\d{2}"),
    Id("be", "nn", r"\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{2}", alone=False),
    Id("hr", "oib", r"\d{11}", alone=False),
    Id("bg", "egn", r"\d{10}", alone=False),
    Id("gr", "amka", r"\d{11}", alone=False),
    Id("tr", "tckimlik", r"\d{11}", alone=False),
    Id("kr", "rrn", r"\d{6}-\d{7}"),
    Id("mx", "curp", r"[A-Z]{4}\d{6}[A-Z]{6}[A-Z0-9]\d"),
    Id("ch", "ssn", r"756\.?\d{4}\.?\d{4}\.?\d{2}"),
    Id("cz", "rc", r"\d{6}/\d{3,4}"),
    Id("ie", "pps", r"\d{7}[A-W][A-IW]?"),
    Id("ro", "cnp", r"[1-8]\d{12}", alone=False),
    Id("pt", "nif", r"\d{3} ?\d{3} ?\d{3}", alone=False),
    Id("br", "cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    Id("br", "cpf", r"\d{11}", alone=False),
    Id("cn", "ric", r"\d{17}[\dXx]"),
    Id("ca", "sin", r"\d{3}[- ]?\d{3}[- ]?\d{3}", alone=False),
    Id("in", "aadhaar", r"\d{4} ?\d{4} ?\d{4}", alone=False),
)
NINO = re.compile(
    r"(?i)(?<!\w)(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ -]?\d{2}[ -]?\d{2}[ -]?\d{2}[ -]?[A-D](?!\w)"
)
"""The United Kingdom's has no checksum, and the library does not know it."""


JOINED_BEFORE = re.compile(rf"(?:{LETTER}|\d\.)\Z")
JOINED_AFTER = re.compile(rf"{LETTER}|\.\d")


def _card(match: re.Match[str]) -> Iterator[TextSpan]:
    """Cards among groups of digits: from the start of one group to the end of another."""
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
    """The last group of the longest card that begins with the first of these groups."""
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
    """An account number of its country's length; what follows it in capitals is not part of it."""
    length = _length(match[0][:2].upper())
    taken = re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length}}}(?!{LETTER})").match(match.string, match.start())
    if length and taken and iban.is_valid(taken[0], check_country=False):
        yield TextSpan(*taken.span())


@cache
def _length(country: str) -> int:
    """How long account numbers of that country are; 0 where there are none."""
    known = numdb.get("iban").info(country)[0][1].get("bban", "")
    return sum(int(part) for part in re.findall(r"(\d+)!", known)) + 4 if known else 0


def _rule(known: Id) -> Recogniser:
    is_valid = known.check()

    def locate(match: re.Match[str]) -> Iterator[TextSpan]:
        number = re.sub(r"[ .]", "", match[0])  # hyphens and the plus of a hundred years mean something
        if (known.alone or _is_said(match)) and is_valid(number):
            yield TextSpan(*match.span())

    pattern = re.compile(rf"(?<![\w./+-])(?:{known.form})(?![\w/]|[.-]\d)")
    return Recogniser(DataKind.NATIONAL_ID, pattern, locate, digits=7)


def _is_said(match: re.Match[str]) -> bool:
    """Whether words beside the number speak of an id."""
    before = match.string[max(0, match.start() - BEFORE) : match.start()]
    return bool(WORDS_BEFORE.search(before) or WORDS_AFTER.match(match.string, match.end()))


@cache
def rules() -> tuple[Recogniser, ...]:
    """The rules of this file."""
    return (
        Recogniser(DataKind.PAYMENT_CARD, re.compile(r"\d++(?:[ ._-]{1,3}\d++)*+"), _card, digits=12),
        Recogniser(
            DataKind.IBAN,
            re.compile(r"(?:(?<![A-Za-z0-9])|(?<=IBAN))[A-Za-z]{2} ?\d{2}(?=[ -]?[A-Za-z0-9]{2})"),
            _iban,
            digits=10,
        ),
        Recogniser(DataKind.NATIONAL_ID, NINO, digits=6),
        *map(_rule, IDS),
    )
