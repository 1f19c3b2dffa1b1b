"""zypper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaptx.config import Conffiles
from snaptx.errors import PackageError
from snaptx.packages.base import Command, Lock, LockKind, Upgrade
from snaptx.packages.rpm import Rpm

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# Of zypper(8): a restart of the system or of zypper is advised; there are (security) patches.
_FINE = (0, 100, 101, 102, 103)


class Zypper(Rpm):
    """openSUSE and SUSE Linux Enterprise."""

    name = "zypper"
    program = "usr/bin/zypper"
    releases = frozenset({"suse", "opensuse", "sles"})
    locks = (*Rpm.locks, Lock("run/zypp.pid", LockKind.PROCESS))
    directories = ("zypp",)
    emptied = "zypp/packages"

    def _zypper(self, cache: str, *words: str, form: tuple[str, ...] = ()) -> Command:
        options = ("--non-interactive", "--cache-dir", f"{cache}/zypp", *form)
        return Command(("zypper", *options, *words), accepted=frozenset(_FINE))

    def refresh(self, cache: str) -> Command:
        """Fetch what the repositories say of themselves."""
        return self._zypper(cache, "refresh")

    def plan(self, cache: str) -> Command:
        """Simulate."""
        return self._zypper(cache, "--no-refresh", "dist-upgrade", "--dry-run", form=("--xmlout",))

    def parse_plan(self, text: str) -> list[Upgrade]:
        """Read the summary; what was there before has an ``edition-old``."""
        from xml.etree import ElementTree  # not for every start-up

        try:
            tree = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            message = f"zypper printed what is no XML: {error}"
            raise PackageError(message, hint="see: zypper dist-upgrade") from error
        return [
            _upgrade(kind.tag, item)
            for summary in tree.iter("install-summary")
            for kind in summary
            for item in kind.iter("solvable")
            if kind.tag.startswith("to-")
        ]

    def fetch(self, cache: str) -> Command:
        """Download only."""
        return self._zypper(cache, "dist-upgrade", "--download-only", "--auto-agree-with-licenses")

    def upgrade(self, cache: str, conffiles: Conffiles) -> Command:
        """Upgrade; rpm keeps what the administrator changed, or what the package says, and asks nothing."""
        return self._zypper(cache, "dist-upgrade", "--auto-agree-with-licenses")

    def clean(self, cache: str) -> Command:
        """Remove the packages."""
        return self._zypper(cache, "clean")


def _upgrade(kind: str, item: Element) -> Upgrade:
    name, edition = item.get("name", ""), item.get("edition", "")
    if kind == "to-remove":
        return Upgrade(name, edition, "")
    return Upgrade(name, item.get("edition-old", ""), edition)
