"""What the verbs share: opening the machine, the caller's request, output, progress."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snaptx import system
from snaptx.cli import output
from snaptx.config import Conflicts
from snaptx.errors import NOTHING_TO_DO, PrivilegeError, SnaptxError, UsageError
from snaptx.log import printable
from snaptx.machine import Machine, open_machine
from snaptx.model import jsonable

if TYPE_CHECKING:
    from snaptx.transaction import Request

LONGEST = 10**9
"""Seconds; what is waited for longer, about 30 years, is waited for in vain."""

DIGITS = 40
"""How many a number may have; no count and no generation comes near."""

USUAL_COLUMNS = 80
"""Of a terminal that does not say."""

IN_THE_MENU = "why; shown in list, log and the boot menu"
"""What the message of a new generation is for."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def machine(args: Namespace, *, adopted: bool = True) -> Machine:
    """Open the machine the command line names.

    Raises:
        PrivilegeError: the caller is not root.
        NotFoundError: ``adopted`` is wanted and snaptx does not manage it.
    """
    if not system.is_root():
        raise PrivilegeError("snaptx needs root", hint=f"try: sudo snaptx {args.verb}")
    opened = open_machine(args.sysroot, args.config)
    if adopted:
        opened.require()
    return opened


def request(args: Namespace) -> Request:
    """Return who-asked-for-what of this command line."""
    from snaptx.transaction import Request

    return Request(args.verb, ("snaptx", *args.argv), getattr(args, "message", None) or "")


def emit(args: Namespace, result: Any, text: str | Iterable[str], failure: SnaptxError | None = None) -> None:
    """Print the result: as JSON if asked, else as text.

    Raises:
        SnaptxError: the ``failure`` that the result goes with; as JSON the two are told as one object.
        OutputError: it can't be written.
    """
    if failure and args.json:
        failure.result = result
        raise failure
    _print(args, result, text)
    if failure:
        raise failure


def _print(args: Namespace, result: Any, text: str | Iterable[str]) -> None:
    shown: Iterable[str]
    if args.json:
        shown = [json.dumps(jsonable(result), indent=2, sort_keys=True)]
    else:
        shown = map(printable, [text] if isinstance(text, str) else text)
    for line in shown:  # which may still have to be found out
        output.put(line)
    with output.writing():
        pass


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as aligned lines, safe on a terminal; the last column is ragged."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in list(zip(*shown, strict=True))[:-1]]
    return ["  ".join([*map(_padded, row[:-1], widths), row[-1]]).rstrip() for row in shown]


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: East Asian characters two, accents none."""
    if text.isascii():
        return len(text)
    import unicodedata  # few names need it

    marks = sum(unicodedata.category(char) in ("Mn", "Me") for char in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(char) in "WF" for char in text)


def size(count: float) -> str:
    """Return bytes as people read them."""
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def pause(seconds: float) -> str:
    """Return how long a switch took in words."""
    return f"the switch took {seconds * 1e3:.2f} ms"


def date(seconds: float) -> str:
    """Return a time in seconds since the epoch as the local clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def count(text: str) -> int:
    """Return a number of things, for argparse.

    Raises:
        ArgumentTypeError: it is no whole number, or below 0.
    """
    return _whole(text, 0, "whole number")


def generation(text: str) -> int:
    """Return the number of a generation, for argparse; one that is mistyped must not become another.

    Raises:
        ArgumentTypeError: it is none, as they are printed.
    """
    return _whole(text, 1, "number of a generation")


def _whole(text: str, least: int, what: str) -> int:
    """Return a number in plain digits; Python reads more than these (``1_0``), and not any number of them."""
    if text.isascii() and text.isdigit() and len(text) <= DIGITS and int(text) >= least:
        return int(text)
    told = repr(text) if len(text) <= DIGITS else f"{text[:DIGITS]!r}…"
    raise ArgumentTypeError(f"{told} is no {what}, {least} or more")


def seconds(text: str) -> float:
    """Return a time in seconds, for argparse.

    Raises:
        ArgumentTypeError: it is no number, below 0 or above LONGEST.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= LONGEST:
        raise ArgumentTypeError(f"{text!r} is no time in seconds, from 0 to {LONGEST}")
    return found


def exclusive(one: str, others: Mapping[str, object]) -> None:
    """Refuse what contradicts ``one``: which of the ``others`` were given, by how they are written.

    Raises:
        UsageError: at least one was.
    """
    for other, given in others.items():
        if given:
            raise UsageError(f"{one} and {other} contradict each other", hint="give one of them")


def command(args: Namespace, example: str) -> list[str]:
    """Return the command that stands behind the options, ``example`` being how that is written.

    Raises:
        UsageError: there is none, or it has no name.
    """
    words: list[str] = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words or not words[0]:
        raise UsageError("no command given", hint=f"as in: {example}")
    return words


def add_number(parser: ArgumentParser, about: str) -> None:
    """Add a generation's number that may be left out; ``about`` says what it is, and what it is then."""
    parser.add_argument("number", nargs="?", type=generation, metavar="N", help=about)


def add_message(parser: ArgumentParser, about: str = "why; kept in the audit trail") -> None:
    """Add ``--message``."""
    parser.add_argument("--message", "-m", metavar="TEXT", help=about)


def add_conflicts(parser: ArgumentParser) -> None:
    """Add ``--conflicts``."""
    parser.add_argument(
        "--conflicts",
        choices=[choice.value for choice in Conflicts],
        help="where update and running root changed the same path: fail, or keep the new or the old version",
    )


def conflicts(args: Namespace) -> Conflicts | None:
    """Return what ``--conflicts`` says, None if it was not given."""
    return Conflicts(args.conflicts) if args.conflicts else None


def add_unchanged(parser: ArgumentParser) -> None:
    """Add ``--unchanged-exit-77``."""
    parser.add_argument(
        "--unchanged-exit-77", action="store_true", help="exit with 77 if there was nothing to do"
    )


def unchanged(args: Namespace) -> int:
    """Return the exit code for having had nothing to do."""
    return NOTHING_TO_DO if args.unchanged_exit_77 else 0


class Progress:
    """A bar on a terminal's stderr, nothing elsewhere."""

    WIDTH = 30

    def __init__(self, args: Namespace, label: str) -> None:
        able = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = able and not args.quiet and not args.json
        self._label = label
        self._begun = time.monotonic()
        self._last = 0.0

    def __call__(self, files: int, done: int, total: int | None = None) -> None:
        """Show files and bytes done, and the part of ``total`` bytes if that is known."""
        if self._is_due():
            rate = files / max(self._last - self._begun, 0.001)
            text = f"{files} files, {size(done)}, {rate:.0f} files/s"
            self._show(
                f"{100 * done // total:3d} % {text}" if total else text, done / total if total else None
            )

    def reread(self, files: int) -> None:
        """Show how many files have been read back since they were written."""
        if self._is_due():
            self._write(f"\r\x1b[K{f'reading back {files} files'[: _columns() - 1]}")

    def _is_due(self) -> bool:
        moment = time.monotonic()
        if not self._shown or moment - self._last < 0.1:
            return False
        self._last = moment
        return True

    def _show(self, text: str, part: float | None) -> None:
        """Show one line, with a bar if there is room for one: what is wrapped can't be cleared."""
        columns = _columns() - 1
        width = min(self.WIDTH, columns - len(f"{self._label} [] {text}"))
        bar = f"[{'#' * int(width * part):<{width}}] " if part is not None and width > 0 else ""
        self._write(f"\r\x1b[K{f'{self._label} {bar}{text}'[:columns]}")

    def close(self) -> None:
        """Clear the bar's line."""
        if self._shown and self._last:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._shown = False  # the terminal has gone; the work goes on

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _columns() -> int:
    """Return how wide the terminal is that stderr is; standard output may be a pipe."""
    try:
        said = int(os.environ.get("COLUMNS", "0"))
    except ValueError:
        said = 0
    if said > 0:
        return said
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
    except (OSError, ValueError):
        return USUAL_COLUMNS
