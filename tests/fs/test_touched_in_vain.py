"""Files of the running root that were touched, and are what they were: an update finds them unchanged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.boxes import Box


def _owned_again(place: Path) -> None:
    os.chown(place / "file", 0, 0)


def _linked(place: Path) -> None:
    (place / "name").hardlink_to(place / "file")
    (place / "name").unlink()


def _copied_back(place: Path) -> None:
    shutil.copy2(place / "file", place / "copy")
    (place / "copy").rename(place / "file")


@pytest.mark.parametrize("touch", [_owned_again, _linked, _copied_back])
def test_what_was_touched_in_vain_is_nothing_new(
    box: Box, tmp_path: Path, touch: Callable[[Path], None]
) -> None:
    (tmp_path / "tree/srv").mkdir(parents=True)
    (tmp_path / "tree/srv/file").write_text("as it is")
    payload = str(tmp_path / "tree")
    box.ok("apply", "--commit", payload)
    box.reboot()
    assert box.run("apply", "--unchanged-exit-77", payload).code == 77
    times = os.stat(box.root / "srv").st_mtime_ns
    touch(box.root / "srv")
    os.utime(box.root / "srv", ns=(times, times))

    assert box.run("apply", "--unchanged-exit-77", payload).code == 77
