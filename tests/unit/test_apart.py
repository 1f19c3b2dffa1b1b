"""Work in a second process: everything arrives, errors do too, and nobody is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaptx import apart, system
from snaptx.errors import HostileError, SnaptxError


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    before = _children(), sorted(os.listdir("/proc/self/fd"))
    yield
    assert (_children(), sorted(os.listdir("/proc/self/fd"))) == before


def _all(produce: Callable[[apart.Send], None]) -> list[bytes]:
    with apart.working(produce) as frames:
        return list(frames)


@pytest.mark.parametrize("sizes", [(), (0,), (1, 0, 2), (5 << 20, 1), (100,) * 3000])
def test_frames_arrive_whole_and_in_order(sizes: tuple[int, ...]) -> None:
    sent = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    def produce(send: apart.Send) -> None:
        for frame in sent:
            send([frame])

    assert _all(produce) == sent


def test_frame_of_very_many_pieces_arrives_whole() -> None:
    pieces = [bytes([number % 251]) * (number % 7 * 300) for number in range(5000)]

    assert _all(lambda send: send(pieces)) == [b"".join(pieces)]


def _raising(error: BaseException) -> Callable[[apart.Send], None]:
    def produce(send: apart.Send) -> None:
        send([b"before"])
        raise error

    return produce


def test_error_comes_after_what_was_sent_before_it() -> None:
    found: list[bytes] = []
    with (
        pytest.raises(HostileError, match="bad") as caught,
        apart.working(_raising(HostileError("bad", hint="do not"))) as frames,
    ):
        found.extend(frames)

    assert found == [b"before"]
    assert (caught.value.message, caught.value.hint) == ("bad", "do not")


def test_errors_of_the_system_keep_number_and_name() -> None:
    with pytest.raises(OSError, match="gone") as caught:
        _all(_raising(OSError(errno.EIO, "gone", "/somewhere")))

    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "/somewhere")


def test_a_lack_of_memory_is_no_mistake() -> None:
    with pytest.raises(MemoryError) as caught:
        _all(_raising(MemoryError()))

    assert not hasattr(caught.value, "__notes__")


def test_mistake_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _all(lambda _: print(1 // 0))

    assert "in <lambda>" in "".join(caught.value.__notes__)


def test_what_can_not_be_handed_over_is_told() -> None:
    class Local(Exception):
        pass

    with pytest.raises(RuntimeError, match="Local: odd"):
        _all(_raising(Local("odd")))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGALRM])
def test_child_that_is_ended_is_an_error(number: int) -> None:
    def produce(send: apart.Send) -> None:
        send([b"before"])
        os.kill(os.getpid(), number)
        time.sleep(60)

    with pytest.raises(SnaptxError, match="was ended") as caught:
        _all(produce)

    assert (caught.value.code, bool(caught.value.hint)) == (1, True)


@pytest.mark.parametrize("number", sorted(system.HELD))
def test_signals_are_for_the_parent_alone(number: int) -> None:
    def produce(send: apart.Send) -> None:
        os.kill(os.getpid(), number)
        send([b"alive"])

    assert _all(produce) == [b"alive"]


def test_leaving_early_ends_the_child() -> None:
    def produce(send: apart.Send) -> None:
        while True:
            send([bytes(1 << 20)])

    with apart.working(produce) as frames:
        next(frames)


def test_block_that_fails_ends_a_child_that_waits() -> None:
    with pytest.raises(KeyboardInterrupt), apart.working(lambda _: time.sleep(60)):
        raise KeyboardInterrupt(15)


PARENT = """
import os, sys, time
from snaptx import apart
def produce(send):
    send([str(os.getpid()).encode()])
    time.sleep(60)
with apart.working(produce) as frames:
    print(next(frames).decode(), flush=True)
    time.sleep(60)
"""


def test_child_ends_with_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while system.parent_of(child) and time.monotonic() < deadline:
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)

    assert time.monotonic() < deadline


def test_who_stands_by_has_acted_when_the_call_returns(tmp_path: Path) -> None:
    said = tmp_path / "said"

    def act(data: bytes) -> None:
        time.sleep(0.1)
        said.write_bytes(data)

    with apart.standby(act) as tell:
        tell(b"word")
        assert said.read_bytes() == b"word"


def test_who_stands_by_unasked_does_nothing_and_ends(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as ended:
        with apart.standby(lambda _: (tmp_path / "said").touch()):
            assert _children() == []
            os.close(writing)
        assert ended.read() == b""
    assert not (tmp_path / "said").exists()
