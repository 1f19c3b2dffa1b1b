"""Features of a pool that GRUB can't read: rules without I/O.

OpenZFS says which features GRUB reads, in a file of its own (zpool-features(7),
"Compatibility feature sets").  A feature that is active and not in that file
need not be in the way: what is compatible for reading only is not.  So GRUB
itself is asked, and this tells why it refuses, or soon will.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SET = "grub2"
PLACES = (Path("/etc/zfs/compatibility.d") / SET, Path("/usr/share/zfs/compatibility.d") / SET)
_PREFIX = "feature@"


class Unreadable(NamedTuple):
    """Features that GRUB does not know: in use, allowed to come into use, or one ``zpool upgrade`` away."""

    active: tuple[str, ...] = ()
    enabled: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


def parse_set(text: str) -> frozenset[str]:
    """Return the features that a compatibility file names."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return frozenset(word for line in lines for word in line.replace(",", " ").split())


def unreadable(properties: Mapping[str, str], readable: frozenset[str]) -> Unreadable:
    """Return what a pool's properties say of features that are not ``readable``."""
    known = {
        name.removeprefix(_PREFIX): state for name, state in properties.items() if name.startswith(_PREFIX)
    }
    found = {name: state for name, state in sorted(known.items()) if name not in readable}
    of = {state: tuple(name for name in found if found[name] == state) for state in found.values()}
    kept_out = SET in properties.get("compatibility", "")
    return Unreadable(of.get("active", ()), of.get("enabled", ()), () if kept_out else of.get("disabled", ()))


def told(pool: str, found: Unreadable) -> str:
    """Return what is to be said of a pool that GRUB reads as it is, "" for nothing."""
    stops = f"GRUB can't read the pool {pool} any more"
    if found.enabled:
        return f"{stops} once one of these features is used: {', '.join(found.enabled)}"
    if found.disabled:
        return f"{stops} after a 'zpool upgrade'; to prevent that: zpool set compatibility={SET} {pool}"
    return ""
