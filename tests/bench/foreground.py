"""What somebody else notices of staging: a loop that writes a little and makes it durable."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable

from tests.bench.arena import Arena

ALONE = 100
"""How often the loop goes round with nothing beside it."""

PAUSE = 0.005
"""Seconds between two rounds: a program that is waited for, not a load of its own."""


class Foreground:
    """Writes 4 KiB and syncs them, on the sandbox's filesystem."""

    def __init__(self, arena: Arena) -> None:
        self._path = arena.top / "foreground"

    def alone(self) -> float:
        """Return the median seconds of a round."""
        return statistics.median(self._rounds(iter(range(ALONE)).__next__))

    def beside(self, work: Callable[[], object]) -> float:
        """Return the median seconds of a round while ``work`` is done in another thread."""
        thread = threading.Thread(target=work)
        thread.start()

        def going_on() -> None:
            if not thread.is_alive():
                raise StopIteration

        try:
            return statistics.median(self._rounds(going_on))
        finally:
            thread.join()

    def _rounds(self, going_on: Callable[[], object]) -> list[float]:
        """Go round until ``going_on`` raises StopIteration; return the seconds of each round."""
        found: list[float] = []
        fd = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            while True:
                going_on()
                begun = time.perf_counter()
                os.pwrite(fd, os.urandom(4096), 0)
                os.fsync(fd)
                found.append(time.perf_counter() - begun)
                time.sleep(PAUSE)
        except StopIteration:
            return found
        finally:
            os.close(fd)
