"""apt and dpkg.  The lists of what the archive has are kept with the cache, not in the tree."""

from __future__ import annotations

import re

from snaptx.config import Conffiles
from snaptx.packages.base import Command, Installed, Lock, LockKind, Manager, Upgrade, by_name, rows
from snaptx.packages.versions import debian_is_newer

_QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_MODE": "l",
}
_FORCE = {Conffiles.KEEP: "--force-confold", Conffiles.NEW: "--force-confnew"}
_UCF = {Conffiles.KEEP: "UCF_FORCE_CONFFOLD", Conffiles.NEW: "UCF_FORCE_CONFFNEW"}

# "Inst libc6 [2.36-8] (2.36-9 Debian:12/stable [amd64])", "Inst new (1 repo [all])", "Remv old [1]".
_PLANNED = re.compile(r"(Inst|Remv) (\S+)(?: \[([^]]*)\])?(?: \((\S+) )?")


class Apt(Manager):
    """Debian, Ubuntu and what grew from them."""

    name = "apt"
    program = "usr/bin/apt-get"
    releases = frozenset({"debian", "ubuntu"})
    database = ("var/lib/dpkg/status",)
    locks = (
        Lock("var/lib/dpkg/lock-frontend", LockKind.RECORD),
        Lock("var/lib/dpkg/lock", LockKind.RECORD),
    )
    directories = ("archives/partial", "lists/partial")
    heeds_conffiles = True
    leftovers = (".dpkg-dist", ".dpkg-old", ".dpkg-new", ".ucf-dist", ".ucf-old")

    def _get(self, cache: str, *words: str, **environment: str) -> Command:
        options = (
            f"Dir::Cache::archives={cache}/archives",
            f"Dir::State::lists={cache}/lists",
            "APT::Keep-Downloaded-Packages=true",
        )
        given = tuple(word for option in options for word in ("-o", option))
        return Command(("apt-get", "-q", "-y", *given, *words), _QUIET | environment)

    def refresh(self, cache: str) -> Command:
        """Fetch the lists; without the mode apt takes old ones for an answer when it can't reach a source."""
        return self._get(cache, "-o", "APT::Update::Error-Mode=any", "update")

    def plan(self, cache: str) -> Command:
        """Simulate."""
        return self._get(cache, "--simulate", "dist-upgrade")

    def parse_plan(self, text: str) -> list[Upgrade]:
        """Read the lines of the simulation."""
        found = (_PLANNED.match(line) for line in text.splitlines())
        return [Upgrade(match[2], match[3] or "", match[4] or "") for match in found if match]

    def fetch(self, cache: str) -> Command:
        """Download only."""
        return self._get(cache, "--download-only", "dist-upgrade")

    def upgrade(self, cache: str, conffiles: Conffiles) -> Command:
        """Upgrade; a configuration file nobody changed is always replaced."""
        policy = ("-o", f"Dpkg::Options::={_FORCE[conffiles]}")
        return self._get(cache, *policy, "dist-upgrade", **{_UCF[conffiles]: "1"})

    def clean(self, cache: str) -> Command:
        """Remove the packages."""
        return self._get(cache, "clean")

    def query(self) -> Command:
        """Name the architecture where that is needed to tell packages apart."""
        return Command(("dpkg-query", "-W", "-f", "${binary:Package}\\t${Version}\\t${db:Status-Status}\\n"))

    def parse_query(self, text: str) -> Installed:
        """Leave out packages of which only configuration files are left."""
        absent = ("config-files", "not-installed")
        found = rows(text, 3, "\t")
        return by_name([(name, version) for name, version, status in found if status not in absent])

    def is_newer(self, one: str, other: str) -> bool:
        """Compare as dpkg does."""
        return debian_is_newer(one, other)
