"""The command line: find the verb, load its file alone, turn errors into words and exit codes."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

from snaptx import log, system
from snaptx.cli import options
from snaptx.cli.parser import Parser, meant
from snaptx.errors import OutputError, SnaptxError, UsageError, no_memory, storage_error

VERBS = {
    "init": "adopt the root of this system as generation 1",
    "status": "what runs, what boots next, what is pending",
    "list": "the generations and their marks",
    "apply": "lay an update over a fresh generation",
    "run": "run a command in a fresh generation",
    "shell": "open a shell in a fresh generation",
    "exec": "run a command in any generation's tree, on the machine as it is today",
    "upgrade": "run the distribution's full upgrade in a fresh generation",
    "commit": "make a staged generation the one that boots next",
    "abort": "throw a staged generation away",
    "rollback": "go back to an earlier generation",
    "confirm": "judge a generation good or bad",
    "diff": "what differs between two generations",
    "log": "the audit trail",
    "verify": "check a generation against its manifest, and snaptx's own state",
    "repair": "complete or discard what an interruption left, mend what is damaged",
    "prune": "remove generations nobody needs",
    "pin": "protect a generation from prune",
    "unpin": "let prune take a generation again",
    "update": "bring the machine up to date from its sources",
    "publish": "make and sign the index of a directory of overlays",
    "live": "put a generation under the running system at once, or take it away",
    "restart": "let services go on with what was replaced",
    "ps": "processes that still use what an update has replaced",
    "app": "application trees, versioned and switched without a restart",
    "hook": "what package managers call before and after their work",
    "sandbox": "a Btrfs image to try snaptx on",
}
"""Every verb with its one line of help; the verb's file in this package has the rest."""

ROOTLESS = {"publish", "sandbox"}
"""The verbs that work on no root."""

INTERRUPTED = 128
"""Added to the number of the signal that ended the work."""

_over = False
"""Whether all is done and said, and a signal comes too late to end anything."""


class _Interrupt(KeyboardInterrupt):
    """A signal, named by its number.

    Where Python's own exception passes a text that is being compiled, as each
    NamedTuple is, Python ends itself by SIGINT, whatever status is returned.
    """


def module_of(verb: str) -> Any:
    """Return the module that implements a verb."""
    return importlib.import_module(f"snaptx.cli.{verb}")


def build_parser(verb: str | None = None) -> Parser:
    """Return the parser that knows one verb and no other, all of them for None, or their names for ""."""
    parser = Parser(prog="snaptx", description="Update a Linux system the way a database commits.")
    options.add_globals(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name in [verb] if verb else VERBS:
        summary = VERBS[name]
        child = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if verb != "":
            options.add_globals(child, inherited=True)
            module_of(name).add_arguments(child)
            child.set_defaults(handler=name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    global _over
    words = list(sys.argv[1:] if argv is None else argv)
    _settle_streams()
    _over = False
    try:
        _listen()
        return _outcome(words)
    except KeyboardInterrupt as error:
        return _end_by(system.signal_of(error), getattr(error, "__notes__", []), words)
    finally:
        _over = True
        _let_go()


def _outcome(words: list[str]) -> int:
    """Run the command line, say what goes wrong and return the exit code."""
    try:
        code = _run(words)
        sys.stdout.flush()  # or nobody learns here that the reader has gone
        return code
    except SnaptxError as error:
        failure = error
    except BrokenPipeError:
        return INTERRUPTED + signal.SIGPIPE
    except OSError as error:
        failure = storage_error(error, f"snaptx could not go on ({error.filename or 'no file named'})")
    except MemoryError as error:
        failure = no_memory(getattr(error, "__notes__", []))
    _tell(failure, words)
    return failure.code


def _settle_streams() -> None:
    """Have all three streams, and say of a character the locale lacks which one it is.

    Who starts this with one closed (``>&-``) wants to hear nothing, not that the
    next file opened gets what is said.
    """
    for number in range(3):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _listen() -> None:
    """Make an exception of the signals that end this program, unless the caller ignores them (nohup)."""
    for number in system.HELD:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _end_by(number: signal.Signals, notes: Sequence[str], words: list[str]) -> int:
    """Say what ended this and what became of it; return the exit code."""
    log.say(": ".join([f"snaptx: interrupted by {number.name}", *notes]))
    if not notes:
        _, sysroot = _manner(words)
        log.say(_placed("  hint: 'snaptx status' tells how things stand", sysroot))
    return INTERRUPTED + number


def _let_go() -> None:
    """Part with streams that can't be written to: Python would fail on what is left in them at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(words: list[str]) -> int:
    args, unknown = _understood(words)
    if unknown:
        raise _unknown(args.verb or "", unknown)
    if args.verb is None:
        raise UsageError("no verb given", hint="see: snaptx --help")
    args.argv = tuple(words)
    level = log.Level.DEBUG if args.verbose else log.Level.ERROR if args.quiet else log.Level.INFO
    log.set_threshold(level)
    return int(module_of(args.handler).run(args))


def _unknown(verb: str, words: list[str]) -> UsageError:
    option = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
    instead = meant(option, build_parser(verb).spellings()) if option else ""
    help_of = f"snaptx {verb} --help" if verb else "snaptx --help"
    return UsageError(f"unknown: {' '.join(words)}", hint=f"{instead}see: {help_of}")


def _understood(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what the words mean and what is left of them; a parser of all verbs takes ten times as long."""
    leading = takewhile(lambda word: word not in ("-h", "--help"), words)
    verb = next((word for word in leading if word in VERBS), "")
    try:
        return build_parser(verb).parse_known_args(words)
    except UsageError:
        if not verb:
            raise
    return build_parser(None).parse_known_args(words)  # an option's value looked like a verb


def _manner(words: list[str]) -> tuple[bool, Path]:
    """Return whether the result is wanted as JSON, and which root is meant.

    The options of another command are that one's.
    """
    try:
        args, _ = _understood(words)
    except (UsageError, OutputError, MemoryError):  # nobody knows what is an option's, what a command's
        return "--json" in takewhile(lambda word: word != "--", words), Path("/")
    return bool(args.json), args.sysroot


def _placed(hint: str, sysroot: Path) -> str:
    """Let the commands that a hint names work on the root that was named: they are pasted."""
    verbs = "|".join(VERBS.keys() - ROOTLESS)
    return re.sub(rf"\bsnaptx (?=({verbs})\b(?! --help))", lambda _: f"{options.program(sysroot)} ", hint)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Interrupt the work; while that is being settled, another signal adds nothing to the first."""
    if not (_over or isinstance(sys.exception(), _Interrupt)):
        raise _Interrupt(number)


def _tell(error: SnaptxError, words: list[str]) -> None:
    as_json, sysroot = _manner(words)
    hint = _placed(error.hint, sysroot)
    if as_json:
        import json

        from snaptx.model import jsonable

        body = {
            "type": type(error).__name__,
            "message": error.message,
            "hint": hint,
            "code": error.code,
        }
        with suppress(OSError):
            print(json.dumps({**jsonable(error.result or {}), "error": body}), flush=True)
    log.say(f"snaptx: {error.message}")
    if hint:
        log.say(f"  hint: {hint}")
