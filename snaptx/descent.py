"""How one generation stems from another: pure, from what the records say.

A base is always older than what grew from it, so that who looks for one
generation need not look below it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from snaptx.model import Generation

Find = Callable[[int], Generation | None]


class Kin(Enum):
    """What a generation has to do with the running one.

    It STEMS from it, or is APART.  TURNED away is what stems by way of a
    rollback or of a copy made before packages changed: both are meant to leave
    later changes behind.  LOST is what can't be told, for a record is missing.
    """

    STEMS = auto()
    APART = auto()
    TURNED = auto()
    LOST = auto()


def trace(number: int, running: int, find: Find) -> tuple[Kin, tuple[int, ...]]:
    """Return what ``number`` has to do with ``running``, 0 for none, and the way down there.

    The way begins with ``number`` and ends with what grew from ``running``, or
    as far as it goes; ``find`` returns a generation's record if there is one.
    """
    way: list[int] = []
    while number > running > 0:
        record = find(number)
        if record is None:
            return Kin.LOST, tuple(way)
        way.append(number)
        if record.content or record.copy:
            return Kin.TURNED, tuple(way)
        if record.base == running:
            return Kin.STEMS, tuple(way)
        number = record.base
    return Kin.APART, tuple(way)
