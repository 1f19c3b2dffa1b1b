"""``snaptx apply``: lay an update over a fresh generation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from snaptx import stage, transaction
from snaptx.cli import common, options
from snaptx.errors import SnaptxError
from snaptx.machine import Machine
from snaptx.stage import Staged

if TYPE_CHECKING:
    from snaptx.inventory import Outcome
    from snaptx.liveswitch import Plan


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add(
        "payload",
        type=options.filled,
        metavar="PAYLOAD",
        help="a directory, a tar (plain, gz, bz2, xz, zst), or - for standard input",
    )
    add("--sha256", metavar="HEX", help="refuse any other payload")
    add("--allow-devices", action="store_true", help="let the payload make device nodes")
    add("--idle", action="store_true", help="let every other process go first while it is written")
    add("--live", action="store_true", help="put it under the running system at once")
    add_staging(parser)


def add_staging(parser: ArgumentParser, when: str = "at once") -> None:
    """Add what all verbs take that stage a generation; ``when`` it is committed if asked."""
    add = parser.add_argument
    add(
        "--base",
        type=common.generation,
        metavar="N",
        help="start from generation N (default: what is staged, else the default)",
    )
    common.add_message(parser, common.IN_THE_MENU)
    add("--commit", action="store_true", help=f"commit {when}")
    common.add_conflicts(parser)
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Stage the payload, commit it if asked."""
    machine = common.machine(args)
    if args.dry_run:
        return _rehearse(args, machine)
    with transaction.exclusive(machine, args.verb), common.Progress(args, "staging") as progress:
        staged = stage.apply(
            machine,
            args.payload,
            common.request(args),
            base=args.base,
            sha256=args.sha256,
            allow_devices=args.allow_devices,
            idle=args.idle,
            progress=progress,
            reread=progress.reread,
        )
        progress.close()
        return finish(args, machine, staged)


def finish(
    args: Namespace,
    machine: Machine,
    staged: Staged,
    outcome: Outcome | None = None,
    failure: SnaptxError | None = None,
) -> int:
    """Say what was staged, and make it live and commit it if asked; the caller holds the lock.

    ``outcome`` is what became of packages.

    Raises:
        SnaptxError: that failed, or it is the ``failure`` that what was staged was left by.
    """
    if not staged.number:
        common.emit(args, {"staged": staged}, "nothing changed: no generation was made", failure)
        return common.unchanged(args)
    result: dict[str, Any] = {"staged": staged, **({"outcome": outcome} if outcome else {})}
    lines = list(describe(staged, outcome))
    # What stands against it is to be known before anything boots that was to be live first.
    going = _going_live(args, machine, staged.number)
    if args.commit:
        from snaptx.cli import commit as commit_verb

        result["committed"] = commit_verb.perform(args, machine, staged.number)
        lines += commit_verb.describe(result["committed"])
    if going:
        from snaptx import live
        from snaptx.cli import live as live_verb

        result["live"] = live.make(machine, common.request(args), going)
        lines += live_verb.describe(result["live"], args.sysroot)
    if not args.commit:
        program = options.program(args.sysroot)
        lines.append(f"'{program} commit' makes it boot, '{program} abort' discards it")
    common.emit(args, result, lines, failure)
    return 0


def _going_live(args: Namespace, machine: Machine, number: int) -> Plan | None:
    """Return how to make a generation live, None if nobody asked for it."""
    if not getattr(args, "live", False):
        return None
    from snaptx import live

    return live.choose(machine, number, force=False)


def describe(staged: Staged, outcome: Outcome | None = None) -> list[str]:
    """Return what was staged in words."""
    counts = staged.counts
    packages = _packages(outcome) if outcome else ()
    grown = f", with the work of {', '.join(map(str, staged.replaced))}" if staged.replaced else ""
    return [
        f"generation {staged.number} is staged, from {staged.base}{grown}",
        f"  {counts.added} added, {counts.changed} changed, {counts.removed} removed, "
        f"{counts.unchanged} unchanged, {common.size(counts.bytes_written)} written",
        *packages,
    ]


def _packages(outcome: Outcome) -> list[str]:
    from snaptx.cli import packaging

    return list(packaging.told(outcome))


def _rehearse(args: Namespace, machine: Machine) -> int:
    """Read the whole payload as apply would and count, without making a generation."""
    base = stage.choose_base(machine, args.base)
    members, payload = stage.rehearse(
        machine, args.payload, sha256=args.sha256, allow_devices=args.allow_devices
    )
    text = f"would stage {members} members ({payload.sha256[:16]}…) over generation {base.number}"
    common.emit(args, {"base": base.number, "members": members, "payload": payload}, text + afterwards(args))
    return 0


def afterwards(args: Namespace) -> str:
    """Return what the options would have done with what is staged, to follow what says so."""
    commit = " and commit it" if args.commit else ""
    return commit + (" and make it live" if getattr(args, "live", False) else "")
