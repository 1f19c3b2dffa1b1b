"""What is mounted where, as the kernel writes it: a place may have any name."""

from __future__ import annotations

from pathlib import Path

from snaptx import system
from tests.fs.conftest import command


def test_a_mount_is_found_by_its_exact_place(tmp_path: Path) -> None:
    place = tmp_path / "a b\tc\nd\\040e#f"
    place.mkdir()
    assert system.mount_at(place) is None

    command("mount", "-t", "tmpfs", "none", place)
    try:
        found, above = system.mount_at(place), system.mount_at(tmp_path)
    finally:
        command("umount", place)

    assert above is None
    assert found is not None
    assert (found.target, found.fstype) == (str(place), "tmpfs")
