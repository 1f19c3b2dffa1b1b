"""``snaptx live``: a generation under the running system at once."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from snaptx import live, scene, transaction
from snaptx.cli import common, options, paths
from snaptx.live import Switched
from snaptx.machine import Machine
from snaptx.overlay.failure import from_root


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    common.add_number(parser, "the generation (default: show what is live)")
    add("--off", action="store_true", help="take away what is live: what booted is seen again")
    add("--etc", action="store_true", help="its /etc as well, with what was changed in the running one")
    common.add_conflicts(parser)
    add("--force", action="store_true", help="also where the C library, systemd or modules are others")
    common.add_message(parser)
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Show what is live, or switch."""
    if args.off:
        common.exclusive("a generation", {"--off": args.number is not None})
    machine = common.machine(args)
    if not args.off and args.number is None:
        since = scene.note(machine).since
        text = (
            f"{scene.said(machine)}, since {common.date(since)}" if scene.live(machine) else "nothing is live"
        )
        common.emit(args, {"live": scene.live(machine), "since": since}, text)
        return 0
    if args.dry_run:
        return _rehearse(args, machine)
    with transaction.exclusive(machine, args.verb):
        done = perform(args, machine, args.number or 0)
    if done is None:
        return _unchanged(args)
    common.emit(args, done, describe(done, args.sysroot))
    return 0


def _unchanged(args: Namespace) -> int:
    common.emit(args, {"unchanged": True}, "nothing to do: it is so already")
    return common.unchanged(args)


def perform(args: Namespace, machine: Machine, number: int) -> Switched | None:
    """Make generation ``number`` live, 0 for what booted; the caller holds the lock.  None if it is."""
    chosen = live.choose(machine, number, force=args.force, with_etc=args.etc)
    if not live.is_due(machine, chosen):
        return None
    policy = common.conflicts(args)
    return live.make(machine, common.request(args), chosen, policy)


def _rehearse(args: Namespace, machine: Machine) -> int:
    chosen = live.choose(machine, args.number or 0, force=args.force, with_etc=args.etc)
    if not live.is_due(machine, chosen):
        return _unchanged(args)
    what = f"generation {chosen.number}" if chosen.number else "what booted"
    lines = [f"would show {what} at {', '.join(chosen.paths)}"]
    lines += [f"  in spite of: {one.reason}" for one in chosen.obstacles]
    common.emit(args, chosen, lines)
    return 0


def describe(done: Switched, sysroot: Path) -> Iterator[str]:
    """Say what is live at ``sysroot`` in words."""
    what = f"generation {done.number} is live" if done.number else "what booted is seen again"
    pause = f"{done.pause_seconds * 1e6:.0f} \N{MICRO SIGN}s"
    yield f"{what} at {', '.join(done.paths)}; the switch took {pause}"
    if len(done.paths) > 1:
        yield "  one right after the other, in this order"
    if done.carried:
        yield f"  brought along in /etc: {paths.named(done.carried)}"
    for path in done.conflicts:
        yield f"  changed on both sides: {from_root(path)}"
    for owner in done.apart:
        yield f"  restart {owner.name} ({owner.kind}): the mounts of its own did not follow"
    if done.number:
        program = options.program(sysroot)
        yield f"  '{program} ps' shows who still uses what was replaced, '{program} live --off' goes back"
