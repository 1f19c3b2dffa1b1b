"""New content in a file that is there: written over the old where nobody else can see it, on real Btrfs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from snaptx.overlay import nodes
from tests.fs.conftest import MIB, command, shared_bytes
from tests.fs.test_writer_btrfs import (  # noqa: F401 - a fixture among them
    ACCESS,
    CAPABILITY,
    RANDOM,
    attributes,
    ground,
    lay,
)
from tests.payloads import Ground, file
from tests.specials import acl

OWN_START = {"its own start": 3 * MIB}
CHANGED: dict[str, tuple[bytes, dict[str, object]]] = {
    "shorter": (b"new", {"mode": 0o640}),
    "longer": (RANDOM[:300_000], {}),
    "empty": (b"", {}),
    "its own start": (RANDOM[: 3 * MIB] + RANDOM[:MIB], {}),
    "with a hole": (b"x" + bytes(70_000) + b"y", {"extents": ((0, 1), (70_001, 1))}),
    "of another owner": (b"new", {"uid": 3, "gid": 4, "mode": 0o6755}),
    "with attributes": (
        b"new",
        {"mode": 0o674, "xattrs": {b"security.capability": CAPABILITY, b"user.n": b"n", ACCESS: acl(7)}},
    ),
}
"""What a file becomes: its content, and what else is said of it."""


def _with_an_odd_file(base: Path) -> Path:
    """Give the base a file with everything that a change of content alone would leave, or lose."""
    odd = base / "d/odd"
    odd.write_bytes(RANDOM[: 4 * MIB])
    os.chown(odd, 5, 6)
    odd.chmod(0o4755)
    for name, value in (("security.capability", CAPABILITY), ("user.old", b"old"), (ACCESS, acl(1000))):
        os.setxattr(odd, name, value)
    return odd


def _change(place: Ground, how: str) -> None:
    """Lay a payload that changes the odd file; it must be what was asked for."""
    data, more = CHANGED[how]
    lay(place, file("d/odd", data, **more))
    assert place.read("d/odd") == data
    assert attributes(place.root / "d/odd") == more.get("xattrs", {})


@pytest.mark.parametrize("how", CHANGED)
def test_a_file_without_another_name_is_changed_in_place(ground: Ground, how: str) -> None:  # noqa: F811
    odd = _with_an_odd_file(ground.base)
    above = (ground.base / "d").stat()
    _change(ground, how)

    assert (ground.root / "d/odd").stat().st_ino == odd.stat().st_ino
    assert (ground.root / "d").stat().st_ctime_ns == above.st_ctime_ns
    assert odd.read_bytes() == RANDOM[: 4 * MIB]
    assert shared_bytes(ground.root / "d/odd") == OWN_START.get(how, 0)


@pytest.mark.parametrize("how", CHANGED)
def test_a_file_that_must_not_be_written_to_is_replaced(
    ground: Ground,  # noqa: F811
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Let it be as with fs-verity, which not every kernel has."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    odd = _with_an_odd_file(ground.base)
    monkeypatch.setattr(nodes, "write_file", refuse)
    _change(ground, how)

    assert (ground.root / "d/odd").stat().st_ino != odd.stat().st_ino
    assert shared_bytes(ground.root / "d/odd") == OWN_START.get(how, 0)


def test_what_has_another_name_is_not_written_to(ground: Ground) -> None:  # noqa: F811
    lay(ground, file("one", b"new"), file("plain", b"new"))

    assert ground.read("two") == RANDOM[: 2 * MIB]
    assert (ground.root / "one").stat().st_ino != (ground.base / "one").stat().st_ino


def test_a_property_that_the_file_can_not_have_is_left_out(ground: Ground) -> None:  # noqa: F811
    (ground.base / "database").touch()
    command("chattr", "+C", ground.base / "database")
    (ground.base / "database").write_bytes(b"old")
    lay(ground, file("database", b"new", xattrs={b"btrfs.compression": b"zstd"}))

    assert (ground.root / "database").read_bytes() == b"new"
