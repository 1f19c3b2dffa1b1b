"""The command ``snaptx``, and ``python -m snaptx``, which is the same."""

from __future__ import annotations

import sys

from snaptx import idle


def main() -> int:
    """Run the command line and return its exit code."""
    if idle.is_idle_hook(sys.argv[1:]):
        return 0
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until somebody listens: nothing is begun yet
    from snaptx import memory, system

    memory.spend()
    from snaptx.cli import main as command

    try:
        return command.main()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, system.HELD)  # how it ended is settled
        memory.leave()


if __name__ == "__main__":
    sys.exit(main())
