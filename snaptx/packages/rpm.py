"""What dnf and zypper have in common: the database of RPM."""

from __future__ import annotations

from typing import Protocol

from snaptx.packages.base import Command, Installed, Lock, LockKind, Manager, by_name, rows
from snaptx.packages.versions import rpm_is_newer

# %_dbpath: Fedora and openSUSE have it below /usr, the others below /var.
_HOMES = ("var/lib/rpm", "usr/lib/sysimage/rpm")
# sqlite with its log, ndb, Berkeley's.
_FILES = ("rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages.db", "Packages")


class Rpm(Manager, Protocol):
    """The database."""

    database: tuple[str, ...] = tuple(f"{home}/{name}" for home in _HOMES for name in _FILES)
    locks: tuple[Lock, ...] = tuple(Lock(f"{home}/.rpm.lock", LockKind.RECORD) for home in _HOMES)
    leftovers: tuple[str, ...] = (".rpmnew", ".rpmsave", ".rpmorig")

    def query(self) -> Command:
        """Show the epoch where there is one, and the architecture of what is not for all."""
        version = "%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}"
        return Command(("rpm", "-qa", "--queryformat", f"%{{NAME}}.%{{ARCH}}\\t{version}\\n"))

    def parse_query(self, text: str) -> Installed:
        """Read the lines of the query."""
        return by_name([(name, version) for name, version in rows(text, 2, "\t")])

    def is_newer(self, one: str, other: str) -> bool:
        """Compare as rpm does."""
        return rpm_is_newer(one, other)
