"""One path is brought from one tree into another: whole or not at all, with all there is to know of it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from snaptx import system
from snaptx.overlay import transplant
from tests.boxes import changes, inspect


class Trees:
    """Two trees, of which the source has what the target is to get."""

    def __init__(self, directory: Path) -> None:
        self.source, self.target = directory / "source", directory / "target"
        for tree in (self.source, self.target):
            tree.mkdir()

    def bring(self, path: str) -> None:
        """Bring one path over."""
        with (
            system.descriptor(self.source, os.O_RDONLY) as source,
            system.descriptor(self.target, os.O_RDONLY) as target,
        ):
            transplant.transplant(source, target, os.fsencode(path))

    def killed(self, call: str) -> None:
        """Bring ``it`` over in a process that is killed in a call of ``os``."""
        pid = os.fork()
        if not pid:
            setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            self.bring("it")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    @contextmanager
    def owner_swaps(self, one: str, other: str) -> Iterator[None]:
        """Let another process exchange two names of the target as fast as it can, for a with block."""
        pid = os.fork()
        if not pid:
            with system.descriptor(self.target, os.O_RDONLY) as fd:
                while True:
                    with suppress(FileNotFoundError):
                        system.exchange(fd, one, other)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def differ(self) -> list[str]:
        """Return what is not the same in both."""
        return sorted(changes(inspect(self.source), inspect(self.target)))


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    """Give two empty trees."""
    return Trees(tmp_path)


def _file(path: Path) -> None:
    path.write_text("a file")
    path.chmod(0o4750)


def _directory(path: Path) -> None:
    path.mkdir(0o710)


def _full(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep/file").write_text("deep")


def _link(path: Path) -> None:
    path.symlink_to("elsewhere")


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o620)


KINDS = [_file, _directory, _link, _pipe]
Make = Callable[[Path], None]


@pytest.mark.parametrize("old", [*KINDS, _full])
@pytest.mark.parametrize("new", KINDS)
def test_anything_takes_the_place_of_anything(trees: Trees, old: Make, new: Make) -> None:
    new(trees.source / "it")
    old(trees.target / "it")
    trees.bring("it")

    left = ["it/deep", "it/deep/file"] if (old, new) == (_full, _directory) else []
    assert trees.differ() == left


@pytest.mark.parametrize("call", ["chown", "utime"])
def test_what_is_killed_half_way_leaves_what_was_there(trees: Trees, call: str) -> None:
    (trees.source / "it").write_text("new")
    (trees.target / "it").write_text("old")
    trees.killed(call)

    assert (trees.target / "it").read_text() == "old"
    trees.bring("it")
    assert trees.differ() == []


def test_a_directory_that_is_not_finished_does_not_take_a_files_place(trees: Trees) -> None:
    (trees.source / "it").mkdir()
    (trees.target / "it").write_text("old")
    trees.killed("chown")

    assert (trees.target / "it").read_text() == "old"
    trees.bring("it")
    assert trees.differ() == []


def test_what_fails_leaves_what_was_there_and_nothing_else(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "no")

    (trees.source / "it").write_text("new")
    (trees.target / "it").write_text("old")
    before = inspect(trees.target)
    monkeypatch.setattr(os, "utime", fail)
    with pytest.raises(OSError, match="no"):
        trees.bring("it")

    assert changes(before, inspect(trees.target)) == {}


def test_the_longest_name_is_brought(trees: Trees) -> None:
    (trees.source / ("n" * 255)).write_text("new")
    trees.bring("n" * 255)

    assert trees.differ() == []


@pytest.mark.parametrize(
    ("new", "swapped"),
    [
        (_directory, "it"),
        (_file, transplant.beside(b"it").decode()),
        (_pipe, transplant.beside(b"it").decode()),
    ],
)
def test_a_link_that_the_owner_swaps_in_leads_to_no_other_file(
    trees: Trees, tmp_path: Path, new: Make, swapped: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    (trees.target / "link").symlink_to(victim)
    new(trees.source / "it")
    new(trees.target / "it")
    with trees.owner_swaps(swapped, "link"):
        for _ in range(2000):
            with suppress(OSError):
                trees.bring("it")
            if victim.stat().st_mode != 0o100600:
                break

    assert oct(victim.stat().st_mode) == oct(0o100600)
