"""``snaptx hook``: what package managers call before and after their work."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from snaptx import config, log
from snaptx.cli import common, options
from snaptx.config import HookMode, ManagerName
from snaptx.errors import LayoutError, NotFoundError, SnaptxError, UsageError
from snaptx.machine import Machine
from snaptx.model import Phase

BEFORE, AFTER = "before", "after"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    names = [name.value for name in ManagerName if name is not ManagerName.AUTO]
    parser.add_argument("--manager", required=True, choices=names, help="the package manager that calls")
    parser.add_argument(
        "--caller", type=common.count, metavar="PID", help="its process (default: the one that started this)"
    )
    parser.add_argument("moment", metavar="MOMENT", choices=(BEFORE, AFTER), help="before or after its work")


def run(args: Namespace) -> int:
    """Do what the mode says; only where it is "required" may a failure end the package manager's run."""
    from snaptx import hook

    if hook.is_enclosed():
        return 0
    mode = HookMode.SNAPSHOT
    try:
        mode = config.load(args.sysroot, args.config).hooks.mode
        if mode is not HookMode.OFF:
            _perform(args, required=mode is HookMode.REQUIRED)
    except Exception as error:
        if mode is HookMode.REQUIRED and args.moment == BEFORE:
            raise
        _warn(args, error)
    return 0


def _perform(args: Namespace, *, required: bool) -> None:
    from snaptx import hook

    machine = _machine(args, required)
    if machine is None or args.dry_run:
        return
    caller = hook.Caller.of(args.manager, args.caller or os.getppid())
    request = common.request(args)._replace(message=f"{args.moment} {caller.command}")
    if args.moment == BEFORE:
        number = hook.before(machine, request, caller)
        text = f"snaptx: generation {number} is the system as it is before this" if number else ()
        common.emit(args, {"generation": number}, text)
    else:
        number, outcome = hook.after(machine, request, caller)
        back = f"'{options.program(args.sysroot)} rollback {number}'"
        text = f"snaptx: {back} goes back to before this" if outcome else ()
        common.emit(args, {"generation": number, "outcome": outcome}, text)


def _machine(args: Namespace, required: bool) -> Machine | None:
    """Return the machine, None if snaptx does not manage it and need not, or if its root is only staged.

    Who mounts a staged root and works in it, by chroot(8) for example, can abort it.
    """
    try:
        machine = common.machine(args, adopted=False)
        machine.require()
    except (LayoutError, NotFoundError, UsageError):
        if required:
            raise
        return None
    staged = machine.booted and machine.phase(machine.booted) is Phase.STAGED
    return None if staged else machine


def _warn(args: Namespace, error: Exception) -> None:
    """Say what went wrong; the package manager goes on."""
    reason = error.message if isinstance(error, SnaptxError) else f"{type(error).__name__}: {error}"
    failed = "no generation was made" if args.moment == BEFORE else "this is not on record"
    log.say(f"snaptx: warning: {failed}: {reason}")
    if hint := getattr(error, "hint", ""):
        log.say(f"  hint: {hint}")
