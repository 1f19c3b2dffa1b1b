"""Be snaptx and be interrupted at a named point; imports no more than snaptx does, to be as quick.

A point is a step of a transaction, or the end of a call that changes the disk.
Nobody lists them: a run that is left alone says which there are, so that a new
step is interrupted too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from snaptx.audit import Audit
from snaptx.bootloader.inroot import GrubInRoot
from snaptx.cli import main as cli
from snaptx.generations import Generations
from snaptx.journal import Journal
from snaptx.storage.btrfs import BtrfsStorage
from snaptx.transaction import Transaction

CALLS: dict[type, tuple[str, ...]] = {
    Journal: ("begin", "end"),
    BtrfsStorage: ("snapshot", "make_default"),
    Generations: ("write",),
    GrubInRoot: ("prepare", "switch"),
    Audit: ("append",),
}
"""The calls between which the state of the disk is another one; a point is after each."""

Arrived = Callable[[str], None]


def watch(arrived: Arrived) -> None:
    """Tell ``arrived`` the name of each point; the second of a name has a 2 behind it."""
    seen: Counter[str] = Counter()

    def count(name: str) -> None:
        seen[name] += 1
        arrived(name if seen[name] == 1 else f"{name} {seen[name]}")

    _after(Transaction, "step", lambda args: count(f"step {args[0]}"))
    for cls, names in CALLS.items():
        for name in names:
            _after(cls, name, lambda _, name=f"{cls.__name__} {name}": count(name))  # type: ignore[misc]


def _after(cls: Any, name: str, tell: Callable[[tuple[Any, ...]], None]) -> None:
    call = getattr(cls, name)

    def told(self: object, *args: Any, **options: Any) -> Any:
        result = call(self, *args, **options)
        tell(args)
        return result

    setattr(cls, name, told)


def recording(notes: str) -> Arrived:
    """Return what writes the points down in the file ``notes``."""
    fd = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)

    def arrived(name: str) -> None:
        os.write(fd, name.encode() + b"\n")

    return arrived


def striking(point: str, number: int) -> Arrived:
    """Return what sends this process a signal at ``point``."""
    return lambda name: os.kill(os.getpid(), number) if name == point else None


def halting(point: str, number: int, bell: int) -> Arrived:
    """Return what rings at ``point``, through the socket ``bell``, and goes on once ``number`` has come.

    Signal 0 stands for the bell's other end being closed.
    """

    def arrived(name: str) -> None:
        if name != point:
            return
        os.write(bell, b"!")
        if not number:
            os.read(bell, 1)
        while number and number not in signal.sigpending():
            time.sleep(0.002)

    return arrived


def hear() -> None:
    """Be told of signals, which whoever starts the tests may have ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """Be snaptx: ``POINT NUMBER BELL words…``; deaf to SIGHUP if the number is 0."""
    point, number, bell, *words = sys.argv[1:]
    hear()
    if number == "0":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watch(halting(point, int(number), int(bell)))
    sys.exit(cli.main(words))
