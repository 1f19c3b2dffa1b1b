"""``snaptx run``: a command in a fresh generation."""

from __future__ import annotations

import shlex
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence

from snaptx import enter, transaction
from snaptx.cli import apply as apply_verb
from snaptx.cli import common
from snaptx.enclosure.chroot import Streams
from snaptx.errors import CommandError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    apply_verb.add_staging(parser)
    parser.add_argument("--keep", action="store_true", help="keep the generation even if the command fails")
    parser.usage = "snaptx run [options] -- CMD ..."
    parser.add_argument("command", nargs=REMAINDER, metavar="-- CMD …", help="what to run")


def run(args: Namespace) -> int:
    """Run the command and stage what it changed."""
    command = common.command(args, "snaptx run -- apt-get upgrade")
    return perform(args, command, keep=args.keep, interactive=False)


def perform(args: Namespace, command: Sequence[str], *, keep: bool, interactive: bool) -> int:
    """Run ``command`` in a fresh generation, shared with ``shell``."""
    machine = common.machine(args)
    if args.dry_run:
        from snaptx import stage

        base = stage.choose_base(machine, args.base).number
        then = apply_verb.afterwards(args)
        text = f"would run in a copy of generation {base}{then}: {shlex.join(command) or 'a shell'}"
        common.emit(args, {"base": base, "command": command}, text)
        return 0
    request = common.request(args)
    with transaction.exclusive(machine, args.verb):
        # The result is the only thing on standard output then.
        streams = Streams(2, 2, heard=True) if args.json else None
        manner = enter.Manner(keep=keep, interactive=interactive, streams=streams)
        ran = enter.run(machine, request, command, base=args.base, manner=manner)
        failure = None
        if ran.killed or (ran.status and not interactive):
            name = "the shell was killed: it" if ran.killed else command[0]
            failure = CommandError(f"{name} ended with status {ran.status}", hint=_left(ran))
        args.commit = args.commit and not failure
        return apply_verb.finish(args, machine, ran.staged, ran.outcome, failure)


def _left(ran: enter.Ran) -> str:
    """Return what became of the work of a command that failed, with ``--keep``, or of a killed shell."""
    if ran.staged.number:
        return "what it left is kept and not committed: 'snaptx abort' discards it"
    return "it changed nothing, so nothing was kept"
