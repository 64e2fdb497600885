"""Parses durations as people write them on a command line: 90, 90s, 15m, 2h, 1h30m."""

import re

_WRITTEN = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s?)?")


def parse(text: str) -> int:
    """Return whole seconds from "90", "90s", "15m", "2h" or "1h30m".

    Raises:
        ValueError: the text is none of these, or no time at all.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None or not any(written.groups()):
        raise ValueError(f"{text!r} is no length of time: write 90s, 15m, 2h or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in written.groups())
    found = hours * 3_600 + minutes * 60 + seconds
    if found == 0:
        raise ValueError(f"{text!r} is no time at all")
    return found
