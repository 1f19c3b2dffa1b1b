"""The distribution's package manager as a source of updates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from snaptx import upgrade
from snaptx.machine import Machine
from snaptx.stage import Staged
from snaptx.transaction import Request
from snaptx.update.index import RESERVED
from snaptx.update.source import Offer, Progress

KEY = RESERVED
"""How the configuration and the records of generations call this source."""

SHOWN = 3
"""Packages that are named where there is one line for all."""


class Upgrades(Protocol):
    """What is asked of the package manager."""

    def pending(self) -> Sequence[str]:
        """Return the upgrades there are for the default generation, as "NAME=VERSION"."""
        ...

    def download(self, progress: Progress | None) -> None:
        """Bring the packages of those upgrades into the package manager's cache."""
        ...

    def stage(self, machine: Machine, request: Request) -> Staged:
        """Stage a generation with all of them; the caller holds the lock."""
        ...


class Distribution:
    """The distribution's own package manager."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def pending(self) -> Sequence[str]:
        """Ask it."""
        packages = upgrade.prepare(self._machine, self._base, fetch=False).packages
        return [f"{package.name}={package.new}" for package in packages]

    def download(self, progress: Progress | None) -> None:
        """Let it fetch; what it says of its progress goes to standard error."""
        upgrade.prepare(self._machine, self._base)

    def stage(self, machine: Machine, request: Request) -> Staged:
        """Let it upgrade to what was fetched."""
        return upgrade.upgrade(machine, request, self._base).staged

    @property
    def _base(self) -> int:
        return self._machine.boot_state().default


class PackageSource:
    """All upgrades that the package manager has; what came of the same ones before is known by them."""

    name = KEY

    def __init__(self, upgrades: Upgrades) -> None:
        self._upgrades = upgrades

    def check(self, installed: Mapping[str, str]) -> Offer | None:
        """Return the upgrades as one offer; the package manager knows what is installed."""
        names = sorted(self._upgrades.pending())
        identity = " ".join(names)
        if not names or installed.get(KEY) == identity:
            return None
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return Offer(KEY, identity, f"{len(names)} package(s): {', '.join(names[:SHOWN])}{more}")

    def is_bad(self, offer: Offer, rejected: Collection[str]) -> bool:
        """Return whether all that was in a bad update is still in this one: any of it may be to blame."""
        offered = set(offer.identity.split())
        return any(offered.issuperset(bad.split()) for bad in rejected)

    def download(self, offer: Offer, progress: Progress | None = None) -> None:
        """Download the packages."""
        self._upgrades.download(progress)

    def stage(self, machine: Machine, request: Request, offer: Offer) -> Staged:
        """Stage the upgrades."""
        asked = request._replace(message=offer.summary, updates={KEY: offer.identity})
        return self._upgrades.stage(machine, asked)
