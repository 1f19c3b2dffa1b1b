"""``snaptx exec``: run a command in any generation's tree, on the machine as it is today."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from snaptx import apart, log, scene, system, transaction
from snaptx.enclosure import caller, today
from snaptx.enclosure.chroot import command_error
from snaptx.enclosure.today import Visit
from snaptx.errors import PrivilegeError, SnaptxError, storage_error
from snaptx.generations import RECORD
from snaptx.machine import Machine
from snaptx.transaction import Request


def plan(machine: Machine, number: int, user: str | None = None) -> Visit:
    """Return what a command in generation ``number`` gets to see.

    It is run for ``user``, by default for whoever became root to ask for it.

    Raises:
        NotFoundError: there is no such generation, or it has no root.
        UsageError: there is no such user.
    """
    machine.generations.read(number)
    root = machine.require_root(number).mount
    who = caller.named(user) if user else caller.behind(os.environ)
    sysroot = str(machine.sysroot.resolve())
    paths = today.places(system.mounts(), sysroot, machine.config.shared.paths, scene.live(machine))
    environment = caller.environment_of(who, os.environ) | {"SNAPTX_GENERATION": str(number)}
    return Visit(
        root=root,
        record=(os.open(machine.generations.directory(number), os.O_PATH | os.O_CLOEXEC), RECORD),
        shared=tuple((os.path.normpath(f"{sysroot}/{path}"), path) for path in paths),
        environment=environment,
        directory=_directory(sysroot),
        caller=who if who and who.uid else None,
    )


def _directory(sysroot: str) -> str:
    """Return where this process is as the command will see it, / where it is outside of the root."""
    try:
        here = os.path.relpath(os.getcwd(), sysroot)
    except FileNotFoundError:  # it was removed
        return "/"
    return "/" if here.startswith("..") else os.path.normpath(f"/{here}")


def go(machine: Machine, visit: Visit, number: int, request: Request, argv: Sequence[str]) -> NoReturn:
    """Put the visit on record and become the command.

    Raises:
        StorageError: the record or a mount failed, or the generation has been removed.
        CommandError: there is no such command, or it can't be executed.
    """
    transaction.note(machine, request, generation=number, result="begun")
    # Once it has entered the tree, as somebody else, this process can't reach the trail any more.
    with apart.standby(partial(_note_failure, machine, request, number)) as tell:
        try:
            _become(visit, argv)
        except (SnaptxError, KeyboardInterrupt) as error:
            failure = transaction.failure_of(error)
            tell(json.dumps({"type": type(failure).__name__, "message": failure.message}).encode())
            raise


def _note_failure(machine: Machine, request: Request, number: int, said: bytes) -> None:
    try:
        transaction.note(machine, request, generation=number, result="failed", error=json.loads(said))
    except (SnaptxError, OSError) as error:
        log.warning("that it failed is not on record", reason=str(error))


def _become(visit: Visit, argv: Sequence[str]) -> NoReturn:
    try:
        today.become(visit, argv, log.warning)
    except today.CommandMissing as error:
        raise command_error(argv[0], error.reason) from error
    except OSError as error:
        if error.errno == errno.EPERM:
            hint = "it takes root with CAP_SYS_ADMIN"
            raise PrivilegeError(f"cannot {error.filename}: {error.strerror}", hint=hint) from error
        raise storage_error(error, f"cannot {error.filename}") from error
