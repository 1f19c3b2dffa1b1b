"""What a live switch takes, what stands against it, and the switch itself: of mounts alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from snaptx import scene, system
from snaptx.errors import LiveError, storage_error
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.places import is_below
from snaptx.running import obstacles, trees
from snaptx.running.obstacles import Obstacle
from snaptx.running.stack import inside
from snaptx.running.trees import Step
from snaptx.scene import ETC, FOREIGN, Scene

_INSIDE = system.RESOLVE_IN_ROOT | system.RESOLVE_NO_SYMLINKS

_SYSTEM = "/usr"
"""Without this there is nothing to switch."""

INSTEAD = "'snaptx commit' and a reboot, 'systemctl soft-reboot' or 'systemctl kexec' take it up as a whole"


class Plan(NamedTuple):
    """A live switch: to generation ``number``, 0 for none, at ``paths`` in this order.

    ``carried`` are places in the trees with what is mounted there on the machine.
    """

    number: int
    paths: tuple[str, ...]
    carried: dict[str, str]
    obstacles: tuple[Obstacle, ...]


def plan(machine: Machine, number: int, *, etc: bool = False) -> Plan:
    """Return what a switch to ``number`` would take, with its /etc or without, and what stands against it.

    Raises:
        NotFoundError: its root is missing.
    """
    now = scene.look(machine)
    if not number:
        paths = tuple(path for path in scene.paths(machine) if set(now.over(path)) - {FOREIGN})
        return Plan(0, paths, {}, tuple(_lost(now, paths, set(_subvolumes(machine, now, paths).values()))))
    machine.require_root(number)
    wanted = (*(path for path in machine.config.live.paths if path != ETC), *([ETC] if etc else []))
    release = os.uname().release
    flags = system.DIRECTORY
    with (
        system.descriptor(machine.sysroot, flags) as running,
        system.descriptor(machine.storage.path(Tree(number, Part.ROOT)), flags) as fresh,
    ):
        shapes = [{path: obstacles.shape(root, path) for path in wanted} for root in (running, fresh)]
        paths, against = obstacles.separate(_of_generations(now, wanted), *shapes)
        carried = _carried(now, paths)
        uncovered = [path for path in paths if not now.over(path)]
        carried = _with_subvolumes(carried, _subvolumes(machine, now, uncovered), fresh)
        against += tuple(_own(now, paths))
        against += tuple(_live_etc(now, number))
        against += tuple(obstacles.kernel(release))
        against += tuple(obstacles.content(running, fresh, release))
        against += tuple(_homeless(fresh, carried))
    return Plan(number, paths, carried, against)


def _carried(now: Scene, paths: Sequence[str]) -> dict[str, str]:
    """Return what is mounted inside the trees that are seen: place in the root and path on the machine."""
    found = {}
    for path in paths:
        for target in inside(now.mounts, now.target(path), now.seen(path)):
            found["/" + os.path.relpath(target, now.sysroot)] = target
    return found


def _subvolumes(machine: Machine, now: Scene, paths: Sequence[str]) -> dict[str, str]:
    """Return the subvolumes inside the root's own trees, which no generation has, in the same form."""
    inside_ = (f"/{path}" for path in machine.storage.running.nested)
    return {place: now.target(place) for place in inside_ if place not in paths and is_below(place, paths)}


def _with_subvolumes(carried: dict[str, str], nested: dict[str, str], fresh: int) -> dict[str, str]:
    """Return what is shown in the trees, with the subvolumes that hold what the generation does not.

    What is inside these comes with them.  Where something is live they are
    mounted there by that switch.
    """
    added: dict[str, str] = {}
    for place, source in sorted(nested.items()):
        if not is_below(place, (*carried, *added)) and os.listdir(source) and not _holds(fresh, place):
            added[place] = source
    return {place: source for place, source in carried.items() if not is_below(place, added)} | added


def _holds(root: int, place: str) -> bool:
    """Return whether there is anything in a directory of a root."""
    with suppress(OSError):
        fd = system.openat2(root, os.fsencode(place.lstrip("/")), system.DIRECTORY, _INSIDE)
        try:
            return bool(os.listdir(fd))
        finally:
            os.close(fd)
    return False


def _of_generations(now: Scene, paths: Sequence[str]) -> list[str]:
    """Return the paths without those that are filesystems of their own: these are the same for all."""
    return [path for path in paths if path == _SYSTEM or FOREIGN not in now.over(path)]


def _own(now: Scene, paths: Sequence[str]) -> Iterator[Obstacle]:
    if _SYSTEM in paths and FOREIGN in now.over(_SYSTEM):
        yield Obstacle(f"{_SYSTEM} is a filesystem of its own, of which no generation has a part", False)


def _live_etc(now: Scene, number: int) -> Iterator[Obstacle]:
    """Yield what keeps a live /etc from being left for another generation's: the way leads only back."""
    for other in now.over(ETC):
        if other not in (number, FOREIGN):
            yield Obstacle(f"/etc of generation {other} is live: 'snaptx live --off' first", False)


def _homeless(fresh: int, carried: dict[str, str]) -> Iterator[Obstacle]:
    for place, source in carried.items():
        if not _has_place(fresh, place, source):
            yield Obstacle(f"what is mounted at {place} has no place in the generation", False)


def _has_place(root: int, place: str, source: str) -> bool:
    """Return whether a root has at ``place`` what ``source`` can be mounted on: a directory on one alone."""
    try:
        fd = system.openat2(root, os.fsencode(place.lstrip("/")), os.O_PATH, _INSIDE)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode) == os.path.isdir(source)
    finally:
        os.close(fd)


def _lost(now: Scene, paths: Sequence[str], own: set[str]) -> Iterator[Obstacle]:
    """Yield what was mounted since the switch, and would not be seen any more."""
    for path in paths:
        above = set(inside(now.mounts, now.target(path), now.seen(path)))
        below = set(inside(now.mounts, now.target(path), now.root.number))
        for target in sorted(above - below - own):
            yield Obstacle(f"{target} was mounted since, and would not be seen any more", True)


def require(chosen: Plan, *, force: bool) -> None:
    """Refuse a switch that something stands against.

    Raises:
        LiveError: there is an obstacle that force does not override, or no force.
    """
    blocking = [one for one in chosen.obstacles if not (force and one.forcible)]
    if blocking:
        reasons = "; ".join(one.reason for one in blocking)
        forcible = all(one.forcible for one in blocking)
        hint = INSTEAD + ("; '--force' does it all the same" if forcible else "")
        what = f"generation {chosen.number} can't go live" if chosen.number else "it can't be taken back"
        raise LiveError(f"{what}: {reasons}", hint=hint if chosen.number else "unmount it first, or --force")


def perform(machine: Machine, chosen: Plan) -> float:
    """Make the switch; return the seconds from the first change that is seen to the last.

    Raises:
        StorageError: the kernel refused; what was seen before is seen again, if it allows that.
    """
    before = scene.look(machine)
    try:
        return _bring(machine, before, chosen.number, chosen.paths, chosen.carried)
    except OSError as error:
        _take_back(machine, before, chosen)
        raise storage_error(error, "the live switch failed") from error


def _bring(machine: Machine, now: Scene, number: int, paths: Sequence[str], carried: dict[str, str]) -> float:
    due = [path for path in paths if now.over(path)[:1] != (number,)]
    fresh: dict[str, int] = {}
    try:
        if number and due:
            spec = machine.require_root(number).mount
            shown = {place: source for place, source in carried.items() if is_below(place, due)}
            fresh = trees.prepare(spec, now.root, due, shown)
        steps = [_step(now, path, number, fresh.get(path)) for path in due]
        return trees.switch(steps)
    finally:
        for fd in fresh.values():
            os.close(fd)


def _step(now: Scene, path: str, number: int, fresh: int | None) -> Step:
    stack = now.over(path)
    gone = min(len(stack), 1) if number else len(stack)
    return Step(now.target(path), gone, fresh)


def _take_back(machine: Machine, before: Scene, chosen: Plan) -> None:
    """Bring back what was live before, directory by directory."""
    for path in chosen.paths:
        now = scene.look(machine)
        was = before.over(path)[:1]
        if now.over(path)[:1] != was:
            with suppress(OSError):  # the first error says more
                _bring(machine, now, was[0] if was else 0, [path], chosen.carried)


def settle(machine: Machine, number: int) -> None:
    """End a switch to ``number`` that was interrupted: one that nobody has seen yet is not made."""
    now = scene.look(machine)
    chosen = plan(machine, number, etc=bool(now.over(ETC)))
    tops = {now.over(path)[:1] for path in scene.paths(machine) if now.over(path)}
    made = (number,) in tops if number else any(not now.over(path) for path in scene.note(machine).paths)
    if made:
        perform(machine, chosen)
