"""``snaptx publish``: make and sign the index of a directory of overlays."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from snaptx import system
from snaptx.cli import common, options
from snaptx.errors import UsageError
from snaptx.update import index, publish
from snaptx.update.index import Entry, Index

DAYS = 30


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("directory", metavar="DIR", type=options.path, help="where the overlays lie, as tar files")
    add(
        "--key",
        metavar="FILE",
        type=options.path,
        help="the private key to sign with (default: say how to sign)",
    )
    add("--name", metavar="NAME", help="what machines call it (default: as the directory is called)")
    add("--message", "-m", metavar="TEXT", help="what the new overlays are for")
    add("--days", metavar="COUNT", type=common.count, default=DAYS, help="how long it is true (default: 30)")


def run(args: Namespace) -> int:
    """Publish."""
    if args.dry_run:
        raise UsageError("publish has no --dry-run", hint="it changes nothing but the index in DIR")
    made, fresh = publish.publish(
        args.directory,
        name=args.name,
        message=args.message or "",
        days=args.days,
        now=system.now(),
        key=_read(args.key) if args.key else None,
    )
    common.emit(args, {"index": made, "new": fresh}, _lines(args, made, fresh))
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"can't read the key {path}: {error.strerror}", hint="name a private key") from error


def _lines(args: Namespace, made: Index, fresh: tuple[Entry, ...]) -> Iterator[str]:
    yield f"'{made.name}' has version {made.version}, until {common.date(made.expires)}"
    yield from (f"  {entry.number}: {entry.file}, {common.size(entry.size)}" for entry in fresh)
    if not args.key:
        path, signed = (shlex.quote(str(args.directory / name)) for name in (index.NAME, index.SIGNATURE))
        yield "it is not signed yet; where the key is:"
        yield f"  openssl pkeyutl -sign -rawin -inkey KEY -in {path} -out {signed}"
