"""The command ``snaptx``, and ``python -m snaptx``, which is the same."""

from __future__ import annotations

import os
import sys

from snaptx import idle


def _look_there_last() -> None:
    """Look for modules in the caller's own directories after all others.

    Those are what PYTHONPATH names, where an empty part (``PYTHONPATH=$PYTHONPATH:/opt``)
    is the current directory, and that one itself with ``python -m``: a ``json.py`` there,
    whoever put it there, is none of snaptx's.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed, and nothing is found in it
        here = "/"
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    theirs = {os.path.normpath(os.path.join(here, place)) for place in ("", *named)}
    sys.path.sort(key=lambda place: os.path.normpath(os.path.join(here, place)) in theirs)


def main() -> int:
    """Run the command line and return its exit code."""
    _look_there_last()
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
