"""``snaptx list``: the generations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx import scene
from snaptx.cli import common
from snaptx.model import View, jsonable

HEADER = ("NR", "MARKS", "STATE", "DATE", "BASE", "CHANGED", "MESSAGE")
LEGEND = "N running now, L live, R after reboot, T on trial, G good, B bad, P pinned"


def _row(view: View) -> tuple[str, ...]:
    generation = view.generation
    return (
        str(view.number),
        view.marks or "-",
        view.phase.value,
        common.date(generation.created),
        str(generation.content or generation.base or "-"),
        str(generation.counts.touched or "-"),
        generation.message or generation.verb,
    )


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing."""
    parser.epilog = LEGEND


def run(args: Namespace) -> int:
    """Show the generations, oldest first."""
    views = scene.views(common.machine(args))
    body = [
        {
            **jsonable(view.generation),
            "phase": view.phase,
            "booted": view.booted,
            "default": view.default,
            "live": view.live,
            "marks": view.marks,
        }
        for view in views
    ]
    common.emit(args, body, common.table([HEADER, *map(_row, views)]))
    return 0
