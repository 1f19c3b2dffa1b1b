"""``snaptx repair``: put right what can be put right."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from snaptx import log, reconcile, recover, repair, switch, system, transaction, verify
from snaptx.apps import mend
from snaptx.cli import common, sharing
from snaptx.machine import Machine
from snaptx.overlay.failure import from_root
from snaptx.reconcile import Arrival, Reconciled, Why
from snaptx.sharing import conversions, convert


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--boot", action="store_true", help="record what this boot has shown (for snaptx-boot.service)"
    )
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Repair, and say what was done."""
    machine = common.machine(args)
    if args.boot:
        return _boot(args, machine)
    if args.dry_run:
        problems = [*verify.state(machine), *mend.problems(machine)]
        lines = [f"{problem.where}: {problem.what}" for problem in problems]
        old = switch.outdated(machine) if not problems else []
        lines += [f"generation {number}: its kernel is told other words than configured" for number in old]
        common.emit(args, {"problems": problems, "outdated": old}, lines or "nothing to repair")
        return 0 if lines else common.unchanged(args)
    done = repair.repair(machine, common.request(args))
    if conversions.waiting(machine):
        with transaction.exclusive(machine, args.verb):
            done += sharing.describe(convert.settle(machine, common.request(args)))
    done += mend.mend(machine, common.request(args))
    common.emit(args, {"done": done}, done or "nothing to repair")
    return 0 if done else common.unchanged(args)


def _boot(args: Namespace, machine: Machine) -> int:
    live = system.is_running_root(machine.sysroot)
    why = reconcile.why_booted() if live else Why.NOTHING
    if args.dry_run:
        arrival = reconcile.judge(machine.boot_state(), machine.booted, why)
        common.emit(args, {"arrival": arrival}, f"generation {machine.booted} runs: {arrival}")
        return 0
    with transaction.exclusive(machine, args.verb):
        recover.renew(machine)
        done = reconcile.reconcile(machine, common.request(args), why)
        settled = convert.settle(machine, common.request(args))
    mended = mend.mend(machine, common.request(args))
    if machine.installer and machine.installer.is_replaced():
        log.warning("the machine does not start by snaptx's menu any more: 'snaptx repair' puts that right")
    common.emit(args, done, [*_lines(done), *sharing.describe(settled), *mended])
    return 0


def _lines(done: Reconciled) -> Iterator[str]:
    if done.arrival is Arrival.FOREIGN:
        yield "the root that runs is no generation; nothing was changed"
        return
    yield f"generation {done.booted} runs: {done.arrival}"
    if done.failed:
        yield f"generation {done.failed} does not: {done.reason}"
    if done.late.carried:
        yield f"brought over from the root before: {len(done.late.carried)} late change(s)"
    for path in done.late.conflicts:
        yield f"changed in both roots, the new version was kept: {from_root(path)}"
