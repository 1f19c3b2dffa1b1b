"""What snaptx says in a chroot into a directory that nothing is mounted at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaptx import mounting
from snaptx.errors import LayoutError

pytestmark = pytest.mark.root


def _said_in(root: Path) -> str:
    """Return what becomes of a look at the mounts in a chroot."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.chroot(root)
            os.chdir("/")
            mounting.in_own_namespace(lambda: os.write(writing, b"done"))
        except BaseException as error:  # noqa: BLE001
            hint = error.hint if isinstance(error, LayoutError) else ""
            os.write(writing, f"{type(error).__name__}: {hint}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as said:
        return said.read()


def test_a_root_that_is_no_mount_point_is_told(tmp_path: Path) -> None:
    said = _said_in(tmp_path)

    assert said == "LayoutError: outside of it: mount --bind DIRECTORY DIRECTORY; then chroot into that"


def test_one_that_is_will_do() -> None:
    assert _said_in(Path("/")) == "done"
