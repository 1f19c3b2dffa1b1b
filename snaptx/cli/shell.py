"""``snaptx shell``: a shell in a fresh generation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx.cli import commit as commit_verb
from snaptx.cli import common
from snaptx.cli import run as run_verb


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--base",
        type=int,
        metavar="N",
        help="start from generation N (default: what is staged, else the default)",
    )
    parser.add_argument("--message", "-m", metavar="TEXT", help="why; shown in list, log and the boot menu")
    parser.add_argument("--commit", action="store_true", help="commit when the shell ends")
    commit_verb.add_policy(parser)
    common.add_unchanged(parser)


def run(args: Namespace) -> int:
    """Open the shell; what was changed in it is staged when it ends."""
    return run_verb.perform(args, (), keep=True, interactive=True)
