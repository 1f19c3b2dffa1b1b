"""dnf, version 4 or 5."""

from __future__ import annotations

from snaptx.config import Conffiles
from snaptx.packages.base import Command, Upgrade, rows
from snaptx.packages.rpm import Rpm


class Dnf(Rpm):
    """Fedora, Red Hat's and what grew from them."""

    name = "dnf"
    program = "usr/bin/dnf"
    releases = frozenset({"fedora", "rhel", "centos"})
    directories = ("dnf",)
    stale = ("dnf/*_lock.pid",)

    def _dnf(self, cache: str, *words: str, accepted: tuple[int, ...] = (0,)) -> Command:
        options = (f"cachedir={cache}/dnf", f"system_cachedir={cache}/dnf", "keepcache=True")
        given = tuple(f"--setopt={option}" for option in options)
        return Command(("dnf", "-y", *given, *words), accepted=frozenset(accepted))

    def refresh(self, cache: str) -> Command:
        """Fetch what the repositories say of themselves; one that can't be reached is an error."""
        return self._dnf(cache, "--refresh", "--setopt=skip_if_unavailable=False", "makecache")

    def plan(self, cache: str) -> Command:
        """List what has a newer version: then the status is 100."""
        return self._dnf(cache, "--quiet", "--cacheonly", "check-upgrade", accepted=(0, 100))

    def parse_plan(self, text: str) -> list[Upgrade]:
        """Read the rows of the list, which ends where that of the obsoleting packages begins."""
        listed = text.partition("\nObsoleting")[0]
        found = [(name, version) for name, version, _ in rows(listed, 3) if "." in name]
        return [Upgrade(name, "", version) for name, version in found]

    def fetch(self, cache: str) -> Command:
        """Download only; dnf 5 wants that behind the command."""
        return self._dnf(cache, "upgrade", "--downloadonly")

    def upgrade(self, cache: str, conffiles: Conffiles) -> Command:
        """Upgrade; rpm keeps what the administrator changed, or what the package says, and asks nothing."""
        return self._dnf(cache, "upgrade")

    def clean(self, cache: str) -> Command:
        """Remove the packages."""
        return self._dnf(cache, "clean", "packages")
