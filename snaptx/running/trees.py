"""Put trees under the running system: prepared out of sight, switched by one call each.

    prepare   mount the generation where nobody sees it, with what is mounted
              inside the running trees attached in it, and take a copy of each tree
    attach    over the root's own directory, where nothing is live yet; or beneath
              the tree that is live, where it is not seen
    detach    the tree that is live: lookups find the one beneath from then on

So at most one tree lies over each directory, the root's own below it stays as
it is, and to detach that one brings it back.  A directory is never mounted on
itself: the kernel refuses to mount beneath that where mounts are shared.
Mount namespaces that share the root's mount, or follow it, follow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from snaptx import mounting, priority, system, threads
from snaptx.storage.base import MountSpec
from snaptx.system import Mount

_STRICT = system.RESOLVE_IN_ROOT | system.RESOLVE_NO_SYMLINKS
_ATTRIBUTES = {
    "ro": mounting.MOUNT_ATTR_RDONLY,
    "nosuid": mounting.MOUNT_ATTR_NOSUID,
    "nodev": mounting.MOUNT_ATTR_NODEV,
    "noexec": mounting.MOUNT_ATTR_NOEXEC,
    "noatime": mounting.MOUNT_ATTR_NOATIME,
    "nodiratime": mounting.MOUNT_ATTR_NODIRATIME,
}


class Step(NamedTuple):
    """What is to be done at one directory: how many mounts go, and which tree comes in their place.

    Without ``fresh`` what lies below them is seen.
    """

    target: str
    gone: int
    fresh: int | None = None


def prepare(spec: MountSpec, root: Mount, paths: Iterable[str], carried: Mapping[str, str]) -> dict[str, int]:
    """Return a descriptor of the tree at each of ``paths`` of a root that is mounted by ``spec``.

    ``carried`` are places inside the trees with what of the machine to show
    there.  The mounts have the flags of ``root``, the running one.

    Raises:
        OSError: it can't be mounted, or a place is missing in the tree; its file name tells which.
    """
    flags = 0
    for word in root.options.split(","):
        flags |= _ATTRIBUTES.get(word, 0)
    return mounting.in_own_namespace(lambda: _assembled(spec, flags, paths, carried))


def _assembled(
    spec: MountSpec, flags: int, paths: Iterable[str], carried: Mapping[str, str]
) -> dict[str, int]:
    copies = {place: mounting.cloned_mount(source, recursive=True) for place, source in carried.items()}
    root = mounting.fresh_mount(spec.fstype, spec.source, mounting.parsed(spec.options))
    if flags:
        mounting.restrict(root, flags)
    # Before Linux 6.15 only what is attached somewhere can be copied and take further mounts.
    with system.descriptor("/proc", os.O_PATH | os.O_DIRECTORY) as place:
        mounting.attach(root, place)
    for path, copy in copies.items():
        found = system.openat2(root, os.fsencode(path.lstrip("/")), os.O_PATH, _STRICT)
        mounting.attach(copy, found)
        os.close(found)
        os.close(copy)
    trees = {}
    for path in paths:
        found = system.openat2(root, os.fsencode(path.lstrip("/")), os.O_PATH | os.O_DIRECTORY, _STRICT)
        trees[path] = mounting.cloned_mount("", dirfd=found, recursive=True)
        os.close(found)
    os.close(root)
    return trees


def switch(steps: Sequence[Step]) -> float:
    """Show what the steps say, begun in their order; return the seconds until the last has ended.

    A mount that was detached is gone for everybody at once, but the call goes on
    until no processor looks at it any more, for milliseconds now and then.  So the
    next directory does not wait for that, but only until the call before has begun.

    Raises:
        OSError: the kernel refused one; the others may have been done.
    """
    with priority.going_first():
        for step in steps:
            if step.gone:
                _attach(step, beneath=True)
        begun = time.perf_counter()
        threads.at_once([partial(_show, step) for step in steps])
        return time.perf_counter() - begun


def _show(step: Step) -> None:
    if not step.gone:
        _attach(step)
    for _ in range(step.gone):
        mounting.unmount(step.target, mounting.MNT_DETACH | mounting.UMOUNT_NOFOLLOW)


def _attach(step: Step, *, beneath: bool = False) -> None:
    if step.fresh is None:
        return
    with system.descriptor(step.target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW) as target:
        mounting.attach(step.fresh, target, beneath=beneath)
