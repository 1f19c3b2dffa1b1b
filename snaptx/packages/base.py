"""What snaptx asks of a package manager: command lines, and the meaning of what they print.

A manager is pure: it runs nothing.  Its commands are run inside a tree, so that
the tree's own programs read the tree's own database; what they fetch lies in
one directory that outlives the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from snaptx.config import Conffiles
from snaptx.model import EMPTY

Installed = Mapping[str, tuple[str, ...]]
"""The versions of each installed package, by name; nearly always one."""


class Command(NamedTuple):
    """A command line, and what goes ``first``; ``accepted`` are the exit statuses of success."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = EMPTY
    accepted: frozenset[int] = frozenset({0})
    first: tuple[str, ...] = ()


class LockKind(StrEnum):
    """How a lock shows that it is held: by a lock of fcntl(2), by being there, by naming a process."""

    RECORD = "record"
    PRESENCE = "presence"
    PROCESS = "process"


class Lock(NamedTuple):
    """A file that says whether the manager is at work; ``path`` is relative to the root."""

    path: str
    kind: LockKind


class Upgrade(NamedTuple):
    """What an upgrade would do with one package; no old version: new here, no new one: removed."""

    name: str
    old: str
    new: str


class Manager(Protocol):
    """One package manager.

    ``program`` is what has to be there, ``releases`` the ID or ID_LIKE of the
    distributions whose own it is (os-release(5)).  ``database`` are paths that
    change whenever a package does, ``directories`` what has to exist in the
    cache, ``links`` the symbolic links there, ``stale`` patterns of what an
    interrupted run leaves there and the next stumbles on, ``emptied`` the directory
    there that it takes packages out of once they are installed, "" for none;
    ``heeds_conffiles`` is whether it follows our policy for configuration files,
    ``leftovers`` the endings of those that are put beside the one in use.  Paths
    are relative to the root, ``cache`` is absolute.
    """

    name: str
    program: str
    releases: frozenset[str]
    database: tuple[str, ...]
    locks: tuple[Lock, ...]
    directories: tuple[str, ...]
    links: Mapping[str, str] = MappingProxyType({})
    stale: tuple[str, ...] = ()
    emptied: str = ""
    heeds_conffiles: bool = False
    leftovers: tuple[str, ...]

    def refresh(self, cache: str) -> Command:
        """Return how to learn what there is to be had."""
        ...

    def plan(self, cache: str) -> Command:
        """Return how to ask what a full upgrade would do."""
        ...

    def parse_plan(self, text: str) -> list[Upgrade]:
        """Return what ``plan`` printed; where it names no old versions, they are left empty."""
        ...

    def fetch(self, cache: str) -> Command:
        """Return how to fetch what a full upgrade needs, and to change nothing else."""
        ...

    def upgrade(self, cache: str, conffiles: Conffiles) -> Command:
        """Return the full upgrade; it asks nothing."""
        ...

    def clean(self, cache: str) -> Command:
        """Return how to empty the cache of packages."""
        ...

    def query(self) -> Command:
        """Return how to list what is installed."""
        ...

    def parse_query(self, text: str) -> Installed:
        """Return what ``query`` printed."""
        ...

    def is_newer(self, one: str, other: str) -> bool:
        """Return whether version ``one`` is newer than ``other``, as this manager sees it."""
        ...


def by_name(pairs: list[tuple[str, str]]) -> Installed:
    """Return (name, version) pairs as what is installed."""
    found: dict[str, list[str]] = {}
    for name, version in pairs:
        found.setdefault(name, []).append(version)
    return {name: tuple(sorted(versions)) for name, versions in found.items()}


def rows(text: str, fields: int, separator: str | None = None) -> list[list[str]]:
    """Return the lines of ``text`` that have so many fields, split."""
    return [cells for line in text.splitlines() if len(cells := line.split(separator)) == fields]


Compare = Callable[[str, str], bool]
