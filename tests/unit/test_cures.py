"""What the kernel refuses for a reason of the caller's, and the cure that is named."""

from __future__ import annotations

import errno
import os

import pytest

from snaptx.errors import storage_error
from snaptx.overlay.failure import translate


@pytest.mark.parametrize(
    ("number", "name", "cure"),
    [
        (errno.EMFILE, "/some/file", "ulimit -n"),
        (errno.EFBIG, "/some/file", "ulimit -f"),
        (errno.ENOMEM, "/some/file", "ulimit -v"),
        (errno.EAGAIN, "/some/file", "ulimit -u"),
        (errno.EISDIR, "/some/file", "move it away"),
        (errno.ENOENT, "/proc/self/mountinfo", "mount -t proc"),
    ],
)
def test_a_limit_of_the_caller_is_named(number: int, name: str, cure: str) -> None:
    error = storage_error(OSError(number, os.strerror(number), name), "cannot go on")

    assert error.code == 50
    assert cure in error.hint


def test_so_it_is_where_a_generation_is_written() -> None:
    assert "ulimit -n" in translate(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), b"etc/motd").hint
