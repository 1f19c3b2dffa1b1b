"""``snaptx init``: adopt the root, or let go of it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator

from snaptx import initialise, undo
from snaptx.bootloader import kernels
from snaptx.cli import common, sharing
from snaptx.machine import Machine
from snaptx.model import jsonable
from snaptx.packages.choose import MANAGERS
from snaptx.sharing import outside, swapping


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--no-boot-loader", action="store_true", help="do not make the machine start by snaptx's menu"
    )
    parser.add_argument("--undo", action="store_true", help="start as before snaptx, and remove what it made")
    sharing.add_arguments(parser)
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Adopt the root, or say that this was done."""
    sharing.check(args)
    if args.undo:
        common.exclusive("--undo", {"--no-boot-loader": args.no_boot_loader})
        return _undo(args)
    machine = common.machine(args, adopted=False)
    if initialise.is_complete(machine):
        return _again(args, machine)
    initialise.require_fit(machine)
    outside.require_inside(machine)
    swapping.require_none(machine)
    plan = initialise.plan(machine, boot_loader=not args.no_boot_loader)
    data, apart = sharing.plan(args, machine), outside.databases(machine, MANAGERS.values())
    notes = [*sharing.proposal(data), *_left(apart)]
    if not args.no_boot_loader:
        notes += [*_other_kernel(machine), *_other_words(machine)]
    if args.dry_run:
        steps = (*data.steps(), *plan.steps)
        found = {"steps": steps, "shared": data, "outside": apart}
        common.emit(args, jsonable(plan) | found, [*_would(steps), *notes])
        return 0
    converted = sharing.perform(args, machine, data)
    with common.Progress(args, "indexing") as progress:
        record = initialise.initialise(machine, common.request(args), progress)
    text = [*sharing.describe(converted), f"generation 1 is {plan.root}, as it is", *notes]
    if not args.no_boot_loader and initialise.take_over(machine, common.request(args)):
        text.append("the machine starts by snaptx's menu from now on")
    done = {"changed": True, "generation": record, "converted": converted, "outside": apart}
    common.emit(args, done, text)
    return 0


def _again(args: Namespace, machine: Machine) -> int:
    """Do what an earlier init did not come to.

    Raises:
        ReadOnlyError: nothing can be written, and what a failed disk still shows may never have been.
    """
    machine.require_writable()
    initialise.require_ours(machine)
    if args.convert:
        return _convert(args, machine)
    due = () if args.no_boot_loader else initialise.boot_steps_due(machine)
    if due and args.dry_run:
        common.emit(args, {"steps": due}, _would(due))
        return 0
    if due and initialise.take_over(machine, common.request(args)):
        common.emit(args, {"changed": True}, "the machine starts by snaptx's menu from now on")
        return 0
    common.emit(args, {"changed": False}, f"{machine.sysroot} is managed by snaptx already")
    return common.unchanged(args)


def _left(databases: tuple[str, ...]) -> Iterator[str]:
    """Yield a line about package databases outside the root, if there are any."""
    if databases:
        yield (
            f"does not go back with a rollback: {', '.join(databases)} (what is installed, outside the root);"
            " 'snaptx upgrade' does nothing here"
        )


def _other_kernel(machine: Machine) -> Iterator[str]:
    """Yield a line about the kernel that runs, if the menu would start another one."""
    release = kernels.running(machine.sysroot)
    if release and (found := kernels.passed_over(machine.sysroot, release)):
        ours, other = (kernel.image.name for kernel in found)
        yield (
            f"the menu starts {other}, not {ours}, which runs;"
            f" {kernels.TOP_LEVEL}=/boot/{ours} in /etc/default/grub makes it that one"
        )


def _other_words(machine: Machine) -> Iterator[str]:
    """Yield a line about what the kernel that runs was told, if the menu would not tell it."""
    if lost := kernels.untold(machine.sysroot, kernels.told(machine.sysroot)):
        place = kernels.arguments(machine.sysroot).file
        yield f"the running kernel was told {' '.join(lost)}, the menu does not: what counts is {place}"


def _would(steps: Iterable[str]) -> list[str]:
    return ["would:", *(f"  - {step}" for step in steps)]


def _convert(args: Namespace, machine: Machine) -> int:
    """Convert what lies inside the root of a machine that was adopted before."""
    data = sharing.plan(args, machine)
    if args.dry_run and (steps := tuple(sharing.steps(machine, data))):
        common.emit(args, {"shared": data}, _would(steps))
        return 0
    done = () if args.dry_run else sharing.perform(args, machine, data)
    text = [*sharing.describe(done)] or "there is nothing to convert"
    common.emit(args, {"changed": bool(done), "converted": done}, text)
    return 0 if done else common.unchanged(args)


def _undo(args: Namespace) -> int:
    machine = common.machine(args)
    if args.dry_run:
        planned = undo.plan(machine)
        common.emit(args, planned, _would(planned.steps))
        return 0
    undo.undo(machine, common.request(args))
    common.emit(args, {"changed": True}, "snaptx is off this machine; it starts as before")
    return 0
