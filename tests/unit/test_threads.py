"""What is done at once: results in order, errors, and nobody left at work."""

from __future__ import annotations

import errno
import signal
import threading
import time

import pytest
from pytest_mock import MockerFixture

from snaptx import threads


def test_each_has_a_thread_and_none_waits_for_another() -> None:
    meeting = threading.Barrier(3)

    def meet() -> int:
        meeting.wait(10)
        return threading.get_ident()

    found = threads.at_once([meet, meet, meet])

    assert len({*found, threading.get_ident()}) == 4


def test_the_results_are_in_the_order_of_the_acts() -> None:
    later = threading.Event()

    def tell() -> bool:
        later.set()
        return False

    assert threads.at_once([lambda: later.wait(10), tell]) == [True, False]


def test_an_error_is_raised_when_all_have_ended() -> None:
    ended = []

    def fail() -> None:
        raise OSError(errno.EBUSY, "taken")

    def end() -> None:
        ended.append(threading.current_thread())

    with pytest.raises(OSError, match="taken"):
        threads.at_once([fail, end])
    assert [thread.is_alive() for thread in ended] == [False]


def test_without_threads_it_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="no thread") as caught:
        threads.at_once([int])
    assert caught.value.errno == errno.EAGAIN


def test_an_interrupt_while_a_thread_is_begun_leaves_it_not_at_work(mocker: MockerFixture) -> None:
    ended = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def work() -> None:
        time.sleep(0.3)
        ended.append(True)

    wait = threading.Event.wait

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        """Be interrupted where this thread waits for the word of the other, and that one has not run yet."""
        if signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            raise KeyboardInterrupt  # as the handler would; to raise the signal lets the other run
        signal.raise_signal(signal.SIGINT)
        return wait(event, timeout)

    mocker.patch.object(threading.Event, "wait", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.at_once([work])
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]
