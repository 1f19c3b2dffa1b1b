"""The whole flow on storage and boot loader in memory: the rules, without root and without a filesystem."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from snaptx import (
    difference,
    discard,
    initialise,
    pin,
    prune,
    repair,
    rollback,
    stage,
    transaction,
)
from snaptx.config import BootConfig, Config, Conflicts
from snaptx.errors import (
    BusyError,
    ConflictError,
    LockError,
    NotFoundError,
    OutcomeUnknownError,
    SnaptxError,
    SourceError,
    StorageError,
)
from snaptx.model import Part, Tree, Verdict
from snaptx.overlay.sift import Piece
from snaptx.overlay.sift import sift as pieces
from tests.worlds import REQUEST, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a machine that was adopted."""
    made = World(tmp_path)
    initialise.initialise(made.machine, REQUEST)
    return made


def test_init_apply_commit_restart_confirm_rollback_prune(world: World) -> None:
    assert world.marks() == {1: "NRG"}
    staged = world.apply(hostname="new\n", motd="hello\n")
    assert (staged.number, staged.counts.added, staged.counts.changed) == (2, 1, 2)
    assert (world.machine.sysroot / "etc/hostname").read_text() == "old\n"
    assert world.commit().number == 2
    assert world.marks() == {1: "NG", 2: "RT"}
    world.restart()
    assert (world.machine.sysroot / "etc/hostname").read_text() == "new\n"
    assert world.confirm(2).verdict is Verdict.GOOD
    with transaction.exclusive(world.machine, "rollback"):
        back = rollback.rollback(world.machine, REQUEST, 1)
    assert (back.number, back.content, world.text(3, "hostname")) == (3, 1, "old\n")
    world.restart()
    world.confirm(3)
    assert world.marks() == {1: "G", 2: "G", 3: "NRG"}
    with transaction.exclusive(world.machine, "prune"):
        plan = prune.plan(world.machine, keep=0)
        assert prune.prune(world.machine, REQUEST, plan.expendable).removed == (2,)
    assert world.marks() == {1: "G", 3: "NRG"}
    assert world.problems() == []
    assert [r["result"] for r in world.machine.audit.records()] == ["done"] * 7
    assert world.machine.audit.verify() == 7


def test_nothing_that_boots_changes_before_the_switch(world: World) -> None:
    before = world.machine.boot_state()
    world.apply(hostname="new\n")

    assert world.machine.boot_state() == before
    assert world.storage.default_name() == "@"


def test_work_upon_work(world: World) -> None:
    world.apply(one="1\n")
    second = world.apply(two="2\n")

    assert (second.number, second.base, second.replaced) == (3, 1, (2,))
    assert world.machine.generations.read(3).includes == (2,)
    assert world.commit().number == 3
    assert (world.text(3, "one"), world.text(3, "two")) == ("1\n", "2\n")


def test_failed_payload_leaves_what_was_staged(world: World, tmp_path: Path) -> None:
    world.apply(one="1\n")
    (tmp_path / "bad").write_bytes(b"no tar" * 200)

    with transaction.exclusive(world.machine, "apply"), pytest.raises(SourceError):
        stage.apply(world.machine, str(tmp_path / "bad"), REQUEST)
    assert world.marks() == {1: "NRG", 2: ""}
    assert world.problems() == []
    assert list(world.machine.audit.records())[-1]["error"]["type"] == "SourceError"


@pytest.mark.parametrize("begun", [False, True])
def test_reader_that_is_killed_leaves_nothing(world: World, mocker: MockerFixture, begun: bool) -> None:
    def sift(*arguments: Any) -> Iterator[Piece]:
        if begun:
            yield from islice(pieces(*arguments), 1)
        os.kill(os.getpid(), signal.SIGKILL)

    mocker.patch("snaptx.overlay.feed.sift", side_effect=sift)
    with pytest.raises(SnaptxError, match="was ended") as caught:
        world.apply(one="1\n")

    assert caught.value.code == 1
    assert world.marks() == {1: "NRG"}
    assert world.problems() == []
    assert [path.name for path in world.machine.manifest(1).parent.iterdir()] == ["1.sqlite"]


def test_nothing_new_is_no_generation(world: World, tmp_path: Path) -> None:
    world.apply(one="1\n")
    with tarfile.open(tmp_path / "same.tar", "w") as tar:
        tar.add(world.storage.path(Tree(2, Part.ROOT)) / "etc/one", "etc/one")
    with transaction.exclusive(world.machine, "apply"):
        staged = stage.apply(world.machine, str(tmp_path / "same.tar"), REQUEST)

    assert (staged.number, staged.counts.touched, staged.counts.unchanged) == (0, 0, 1)
    assert world.marks() == {1: "NRG", 2: ""}
    assert list(world.machine.audit.records())[-1]["result"] == "unchanged"


def test_what_is_not_snaptx_s_hinders_nobody(world: World) -> None:
    world.apply(one="1\n")
    (world.machine.generations.directory(2) / "notes").write_text("somebody's")

    assert world.apply(two="2\n").number == 3
    assert world.marks() == {1: "NRG", 3: ""}
    assert (world.machine.generations.directory(2) / "notes").exists()


def test_edits_are_carried_and_conflicts_are_not_lost(world: World) -> None:
    world.apply(hostname="theirs\n")
    root = world.machine.sysroot / "etc"
    (root / "hostname").write_text("ours\n")
    (root / "added").write_text("ours\n")
    (root / "kept").unlink()

    with pytest.raises(ConflictError, match="/etc/hostname"):
        world.commit()
    assert world.marks() == {1: "NRG", 2: ""}
    done = world.commit(Conflicts.OLD)
    assert (done.conflicts, set(done.carried)) == (
        (b"etc/hostname",),
        {b"etc/hostname", b"etc/added", b"etc/kept"},
    )
    assert (world.text(2, "hostname"), world.text(2, "added")) == ("ours\n", "ours\n")
    assert not (world.storage.path(Tree(2, Part.ROOT)) / "etc/kept").exists()
    assert world.problems() == []


def test_bad_goes_back_to_the_newest_good(world: World) -> None:
    for text in ("two\n", "three\n", "four\n"):
        world.update(hostname=text)
    world.confirm(3)
    judged = world.confirm(4, bad="slow")

    assert (judged.verdict, judged.default) == (Verdict.BAD, 3)
    assert world.marks() == {1: "NG", 2: "T", 3: "RG", 4: "B"}
    assert world.machine.boot_state().fallback == 1


def test_protected_generations_stay(world: World) -> None:
    world.update(hostname="two\n")
    world.apply(hostname="three\n")
    for number in (1, 2, 3):
        with pytest.raises(BusyError):
            prune.plan(world.machine, [number])
    with pytest.raises(NotFoundError):
        prune.plan(world.machine, [9])


def test_abort_and_pins(world: World) -> None:
    world.apply(hostname="two\n")
    with transaction.exclusive(world.machine, "pin"):
        assert pin.pin(world.machine, REQUEST, 2, pinned=True)
        assert not pin.pin(world.machine, REQUEST, 2, pinned=True)
    with pytest.raises(BusyError, match="pinned"):
        discard.choose(world.machine, None)
    with transaction.exclusive(world.machine, "abort"):
        pin.pin(world.machine, REQUEST, 2, pinned=False)
        assert discard.abort(world.machine, REQUEST, None) == 2
    assert world.marks() == {1: "NRG"}
    assert world.apply(hostname="three\n").number == 3, "a number never comes back"


def test_only_one_at_a_time(world: World) -> None:
    with (
        transaction.exclusive(world.machine, "apply"),
        pytest.raises(LockError, match=rf"'snaptx apply', process {os.getpid()}"),
        transaction.exclusive(world.machine, "commit"),
    ):
        pass


def test_a_barrier_that_fails_after_the_switch_is_unknown_and_settled_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply(hostname="two\n")
    calls = []

    def barrier() -> None:
        calls.append(1)
        if world.machine.boot_state().default == 2:
            raise StorageError("the disk is gone")

    monkeypatch.setattr(world.storage, "barrier", barrier)
    with pytest.raises(OutcomeUnknownError):
        world.commit()
    assert calls
    assert world.machine.journal.open() is not None
    monkeypatch.undo()
    with transaction.exclusive(world.machine, "next"):
        assert world.machine.journal.open() is None
    assert world.marks() == {1: "NG", 2: "RT"}
    assert list(world.machine.audit.records())[-1]["remedy"] == "completed"


@pytest.mark.parametrize("step", ["snapshot", "index", "write", "verify", "record"])
def test_interruption_while_staging_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupt(name: str) -> None:
        if name == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(world.machine.journal, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.apply(hostname="two\n")
    monkeypatch.undo()

    assert world.marks() == {1: "NRG"}
    assert world.problems() == []
    assert sorted(os.listdir(world.storage.state / "generations")) == ["1", "last"]


@pytest.mark.parametrize("step", ["carry", "seal", "switch"])
def test_interruption_before_the_switch_leaves_it_staged(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world.apply(hostname="two\n")
    (world.machine.sysroot / "etc/added").write_text("ours\n")
    monkeypatch.setattr(
        world.machine.journal,
        "step",
        lambda name: (_ for _ in ()).throw(KeyboardInterrupt) if name == step else None,
    )
    with pytest.raises(KeyboardInterrupt):
        world.commit()
    monkeypatch.undo()

    assert world.marks() == {1: "NRG", 2: ""}
    assert world.problems() == []
    assert world.commit().number == 2
    assert world.text(2, "added") == "ours\n"


def test_repair_makes_the_entry_file_anew(world: World) -> None:
    world.update(hostname="two\n")
    world.restart()
    world.confirm(2)
    world.loader.prepare(world.machine.boot_state()._replace(default=7))
    world.loader.switch()

    assert repair.repair(world.machine, REQUEST)
    assert world.marks() == {1: "G", 2: "NRG"}
    assert world.problems() == []
    assert repair.repair(world.machine, REQUEST) == []


def test_what_is_left_open_is_settled_by_the_next(world: World) -> None:
    intent = {"transaction": "1", "act": "stage", "generation": 5, "base": 1, "targets": [], "format": 1}
    actor = {"verb": "apply", "argv": [], "generation": 5}
    rest = {"boot_id": "earlier", "pid": 1, "actor": actor}
    world.machine.journal.path.write_text(json.dumps(intent | rest) + "\n")
    world.machine.generations.directory(5).mkdir()

    with transaction.exclusive(world.machine, "next"):
        assert not world.machine.generations.directory(5).exists()
        assert world.machine.journal.open() is None
    last = list(world.machine.audit.records())[-1]
    assert (last["transaction"], last["result"], last["remedy"]) == ("1", "interrupted", "discarded")


def test_differences_and_space(world: World) -> None:
    world.update(hostname="two\n", motd="x" * 100)
    with difference.readable(world.machine, 1, 2) as (old, new):
        counts = difference.tally(difference.between(world.machine, old, new))

    assert (counts.added, counts.changed) == (1, 1)
    assert counts.bytes_written == 104
    assert 0 <= world.machine.storage.free_percent <= 100


def test_where_tries_are_counted_is_not_forgotten_while_it_is_not_mounted(world: World) -> None:
    world.loader.counter = "1234:/EFI/snaptx/snaptx.env"
    world.update(one="1")
    world.loader.counter = ""
    world.update(two="2")

    assert world.machine.boot_state().counter == "1234:/EFI/snaptx/snaptx.env"


def test_what_to_fall_back_to_stays_in_a_full_menu(world: World) -> None:
    world.configure(Config(boot=BootConfig(menu=3)))
    for number in range(2, 6):
        world.update(hostname=f"{number}\n")

    state = world.machine.boot_state()
    assert [entry.number for entry in state.entries] == [5, 4, 1]
    assert state.fallback == 1


def test_the_menu_says_what_is_known_of_a_generation(world: World) -> None:
    world.update(hostname="two\n")
    world.confirm(2, bad="it hung")
    world.update(hostname="three\n")

    titles = {entry.number: entry.title for entry in world.machine.boot_state().entries}
    assert "[bad]" in titles[2]
    assert "[trial]" in titles[3]
    assert "[" not in titles[1]


def test_what_can_not_boot_is_nothing_to_fall_back_to(world: World) -> None:
    world.update(hostname="two\n")
    world.confirm(2)
    world.update(hostname="three\n")
    assert world.machine.boot_state().fallback == 2
    world.storage.delete(Tree(2, Part.ROOT))
    world.update(hostname="four\n")

    state = world.machine.boot_state()
    assert state.fallback == 1
    assert [entry.number for entry in state.entries] == [4, 3, 1]
