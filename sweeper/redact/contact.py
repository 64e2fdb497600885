"""Recognises e-mail addresses, IP addresses and phone numbers.

Invariant: digits count as a phone number because of their format and their country's numbering plan, or because of the words
before them; digits alone never do.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cache

import phonenumbers
from phonenumbers import Leniency, PhoneNumber, PhoneNumberMatcher

from sweeper.redact.finding import LETTER, DataKind, Recogniser, TextSpan

LOCAL = r"[A-Za-z0-9\u00c0-\u1fff_.%+'-]"
"""Characters of a local part. Chinese and Japanese are left out: without spaces, the whole sentence would match."""

FILE_EXTENSIONS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "jsx", "tsx", "py", "json", "html", "txt")
)
"""Endings of file names that look like addresses, such as `logo@2x.png`."""

ZERO_PREFIXED = {
    "GB": 44,
    "DE": 49,
    "FR": 33,
    "SE": 46,
    "NL": 31,
    "BE": 32,
    "CH": 41,
    "AT": 43,
    "FI": 358,
    "IE": 353,
    "AU": 61,
    "JP": 81,
    "IT": 39,
}
"""Countries whose national numbers begin with a zero, by region and country code; few other numbers look like that."""

REGIONS = (
    "US",
    *ZERO_PREFIXED,
    *("ES", "PT", "PL", "NO", "DK", "CZ", "GR", "BR", "MX", "IN", "CN", "RU", "TR", "ZA", "KR", "NZ"),
)
"""Regions whose numbers are recognised without a country code if the words before them mention a phone."""

WORDS = re.compile(
    r"(?i)(?:\b(?:(?:tele|smart|i)?phone|tel|telefon\w*|tele?fono|téléphone|teléfono|telefone|telefoon|puhelin|mobil\w*"
    r"|cell(?:ular|ulare|phone)?|handy(?:nummer)?|portable|móvil|celular|komórk\w*|numero|numéro|número|nummer"
    r"|(?:my|her|his|their|our) (?:new |work |home )?(?:number|no)|contact|nr|num"
    r"|call\w*|dial|ring\w*|reach|text|sms|fax|whatsapp|signal"
    r"|telegram|imessage|appelez|appelle|ll[aá]ma\w*|chiama\w*|bel|anruf\w*|ruf|zadzwoń|soita|puh|tlf|wa\.me)\b"
    r"|电话|電話|手机|携帯|전화|☎|📞|📱)"
    r"[^\d\n\]]{0,24}\Z"
)
NOT_A_PHONE = re.compile(
    r"(?i)(?:order|invoice|ticket|tracking|ref(?:erence)?|isbn|issn|version|serial|article|part|model|item|case|bestell\w*"
    r"|ordernummer|faktura|commande|pedido|fattura|rechnung|bestelling|numero d'ordine|batch|[$€£])"
    r"[^\d\n\]]{0,16}\Z"
)
BEFORE = 48
"""Number of characters before a number that are searched for such words."""

VERSION = re.compile(
    r"(?i)(?:\bv|version|release|build|firmware|kernel|driver|update|sec(?:tion)?|chapter|clause|kapitel|abschnitt|§|[=~<>]=)\W{0,3}\Z"
    r"|[A-Za-z]/\Z"  # as in Chrome/120.0.0.0
)
"""Words before a version number that looks like an IP address."""
BUILD = re.compile(r"(?i)[-+](?:alpha|beta|rc|dev|snapshot|release)|\s?\(?(?:build|release)\b")
"""Words after such a version number."""

DATE = re.compile(
    r"(?:(?:19|20)\d\d([-./ ])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])([-./ ])(?:0?[1-9]|[12]\d|3[01])\2(?:19|20)\d\d)(?!\d)"
)


def _email(match: re.Match[str]) -> Iterable[TextSpan]:
    """Yield the address, unless it is a file name or a user of a version control system, such as `git@host`."""
    domain = match["domain"]
    if domain.rpartition(".")[2].lower() in FILE_EXTENSIONS or match["local"] in ("git", "hg", "svn"):
        return
    start = match.start() + len(match["local"]) - len(match["local"].lstrip(".'-%+*_"))
    if start < match.end("local"):
        yield TextSpan(start, match.end())


def _ip(match: re.Match[str]) -> Iterable[TextSpan]:
    """Return the address, unless it is a version number, a netmask or a loopback address."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return ()
    if isinstance(address, ipaddress.IPv6Address):
        return (TextSpan(*match.span()),) if match[0].count(":") == 7 or _is_assigned(address) else ()
    before = match.string[max(0, match.start() - BEFORE) : match.start()]
    is_version = VERSION.search(before) or BUILD.match(match.string, match.end())
    return () if address.packed[0] in (0, 127, 255) or is_version else (TextSpan(*match.span()),)


def _is_assigned(address: ipaddress.IPv6Address) -> bool:
    """Return True for addresses in an assigned range; `a::b` may be C++, and `1::2` a slice."""
    return address.packed[0] >> 5 == 1 or address.packed[0] >= 0xFC or bool(address.ipv4_mapped)


JOINED_BEFORE = re.compile(rf"(?:{LETTER}|[.,@+-]|(?<!wa\.me)/)\Z")
JOINED_AFTER = re.compile(rf"{LETTER}|[@%]|[.,:/]\d|-\w")
EXTENSION = re.compile(r"(?i),? ?(?:x|ext\.?|extension|durchwahl) ?\d{1,6}(?!\w)")
GROUP = re.compile(r"(?:\(?\+ ?)?\(?\d+\)?")
GROUPS, SHORTEST, FULL, LONGEST = 8, 7, 9, 17
"""Limits: groups of digits in a number, fewest digits after words that mention a phone, fewest without them, most digits."""

US = re.compile(r"(?:1[-. ])?(?:\([2-9]\d\d\)[-. ]?|[2-9]\d\d[-.])[2-9]\d\d[-. ]\d{4}")
SPACED = re.compile(r"[2-9]\d\d [2-9]\d\d \d{4}")
LOCAL_US = re.compile(r"[2-9]\d\d[-. ]\d{4}")
FRENCH = re.compile(r"0[1-9](?:[. -]\d\d){4}")
BRACKETED = re.compile(r"\(0\d{1,5}\)[ /-]?\d{2,8}(?:[ -]\d{1,4}){0,3}|\(\d\d\) ?9?\d{4}-\d{4}")
MOBILE_CN = re.compile(r"1[3-9]\d{9}")


class Hint(Enum):
    """What the words before a number say about it."""

    PHONE = "a phone number"
    OTHER = "something else"
    NONE = "nothing"


def _phone(match: re.Match[str]) -> Iterator[TextSpan]:
    """Yield the phone numbers in a row of digit groups; of several that begin with one group, the longest."""
    text = match.string
    groups = [TextSpan(*group.span()) for group in GROUP.finditer(text, *match.span())]
    first, hint = 0, _hint(text, match.start())
    while first < len(groups):
        last = _last_group(text, groups[first : first + GROUPS], hint)
        if last is not None:
            end = groups[first + last].end
            extension = EXTENSION.match(text, end)
            yield TextSpan(groups[first].start, extension.end() if extension else end)
            first += last
        first, hint = first + 1, Hint.NONE  # the words refer to the first group only


def _hint(text: str, start: int) -> Hint:
    before = text[max(0, start - BEFORE) : start]
    if NOT_A_PHONE.search(before):
        return Hint.OTHER
    return Hint.PHONE if WORDS.search(before) else Hint.NONE


def _may_begin(text: str, group: TextSpan) -> bool:
    """Return True if a number may begin with this group, because no word or other number continues into it."""
    before = text[max(0, group.start - 6) : group.start]
    return not JOINED_BEFORE.search(before) or (text[group.start] == "+" and before[-1].isalpha())


def _last_group(text: str, groups: list[TextSpan], hint: Hint) -> int | None:
    """Return the index of the last group of the longest phone number that begins with the first group; None if none does."""
    start = groups[0].start
    plain = hint is not Hint.PHONE and text[start] not in "+(0"
    if plain and not any(form.match(text, start) for form in (US, SPACED, MOBILE_CN)):
        return None
    if not _may_begin(text, groups[0]):
        return None
    for last, end in reversed(_ends(text, groups)):
        joined = JOINED_AFTER.match(text, end) and not EXTENSION.match(text, end)
        if not joined and _is_phone(text[start:end], hint):
            return last
    return None


def _ends(text: str, groups: list[TextSpan]) -> list[tuple[int, int]]:
    """Return the groups that a number may end with, as pairs of index and end position."""
    ends, digits = [], 0
    for last, group in enumerate(groups):
        digits += sum(map(str.isdigit, text[group.start : min(group.end, group.start + LONGEST + 4)]))
        if SHORTEST <= digits <= LONGEST:
            ends.append((last, group.end))
    return ends


def _is_phone(number: str, hint: Hint) -> bool:
    if number.count("(") != number.count(")"):
        return False
    if number.startswith(("+", "(+")):
        return _is_possible(number)
    if hint is Hint.OTHER or DATE.match(number):
        return False
    if number.startswith("00"):
        return number[2:].lstrip(" ")[:1] not in ("0", "") and _is_possible("+" + number[2:])
    return _is_dialled(number) if hint is Hint.PHONE else _is_formatted(number)


def _is_dialled(number: str) -> bool:
    """Return True if the number can be dialled in one of the regions; for numbers after words that mention a phone."""
    digits = sum(map(str.isdigit, number))
    if number.startswith(("0", "(0")) or US.fullmatch(number) or LOCAL_US.fullmatch(number):
        return digits <= 12
    return any(_is_number_of(region, number) for region in REGIONS)


def _is_formatted(number: str) -> bool:
    """Return True if the number is written as is usual in its country; for numbers without such words."""
    if any(form.fullmatch(number) for form in (US, BRACKETED, FRENCH)):
        return True
    if SPACED.fullmatch(number) or MOBILE_CN.fullmatch(number):
        return _is_number_of("US" if " " in number else "CN", number)
    digits = re.sub(r"\D", "", number)
    if not number.startswith("0") or not FULL <= len(digits) <= 12:
        return False
    regions = [region for region, code in ZERO_PREFIXED.items() if _is_valid(code, digits, keeps_zero=region == "IT")]
    return any((number.isdigit() and len(number) > FULL) or _is_grouped(number, region) for region in regions)


def _is_valid(code: int, digits: str, *, keeps_zero: bool) -> bool:
    """Return True if the country has such a number. Parsing the text once per country would be much slower."""
    return phonenumbers.is_valid_number(PhoneNumber(code, int(digits), italian_leading_zero=keeps_zero))


def _is_grouped(number: str, region: str) -> bool:
    """Return True if the whole number is grouped as in that region."""
    found = next(iter(PhoneNumberMatcher(number, region, leniency=Leniency.STRICT_GROUPING, max_tries=3)), None)
    return found is not None and len(found.raw_string) >= len(number) - 1


def _is_number_of(region: str, number: str) -> bool:
    parsed = _parsed(number, region)
    return parsed is not None and phonenumbers.is_valid_number(parsed)


def _is_possible(number: str) -> bool:
    """Return True if a number with a country code has a length that is possible there."""
    parsed = _parsed(number, None)
    return parsed is not None and phonenumbers.is_possible_number(parsed)


def _parsed(number: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None


@cache
def rules() -> tuple[Recogniser, ...]:
    """Return the recognisers of this module."""
    return (
        Recogniser(
            DataKind.EMAIL,
            re.compile(
                rf"(?<!{LOCAL})(?P<local>{LOCAL}{{1,255}})(?:@|%40|\s?[\[(](?:at|AT)[\])]\s?)"
                r"(?P<domain>(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}"
                r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24}|[^\W\d_]{2,24}))(?![A-Za-z0-9])"
            ),
            _email,
            needles=("@", "%40", "(at)", "[at]"),
        ),
        Recogniser(
            DataKind.EMAIL,
            re.compile(
                rf"(?i)(?<!{LOCAL})(?P<local>{LOCAL}{{1,64}})\s?[\[(]?\bat\b[\])]?\s?"
                r"(?P<domain>(?:[a-z0-9-]{1,63}\s?(?:[\[(]dot[\])]|\sdot\s)\s?){1,4}[a-z]{2,24})(?![a-z0-9])"
            ),
            _email,
            needles=("dot",),
        ),
        Recogniser(DataKind.IP_ADDRESS, re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)"), _ip, digits=4),
        Recogniser(
            DataKind.IP_ADDRESS,
            re.compile(
                r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}|:):[0-9A-Fa-f:]{1,34}(?:\.\d{1,3}){0,3}(?:(?<!:)|(?<=::))(?!\w)"
            ),
            _ip,
            needles=(":",),
            digits=1,
        ),
        Recogniser(
            DataKind.PHONE,
            re.compile(r"(?:\(?\+ ?)?\(?\d++\)?(?:[ .\-/]{0,3}\(?\d++\)?)*+"),
            _phone,
            digits=7,
        ),
    )
