"""The journal, the generations' records, the lock and the durable files they are made of."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from snaptx import durable, lock
from snaptx.errors import (
    FormatError,
    JournalError,
    LockError,
    NoSpaceError,
    NotFoundError,
    StorageError,
    VerifyError,
)
from snaptx.generations import RECORD, Generations
from snaptx.journal import Intent, Journal
from snaptx.model import Counts, Generation, Payload, Verdict

INTENT = Intent("0123", "stage", 7, 3, (4, 5), "boot", 99, {"verb": "apply", "argv": ["snaptx", "\udcff"]})
FULL = Generation(
    7, 3, 1.5, "apply", "why \udcff", "", Payload("-", "ab", 9), Counts(1, 2, 3, 4, 5), (4, 5), 2,
    Verdict.BAD, "because", True, ("srv",),
)  # fmt: skip


def test_journal_gives_back_what_was_meant(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.open() is None
    journal.begin(INTENT)
    assert journal.open() == INTENT
    assert journal.last_step() == ""
    for step in ("snapshot", "write"):
        journal.step(step)
    assert (journal.open(), journal.last_step()) == (INTENT, "write")
    journal.end()
    journal.end()
    assert journal.open() is None
    assert list(tmp_path.iterdir()) == []


def test_a_step_cut_short_is_not_believed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(INTENT)
    journal.step("snapshot")
    with journal.path.open("ab") as stream:
        stream.write(b'{"step": "wri')

    assert (journal.open(), journal.last_step()) == (INTENT, "snapshot")


def test_steps_are_noted_on_a_full_disk_or_not(tmp_path: Path, mocker: MockerFixture) -> None:
    journal = Journal(tmp_path)
    journal.begin(INTENT)
    mocker.patch("os.write", side_effect=OSError(errno.ENOSPC, "full"))
    journal.step("snapshot")

    assert journal.last_step() == ""


def test_journal_cut_anywhere_is_an_error_and_never_another_intent(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(INTENT)
    whole = journal.path.read_bytes()
    for cut in range(len(whole) - 1):
        journal.path.write_bytes(whole[:cut])
        with pytest.raises(JournalError, match="journal is damaged") as caught:
            journal.open()
        assert "repair" in caught.value.hint


@pytest.mark.parametrize("text", ["[]", "7", "null", '{"format": 1}', '{"format": null}', '"text"'])
def test_what_is_no_journal(tmp_path: Path, text: str) -> None:
    Journal(tmp_path).path.write_text(text + "\n")

    with pytest.raises(JournalError):
        Journal(tmp_path).open()


def test_a_journal_that_the_disk_does_not_give_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable, "read", fails)
    with pytest.raises(StorageError, match="cannot read the journal: Input/output error") as caught:
        Journal(tmp_path).open()
    assert caught.value.hint


def test_a_newer_journal_and_unknown_keys(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(INTENT)
    data = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps(data | {"later": 1}) + "\n")
    assert journal.open() == INTENT
    journal.path.write_text(json.dumps({"format": 2}) + "\n")
    with pytest.raises(FormatError):
        journal.open()


def _generations(tmp_path: Path, *numbers: int) -> Generations:
    made = Generations(tmp_path)
    for number in numbers:
        made.directory(number).mkdir()
    return made


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    generations = _generations(tmp_path, 7, 10, 9)
    plain = Generation(10, 7, 2.0, "run")
    generations.write(FULL)
    generations.write(plain)

    assert (generations.read(7), generations.read(10)) == (FULL, plain)
    assert generations.numbers() == [7, 9, 10]
    assert generations.recorded() == [FULL, plain]
    generations.write(FULL._replace(pinned=False))
    assert not generations.read(7).pinned


def test_what_a_record_says_besides_is_passed_over(tmp_path: Path) -> None:
    generations = _generations(tmp_path, 7)
    generations.write(FULL)
    path = generations.directory(7) / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernel": ""}))

    assert generations.read(7) == FULL


def test_numbers_never_come_back(tmp_path: Path) -> None:
    generations = _generations(tmp_path, 3)
    assert generations.reserve() == 4
    assert generations.reserve() == 5
    (tmp_path / "last").write_text("garbage")
    assert generations.reserve() == 4, "what exists is counted at least"
    (tmp_path / "last").write_text("12\n")
    assert generations.reserve() == 13


@pytest.mark.parametrize("name", ["²", "007", "٣", "-1", "0", "1.5", "3~"])
def test_directories_that_are_no_numbers_of_snaptx(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "12").mkdir()

    assert Generations(tmp_path).numbers() == [12]


def test_forgotten_records(tmp_path: Path) -> None:
    generations = _generations(tmp_path, 3)
    generations.write(FULL._replace(number=3))
    generations.forget(3)
    generations.forget(3)

    assert generations.numbers() == []
    with pytest.raises(NotFoundError, match="no generation 3"):
        generations.read(3)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "7", '{"format": 1}', '{"format": 1, "number": 3, "base": ']
)
def test_damaged_records(tmp_path: Path, text: str) -> None:
    (_generations(tmp_path, 3).directory(3) / RECORD).write_text(text)

    with pytest.raises(VerifyError, match="generation 3 is damaged"):
        Generations(tmp_path).read(3)


def test_a_newer_record(tmp_path: Path) -> None:
    (_generations(tmp_path, 3).directory(3) / RECORD).write_text('{"format": 99}')

    with pytest.raises(FormatError):
        Generations(tmp_path).read(3)


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.exclusive(path, "apply"):
        with (
            pytest.raises(LockError, match=f"'snaptx apply', process {os.getpid()}"),
            lock.exclusive(path, "x"),
        ):
            pass
        path.write_text("garbage")
        with pytest.raises(LockError, match="not said"), lock.exclusive(path, "x"):
            pass
    with lock.exclusive(path, "again"):
        assert json.loads(path.read_text())["verb"] == "again"


def test_no_lock_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StorageError, match="symbolic"), lock.exclusive(tmp_path / "lock", "x"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_replaced_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in (b"first", b"second and longer", b""):
        durable.replace(path, text)
        assert path.read_bytes() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["os.write", "os.fsync", "os.replace"])
def test_failed_replacement_leaves_the_old(tmp_path: Path, mocker: MockerFixture, call: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    mocker.patch(call, side_effect=OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(NoSpaceError, match="file"):
        durable.replace(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupt_leaves_nothing_beside_a_file(tmp_path: Path, mocker: MockerFixture, call: str) -> None:
    path = tmp_path / "file"
    durable.replace(path, b"old")
    mocker.patch.object(os, call, side_effect=KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        durable.replace(path, b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"old"}


def test_failed_addition_is_cut_off(tmp_path: Path, mocker: MockerFixture) -> None:
    path = tmp_path / "file"
    durable.append(path, b"one\n")
    mocker.patch("os.fsync", side_effect=OSError(errno.EIO, "Input/output error"))

    with pytest.raises(StorageError):
        durable.append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_an_addition_to_what_cannot_be_opened(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch("os.open", side_effect=OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(NoSpaceError, match="cannot append to file"):
        durable.append(tmp_path / "file", b"one\n")


def test_a_write_that_takes_less_goes_on(tmp_path: Path, mocker: MockerFixture) -> None:
    write = os.write
    mocker.patch("os.write", lambda fd, data: write(fd, data[:3]))
    durable.write_new(tmp_path / "file", b"0123456789")

    assert (tmp_path / "file").read_bytes() == b"0123456789"
