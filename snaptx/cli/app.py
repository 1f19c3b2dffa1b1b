"""``snaptx app``: application trees, versioned as the system is, switched without a restart."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import Any

from snaptx import commit, log, rollback, stage
from snaptx.apps import application, instances, move
from snaptx.apps.application import App
from snaptx.apps.move import Moved
from snaptx.apps.runners import Instance
from snaptx.cli import apply as apply_verb
from snaptx.cli import common, options, paths
from snaptx.cli import list as list_verb
from snaptx.cli import log as log_verb
from snaptx.cli import prune as prune_verb
from snaptx.cli.common import Progress
from snaptx.errors import BootError, BusyError, NotFoundError, SnaptxError, UsageError
from snaptx.machine import Machine
from snaptx.overlay.failure import from_root

ACTIONS = {
    "create": "make an empty application tree",
    "apply": "lay an update over a fresh generation of it",
    "switch": "move over to a staged generation: start, check, hand on, stop the old",
    "rollback": "move back to an earlier generation",
    "start": "start what it is at, with --all of every application",
    "stop": "end what runs of it, with --all of every application",
    "prune": "remove generations of it that nobody needs",
    "remove": "remove one that does not run, with all its generations",
    "list": "the applications, or the generations of one",
    "log": "the audit trail of one",
}
OF_ALL = ("start", "stop")
"""What can be done to all of them."""

PLANNED = {"create", "apply", "switch", "rollback", "start", "stop", "remove"}
"""What changes something, but for ``prune``, which tells itself what it would do."""

CURES = {
    "list": "snaptx app list",
    "apply": "snaptx app apply",
    "commit": "snaptx app switch",
    "prune": "snaptx app prune",
    "rollback": "snaptx app rollback",
}
"""What does to an application what a verb does to the system."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    made = {}
    for name, summary in ACTIONS.items():
        made[name] = actions.add_parser(name, help=summary)
        options.add_globals(made[name], inherited=True)
        optional = {"nargs": "?"} if name in ("list", *OF_ALL) else {}
        made[name].add_argument("name", metavar="NAME", help="the application", **optional)  # type: ignore[arg-type]
    for name in OF_ALL:
        made[name].add_argument(
            "--all", action="store_true", help="every application that has a command or a unit, or runs"
        )
    made["apply"].add_argument("payload", type=options.filled, metavar="PAYLOAD", help="as for snaptx apply")
    made["apply"].add_argument("--sha256", metavar="HEX", help="refuse any other payload")
    made["apply"].add_argument("--allow-devices", action="store_true", help="let it make device nodes")
    for name in ("switch", "rollback"):
        common.add_number(made[name], "the generation")
    common.add_conflicts(made["switch"])
    for name in ("create", "apply", "switch", "rollback"):
        common.add_message(made[name])
    prune_verb.add_arguments(made["prune"])
    log_verb.add_arguments(made["log"])


def run(args: Namespace) -> int:
    """Do the action; what an error names as its cure is done to the application, and not to the system.

    Raises:
        SnaptxError: it failed.
    """
    try:
        return _run(args)
    except SnaptxError as error:
        if args.name:
            error.hint = cure(error.hint, args.name)
        raise


def cure(hint: str, name: str) -> str:
    """Return a hint with an application's actions in place of the system's verbs."""
    alone = hint.replace(" or 'snaptx run' stage ", " stages ")
    return re.sub(rf"\bsnaptx ({'|'.join(CURES)})\b", lambda found: f"{CURES[found[1]]} {name}", alone)


def _run(args: Namespace) -> int:
    host = common.machine(args)
    _require_name(args)
    if args.action == "list" and args.name is None:
        return _list_all(args, host)
    if args.name is None:
        return _do_all(args, host)
    if args.dry_run and args.action in PLANNED:
        return _rehearse(args, host)
    if args.action == "create":
        made = application.create(host, common.request(args), args.name)
        common.emit(args, {"name": made.name, "generation": 1}, f"{made.name} is there, and empty")
        return 0
    app = application.open_app(host, args.name)
    actions = {"apply": _apply, "switch": _switch, "rollback": _switch, "list": _list}
    actions |= {"start": _start, "stop": _stop, "log": _log, "remove": _remove, "prune": _prune}
    return actions[args.action](args, host, app)


def _require_name(args: Namespace) -> None:
    if args.action in OF_ALL and bool(args.name) == args.all:
        raise UsageError(f"app {args.action} takes a name or --all", hint="'snaptx app list' shows the names")


def _rehearse(args: Namespace, host: Machine) -> int:
    if args.action == "create":
        application.fresh(host, args.name)
    else:
        app = application.open_app(host, args.name)
        if _is_so(args, app):
            return 0
        _check(args, app)
    common.emit(args, {"action": args.action, "name": args.name}, f"would {args.action} {args.name}")
    return 0


def _is_so(args: Namespace, app: App) -> bool:
    """Return whether there is nothing to start or stop, and say then what the action itself would."""
    if args.action == "start" and (runs := instances.current(app)):
        _say_started(args, app, runs)
        return True
    if args.action == "stop" and not instances.is_known(app):
        _say_stopped(args, app, [])
        return True
    return False


def _check(args: Namespace, app: App) -> None:
    """Refuse what the action itself would refuse before it changes anything."""
    match args.action:
        case "apply":
            payload = {"sha256": args.sha256, "allow_devices": args.allow_devices}
            stage.rehearse(app.machine, args.payload, **payload)
        case "switch" | "rollback":
            move.foresee(app, commit.choose if args.action == "switch" else rollback.choose, args.number)
        case "start":
            instances.require_startable(app)
        case "remove":
            _require_removable(app, instances.current(app))


def _list_all(args: Namespace, host: Machine) -> int:
    body = [_about(app) for app in application.described(host)]
    rows = [[one["name"], str(one["generation"] or "-"), _numbers(one["running"])] for one in body]
    common.emit(args, body, common.table([["NAME", "GENERATION", "RUNNING"], *rows]))
    return 0


def _numbers(running: list[int]) -> str:
    return ", ".join(map(str, running)) or "-"


def _about(app: App) -> dict[str, Any]:
    running = [instance.generation for instance in instances.running(app)]
    return {"name": app.name, "generation": _at(app), "running": running}


def _at(app: App) -> int | None:
    """Return the generation it is at, None where its pointer does not tell."""
    try:
        return app.machine.boot_state().default
    except (BootError, NotFoundError) as error:
        log.warning("its pointer is of no use", app=app.name, reason=error.message, hint=error.hint)
        return None


def _list(args: Namespace, _host: Machine, app: App) -> int:
    running = {instance.generation for instance in instances.running(app)}
    list_verb.show(args, app.machine.views(), running)
    return 0


def _log(args: Namespace, _host: Machine, app: App) -> int:
    return log_verb.show(args, app.machine)


def _prune(args: Namespace, _host: Machine, app: App) -> int:
    return prune_verb.run_app(args, app)


def _apply(args: Namespace, _host: Machine, app: App) -> int:
    with move.exclusive(app, args.verb), Progress(args, "staging") as progress:
        wanted = {"sha256": args.sha256, "allow_devices": args.allow_devices, "progress": progress}
        staged = stage.apply(app.machine, args.payload, common.request(args), **wanted)
    lines = apply_verb.describe(staged) if staged.number else ["nothing changed: no generation was made"]
    common.emit(args, {"staged": staged}, lines)
    return 0


def _switch(args: Namespace, host: Machine, app: App) -> int:
    request = common.request(args)
    if args.action == "switch":
        policy = common.conflicts(args)
        done = move.switch(host, app, request, args.number, policy)
    else:
        done = move.back(host, app, request, args.number)
    common.emit(args, done, describe(app, done))
    return 0


def describe(app: App, done: Moved) -> Iterator[str]:
    """Say what a move did in words."""
    origin = "" if done.content == done.number else f", with the content of {done.content}"
    yield f"{app.name} is at generation {done.number}{origin} (before: {done.previous})"
    if done.start_seconds:
        how = "the old one was held" if done.handed_on else "nobody answered"
        yield f"  up after {done.start_seconds:.2f} s; {how} for {done.pause_seconds * 1e3:.0f} ms"
    if done.killed:
        yield "  the old one did not end in time, and was killed"
    if done.carried:
        yield f"  carried over from its tree: {paths.named(done.carried)}"
    if done.left:
        yield f"  stays in generation {done.previous}, of which this does not stem: {paths.named(done.left)}"
    for path in done.conflicts:
        yield f"  conflict, settled as told: {from_root(path)}"


def _start(args: Namespace, _host: Machine, app: App) -> int:
    _say_started(args, app, _brought_up(args, app))
    return 0


def _say_started(args: Namespace, app: App, made: Instance) -> None:
    common.emit(args, made, f"generation {made.generation} of {app.name} runs")


def _brought_up(args: Namespace, app: App) -> Instance:
    with move.exclusive(app, args.verb):
        return instances.bring_up(app)


def _stop(args: Namespace, _host: Machine, app: App) -> int:
    _say_stopped(args, app, _brought_down(args, app))
    return 0


def _say_stopped(args: Namespace, app: App, ended: list[int]) -> None:
    text = f"ended: generation {', '.join(map(str, ended))} of {app.name}" if ended else "nothing runs of it"
    common.emit(args, {"stopped": ended}, text)


def _brought_down(args: Namespace, app: App) -> list[int]:
    with move.exclusive(app, args.verb):
        return instances.bring_down(app)


def _do_all(args: Namespace, host: Machine) -> int:
    """Start or stop every application, or tell which; one that fails keeps no other from it.

    Raises:
        SnaptxError: the first failure, after the others were tried.
    """
    act: Callable[[Namespace, App], object] = _brought_up if args.action == "start" else _brought_down
    done: list[str] = []
    failures: list[SnaptxError] = []
    for name in application.names(host):
        try:
            app = application.look(host, name)
            if application.is_there(app) and _is_concerned(args, app):
                if not args.dry_run:
                    act(args, app)
                done.append(name)
        except SnaptxError as error:
            log.error(f"could not {args.action} it", app=name, reason=error.message)
            failures.append(error)
    named = ", ".join(done) or "nothing"
    text = f"would {args.action} {named}" if args.dry_run else f"{args.action}: {named}"
    common.emit(args, {"action": args.action, "names": done}, text, failures[0] if failures else None)
    return 0


def _is_concerned(args: Namespace, app: App) -> bool:
    """Return whether there is something to start or stop; to stop it no settings are asked."""
    if args.action == "stop":
        return instances.is_known(app)
    return instances.is_startable(app) and not (args.dry_run and instances.current(app))


def _remove(args: Namespace, host: Machine, app: App) -> int:
    with move.exclusive(app, args.verb) as running:
        _require_removable(app, running)
        application.remove(host, app, common.request(args))
    common.emit(args, {"removed": app.name}, f"{app.name} is gone, with all its generations")
    return 0


def _require_removable(app: App, running: Instance | None) -> None:
    if running:
        raise BusyError(f"{app.name} runs", hint=f"first: snaptx app stop {app.name}")
    application.require_unpinned(app)
