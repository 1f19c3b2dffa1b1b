"""``snaptx shell``: a shell in a fresh generation."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from snaptx.cli import apply as apply_verb
from snaptx.cli import run as run_verb


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    apply_verb.add_staging(parser, when="when the shell ends")


def run(args: Namespace) -> int:
    """Open the shell; what was changed in it is staged when it ends."""
    return run_verb.perform(args, (), keep=True, interactive=True)
