"""``snaptx diff``: what differs between two generations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from snaptx import difference
from snaptx.cli import common
from snaptx.errors import NotFoundError
from snaptx.machine import Machine
from snaptx.model import Change, Counts, Op, Part, Tree
from snaptx.overlay.failure import from_root


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "old",
        nargs="?",
        type=common.generation,
        metavar="A",
        help="from this generation (default: the base of B)",
    )
    parser.add_argument(
        "new", nargs="?", type=common.generation, metavar="B", help="to this one (default: the newest)"
    )
    parser.add_argument("--stat", action="store_true", help="only how much differs")
    parser.add_argument("--packages", action="store_true", help="the packages instead of the files")
    parser.add_argument("--name-only", action="store_true", help="only the paths")
    parser.epilog = "one number alone is B: what that generation changed"


def choose(machine: Machine, old: int | None, new: int | None) -> tuple[int, int]:
    """Return the two generations to compare; a lone number is the newer one."""
    if new is None:
        newest = machine.generations.recorded()[-1].number
        new, old = (newest, None) if old is None else (old, None)
    record = machine.generations.read(new)
    return (record.base or record.number) if old is None else machine.generations.read(old).number, new


@contextmanager
def _trees(machine: Machine, old: int, new: int) -> Iterator[tuple[Tree, Tree]]:
    """Give a read-only tree of each of the two; ``old`` may be a base that was removed."""
    if machine.generations.has(old):
        with difference.readable(machine, old, new) as (older, newer):
            yield older, newer
        return
    origin = Tree(new, Part.ORIGIN)
    if not machine.storage.name(origin):
        hint = f"name another: snaptx diff A {new}"
        raise NotFoundError(f"generation {old}, the base of {new}, was removed", hint=hint)
    with difference.readable(machine, new) as (newer,):
        yield origin, newer


def run(args: Namespace) -> int:
    """Show the differences."""
    machine = common.machine(args)
    old, new = choose(machine, args.old, args.new)
    with _trees(machine, old, new) as (older, newer):
        if args.packages:
            _show_packages(args, machine, (old, older), (new, newer))
            return 0
        brief = args.stat or (args.name_only and not args.json)
        changes = difference.of_generations(machine, older, newer, brief=brief)
        if args.stat:
            counts = difference.tally(changes)
            common.emit(args, {"old": old, "new": new, "counts": counts}, _stat(old, new, counts))
        elif args.json:
            common.emit(args, {"old": old, "new": new, "changes": list(changes)}, "")
        else:
            common.emit(args, None, _lines(changes, names_only=args.name_only))
    return 0


def _show_packages(
    args: Namespace, machine: Machine, older: tuple[int, Tree], newer: tuple[int, Tree]
) -> None:
    """Show what differs in packages, with ``--stat`` only how much, with ``--name-only`` only which."""
    from snaptx import inventory  # not for those who ask for files
    from snaptx.cli import packaging

    (old, old_tree), (new, new_tree) = older, newer
    found = inventory.between(machine, old_tree, new_tree)
    by_kind = packaging.counted(found.packages)
    result = {"old": old, "new": new, "manager": found.manager, "packages": by_kind}
    if args.stat:
        text = [f"generation {old} to {new}: packages: {packaging.summary(by_kind)}"]
    elif args.name_only:
        text = sorted(package.name for packages in by_kind.values() for package in packages)
    else:
        text = list(packaging.lines(found.packages))
    common.emit(args, result, text)


def _stat(old: int, new: int, counts: Counts) -> str:
    return (
        f"generation {old} to {new}: {counts.added} added, {counts.changed} changed, "
        f"{counts.removed} removed, {common.size(counts.bytes_written)} in new and changed files"
    )


def _lines(changes: Iterable[Change], *, names_only: bool) -> Iterator[str]:
    for change in changes:
        path = from_root(change.path)
        if names_only:
            yield path
        elif change.op is Op.RENAMED:
            yield f"{change.op.value} {from_root(change.renamed_from)} -> {path}"
        else:
            about = ", ".join(change.aspects)
            sizes = (
                f" {change.old_size} -> {change.new_size} bytes" if change.old_size != change.new_size else ""
            )
            yield f"{change.op.value} {path}" + (f"  [{about}]" if about else "") + sizes
