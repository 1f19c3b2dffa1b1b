"""``snaptx upgrade``: the distribution's full upgrade in a fresh generation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from snaptx import transaction, upgrade
from snaptx.cli import apply as apply_verb
from snaptx.cli import common
from snaptx.machine import Machine
from snaptx.upgrade import Prospect


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    apply_verb.add_staging(parser)


def run(args: Namespace) -> int:
    """Fetch what there is, and upgrade to it."""
    machine = common.machine(args)
    machine.require_writable()
    prospect = upgrade.prepare(machine, args.base, fetch=not args.dry_run)
    if not prospect.packages:
        common.emit(args, {"prospect": prospect}, "every package is up to date: no generation was made")
        return common.unchanged(args)
    if args.dry_run:
        common.emit(args, {"prospect": prospect}, _foreseen(args, prospect))
        return 0
    return _perform(args, machine, prospect)


def _perform(args: Namespace, machine: Machine, prospect: Prospect) -> int:
    request = common.request(args)
    about = request.message or f"upgrade of {len(prospect.packages)} package(s) by {prospect.manager}"
    with transaction.exclusive(machine, args.verb):
        ran = upgrade.upgrade(machine, request._replace(message=about), args.base, prospect)
        return apply_verb.finish(args, machine, ran.staged, ran.outcome)


def _foreseen(args: Namespace, prospect: Prospect) -> Iterator[str]:
    then = apply_verb.afterwards(args)
    yield f"would upgrade a copy of generation {prospect.base} by {prospect.manager}{then}:"
    for package in prospect.packages:
        yield f"  {package.name}  {package.old or '-'} -> {package.new or '-'}"
