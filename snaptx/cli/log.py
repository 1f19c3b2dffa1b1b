"""``snaptx log``: the audit trail."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from snaptx.cli import common


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--verify", action="store_true", help="check that no record was altered, removed or moved"
    )
    parser.add_argument("--last", type=int, metavar="COUNT", help="only the newest COUNT records")
    parser.add_argument(
        "--generation", "-g", type=int, metavar="N", help="only what concerns this generation"
    )


def run(args: Namespace) -> int:
    """Show or check the trail."""
    machine = common.machine(args)
    if args.verify:
        count = machine.audit.verify()
        common.emit(args, {"records": count, "sound": True}, f"{count} records, an unbroken chain")
        return 0
    records = [
        record for record in machine.audit.records() if args.generation in (None, record.get("generation"))
    ]
    chosen = records[-args.last :] if args.last else records
    common.emit(args, chosen, (line for record in chosen for line in _lines(record)))
    return 0


def _lines(record: dict[str, Any]) -> Iterator[str]:
    who = record.get("who", {})
    name = who.get("sudo_user") or who.get("user", "?")
    number = f" {record['generation']}" if record.get("generation") else ""
    seconds = f", {record['seconds']:.2f} s" if "seconds" in record else ""
    did = f"{record.get('verb')}{number}  {record.get('result')}{seconds}"
    yield f"{record['seq']:4d}  {common.date(record['time'])}  {did}  by {name}"
    if record.get("message"):
        yield f"      why: {record['message']}"
    yield f"      {' '.join(record.get('argv', []))}"
    if counts := record.get("counts"):
        yield f"      {counts['added']} added, {counts['changed']} changed, {counts['removed']} removed"
    if error := record.get("error"):
        yield f"      {error['type']}: {error['message']} ({record.get('remedy')})"
