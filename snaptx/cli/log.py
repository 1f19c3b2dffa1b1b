"""``snaptx log``: the audit trail."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from snaptx.audit import REPAIR_HINT
from snaptx.cli import common
from snaptx.errors import VerifyError
from snaptx.machine import Machine

SHOWN = 5
"""How many of a list a person gets to see; --json has them all."""

LISTED = (
    "carried",
    "conflicts",
    "conffiles",
    "left",
    "done",
    "removed",
    "converted",
    "paths",
    "restarted",
    "not_back",
)
"""What of a record is told item by item, up to SHOWN of them."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--verify", action="store_true", help="check that no record was altered, removed or moved"
    )
    parser.add_argument("--last", type=common.count, metavar="COUNT", help="only the newest COUNT records")
    parser.add_argument(
        "--generation", "-g", type=common.generation, metavar="N", help="only what concerns this generation"
    )


def run(args: Namespace) -> int:
    """Show or check the trail."""
    return show(args, common.machine(args))


def show(args: Namespace, machine: Machine) -> int:
    """Show or check the trail of ``machine``."""
    if args.verify:
        count = machine.audit.verify()
        common.emit(args, {"records": count, "sound": True}, f"{count} records, an unbroken chain")
        return 0
    wanted = args.generation
    records = (record for record in machine.audit.records() if wanted is None or _concerns(record, wanted))
    chosen = list(records if args.last is None else _newest(records, args.last))
    common.emit(args, chosen, (line for record in chosen for line in _told(record)))
    return 0


def _newest(records: Iterable[dict[str, Any]], count: int) -> Iterable[dict[str, Any]]:
    """Return the last ``count`` records, however many there are, without holding more of them than that."""
    return deque(records, maxlen=min(count, sys.maxsize))


def _concerns(record: dict[str, Any], number: int) -> bool:
    removed = record.get("removed")
    return number == record.get("generation") or (isinstance(removed, list) and number in removed)


def _told(record: dict[str, Any]) -> list[str]:
    try:
        return list(_lines(record))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError) as error:
        raise VerifyError(f"audit record {record['seq']} is damaged: {error}", hint=REPAIR_HINT) from error


def _lines(record: dict[str, Any]) -> Iterator[str]:
    who = record.get("who", {})
    name = who.get("sudo_user") or who.get("user", "?")
    number = f" {record['generation']}" if record.get("generation") else ""
    seconds = f", {record['seconds']:.2f} s" if "seconds" in record else ""
    did = f"{record.get('verb')}{number}  {record.get('result')}{seconds}"
    yield f"{record['seq']:4d}  {common.date(record['time'])}  {did}  by {name}"
    if record.get("message"):
        yield f"      why: {record['message']}"
    yield f"      {shlex.join(record.get('argv', []))}"
    if counts := record.get("counts"):
        yield f"      {counts['added']} added, {counts['changed']} changed, {counts['removed']} removed"
    if packages := record.get("packages"):
        from snaptx.cli import packaging

        yield f"      packages: {packaging.summary(packages)}"
    yield from (f"      {line}" for line in _details(record))
    if error := record.get("error"):
        remedy = f" ({record['remedy']})" if "remedy" in record else ""
        yield f"      {error['type']}: {error['message']}{remedy}"


def _details(record: dict[str, Any]) -> Iterator[str]:
    if payload := record.get("payload"):
        yield f"payload: {payload['source']}, sha256 {payload['sha256']}"
    if verdict := record.get("verdict"):
        yield f"verdict: {verdict}" + (f", {record['reason']}" if record.get("reason") else "")
    for name in LISTED:
        if found := record.get(name):
            yield f"{name}: {', '.join(map(str, found[:SHOWN]))}" + (" …" if len(found) > SHOWN else "")
