"""What differs between the packages of two trees."""

from __future__ import annotations

from typing import NamedTuple

from snaptx.packages.base import Compare, Installed, Upgrade


class PackageChanges(NamedTuple):
    """The packages that differ, each kind sorted by name."""

    added: tuple[Upgrade, ...] = ()
    removed: tuple[Upgrade, ...] = ()
    upgraded: tuple[Upgrade, ...] = ()
    downgraded: tuple[Upgrade, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything differs."""
        return bool(self.added or self.removed or self.upgraded or self.downgraded)


KINDS = ("upgraded", "added", "removed", "downgraded")
"""In the order in which they are told."""


def compare(old: Installed, new: Installed, is_newer: Compare) -> PackageChanges:
    """Return what makes ``new`` differ from ``old``.

    A package of which several versions are installed at once (kernels, with
    rpm) is added and removed version by version.
    """
    found: dict[str, list[Upgrade]] = {kind: [] for kind in KINDS}
    for name in sorted(old.keys() | new.keys()):
        gone = sorted(set(old.get(name, ())) - set(new.get(name, ())))
        come = sorted(set(new.get(name, ())) - set(old.get(name, ())))
        if len(gone) == len(come) == 1:
            kind = "upgraded" if is_newer(come[0], gone[0]) else "downgraded"
            found[kind].append(Upgrade(name, gone[0], come[0]))
        else:
            found["removed"] += [Upgrade(name, version, "") for version in gone]
            found["added"] += [Upgrade(name, "", version) for version in come]
    return PackageChanges(**{kind: tuple(changes) for kind, changes in found.items()})
