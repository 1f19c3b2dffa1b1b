"""The command ``snaptx``, and ``python -m snaptx``, which is the same."""

from __future__ import annotations

import sys

from snaptx import idle


def main() -> int:
    """Run the command line and return its exit code."""
    if idle.is_idle_hook(sys.argv[1:]):
        return 0
    from snaptx import memory

    memory.spend()
    from snaptx.cli import main as command

    try:
        return command.main()
    finally:
        memory.leave()


if __name__ == "__main__":
    sys.exit(main())
