"""``verify`` finds what is damaged, ``repair`` mends what can be mended and says what it did."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snaptx.bootloader import entryfile
from snaptx.system import descriptor
from tests.boxes import Box, changes, made
from tests.fs.conftest import command

MARKS = {1: "G", 2: "NRG", 3: "s"}


def _prepare(box: Box, place: Path) -> None:
    """Run generation 2, which is good, and stage 3."""
    for name in ("two", "three"):
        (place / name / "etc").mkdir(parents=True)
        (place / name / "etc" / name).write_text(name)
    box.ok("apply", str(place / "two"), "--commit", "-m", "two")
    box.reboot()
    box.ok("confirm")
    box.ok("apply", str(place / "three"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give such a sandbox to all tests that leave it as it was."""
    with made() as one:
        _prepare(one, tmp_path_factory.mktemp("payload"))
        yield one


@pytest.fixture
def fresh(box: Box, tmp_path: Path) -> Box:
    """Give such a sandbox to one test alone."""
    _prepare(box, tmp_path / "payload")
    return box


def problems(box: Box, *words: str) -> str:
    """Return what ``verify`` complains of, "" for nothing."""
    said = box.run("--json", "verify", *words)
    result = json.loads(said.out)
    assert said.code == (40 if result["problems"] else 0), said.err
    return "\n".join(f"{problem['where']}: {problem['what']}" for problem in result["problems"])


def repaired(box: Box, *told: str) -> None:
    """Repair, expect to be told so, and find the machine as it was before the damage."""
    said = box.ok("repair")
    assert [part for part in told if part not in said] == [], said
    assert "nothing to repair" in box.ok("repair")
    assert box.run("repair", "--unchanged-exit-77").code == 77
    for number in box.marks():
        assert problems(box, str(number)) == ""
    assert box.audit()[-1]["verb"] == "repair"
    assert box.ok("log", "--verify")


def test_sound_machine_needs_nothing(machine: Box) -> None:
    before, records = machine.facts(), len(machine.audit())

    assert problems(machine) == ""
    assert "nothing to repair" in machine.ok("repair")
    assert "nothing to repair" in machine.ok("--dry-run", "repair")
    assert changes(before, machine.facts()) == {}
    assert len(machine.audit()) == records


def _commits(box: Box) -> list[int]:
    """Return the transaction that each copy of the superblock on the disk is of."""
    dump = command("btrfs", "inspect-internal", "dump-super", "--all", box.sandbox.disk)
    return [int(line.split()[1]) for line in dump.splitlines() if line.startswith("generation")]


@pytest.mark.parametrize("words", [[], ["--boot"]])
def test_the_superblocks_are_of_one_commit_afterwards(machine: Box, words: list[str]) -> None:
    """GRUB believes the newest; a power cut can leave one that the kernel does not know."""
    machine.ok("repair", *words)  # what else there may be to do
    command("sync", "-f", machine.root)
    before = _commits(machine)

    machine.ok("repair", *words)

    after = _commits(machine)
    assert len(set(after)) == 1
    assert min(after) > max(before)


def _unseal(box: Box, number: int, change: Callable[[Path], None]) -> None:
    """Change a sealed tree as failing hardware would."""
    tree = box.tree(number, "sealed")
    command("btrfs", "property", "set", "-f", "-ts", tree, "ro", "false")
    change(tree)
    command("btrfs", "property", "set", "-ts", tree, "ro", "true")


def _flip(path: Path) -> None:
    data, times = bytearray(path.read_bytes()), path.stat()
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_flipped_bit_is_found(fresh: Box) -> None:
    _unseal(fresh, 2, lambda tree: _flip(tree / "etc/two"))

    assert "/etc/two: differs in sha256" in problems(fresh, "2")
    assert problems(fresh, "1") == ""


def test_any_difference_to_the_manifest_is_found(fresh: Box) -> None:
    def damage(tree: Path) -> None:
        (tree / "etc/two").unlink()
        (tree / "etc/added").touch()
        (tree / "etc/hostname").chmod(0o640)
        os.setxattr(tree / "etc/passwd", "user.x", b"y")

    _unseal(fresh, 2, damage)
    said = problems(fresh, "2")

    assert "/etc/added: is not in the manifest" in said
    assert "/etc/hostname: differs in mode" in said
    assert "/etc/passwd: differs in xattrs" in said
    assert "1 path(s) of the manifest are missing" in said


def _row(box: Box, number: int, statement: str) -> None:
    with closing(sqlite3.connect(box.state / f"manifests/{number}.sqlite")) as db:
        db.execute(statement)
        db.commit()


def test_a_changed_manifest_is_found(fresh: Box) -> None:
    _row(fresh, 2, "UPDATE rows SET sha256 = x'00' WHERE path = CAST('etc/two' AS BLOB)")

    assert "/etc/two: differs in sha256" in problems(fresh, "2")


@pytest.mark.parametrize("text", [None, b"", b"garbage\n", "cut", "as DOS has it"])
def test_entry_file(machine: Box, text: bytes | str | None) -> None:
    kept = machine.entry.read_bytes()
    machine.entry.unlink()
    if text is not None:
        damaged = {"cut": kept[:-20], "as DOS has it": kept.replace(b"\n", b"\r\n")}
        machine.entry.write_bytes(text if isinstance(text, bytes) else damaged[text])

    assert "boot entry" in problems(machine)
    machine.refuses(51 if text is None else 60, "commit")
    repaired(machine, "entry file", "generation 2 boots")
    assert machine.marks() == MARKS
    assert (machine.boot().fallback, machine.boot().confirmed) == (1, True)


@pytest.mark.parametrize(
    "text", [b"", b"garbage", b'{"format": 1}\n', b"[]\n", b'{"format": 1, "act": "comm']
)
def test_journal(machine: Box, text: bytes) -> None:
    (machine.state / "journal/open").write_bytes(text)

    assert "journal" in problems(machine)
    assert "journal" in machine.refuses(70, "abort")
    repaired(machine, "the journal is damaged")
    assert machine.marks() == MARKS


def test_interrupted_transaction(machine: Box) -> None:
    intent = {
        "transaction": "0123", "act": "stage", "generation": 77, "base": 2, "targets": [], "pid": 1,
        "boot_id": "earlier", "actor": {"verb": "apply", "argv": ["snaptx", "apply", "x"]}, "format": 1,
    }  # fmt: skip
    (machine.state / "journal/open").write_text(json.dumps(intent) + '\n{"step": "write"}\n{"st')
    (machine.state / "generations/77").mkdir()
    command("btrfs", "subvolume", "snapshot", machine.root, machine.state / "generations/77/root")

    assert "'snaptx apply' was interrupted" in problems(machine)
    assert machine.json("status")["interrupted"] == "apply"
    assert "discarded" in machine.ok("repair")
    assert machine.audit()[-2]["transaction"] == "0123"
    assert (machine.audit()[-2]["result"], machine.audit()[-2]["step"]) == ("interrupted", "write")
    assert machine.marks() == MARKS
    assert not (machine.state / "generations/77").exists()


def test_audit_cut_in_the_middle_of_a_line(machine: Box) -> None:
    path = machine.state / "audit/log"
    path.write_bytes(path.read_bytes()[:-40])

    assert "audit log" in problems(machine)
    assert "repair" in machine.refuses(40, "abort")
    repaired(machine, "audit log", "set aside")
    assert machine.marks() == MARKS


@pytest.mark.parametrize("kind", ["directory", "link", "pipe", "none at all"])
def test_audit_trail_that_is_no_file(fresh: Box, kind: str) -> None:
    path = fresh.state / "audit/log"
    path.rename(fresh.state / "kept")
    if kind == "none at all":
        shutil.rmtree(path.parent)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("../kept")
    else:
        os.mkfifo(path)

    assert "audit log" in problems(fresh)
    repaired(fresh, "audit log")
    fresh.ok("pin", "1")
    assert [record["verb"] for record in fresh.audit()] == ["repair", "pin"]


def test_default_subvolume_elsewhere(machine: Box) -> None:
    command("btrfs", "subvolume", "set-default", "5", machine.top)

    assert "is the top level, not @snaptx/generations/2/root" in problems(machine)
    repaired(machine, "default subvolume")
    assert machine.default_subvolume() == "@snaptx/generations/2/root"


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("text", [None, b"", b"garbage" * 1000, "cut"])
def test_manifest(machine: Box, number: int, text: bytes | str | None) -> None:
    path = machine.state / f"manifests/{number}.sqlite"
    kept = path.read_bytes()
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else kept[: len(kept) // 2])

    assert f"generation {number}: " in problems(machine, "1" if number != 1 else "2")
    repaired(machine, f"generation {number}", "indexed anew")
    assert machine.marks() == MARKS


def test_leftover_directory(machine: Box) -> None:
    (machine.state / "generations/50").mkdir()
    command("btrfs", "subvolume", "snapshot", "-r", machine.root, machine.state / "generations/50/origin")

    assert "generation 50: is a leftover without a record" in problems(machine)
    repaired(machine, "generation 50, a leftover without a record, was removed")
    assert not (machine.state / "generations/50").exists()


def test_leftovers_of_a_reader(machine: Box) -> None:
    command("btrfs", "subvolume", "snapshot", "-r", machine.root, machine.state / "generations/3/viewed")

    assert machine.ok("diff", "2", "3")
    assert not (machine.state / "generations/3/viewed").exists()


def test_a_view_of_an_upgrade_that_is_fetching(machine: Box) -> None:
    """It is mounted while the package manager works, and not in between."""
    view = machine.state / "generations/3/viewed"
    command("btrfs", "subvolume", "snapshot", machine.root, view)
    with descriptor(view.parent, os.O_RDONLY | os.O_DIRECTORY) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine.ok("repair")
        assert view.exists()
    repaired(machine, "generation 3: a view that nobody looks at any more was removed")
    assert not view.exists()


def test_a_view_whose_reader_was_killed(machine: Box, tmp_path: Path) -> None:
    view = machine.state / "generations/3/viewed"
    command("btrfs", "subvolume", "snapshot", "-r", machine.root, view)
    command("mount", "--bind", view, tmp_path)

    assert "nothing to repair" in machine.ok("repair")
    assert view.exists(), "somebody looks at it"

    command("umount", tmp_path)
    repaired(machine, "generation 3: a view that nobody looks at any more was removed")
    assert not view.exists()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("text", [None, b"", b"{}"])
def test_record(fresh: Box, number: int, text: bytes | None) -> None:
    path = fresh.state / f"generations/{number}/generation.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text)

    assert f"generation {number}: " in problems(fresh, "1" if number == 2 else "2") if text is None else True
    assert f"generation {number}" in fresh.ok("repair")
    if number == 3 and text is None:
        assert list(fresh.marks()) == [1, 2]
    else:
        assert [number for number, marks in fresh.marks().items() if "R" in marks] == [2]
        assert list(fresh.marks()) == [1, 2, 3]
    assert problems(fresh, "2") == ""


def test_root_deleted_behind_its_back(fresh: Box) -> None:
    fresh.ok("rollback", "1", "--as-used")
    fresh.reboot()
    command("btrfs", "subvolume", "delete", fresh.tree(2))

    assert "generation 2: has no root" in problems(fresh, "1")
    repaired(fresh, "the root of generation 2 was missing; made anew from its sealed tree")
    assert (fresh.tree(2) / "etc/two").read_text() == "two"


def test_whole_default_deleted_behind_its_back(fresh: Box) -> None:
    fresh.ok("rollback", "1", "--as-used")
    fresh.reboot()
    fresh.ok("rollback", "2", "--as-used")
    command("btrfs", "subvolume", "set-default", "5", fresh.top)
    for part in ("root", "sealed", "origin"):
        command("btrfs", "subvolume", "delete", fresh.tree(2, part))
    shutil.rmtree(fresh.state / "generations/2")

    assert "generation 2, does not exist" in problems(fresh, "1")
    repaired(fresh, "generation 1 boots")
    assert fresh.marks() == {1: "NRG", 3: "s"}
    assert fresh.default_subvolume() == "@rootfs"


def test_default_without_its_seal(fresh: Box) -> None:
    command("btrfs", "subvolume", "delete", fresh.tree(2, "sealed"))

    assert "is not sealed" in problems(fresh, "1")
    repaired(fresh, "sealed anew")
    assert fresh.marks() == MARKS


NEWER = (
    "generations/2/generation.json",
    "journal/open",
    "audit/log",
    "grub/snaptx.cfg",
    "manifests/2.sqlite",
)


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_snaptx_is_left_alone(machine: Box, name: str) -> None:
    path = machine.state / name
    kept = path.read_bytes() if path.exists() else None
    _newer(path)
    before = machine.facts()
    try:
        said = machine.refuses(71, "repair")
        assert "newer" in said
        apply = ("apply", "--base", "2", str(machine.root / "etc"))
        words = ("commit",) if name == "grub/snaptx.cfg" else apply
        assert "newer" in machine.refuses(71, *words)
        assert changes(before, machine.facts()) == {}
    finally:
        path.write_bytes(kept) if kept is not None else path.unlink()
    assert problems(machine) == ""


def _newer(path: Path) -> None:
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
            db.commit()
    elif path.suffix == ".cfg":
        body = path.read_text().rpartition("# sha256 ")[0].replace('"format": 1', '"format": 99')
        path.write_text(entryfile._signed(body))
    elif path.name == "log":
        path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 99'))
    else:
        given = json.loads(path.read_text()) if path.exists() else {"act": "later"}
        path.write_text(json.dumps(given | {"format": 99}))


def test_what_was_judged_bad_is_not_made_the_default(fresh: Box, tmp_path: Path) -> None:
    """The running generation is the default's first choice, where the entry file is lost, but for that."""
    (tmp_path / "worse").mkdir()
    (tmp_path / "worse/file").write_text("worse")
    number = fresh.json("apply", "--commit", str(tmp_path / "worse"))["committed"]["number"]
    fresh.reboot()
    fresh.ok("confirm", "--bad", "it hangs")
    assert fresh.boot().default != number
    fresh.entry.unlink()
    fresh.ok("repair")

    assert fresh.boot().default != number
