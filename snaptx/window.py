"""Maintenance windows: when a machine may be changed and restarted.

A window is written as people write opening hours, in the machine's own time::

    02:00-05:00              every night
    Sat,Sun 22:00-06:00      from Saturday and from Sunday evening into the next morning
    Mon..Fri 01:00-04:00     as systemd.time(7) names days
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import NamedTuple

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = 24 * 60
"""Minutes."""

_FORM = re.compile(r"(?:([A-Za-z,.]+) +)?(\d\d):(\d\d)-(\d\d):(\d\d)")


class Window(NamedTuple):
    """The days it begins on (0 is Monday), minutes after midnight it begins at, and minutes it lasts."""

    days: frozenset[int]
    begin: int
    length: int

    def holds(self, moment: time.struct_time) -> bool:
        """Return whether ``moment``, of the local clock, lies inside."""
        minute = moment.tm_hour * 60 + moment.tm_min
        since = (minute - self.begin) % DAY
        day = (moment.tm_wday - (minute < self.begin)) % len(DAYS)
        return since < self.length and day in self.days


def parse(text: str) -> Window:
    """Return the window that ``text`` describes.

    Raises:
        ValueError: it describes none.
    """
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no window")
    begin, end = _minutes(found[2], found[3]), _minutes(found[4], found[5])
    if begin == DAY:
        raise ValueError(f"{text!r} begins after the day's last minute")
    return Window(_days(found[1]), begin, (end - begin) % DAY or DAY)


def _minutes(hours: str, minutes: str) -> int:
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > DAY:
        raise ValueError(f"{hours}:{minutes} is no time of day")
    return found


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(len(DAYS)))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("..")
        begin = _day(first)
        length = (_day(last or first) - begin) % len(DAYS)
        found |= {(begin + number) % len(DAYS) for number in range(length + 1)}
    return frozenset(found)


def _day(name: str) -> int:
    for number, day in enumerate(DAYS):
        if name.capitalize() == day:
            return number
    raise ValueError(f"{name!r} is no day; they are {', '.join(DAYS)}")


def is_open(windows: Iterable[str], seconds: float) -> bool:
    """Return whether any of ``windows`` holds the time ``seconds`` after the epoch; without any, always."""
    moment = time.localtime(seconds)
    each = [parse(text).holds(moment) for text in windows]
    return any(each) or not each
