"""Which features of a pool GRUB does not read, and what is said of them."""

from __future__ import annotations

import pytest

from snaptx.storage.zfs.features import Unreadable, parse_set, told, unreadable

SET = """\
# Features which are supported by GRUB2
async_destroy
lz4_compress,hole_birth  # two
"""


def test_a_compatibility_file_is_read() -> None:
    assert parse_set(SET) == {"async_destroy", "lz4_compress", "hole_birth"}


def test_features_are_told_apart_by_how_near_they_are() -> None:
    properties = {
        "guid": "1",
        "compatibility": "off",
        "feature@async_destroy": "enabled",
        "feature@lz4_compress": "active",
        "feature@large_dnode": "active",
        "feature@encryption": "enabled",
        "feature@draid": "disabled",
    }
    found = unreadable(properties, parse_set(SET))

    assert found == Unreadable(("large_dnode",), ("encryption",), ("draid",))


@pytest.mark.parametrize("compatibility", ["grub2", "openzfs-2.1-linux,grub2", "grub2-2.12"])
def test_what_the_pool_keeps_out_is_not_near(compatibility: str) -> None:
    properties = {"compatibility": compatibility, "feature@draid": "disabled"}

    assert unreadable(properties, frozenset()) == Unreadable()


def test_what_is_nearest_is_told() -> None:
    assert "used: encryption" in told("rpool", Unreadable((), ("encryption",), ("draid",)))
    assert "compatibility=grub2 rpool" in told("rpool", Unreadable((), (), ("draid",)))
    assert told("rpool", Unreadable()) == ""
