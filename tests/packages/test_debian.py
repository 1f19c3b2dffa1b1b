"""A real Debian, upgraded by its own apt: more than fifty packages, and what can go wrong in their midst.

The tree's packages are the archive's, repacked with a lower version; the
upgrade brings the archive's own back, with all their scripts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.boxes import Box, changes, inspect, made
from tests.debs import Archive, Deb, Server, served
from tests.minimal_root import eventually
from tests.packages.debian import OLD, made_debian
from tests.packages.trees import inside

SIZE = 3 << 30


@pytest.fixture(scope="module")
def debian() -> Path:
    """Give the tree and the archive."""
    return made_debian()


@pytest.fixture(scope="module")
def new(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Give a copy of the archive, to add to."""
    place = tmp_path_factory.mktemp("debian") / "new"
    shutil.copytree(debian / "new", place)
    return Archive(place)


@pytest.fixture(scope="module")
def whole(debian: Path, new: Archive) -> Iterator[tuple[Box, Server]]:
    """Give a sandbox with that tree, to which the archive is served, with a package to be broken later."""
    with served(new.directory) as server, made(source=debian / "root.tar", size=SIZE, init=False) as box:
        (box.root / "etc/apt/sources.list").write_text(new.source(server.port))
        (box.root / "etc/resolv.conf").touch()
        first = Archive(box.root / "tmp/first")
        first.add(Deb("last", "1"))
        inside(box.root, "sh", "-c", "dpkg -i /tmp/first/last_1_all.deb && rm -r /tmp/first")
        box.ok("init")
        yield box, server


@pytest.fixture
def box(whole: tuple[Box, Server], new: Archive) -> Iterator[Box]:
    """Give the sandbox; in the end its running root is what it was, to the last time."""
    one, _ = whole
    before = inspect(one.root, times=True)
    yield one
    assert changes(before, inspect(one.root, times=True)) == {}
    for number, marks in one.marks().items():
        if marks.endswith("s"):
            one.ok("abort", str(number))
    for path in new.directory.glob("last_*.deb"):
        path.unlink()
    new.index()


@contextmanager
def _filled(box: Box, left: int) -> Iterator[None]:
    """Leave so many bytes free, outside of every generation."""
    filler = box.top / "filler"
    space = os.statvfs(box.top)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - left)
        os.fsync(file.fileno())
    try:
        yield
    finally:
        filler.unlink()


def test_more_than_fifty_packages(box: Box, new: Archive) -> None:
    done = box.json("upgrade")
    number = done["staged"]["number"]
    upgraded = done["outcome"]["packages"]["upgraded"]

    assert len(upgraded) > 50
    assert all(package["old"] == package["new"] + OLD for package in upgraded)
    assert f"{len(upgraded)} upgraded" in box.ok("diff", "--packages", "--stat", str(number))
    status = (box.tree(number) / "var/lib/dpkg/status").read_text()
    assert OLD not in "".join(re.findall(r"^Version: .*$", status, re.MULTILINE))
    assert set(re.findall(r"^Status: (.*)$", status, re.MULTILINE)) == {"install ok installed"}
    assert box.json("verify")["problems"] == []
    assert box.audit()[-1]["packages"] == done["outcome"]["packages"]
    assert "up to date" in box.ok("upgrade")


def test_failing_postinst(box: Box, new: Archive) -> None:
    new.add(Deb("last", "2", scripts={"postinst": "exit 3\n"}))
    said = box.run("upgrade")

    assert said.code == 31, said.err
    assert "post-installation script" in said.err
    assert list(box.marks()) == [1]


def test_full_disk_in_the_midst(box: Box, new: Archive) -> None:
    box.ok("--dry-run", "upgrade")
    with _filled(box, 100 << 20):
        said = box.run("upgrade")

    assert said.code in (31, 53), said.err
    assert "No space left on device" in said.err
    assert list(box.marks()) == [1]
    assert box.json("verify")["problems"] == []


def test_interrupt_in_the_midst(box: Box, new: Archive) -> None:
    running = box.start("upgrade")
    eventually(lambda: _half_done(box), 120)
    os.kill(running.pid, signal.SIGINT)
    said = running.wait()

    assert said.code == 130, said.err
    assert list(box.marks()) == [1]
    assert not list((box.state / "journal").iterdir())


def _half_done(box: Box) -> bool:
    logs = (box.state / "generations").glob("[2-9]*/root/var/log/dpkg.log")
    return any(len(re.findall(rf" upgrade \S+ \S+{OLD} ", path.read_text())) > 40 for path in logs)
