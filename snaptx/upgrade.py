"""Upgrade: the distribution's own full upgrade, in a staged generation.

::

    refresh -> plan -> fetch       in a passing copy of the base, into a cache that outlives it
    stage -> upgrade -> index      in the new generation, from the cache

So what was fetched once is not fetched again after a failure, and where there
is nothing to do no generation is begun.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from snaptx import cache, enter, inventory, stage, views
from snaptx.enclosure import standins
from snaptx.enclosure.chroot import Streams, run_enclosed
from snaptx.enter import Manner, Ran
from snaptx.errors import NoSpaceError, PackageError
from snaptx.machine import Machine
from snaptx.model import Part, Tree
from snaptx.packages import traces
from snaptx.packages.base import Command, Installed, Manager, Upgrade
from snaptx.sharing import outside
from snaptx.storage.base import MountSpec
from snaptx.transaction import Request

VERB = "upgrade"
_TO_STDERR = Streams(2, 2)

_ITS_OWN = "the package manager's"
# As the system says it, apt, and libcurl (CURLE_WRITE_ERROR, in its old and new words) for dnf and pacman.
_FULL = (
    *(os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "enough free space"),
    *("Failed writing received data", "Failed writing body", "Failure writing output to destination"),
)
_OFFLINE = "look at the network, the proxy and the sources; what was fetched is kept for the next try"
_NOT_KEPT = "nothing was kept but what was fetched; the package manager has said above what it stumbled on"


@dataclass(frozen=True, slots=True)
class Prospect:
    """What an upgrade of generation ``base`` would do."""

    base: int
    manager: str
    packages: tuple[Upgrade, ...]


def prepare(machine: Machine, wanted: int | None, *, fetch: bool = True) -> Prospect:
    """Return what there is to upgrade, and fetch it; ``wanted`` is the base, None for what ``run`` takes.

    Nothing of any generation changes.

    Raises:
        LockError: another snaptx is fetching.
        PackageError: there is no package manager, it is at work, or it failed.
        LayoutError: its database lies outside the root.
        NoSpaceError: there is no room for what has to be fetched.
    """
    base = stage.choose_base(machine, wanted).number
    with (
        cache.sole_user(machine, VERB),
        views.passing(machine, base, Tree(base, Part.ROOT), writable=True) as tree,
    ):
        manager = inventory.manager_of(machine, tree)
        outside.require_packages(machine, manager)
        _require_unlocked(machine, base, manager)
        fetched = cache.ready(machine, manager)
        cache.bring_back(machine, manager)
        _do(machine, tree, manager.refresh(standins.CACHE), fetched)
        planned = inventory.ask(machine, tree, manager.plan(standins.CACHE), fetched)
        packages = _completed(
            manager.parse_plan(planned), lambda: inventory.installed(machine, tree, manager)
        )
        if fetch:
            step = manager.fetch if packages else manager.clean
            _do(machine, tree, step(standins.CACHE), fetched)
            cache.keep(machine, manager, packages=bool(packages))
    return Prospect(base, manager.name, packages)


def _completed(packages: list[Upgrade], installed: Callable[[], Installed]) -> tuple[Upgrade, ...]:
    """Fill in the old versions that the plan does not name."""
    if all(package.old for package in packages):
        return tuple(packages)
    known = installed()
    return tuple(
        package._replace(old=package.old or "".join(known.get(package.name, ("",))[-1:]))
        for package in packages
    )


def upgrade(machine: Machine, request: Request, wanted: int | None, prospect: Prospect | None = None) -> Ran:
    """Do what ``prepare`` has found in a fresh generation; the caller holds the lock.

    What was found and does not change is put on record.

    Raises:
        LockError: another snaptx is fetching.
        PackageError: the package manager is at work in the running system.
        CommandError: the upgrade failed; nothing of it was kept.
    """
    base = stage.choose_base(machine, wanted).number
    manager = inventory.manager_of(machine, Tree(base, Part.ROOT))
    _require_unlocked(machine, base, manager)
    policy = machine.config.packages.conffiles
    command = manager.upgrade(standins.CACHE, policy)
    with cache.sole_user(machine, VERB):
        manner = Manner(
            environment=command.environment,
            streams=_TO_STDERR,
            cache=cache.ready(machine, manager),
            accepted=command.accepted,
            first=command.first,
            hint=_NOT_KEPT,
            details={"conffile_policy": policy if manager.heeds_conffiles else _ITS_OWN},
            promised=tuple(package.name for package in prospect.packages) if prospect else (),
        )
        return enter.run(machine, request, command.argv, base=wanted, manner=manner)


def _require_unlocked(machine: Machine, base: int, manager: Manager) -> None:
    """Refuse to copy a running system in the middle of its own upgrade."""
    if base == machine.booted:
        traces.require_unlocked(machine.sysroot, manager)


def _do(machine: Machine, tree: Tree, command: Command, fetched: MountSpec) -> None:
    """Run a command of the package manager; what it says goes to standard error, complaints at the end."""
    view = inventory.enclosure(machine, tree, command, fetched)
    with inventory.collected() as complaint:
        status = run_enclosed(view, command.argv, streams=Streams(2, complaint))
        said = inventory.text_of(complaint)
    with suppress(OSError):
        os.write(2, said.encode())
    if status in command.accepted:
        return
    ended = f"{command.argv[0]} ended with status {status}"
    if any(sign in said for sign in _FULL):
        hint = "'snaptx prune' removes old generations; what was fetched is kept for the next try"
        raise NoSpaceError(f"{ended}: there is no room for what it fetches", hint=hint)
    raise PackageError(ended, hint=_OFFLINE)
