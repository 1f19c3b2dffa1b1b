"""What ``init`` and ``status`` have to do with data that no rollback may take back."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass

from snaptx import places
from snaptx.cli import common, options
from snaptx.machine import Machine
from snaptx.sharing import conversions, convert, residents, rules
from snaptx.sharing.convert import Converted
from snaptx.sharing.rules import Finding


@dataclass(frozen=True, slots=True)
class Sharing:
    """What was found, and which paths are to be converted."""

    findings: tuple[Finding, ...]
    chosen: tuple[str, ...]
    kept: tuple[str, ...]

    def steps(self) -> Iterator[str]:
        """Yield what would be done, in plain words."""
        for path in self.chosen:
            name = rules.subvolume_name(path)
            yield f"copy {path} into the subvolume {name}, sharing its blocks, and let fstab mount it"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``init`` that decide about data inside the root."""
    parser.add_argument(
        "--convert", action="store_true", help="move data inside the root into subvolumes of its own"
    )
    parser.add_argument(
        "--keep",
        action="append",
        type=options.filled,
        default=[],
        metavar="PATH",
        help="leave this inside; may be repeated",
    )
    parser.add_argument(
        "--accept-rollback", action="store_true", help="leave all of it inside: a rollback takes it back"
    )


def check(args: Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: they do.
    """
    if args.undo:
        keeping = {"--keep": args.keep, "--accept-rollback": args.accept_rollback}
        common.exclusive("--undo", {"--convert": args.convert, **keeping})
    if args.convert:
        common.exclusive("--convert", {"--accept-rollback": args.accept_rollback})


def plan(args: Namespace, machine: Machine) -> Sharing:
    """Decide what becomes of the data inside the root.

    Raises:
        LayoutError: a rollback would take data back and nobody has said that it may.
    """
    kept = tuple("/" + path.strip("/") for path in args.keep)
    findings = residents.look(machine)
    chosen = tuple(one.path for one in rules.chosen(findings, kept)) if args.convert else ()
    convert.check(machine, chosen)
    if not args.accept_rollback and not args.convert:
        rules.require_safe(findings, kept)
    return Sharing(findings, chosen, kept)


def steps(machine: Machine, sharing: Sharing) -> Iterator[str]:
    """Yield what would be done on a machine that was adopted before, in plain words."""
    yield from sharing.steps()
    yield from (f"go on with {path}, which waits for its mount" for path in conversions.waiting(machine))


def perform(args: Namespace, machine: Machine, sharing: Sharing) -> tuple[Converted, ...]:
    """Convert what was chosen, and go on with what waits for its mount."""
    if not args.convert or not (sharing.chosen or conversions.waiting(machine)):
        return ()
    return convert.convert(machine, common.request(args), sharing.chosen)


def describe(done: tuple[Converted, ...]) -> Iterator[str]:
    """Yield what became of the converted places."""
    for one in done:
        when = "mounted" if one.mounted else "in use, so it is mounted at the next boot"
        yield f"{one.path} is the subvolume {one.subvolume}: {when}"
        if one.brought:
            yield f"  brought over, changed meanwhile: {len(one.brought)} path(s)"
        if one.conflicts:
            yield f"  changed on both sides, left as they are: {', '.join(one.conflicts)}"


def proposal(sharing: Sharing) -> Iterator[str]:
    """Yield a line about what goes back with a rollback, if anything does."""
    found = [one for one in residents.inside(sharing.findings) if not _goes(one, sharing)]
    if found:
        yield f"goes back with a rollback: {', '.join(map(str, found))}"


def _goes(one: Finding, sharing: Sharing) -> bool:
    return places.is_below(one.path, sharing.chosen)
