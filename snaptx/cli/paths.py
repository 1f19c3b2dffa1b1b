"""Paths in words: not more of them than people read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snaptx.overlay.failure import from_root

SHOWN = 20
"""How many of a list a person gets to see; --json has them all."""


def listed(paths: Sequence[bytes]) -> Iterator[str]:
    """Yield the first of some paths in a root, and how many more there are."""
    yield from map(from_root, paths[:SHOWN])
    if len(paths) > SHOWN:
        yield f"and {len(paths) - SHOWN} more"


def named(paths: Sequence[bytes]) -> str:
    """Return the same in a line."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(from_root, paths[:SHOWN])) + more
