"""Processes that the rig starts for itself, and that end with it whatever happens to either.

::

    rig -> guard -> first process -> work -> snaptx, its commands and instances, the recorder, ...
           |        '---------------- process ids and mounts of their own -----------------------'
           '- a session of its own, and a directory for the work

A signal to the rig's process group, as a terminal sends it, reaches the rig
alone, which ends the guards with SIGTERM.  A guard ends the first process, and
the kernel with that all whose process ids are from there, also what has left
its parents; then the directory goes.  A rig that is killed takes all of it
along but the directories, which the next one removes.

Rig and work talk by lines.  They share nothing else: nobody dies with a lock.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from snaptx import mounting, system
from tests.crash.loop import leave_for_private_mounts
from tests.crash.scratch import scratch

ROOT = Path(__file__).parents[2]

Helper = subprocess.Popen[str]
Work = Callable[[Path], int]


@contextmanager
def helper(module: str, *words: str, stderr: int | None = None) -> Iterator[Helper]:
    """Run a module that does its work ``guarded``; with the block it ends, and all that it started."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def answers(
    requests: Sequence[str], workers: int, module: str, *words: str
) -> Generator[tuple[int, str], None, None]:
    """Have lines answered with lines, by so many helpers; yield each one's place and answer as they come.

    Raises:
        RuntimeError: a helper has ended.
    """
    left = list(enumerate(requests))[::-1]
    with ExitStack() as stack, selectors.DefaultSelector() as ready:
        idle = [stack.enter_context(helper(module, *words)) for _ in left[:workers]]
        while left or ready.get_map():
            while idle and left:
                _ask(ready, idle.pop(), *left.pop())
            for key, _ in ready.select():
                one, number = key.data
                ready.unregister(key.fileobj)
                answer = one.stdout.readline()
                if not answer:
                    raise RuntimeError(f"{module} has ended with {one.wait()}")
                idle.append(one)
                yield number, answer


def _ask(ready: selectors.BaseSelector, one: Helper, number: int, request: str) -> None:
    assert one.stdin is not None
    assert one.stdout is not None
    ready.register(one.stdout, selectors.EVENT_READ, (one, number))
    with suppress(BrokenPipeError):  # nor will there be an answer
        os.write(one.stdin.fileno(), f"{request}\n".encode())


def guarded(work: Work) -> int:
    """Let ``work`` run in a directory, with mounts and process ids of its own; return its exit code.

    All that it started ends with it, or with this process.
    """
    signal.signal(signal.SIGTERM, _leave)
    system.die_with_parent()
    with scratch() as place:
        system.unshare(system.CLONE_NEWPID)
        first = os.fork()
        if not first:
            _be_first(work, place)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        except SystemExit:
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)  # returns when all are gone
            raise


def _leave(number: int, _: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _be_first(work: Work, place: Path) -> NoReturn:
    """Take care of orphans until the work is done; the kernel ends what is left then."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        system.die_with_parent()
        leave_for_private_mounts()
        mounting.mount("proc", "/proc", "proc")
        worker = os.fork()
        if not worker:
            code = work(place)
            sys.stdout.flush()
            os._exit(code)
        ended, status = 0, 0
        while ended != worker:
            ended, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        traceback.print_exc()
    os._exit(code & 0xFF)
