"""pacman.  What the repositories have is kept with the cache; ``db/local`` there leads into the tree.

That is good for looking only: pacman puts a directory in the place of that link
when it installs a package with a script.  So the upgrade works on the tree's
own database, with a copy of what the repositories have.
"""

from __future__ import annotations

from types import MappingProxyType

from snaptx.config import Conffiles
from snaptx.packages.base import Command, Installed, Lock, LockKind, Manager, Upgrade, by_name, rows
from snaptx.packages.versions import pacman_is_newer

_MARK = "target"


class Pacman(Manager):
    """Arch and what grew from it."""

    name = "pacman"
    program = "usr/bin/pacman"
    releases = frozenset({"arch", "archlinux"})
    database = ("var/lib/pacman/local",)
    locks = (Lock("var/lib/pacman/db.lck", LockKind.PRESENCE),)
    directories = ("pkg", "db")
    links = MappingProxyType({"db/local": "/var/lib/pacman/local"})
    # It would resume a torn download for ever where the server can't.
    stale = ("db/db.lck", "pkg/*.part")
    leftovers = (".pacnew", ".pacsave", ".pacorig")

    def _pacman(self, cache: str, *words: str) -> Command:
        return Command(("pacman", *words, "--dbpath", f"{cache}/db", *_options(cache)))

    def refresh(self, cache: str) -> Command:
        """Fetch what the repositories have."""
        return self._pacman(cache, "-Sy")

    def plan(self, cache: str) -> Command:
        """Print what would be installed; the mark tells that from remarks."""
        return self._pacman(cache, "-Su", "--print", "--print-format", f"{_MARK} %n %v")

    def parse_plan(self, text: str) -> list[Upgrade]:
        """Read ``name new``."""
        return [Upgrade(name, "", version) for mark, name, version in rows(text, 3) if mark == _MARK]

    def fetch(self, cache: str) -> Command:
        """Download only."""
        return self._pacman(cache, "-Suw")

    def upgrade(self, cache: str, conffiles: Conffiles) -> Command:
        """Upgrade; pacman keeps what the administrator changed and puts the new beside it."""
        fresh = ("cp", "-R", "-p", f"{cache}/db/sync", "/var/lib/pacman/")
        return Command(("pacman", "-Su", *_options(cache)), first=fresh)

    def clean(self, cache: str) -> Command:
        """Remove all packages: confirming by default would keep them, so that is not asked."""
        return Command(("find", f"{cache}/pkg", "-mindepth", "1", "-delete"))

    def query(self) -> Command:
        """List all."""
        return Command(("pacman", "-Q"))

    def parse_query(self, text: str) -> Installed:
        """Read ``name version``."""
        return by_name([(name, version) for name, version in rows(text, 2)])

    def is_newer(self, one: str, other: str) -> bool:
        """Compare as alpm does."""
        return pacman_is_newer(one, other)


def _options(cache: str) -> tuple[str, ...]:
    return ("--noconfirm", "--noprogressbar", "--cachedir", f"{cache}/pkg")
