"""Whatever ends snaptx while it makes an ext4 /boot durable: it stays frozen for nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from snaptx import system
from snaptx.bootloader import freezing
from tests.crash.loop import loop_device, mounted
from tests.fs.conftest import command
from tests.minimal_root import eventually

PAUSE = 0.2
"""Seconds between freezing and thawing, where a test makes them long."""


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[int]:
    """Give a descriptor of a mounted ext4, which is thawed at the end whatever comes."""
    image = tmp_path / "boot.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    command("mkfs.ext4", "-q", "-F", image)
    with (
        loop_device(image) as device,
        mounted(device, tmp_path / "boot", fstype="ext4") as place,
        system.descriptor(place, os.O_RDONLY | os.O_DIRECTORY) as fd,
    ):
        yield fd
        with suppress(OSError):
            fcntl.ioctl(fd, freezing.FITHAW, 0)


def _is_frozen(fd: int) -> bool:
    try:
        fcntl.ioctl(fd, freezing.FIFREEZE, 0)
    except OSError as error:
        return error.errno == errno.EBUSY
    fcntl.ioctl(fd, freezing.FITHAW, 0)
    return False


def _struck(fd: int, number: int) -> int:
    """Let a process group get a signal as soon as it has frozen a filesystem; return how its leader ends."""
    leader = os.fork()
    if not leader:
        _be_struck(fd, number)
    return os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1])


def _be_struck(fd: int, number: int) -> None:
    os.setpgid(0, 0)
    # A command that another test ran here has left its own.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    group, ioctl = os.getpid(), fcntl.ioctl

    def striking(at: int, request: int, argument: Any) -> Any:
        result = ioctl(at, request, argument)
        if request == freezing.FIFREEZE:
            os.killpg(group, number)
            time.sleep(PAUSE)
        return result

    setattr(fcntl, "ioctl", striking)  # noqa: B010
    try:
        freezing.for_a_moment(fd)
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        os._exit(0)


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 130)]
)
def test_a_signal_for_the_whole_group_leaves_nothing_frozen(boot: int, number: int, end: int) -> None:
    assert _struck(boot, number) == end

    eventually(lambda: not _is_frozen(boot), 10 * PAUSE)


def test_it_can_be_written_afterwards(boot: int) -> None:
    freezing.for_a_moment(boot)

    assert not _is_frozen(boot)


def test_what_somebody_else_froze_stays_so(boot: int) -> None:
    fcntl.ioctl(boot, freezing.FIFREEZE, 0)

    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        freezing.for_a_moment(boot)

    assert _is_frozen(boot)


def test_a_filesystem_that_can_not_be_frozen_says_so() -> None:
    with (
        system.descriptor("/proc/self/ns", os.O_RDONLY) as fd,
        pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)),
    ):
        freezing.for_a_moment(fd)


def test_the_signals_that_were_held_back_are_let_through_again(boot: int) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    freezing.for_a_moment(boot)

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
