"""A signal in the midst of a barrier leaves no file system frozen: who writes there would wait for ever."""

from __future__ import annotations

import errno
import fcntl

import pytest

from snaptx import system


class Filesystem:
    """Stands for one behind a descriptor; ``fails`` is what freezing it ends with."""

    def __init__(self, fails: BaseException | None, *, frozen: bool) -> None:
        self.frozen = frozen
        self._fails = fails

    def ioctl(self, _fd: int, request: int, _argument: int) -> int:
        if request == system.FITHAW:
            self.frozen = False
        elif isinstance(self._fails, OSError):
            raise self._fails
        else:
            self.frozen = True
            if self._fails:
                raise self._fails
        return 0


@pytest.mark.parametrize(
    ("fails", "before", "after"),
    [
        (None, False, False),
        (KeyboardInterrupt(), False, False),
        (OSError(errno.EBUSY, "somebody else froze it"), True, True),
    ],
    ids=["well", "interrupted", "frozen by others"],
)
def test_it_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, fails: BaseException | None, *, before: bool, after: bool
) -> None:
    filesystem = Filesystem(fails, frozen=before)
    monkeypatch.setattr(fcntl, "ioctl", filesystem.ioctl)

    if fails is None:
        system.freeze(0)
    else:
        with pytest.raises(type(fails)):
            system.freeze(0)

    assert filesystem.frozen is after
