"""A binding that would abort the process is not called; what the library says becomes our errors."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from snaptx.errors import BusyError, LayoutError, NoSpaceError, ReadOnlyError, SnaptxError, StorageError
from snaptx.storage.zfs import library


class ZFSError(Exception):
    """As in the binding: no OSError, with an errno."""

    def __init__(self, number: int, name: bytes = b"tank/x", errors: tuple[Exception, ...] = ()) -> None:
        super().__init__(name)
        self.errno, self.name, self.errors = number, name, errors


class ZFSInitializationFailed(ZFSError):
    """The kernel has no ZFS."""


@pytest.fixture
def binding(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Give a binding that can be imported and has what is needed."""
    module = ModuleType("libzfs_core")
    for name in library.NEEDED:
        setattr(module, name, None)
    exceptions = ModuleType("libzfs_core.exceptions")
    setattr(exceptions, "ZFSError", ZFSError)  # noqa: B010
    setattr(exceptions, "ZFSInitializationFailed", ZFSInitializationFailed)  # noqa: B010
    setattr(module, "exceptions", exceptions)  # noqa: B010
    monkeypatch.setitem(sys.modules, "libzfs_core", module)
    library.load.cache_clear()
    yield module
    library.load.cache_clear()


def test_no_binding_is_refused_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libzfs_core", None)
    library.load.cache_clear()

    with pytest.raises(LayoutError) as caught:
        library.load()
    assert "python3-pyzfs" in caught.value.hint


@pytest.mark.parametrize("lacking", library.NEEDED)
def test_a_binding_that_is_too_old_is_refused_before_it_is_called(binding: ModuleType, lacking: str) -> None:
    delattr(binding, lacking)

    with pytest.raises(LayoutError, match=lacking) as caught:
        library.load()
    assert "python3-pyzfs" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (ZFSInitializationFailed(errno.ENOENT), LayoutError, "modprobe"),
        (ZFSError(errno.EEXIST), BusyError, "zfs list"),
        (ZFSError(errno.ENOSPC), NoSpaceError, "free"),
        (ZFSError(errno.EDQUOT), NoSpaceError, "quota"),
        (ZFSError(errno.EROFS), ReadOnlyError, "read-only"),
        (ZFSError(errno.EBUSY), BusyError, "uses"),
        (ZFSError(errno.EACCES), StorageError, "load-key"),
        (ZFSError(errno.EPERM), StorageError, "root"),
        (ZFSError(errno.EAGAIN), StorageError, "zpool clear"),
        (ZFSError(errno.EINVAL, errors=(ZFSError(errno.ENOSPC),)), NoSpaceError, "free"),
        (OSError(errno.ENOENT, "libzfs_core.so.3"), StorageError, ""),
    ],
)
def test_errors_say_what_was_being_done(
    binding: ModuleType, error: Exception, kind: type[SnaptxError], hint: str
) -> None:
    with pytest.raises(kind) as caught, library.translated("cannot make tank/x"):
        raise error
    assert caught.value.message.startswith("cannot make tank/x")
    assert hint in caught.value.hint


def test_the_step_that_failed_is_named(binding: ModuleType) -> None:
    failed = {b"status": errno.EBUSY, b"step": b"destroy\ttank/x"}
    setattr(binding, "lzc_channel_program", lambda *_, **__: failed)  # noqa: B010

    with pytest.raises(BusyError) as caught:
        library.together("cannot remove tank", ("destroy", "tank/x"))
    assert caught.value.message.startswith("cannot remove tank")
    assert "destroy tank/x" in caught.value.message
