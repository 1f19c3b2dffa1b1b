"""The options that every verb takes, before it or after it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from snaptx import __version__


def filled(text: str) -> str:
    """Return a word of the command line, for argparse.

    Raises:
        ArgumentTypeError: it is empty, as of a variable that is not set: no path and no source is.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def path(text: str) -> Path:
    """Return a path, for argparse.

    Raises:
        ArgumentTypeError: it is empty, which would mean the current directory.
    """
    return Path(filled(text))


def program(sysroot: Path) -> str:
    """Return how the command is typed that works on the root at ``sysroot``, to be pasted."""
    return "snaptx" if sysroot == Path("/") else f"snaptx --sysroot {shlex.quote(str(sysroot))}"


def add_globals(parser: argparse.ArgumentParser, *, inherited: bool = False) -> None:
    """Add the global options; ``inherited`` ones have no default that would undo an earlier one."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS} if inherited else {}
    root = given or {"default": Path("/")}
    add = parser.add_argument
    add("--sysroot", type=path, metavar="DIR", help="where the system root is mounted (default: /)", **root)
    add("--config", type=path, metavar="FILE", help="read this configuration file and no other", **given)
    add("--json", action="store_true", help="print the result as JSON", **given)
    add("--quiet", "-q", action="store_true", help="show no progress and log only errors", **given)
    add("--verbose", "-v", action="store_true", help="log every step and every command that is run", **given)
    add("--dry-run", action="store_true", help="say what would be done and change nothing", **given)
    add("--version", action="version", version=f"snaptx {__version__}")
