"""Packages in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snaptx.cli import common
from snaptx.overlay.failure import shown
from snaptx.packages.difference import KINDS, PackageChanges

if TYPE_CHECKING:
    from snaptx.inventory import Outcome

_MARKS = {"upgraded": ">", "added": "+", "removed": "-", "downgraded": "<"}


def summary(packages: Mapping[str, Sequence[Any]]) -> str:
    """Return how many packages were upgraded, added and so on, from an audit record or ``counted``."""
    found = [f"{len(packages[kind])} {kind}" for kind in KINDS if packages.get(kind)]
    return ", ".join(found) or "none"


def counted(changes: PackageChanges) -> Mapping[str, Sequence[Any]]:
    """Return the changes by kind."""
    return {kind: getattr(changes, kind) for kind in KINDS}


def told(outcome: Outcome) -> Iterator[str]:
    """Yield what became of packages, and of configuration files that somebody should look at."""
    yield f"  packages: {summary(counted(outcome.packages))}"
    for path in outcome.conffiles:
        yield f"  look at: {shown(path)}"
    if outcome.left:
        yield f"  left as they were: {', '.join(outcome.left)}"


def lines(changes: PackageChanges) -> Iterator[str]:
    """Yield a line for each package: its mark, its name, and its versions."""
    rows = [
        (_MARKS[kind], package.name, " -> ".join(filter(None, (package.old, package.new))))
        for kind in KINDS
        for package in getattr(changes, kind)
    ]
    yield from common.table(rows) if rows else ()
