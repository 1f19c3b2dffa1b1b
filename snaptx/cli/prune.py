"""``snaptx prune``: remove old generations, of the system and of its applications."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from snaptx import prune, transaction
from snaptx.apps import logs
from snaptx.cli import common
from snaptx.errors import SnaptxError
from snaptx.machine import Machine
from snaptx.prune import Pruned
from snaptx.retention import Decision
from snaptx.storage.base import APPS

if TYPE_CHECKING:
    from snaptx.apps.application import App

Result = TypeVar("Result", bound="Pruned | Decision")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "numbers",
        nargs="*",
        type=common.generation,
        metavar="N",
        help="these generations (default: by the rules)",
    )
    parser.add_argument(
        "--keep",
        type=common.count,
        metavar="COUNT",
        help="how many of the newest stay (default: as configured)",
    )
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Remove what the rules let go, of applications too, or the generations named of the system."""
    _require_one(args)
    machine = common.machine(args)
    failures: list[SnaptxError] = []
    if args.dry_run:
        plan = prune.plan(machine, args.numbers, args.keep)
        plans = _of_apps(args, machine, failures, lambda app: prune.plan(app.machine, (), args.keep))
        return _end(args, plan, plans, _planned, failures)
    with transaction.exclusive(machine, args.verb):
        plan = prune.plan(machine, args.numbers, args.keep)
        done = prune.prune(machine, common.request(args), plan.expendable)
    others = _of_apps(args, machine, failures, partial(_tidied, args))
    logs.bound_all(machine.sysroot)
    return _end(args, done, others, _done, failures)


def run_app(args: Namespace, app: App) -> int:
    """Remove what the rules let go of one application, or the generations named."""
    _require_one(args)
    if args.dry_run:
        return _end(args, prune.plan(app.machine, args.numbers, args.keep), {}, _planned, [])
    return _end(args, _tidied(args, app), {}, _done, [])


def _require_one(args: Namespace) -> None:
    if args.numbers:
        common.exclusive("numbers", {"--keep": args.keep is not None})


def _tidied(args: Namespace, app: App) -> Pruned:
    from snaptx.apps import tidy  # what moves applications takes longer to load than most prunes

    return tidy.tidy(app, common.request(args), args.numbers, args.keep)


def _of_apps(
    args: Namespace, machine: Machine, failures: list[SnaptxError], act: Callable[[App], Result]
) -> dict[str, Result]:
    """Return what ``act`` returns for each application, if it is the rules that decide."""
    if args.numbers or not (machine.storage.state / APPS).exists():
        return {}
    from snaptx.apps import tidy

    return tidy.each(machine, failures, act)


def _end(
    args: Namespace,
    own: Result,
    others: Mapping[str, Result],
    told: Callable[[Result], Iterator[str]],
    failures: list[SnaptxError],
) -> int:
    lines = [*told(own), *(f"{name}: {line}" for name, found in others.items() for line in told(found))]
    more = {} if args.verb == "app" else {"applications": others}
    common.emit(args, {**own._asdict(), **more}, lines, failures[0] if failures else None)
    acted = any(_is_something(found) for found in (own, *others.values()))
    return 0 if acted else common.unchanged(args)


def _is_something(found: Pruned | Decision) -> bool:
    return bool(found.removed if isinstance(found, Pruned) else found.expendable)


def _planned(plan: Decision) -> Iterator[str]:
    yield f"would remove: {_named(plan.expendable)}"
    yield from (f"stays: {number} ({why})" for number, why in plan.protected.items())


def _done(done: Pruned) -> Iterator[str]:
    yield f"removed: {_named(done.removed)}"
    if done.busy:
        yield f"still in use, left: {_named(done.busy)}"


def _named(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) or "nothing"
