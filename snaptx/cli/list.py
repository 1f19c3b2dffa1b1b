"""``snaptx list``: the generations."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Container, Sequence
from typing import Any

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
    show(args, views, {view.number for view in views if view.booted})
    return 0


def show(args: Namespace, views: Sequence[View], running: Container[int]) -> None:
    """Print generations, of which those in ``running`` run: the root, or instances of an application."""
    body = [_told(view, running) for view in views] if args.json else []
    common.emit(args, body, common.table([HEADER, *map(_row, views)]))


def _told(view: View, running: Container[int]) -> dict[str, Any]:
    return {
        **jsonable(view.generation),
        "phase": view.phase,
        "booted": view.booted,
        "default": view.default,
        "live": view.live,
        "marks": view.marks,
        "running": view.number in running,
    }
