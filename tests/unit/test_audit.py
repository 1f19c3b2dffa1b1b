"""The audit chain: every alteration shows."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from threading import Thread

import pytest
from pytest_mock import MockerFixture

from snaptx import durable
from snaptx.audit import RESERVE, Audit
from snaptx.errors import FormatError, NoSpaceError, VerifyError
from snaptx.system import DIRECTORY, descriptor


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Give a trail of five records."""
    trail = Audit(tmp_path)
    for number in range(5):
        trail.append({"verb": "apply", "number": number})
    return trail


def lines(audit: Audit) -> list[bytes]:
    """Return the log's lines."""
    return audit.log.read_bytes().splitlines(keepends=True)


def test_a_sound_chain_verifies(audit: Audit) -> None:
    assert audit.verify() == 5
    assert [record["number"] for record in audit.records()] == [0, 1, 2, 3, 4]


def test_an_empty_trail_verifies(tmp_path: Path) -> None:
    assert Audit(tmp_path).verify() == 0


@pytest.mark.parametrize("victim", range(5))
def test_an_altered_record_is_found(audit: Audit, victim: int) -> None:
    found = lines(audit)
    record = json.loads(found[victim])
    found[victim] = json.dumps({**record, "verb": "nothing"}).encode() + b"\n"
    audit.log.write_bytes(b"".join(found))

    with pytest.raises(VerifyError):
        audit.verify()


@pytest.mark.parametrize("victim", range(5))
def test_a_removed_record_is_found_even_the_last(audit: Audit, victim: int) -> None:
    found = lines(audit)
    del found[victim]
    audit.log.write_bytes(b"".join(found))

    with pytest.raises(VerifyError):
        audit.verify()


def test_two_records_that_changed_places_are_found(audit: Audit) -> None:
    found = lines(audit)
    found[1], found[2] = found[2], found[1]
    audit.log.write_bytes(b"".join(found))

    with pytest.raises(VerifyError):
        audit.verify()


def test_a_removed_log_is_found(audit: Audit) -> None:
    audit.log.unlink()

    with pytest.raises(VerifyError):
        audit.verify()


def test_a_log_cut_anywhere_is_mended_up_to_the_cut(audit: Audit) -> None:
    whole = audit.log.read_bytes()
    for cut in range(0, len(whole), 37):
        audit.log.write_bytes(whole[:cut])
        if cut:
            audit.mend()
        sound = whole[:cut].count(b"\n")
        assert audit.log.read_bytes().count(b"\n") == sound


def test_mending_keeps_what_it_takes_out(audit: Audit) -> None:
    broken = audit.log.read_bytes()[:-10]
    audit.log.write_bytes(broken)

    assert audit.mend()
    assert audit.verify() == 4
    damaged = list(audit.log.parent.glob("damaged-*"))
    assert len(damaged) == 1
    assert broken.endswith(damaged[0].read_bytes())


def test_what_was_set_aside_is_not_replaced_by_the_next_that_is(audit: Audit) -> None:
    for text in (b"one\n", b"two\n", b"three\n"):
        audit.log.write_bytes(b"".join(lines(audit)[:2]) + text)
        assert audit.mend()

    kept = {path.read_bytes() for path in audit.log.parent.glob("damaged-*")}
    assert kept == {b"one\n", b"two\n", b"three\n"}


def test_a_crash_before_the_witness_is_no_damage(audit: Audit) -> None:
    witness = audit.log.with_name("head")
    before = witness.read_text()
    audit.append({"verb": "late"})
    witness.write_text(before)

    assert audit.verify() == 6


def test_a_newer_format_is_refused(audit: Audit) -> None:
    record = json.loads(lines(audit)[0])
    audit.log.write_bytes(json.dumps({**record, "format": 99}).encode() + b"\n")

    with pytest.raises(FormatError):
        audit.verify()


@pytest.mark.parametrize("size", [100, 65_000, 66_000, 3_000_000])
def test_a_record_may_be_long(audit: Audit, size: int) -> None:
    audit.append({"verb": "commit", "carried": "x" * size})

    assert audit.append({"verb": "after"})["seq"] == 7
    assert audit.verify() == 7


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"7\n", b"\n", b"\x00\xff\n", b'{"seq": 9}'])
def test_what_is_no_record_is_said_to_be_none(audit: Audit, line: bytes) -> None:
    audit.log.write_bytes(audit.log.read_bytes() + line)

    for read in (audit.verify, audit.head):
        with pytest.raises(VerifyError, match="audit log"):
            read()


def test_a_reserve_lets_an_act_on_a_full_disk_be_recorded(audit: Audit, mocker: MockerFixture) -> None:
    reserve = audit.log.with_name("reserve")
    assert reserve.stat().st_size == RESERVE
    append = durable.append

    def full(path: Path, data: bytes) -> None:
        if reserve.exists():
            raise NoSpaceError("full")
        append(path, data)

    mocker.patch("snaptx.durable.append", full)
    audit.append({"verb": "prune"})

    assert audit.verify() == 6
    assert reserve.exists(), "it is for the next one as well"


def test_without_reserve_a_full_disk_is_an_error(audit: Audit, mocker: MockerFixture) -> None:
    audit.log.with_name("reserve").unlink()
    mocker.patch("snaptx.durable.append", side_effect=NoSpaceError("full"))

    with pytest.raises(NoSpaceError):
        audit.append({"verb": "prune"})
    assert audit.verify() == 5


def test_records_of_two_at_once_make_one_chain(audit: Audit) -> None:
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            try:
                for number in range(25):
                    audit.append({"time": 0.0, "verb": "exec", "generation": number})
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)

    assert audit.verify() == 105


@pytest.mark.parametrize("damaged", range(3))
def test_a_transaction_is_known_whatever_came_after_it(audit: Audit, damaged: int) -> None:
    audit.append({"transaction": "known"})
    audit.append({"verb": "exec"})
    found = lines(audit)
    found[damaged] = b"{\n"
    audit.log.write_bytes(b"".join(found))

    assert audit.knows("known")
    assert not audit.knows("unknown")
    assert not Audit(audit.log.parent / "nowhere").knows("known")


def test_mending_waits_for_who_is_adding(audit: Audit) -> None:
    with descriptor(audit.log.parent, DIRECTORY) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        mending = Thread(target=audit.mend)
        mending.start()
        mending.join(0.2)
        assert mending.is_alive()
    mending.join(5)
    assert not mending.is_alive()
