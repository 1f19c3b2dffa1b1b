"""The power fails in the middle of a verb: the pool shows the old system or the new one, whole.

A cut is a copy of the pool's file, made while the file system that holds it is
frozen: what was written until that instant, be it at the end of a transaction
group or in between.  GRUB reads it first, as it is, without the intent log;
then it is imported, what GRUB chose is started, and the boot's repair is run.

What was reported is looked at once more where no transaction group ends by
itself, with what makes it durable and, to show that this would be noticed,
without.
"""

from __future__ import annotations

import os
import shutil
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptx.bootloader import entryfile
from snaptx.cli import common
from snaptx.storage.zfs import library
from snaptx.storage.zfs import pool as commands
from tests.boxes import Running
from tests.zfs.conftest import MIB, MakePool, Pool, command
from tests.zfs.small import furnished, mount, shows, start, update, verb

PAUSE = 0.2
"""Seconds between two cuts."""
MOST = 6
"""Cuts of one verb that are looked at, the last one after its end among them."""
CONTENT = {1: 1, 2: 2, 3: 1}
"""Which version a generation has: the third is made by going back to the first."""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """Give a file system that can be frozen, with nothing else on it."""
    image, place = tmp_path / "ground.img", tmp_path / "ground"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    place.mkdir()
    command("mkfs.ext4", "-q", image)
    command("mount", "-o", "loop", image, place)
    yield place
    command("umount", place)


@pytest.fixture
def pool(ground: Path, make_pool: MakePool) -> Pool:
    """Give a pool with a small system, adopted, whose file is on that ground."""
    made = furnished(make_pool(children=("var",), directory=ground, features="grub2"))
    verb(made, "init", "--accept-rollback")
    return made


def cut(ground: Path, directory: Path) -> Path:
    """Return a directory that holds the pool as a power cut would leave it now."""
    directory.mkdir(parents=True)
    (image,) = ground.glob("*.img")
    command("fsfreeze", "--freeze", ground)
    try:
        command("cp", "--sparse=always", image, directory)
    finally:
        command("fsfreeze", "--unfreeze", ground)
    return directory


def cuts_during(pool: Pool, ground: Path, directory: Path, *words: str) -> list[Path]:
    """Run a verb and return cuts while it runs, and one after its end."""
    found: list[Path] = []
    # It is forked before the first cut: one forked meanwhile would keep the pipes of a cut's commands open.
    running = Running(("--sysroot", str(pool.root), *words), None)
    while not os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        found.append(cut(ground, directory / f"{len(found)}"))
        time.sleep(PAUSE)
    said = running.wait()
    assert said.code == 0, said.err
    found.append(cut(ground, directory / "end"))
    step = max(1, len(found) // MOST)
    kept = [*found[:-1:step], found[-1]]
    for each in set(found) - set(kept):
        shutil.rmtree(each)
    return kept


def seen_by_grub(directory: Path) -> int:
    """Return the generation that GRUB would boot."""
    (image,) = directory.iterdir()
    return entryfile.parse(command("grub-fstest", image, "cat", "(loop0)/snaptx/grub@/snaptx.cfg")).default


def started(pool: Pool, directory: Path) -> int:
    """Start what GRUB would boot from a cut, with the boot's repair; return its number, all looked at."""
    number = seen_by_grub(directory)
    with imported(pool, directory, name_of(pool, number)):
        assert shows(pool, CONTENT[number])
        verb(pool, "repair", "--boot")
        status = verb(pool, "status")
        assert (status["booted"], status["default"]) == (number, number)
        assert pool.bootfs() == name_of(pool, number)
        verb(pool, "verify")
    return number


def name_of(pool: Pool, number: int) -> str:
    """Return a generation's boot environment."""
    return f"{pool.container}/{'debian' if number == 1 else f'snaptx-{number}'}"


@contextmanager
def imported(pool: Pool, directory: Path, name: str) -> Iterator[None]:
    """Import the pool from a cut, with that boot environment as its root."""
    command("zpool", "import", "-N", "-d", directory, pool.name)
    mount(pool, name)
    try:
        yield
    finally:
        command("umount", "--recursive", pool.root)
        command("zpool", "export", pool.name)


def away(pool: Pool) -> None:
    """Export the pool: what a cut left of it has the same name."""
    command("umount", "--recursive", pool.root)
    command("zpool", "export", pool.name)


def look_at(pool: Pool, cuts: list[Path]) -> list[int]:
    """Return what boots after each cut; the pool itself is not there meanwhile, and not afterwards."""
    away(pool)
    return [started(pool, each) for each in cuts]


@pytest.fixture(autouse=True)
def imported_again(ground: Path, pool: Pool) -> Iterator[None]:
    """Bring the pool back, for those who remove it."""
    yield
    command("zpool", "import", "-N", "-d", ground, pool.name)


def test_of_a_commit(pool: Pool, ground: Path, tmp_path: Path) -> None:
    verb(pool, "apply", update(tmp_path / "update", 2))
    booted = look_at(pool, cuts_during(pool, ground, tmp_path / "cuts", "commit"))

    assert booted == sorted(booted)
    assert (booted[0], booted[-1]) == (1, 2), booted


def test_of_a_rollback(pool: Pool, ground: Path, tmp_path: Path) -> None:
    verb(pool, "apply", "--commit", update(tmp_path / "update", 2))
    start(pool)
    verb(pool, "confirm")
    booted = look_at(pool, cuts_during(pool, ground, tmp_path / "cuts", "rollback", "1"))

    assert booted == sorted(booted)
    assert (booted[0], booted[-1]) == (2, 3), booted


def test_of_a_stage(pool: Pool, ground: Path, tmp_path: Path) -> None:
    words = ("apply", update(tmp_path / "update", 2))

    assert set(look_at(pool, cuts_during(pool, ground, tmp_path / "cuts", *words))) == {1}


@pytest.fixture
def unhurried() -> Iterator[None]:
    """Let no transaction group end because time is up: only what asks for it is durable."""
    limit = Path("/sys/module/zfs/parameters/zfs_txg_timeout")
    before = limit.read_text()
    limit.write_text("3600\n")
    yield
    limit.write_text(before)


def cut_when_reported(monkeypatch: pytest.MonkeyPatch, ground: Path, directory: Path) -> None:
    """Let the power fail when a verb's result is known: its end unmounts, which makes a pool write."""
    emit = common.emit

    def reported(args: Namespace, result: object, text: str | Iterable[str]) -> None:
        cut(ground, directory)
        emit(args, result, text)

    monkeypatch.setattr(common, "emit", reported)


def without_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what makes a pool write."""
    monkeypatch.setattr(library, "sync", lambda pool: None)


BARRIER = pytest.mark.parametrize("barrier", [True, False])


@BARRIER
@pytest.mark.usefixtures("unhurried")
def test_what_was_reported_as_committed_boots(
    pool: Pool, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, barrier: bool
) -> None:
    verb(pool, "apply", update(tmp_path / "update", 2))
    if not barrier:
        without_barrier(monkeypatch)
        # Setting this property waits for the pool as well.
        monkeypatch.setattr(commands, "set_bootfs", lambda name, dataset: None)
    cut_when_reported(monkeypatch, ground, tmp_path / "cut")
    verb(pool, "commit")
    away(pool)

    assert seen_by_grub(tmp_path / "cut") == (2 if barrier else 1)


@BARRIER
@pytest.mark.usefixtures("unhurried")
def test_what_was_reported_as_staged_is_whole(
    pool: Pool, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, barrier: bool
) -> None:
    if not barrier:
        without_barrier(monkeypatch)
    cut_when_reported(monkeypatch, ground, tmp_path / "cut")
    verb(pool, "apply", update(tmp_path / "update", 2))
    away(pool)

    with imported(pool, tmp_path / "cut", name_of(pool, 2)):
        assert shows(pool, 2) == barrier
