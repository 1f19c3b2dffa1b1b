"""Which mounts lie over each other at a place: pure rules on the table of mounts."""

from __future__ import annotations

from collections.abc import Sequence

from snaptx.system import Mount


def stack(mounts: Sequence[Mount], target: str) -> list[Mount]:
    """Return the mounts at exactly ``target``, what is seen first."""
    found = [mount for mount in mounts if mount.target == target]
    covered = {mount.parent for mount in found}
    top = next((mount for mount in found if mount.number not in covered), None)
    ordered = []
    while top:
        ordered.append(top)
        top = next((mount for mount in found if top and mount.number == top.parent), None)
    return ordered


def inside(mounts: Sequence[Mount], target: str, seen: int) -> list[str]:
    """Return what is mounted below ``target``, and seen there; not what is mounted in that.

    ``seen`` is the number of the mount that ``target`` is seen in.
    """
    found = [mount.target for mount in mounts if mount.parent == seen]
    return [path for path in dict.fromkeys(found) if path.startswith(target + "/")]
