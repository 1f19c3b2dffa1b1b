"""``snaptx unpin``: let prune take a generation again."""

from __future__ import annotations

from argparse import Namespace

from snaptx.cli import pin

add_arguments = pin.add_arguments


def run(args: Namespace) -> int:
    """Unpin."""
    return pin.perform(args, pinned=False)
