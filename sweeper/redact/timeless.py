"""Judges, without a clock, the national ids of which the library asks whether they are of somebody born by today.

The law of this file: a text is filtered today as it will be in ten years, or two builds of one manifest would differ.
"""

import re
from collections.abc import Callable, Mapping

from stdnum.dk import cpr
from stdnum.exceptions import ValidationError
from stdnum.no import fodselsnummer
from stdnum.se import personnummer


def _is_swedish(number: str) -> bool:
    """Valid in some century: the library takes the one nearest to today."""
    digits = re.sub(r"\D", "", number)
    centuries = ("",) if len(digits) == 12 else ("18", "19", "20")
    return any(personnummer.is_valid(century + digits) for century in centuries)


def _is_danish(number: str) -> bool:
    """Ten digits that begin with a date; a checksum they have no longer."""
    try:
        return len(digits := cpr.compact(number)) == 10 and bool(cpr.get_birth_date(digits))
    except ValidationError:
        return False


def _is_norwegian(number: str) -> bool:
    """Two check digits and a date."""
    try:
        digits = fodselsnummer.compact(number)
        checks = fodselsnummer.calc_check_digit1(digits) + fodselsnummer.calc_check_digit2(digits)
        return checks == digits[-2:] and bool(fodselsnummer.get_birth_date(digits))
    except ValidationError:
        return False


def _is_belgian(number: str) -> bool:
    """A date, and a checksum that has a 2 before it for those born since 2000."""
    digits = re.sub(r"\D", "", number)
    month, day, base, check = int(digits[2:4]), int(digits[4:6]), int(digits[:9]), int(digits[9:])
    return 1 <= month <= 12 and 1 <= day <= 31 and check in (97 - base % 97, 97 - (2_000_000_000 + base) % 97)


CHECKS: Mapping[tuple[str, str], Callable[[str], bool]] = {
    ("se", "personnummer"): _is_swedish,
    ("dk", "cpr"): _is_danish,
    ("no", "fodselsnummer"): _is_norwegian,
    ("be", "nn"): _is_belgian,
}
"""By country and name, what judges instead of the library's own."""
