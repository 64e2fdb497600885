"""Parse lengths of time on the command line: 90, 90s, 15m, 2h, 1h30m."""

import re

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s?)?")


def parse(text: str) -> int:
    """Return whole seconds from "90", "90s", "15m", "2h" or "1h30m".

    Raises:
        ValueError: the text has another form, or is zero.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a length of time: write 90s, 15m, 2h or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    found = hours * 3_600 + minutes * 60 + seconds
    if found == 0:
        raise ValueError(f"{text!r} is not a length of time: it is zero")
    return found
