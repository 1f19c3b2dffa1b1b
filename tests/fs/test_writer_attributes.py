"""Attributes that the kernel refuses, or shows otherwise than they were given, on real Btrfs."""

from __future__ import annotations

import struct

import pytest

from snaptx.errors import LimitError, SourceError
from snaptx.model import Member
from tests.fs.test_writer_btrfs import (  # noqa: F401 - a fixture among them
    CAPABILITY,
    DEFAULT,
    MINIMAL,
    attributes,
    ground,
    lay,
)
from tests.payloads import Ground, file, symlink


def test_attribute_too_large_is_the_payload_s_fault(ground: Ground) -> None:  # noqa: F811
    for size in (20_000, 70_000):
        with pytest.raises(LimitError):
            ground.lay(file("f", xattrs={b"user.big": b"x" * size}))


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (symlink("odd", "x", xattrs={b"user.x": b"not on symlinks"}), "user.x"),
        (file("odd", xattrs={b"security.capability": b"garbage"}), "security.capability"),
        (file("odd", xattrs={DEFAULT: MINIMAL}), DEFAULT.decode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_attribute_that_cannot_be_is_refused(
    ground: Ground,  # noqa: F811
    asked: Member,
    name: str,
) -> None:
    with pytest.raises(SourceError, match=f"odd: the attribute '{name}' can't be set"):
        ground.lay(asked)


def test_capabilities_of_the_first_user_namespace_are_as_the_kernel_shows_them(ground: Ground) -> None:  # noqa: F811
    third = struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, 0)
    elsewhere = struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, 1000)
    lay(
        ground,
        file("here", xattrs={b"security.capability": third}),
        file("there", xattrs={b"security.capability": elsewhere}),
    )

    assert attributes(ground.root / "here") == {b"security.capability": CAPABILITY}
    assert attributes(ground.root / "there") == {b"security.capability": elsewhere}
