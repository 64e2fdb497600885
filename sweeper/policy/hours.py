"""Hours of the day in which something may be done, such as 01:00-05:00 or, over midnight, 22:00-04:00."""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

_WRITTEN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Hours:
    """From `begin` (inclusive) to `end` (exclusive), as a clock on the wall of `zone` shows them."""

    begin: time
    end: time
    zone: tzinfo

    @classmethod
    def parse(cls, text: str, zone: tzinfo) -> "Hours":
        """Hours from "HH:MM-HH:MM".

        Raises:
            ValueError: the text is none, or begins and ends at the same time.
        """
        written = _WRITTEN.fullmatch(text.strip())
        if written is None:
            raise ValueError(f"{text!r} is not written HH:MM-HH:MM, for instance 01:00-05:00")
        begin, end = time(int(written[1]), int(written[2])), time(int(written[3]), int(written[4]))
        if begin == end:
            raise ValueError(f"{text!r} begins and ends at the same time: leave it out for all day")
        return cls(begin, end, zone)

    def holds(self, instant: datetime) -> bool:
        """Whether the instant lies in the hours."""
        shown = instant.astimezone(self.zone).time()
        if self.begin < self.end:
            return self.begin <= shown < self.end
        return shown >= self.begin or shown < self.end

    def until_open(self, instant: datetime) -> timedelta:
        """How long to wait for the next beginning; nothing while they last. In steps, since clocks are changed twice a year."""
        if self.holds(instant):
            return timedelta(0)
        shown = instant.astimezone(self.zone)
        begin = datetime.combine(shown.date(), self.begin, self.zone)
        if begin <= shown:
            begin = datetime.combine(shown.date() + timedelta(days=1), self.begin, self.zone)
        return max(begin - instant, timedelta(seconds=1))

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {self.zone}"
