"""What has become of a file in use: replaced, deleted or neither, without false alarms."""

from __future__ import annotations

import pytest

from snaptx.running import files
from snaptx.running.files import Facts, State

TREES = (b"/usr", b"/lib", b"/opt")
OLD, NEW, OTHER = 40, 41, 7
KNOWN = {OLD, NEW}
FILE = Facts(OLD, 257, 1000, 5, 6, 1)
COPY = FILE._replace(device=NEW)


def judge(path: bytes, used: Facts, there: dict[bytes, Facts]) -> State:
    """Return what has become of ``used`` where the paths lead as ``there`` says."""
    return files.judge(used, path, TREES, KNOWN, there.get)


@pytest.mark.parametrize(
    ("used", "there", "state"),
    [
        (FILE, FILE, State.CURRENT),
        (FILE, COPY, State.CURRENT),
        (FILE, FILE._replace(inode=300), State.REPLACED),
        (FILE, COPY._replace(inode=300), State.REPLACED),
        (FILE, COPY._replace(ctime_ns=7), State.REPLACED),
        (FILE, COPY._replace(size=7), State.REPLACED),
        (FILE, COPY._replace(mtime_ns=7), State.REPLACED),
        (FILE, FILE._replace(size=2000, mtime_ns=9, ctime_ns=9), State.CURRENT),
        (FILE, None, State.DELETED),
    ],
)
def test_path_tells(used: Facts, there: Facts | None, state: State) -> None:
    assert judge(b"/usr/lib/x.so", used, {b"/usr/lib/x.so": there} if there else {}) is state


def test_suffix_of_the_kernel_and_the_same_in_a_name() -> None:
    gone = FILE._replace(links=0)

    assert judge(b"/usr/x (deleted)", gone, {}) is State.DELETED
    assert judge(b"/usr/x (deleted)", gone, {b"/usr/x": FILE._replace(inode=9)}) is State.REPLACED
    assert judge(b"/usr/x (deleted)", FILE, {b"/usr/x (deleted)": FILE}) is State.CURRENT
    assert judge(b"/usr/x (deleted)", FILE, {b"/usr/x (deleted)": FILE, b"/usr/x": COPY}) is State.CURRENT


def test_overlay_shows_other_numbers_than_its_files() -> None:
    lower = FILE._replace(device=OTHER)
    merged = FILE._replace(device=8, inode=1)

    assert judge(b"/usr/x", lower, {b"/usr/x": merged}) is State.CURRENT
    assert judge(b"/usr/x (deleted)", lower._replace(links=0), {b"/usr/x": merged}) is State.REPLACED


def test_tree_that_is_mounted_nowhere() -> None:
    """There the kernel's path begins at the root of the tree."""
    there = {b"/usr/share/x": COPY, b"/lib/y": COPY._replace(inode=9)}

    assert judge(b"/share/x", FILE, there) is State.CURRENT
    assert judge(b"/lib/y", FILE, there) is State.REPLACED
    assert judge(b"/share/gone", FILE, there) is State.DELETED


def test_what_lies_elsewhere_is_nobodys() -> None:
    elsewhere = FILE._replace(device=OTHER, links=0)

    assert judge(b"/tmp/x (deleted)", elsewhere, {}) is State.CURRENT
    assert judge(b"/share/x", elsewhere, {}) is State.CURRENT
    assert judge(b"/share/x", FILE, {b"/share/x": FILE}) is State.CURRENT
