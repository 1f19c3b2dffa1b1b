"""When to try again, pure: ``draw`` is a random number from 0 up to 1 that the caller brings."""

from __future__ import annotations

HOUR = 3600.0
"""Seconds."""

FIRST_PAUSE = 2.0
"""Seconds between the first try within a run and the second."""

FIRST_DELAY = 900.0
"""Seconds after a first run that failed."""


def backoff(failures: int, draw: float, *, first: float, most: float) -> float:
    """Return the seconds to wait after ``failures`` in a row: twice as long each time, by half at random."""
    whole = min(most, first * 2.0 ** min(failures - 1, 60))
    return whole * (0.5 + draw / 2)


def next_run(now: float, interval: int, failures: int, draw: float) -> float:
    """Return when to look again, in seconds since the epoch.

    That is ``interval`` hours on, up to a quarter less, so that not all machines come at once;
    sooner after a failure.
    """
    pause = interval * HOUR
    if failures:
        return now + backoff(failures, draw, first=min(FIRST_DELAY, pause), most=pause)
    return now + pause * (1 - draw / 4)


def is_due(now: float, due: float, interval: int) -> bool:
    """Return whether to look at ``now``, ``due`` being what ``next_run`` returned at some time before.

    What is further away than any run puts it was put there by a clock that was ahead, or by a
    longer interval: who waited for that could wait for years.
    """
    return not now < due <= now + interval * HOUR
