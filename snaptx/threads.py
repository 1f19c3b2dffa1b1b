"""Work for passing threads: what has to happen at once, or changes the thread that does it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from snaptx import system

if TYPE_CHECKING:
    from threading import Thread

Result = TypeVar("Result")


def begin(thread: Thread) -> None:
    """Start a thread; a signal waits until it is known whether there is one.

    Raises:
        OSError: there is none (EAGAIN).
    """
    try:
        with system.undisturbed():
            thread.start()
    except RuntimeError as error:  # what Python makes of pthread_create(3)'s EAGAIN
        raise OSError(errno.EAGAIN, "no thread can be started") from error


def at_once(acts: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return what the acts return, each done by a thread of its own; they begin in their order.

    Raises:
        OSError: there was no thread for one of them (EAGAIN); those before it were done.
        BaseException: the first that one of them raised; all have ended.
    """
    import threading  # not for every start-up; what is in concurrent.futures takes ten times as long to load

    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def do(number: int) -> None:
        try:
            results[number] = acts[number]()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=do, args=(number,)) for number in range(len(acts))]
    try:
        for thread in threads:
            begin(thread)
        _join(threads)
    finally:
        _join(threads)  # a signal does not leave one at work
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(acts))]


def _join(threads: Sequence[Thread]) -> None:
    for thread in threads:
        with suppress(RuntimeError):  # it was not started
            thread.join()
