"""The power fails in the middle of a verb: the pool shows the old system or the new one, whole.

A cut is a copy of the pool's file, made while the file system that holds it is
frozen: what was written until that instant, be it at the end of a transaction
group or in between.  GRUB reads it first, as it is, without the intent log;
then it is imported, what GRUB chose is started, and the boot's repair is run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snaptx.bootloader import entryfile
from tests.zfs.conftest import MIB, MakePool, Pool, command
from tests.zfs.small import furnished, mount, shows, start, update, verb

PAUSE = 0.2
"""Seconds between two cuts."""
MOST = 12
"""Cuts of one verb that are looked at, the last one after its end among them."""


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
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(verb, pool, *words)
        while not running.done():
            found.append(cut(ground, directory / f"{len(found)}"))
            time.sleep(PAUSE)
        running.result()
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
    command("zpool", "import", "-N", "-d", directory, pool.name)
    mount(pool, f"{pool.container}/{'debian' if number == 1 else f'snaptx-{number}'}")
    try:
        assert shows(pool, number)
        verb(pool, "repair", "--boot")
        status = verb(pool, "status")
        assert (status["booted"], status["default"]) == (number, number)
        assert pool.bootfs() == f"{pool.container}/{'debian' if number == 1 else f'snaptx-{number}'}"
        verb(pool, "verify")
    finally:
        command("umount", "--recursive", pool.root)
        command("zpool", "export", pool.name)
    return number


def look_at(pool: Pool, cuts: list[Path]) -> list[int]:
    """Return what boots after each cut; the pool itself is not there meanwhile, and not afterwards."""
    command("umount", "--recursive", pool.root)
    command("zpool", "export", pool.name)
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

    assert booted == sorted(booted, reverse=True)
    assert (booted[0], booted[-1]) == (2, 1), booted


def test_of_a_stage(pool: Pool, ground: Path, tmp_path: Path) -> None:
    words = ("apply", update(tmp_path / "update", 2))

    assert set(look_at(pool, cuts_during(pool, ground, tmp_path / "cuts", *words))) == {1}
