"""``snaptx exec``: a command in any generation's tree, on today's machine."""

from __future__ import annotations

import shlex
from argparse import REMAINDER, ArgumentParser, Namespace

from snaptx import visit
from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--generation",
        "-g",
        type=common.generation,
        metavar="N",
        required=True,
        help="the generation whose tree is used",
    )
    parser.add_argument(
        "--user", "-u", metavar="USER", help="run it for this user (default: who called sudo, else root)"
    )
    parser.usage = "snaptx exec -g N [options] -- CMD ..."
    parser.add_argument("command", nargs=REMAINDER, metavar="-- CMD …", help="what to run")


def run(args: Namespace) -> int:
    """Become the command."""
    command = common.command(args, f"snaptx exec -g {args.generation} -- vim file")
    machine = common.machine(args)
    plan = visit.plan(machine, args.generation, args.user)
    if not args.dry_run:
        visit.go(machine, plan, args.generation, common.request(args), command)
    who = plan.caller.name if plan.caller else "root"
    today = [inside for _, inside in plan.shared]
    result = {"generation": args.generation, "command": command, "user": who, "today": today}
    text = f"would run in generation {args.generation} as {who}: {shlex.join(command)}"
    common.emit(args, result, [text, f"of today: {', '.join(today)}"])
    return 0
