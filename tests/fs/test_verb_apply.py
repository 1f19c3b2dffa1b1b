"""``snaptx apply``: what a payload asks for arrives exactly, and the running root never changes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import oracle, workload
from tests.boxes import Box, changes, inspect, made
from tests.fs.conftest import command
from tests.specials import MAKERS

FORMS = {"plain": "", "gz": "gzip", "xz": "xz", "zst": "zstd"}
OLD = ("etc/hostname", "etc/passwd", "usr/share/doc/read", "usr/share/doc/me", "usr/share/whole/one")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give a sandbox with some files that an update can change and remove."""
    tree = tmp_path_factory.mktemp("tree") / "root"
    for name in OLD:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"old {name}\n")
    (tree / "opt").mkdir()
    (tree / "usr/lib").mkdir()
    (tree / "lib").symlink_to("usr/lib")
    with made(source=tree) as one:
        yield one


@pytest.fixture
def ground(stocked: Box) -> Iterator[Box]:
    """Give the stocked sandbox with nothing staged, and check that its running root stays as it is."""
    before = inspect(stocked.root, times=True)
    yield stocked
    for number, marks in stocked.marks().items():
        if marks.endswith("s"):
            stocked.ok("abort", str(number))
    assert changes(before, inspect(stocked.root, times=True)) == {}


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an overlay with one of everything a file system can hold, and with whiteouts."""
    tree, rng = tmp_path_factory.mktemp("update") / "overlay", random.Random(1)
    for make in MAKERS:
        (tree / f"opt/{make.__name__}").mkdir(parents=True)
        make(os.fsencode(tree / f"opt/{make.__name__}/it"), rng)
    (tree / "etc").mkdir()
    (tree / "etc/hostname").write_text("new\n")
    (tree / "etc/.wh.passwd").touch()
    (tree / "usr/share/doc").mkdir(parents=True)
    (tree / "usr/share/doc/.wh..wh..opq").touch()
    (tree / "usr/share/doc/only").write_text("new\n")
    (tree / "usr/share/.wh.whole").touch()
    os.utime(tree / "etc/hostname", ns=(1, 1_234_567_890_123_456_789))
    return tree


def small(place: Path, text: str = "new\n") -> Path:
    """Make a payload with one file."""
    (place / "etc").mkdir(parents=True)
    (place / "etc/motd").write_text(text)
    return place


def check(box: Box, overlay: Path) -> None:
    """Compare what was staged, path by path, with what the overlay makes of the running root."""
    (number,) = (number for number, marks in box.marks().items() if marks.endswith("s"))
    shutil.copystat(box.root, overlay)  # the root itself stays as it is, whatever the payload says of it
    assert list(oracle.differences(box.root, overlay, box.tree(number))) == []
    assert box.json("verify", str(number))["problems"] == []


def test_directory_arrives_exactly(ground: Box, update: Path) -> None:
    counts = ground.json("apply", str(update))["staged"]["counts"]

    check(ground, update)
    assert counts["removed"] == 5
    assert counts["unchanged"] == 0


@pytest.mark.parametrize("form", sorted(FORMS))
def test_tar_arrives_exactly(ground: Box, update: Path, tmp_path: Path, form: str) -> None:
    tar = tmp_path / "update.tar"
    workload.pack(update, tar, FORMS[form])
    digest = hashlib.sha256(tar.read_bytes()).hexdigest()
    payload = ground.json("apply", str(tar), "--sha256", digest)["staged"]["payload"]

    check(ground, update)
    assert payload == {"source": str(tar), "sha256": digest, "size": tar.stat().st_size}


def test_standard_input_arrives_exactly(ground: Box, update: Path, tmp_path: Path) -> None:
    tar = tmp_path / "update.tar"
    workload.pack(update, tar, "zstd")
    with subprocess.Popen(["cat", tar], stdout=subprocess.PIPE) as pipe:
        assert pipe.stdout
        said = ground.start("apply", "-", stdin=pipe.stdout.fileno()).wait()

    assert said.code == 0, said.err
    check(ground, update)


def test_members_without_their_directories_and_through_links_of_the_root(ground: Box, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    for name in ("lib/deep/down/file", "usr/share/doc/read"):
        (overlay / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay / name).write_text("new\n")
    names = ("lib/deep/down/file", "usr/share/doc/read")
    command("tar", "-cf", tmp_path / "few.tar", "-C", overlay, *names)
    ground.ok("apply", str(tmp_path / "few.tar"))
    tree = ground.tree(max(ground.marks()))

    assert (tree / "usr/lib/deep/down/file").read_text() == "new\n"
    assert (tree / "lib").is_symlink()
    assert (tree / "usr/share/doc/me").exists()


def test_wrong_digest_stages_nothing(ground: Box, update: Path, tmp_path: Path) -> None:
    workload.pack(update, tmp_path / "update.tar")
    records = len(ground.audit())
    said = ground.refuses(23, "apply", str(tmp_path / "update.tar"), "--sha256", "0" * 64)

    assert "expected was " + "0" * 64 in said
    assert [record["result"] for record in ground.audit()[records:]] == ["failed"]
    ground.refuses(2, "apply", str(tmp_path / "update.tar"), "--sha256", "beef")


def test_what_is_there_already_makes_no_generation(ground: Box, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command("cp", "-a", ground.root / "etc/hostname", tmp_path / "etc")
    command("tar", "--format=pax", "-cf", tmp_path / "same.tar", "-C", tmp_path, "etc/hostname")
    before = ground.facts()

    assert "nothing changed" in ground.ok("apply", str(tmp_path / "same.tar"))
    assert ground.run("apply", str(tmp_path / "same.tar"), "--unchanged-exit-77").code == 77
    assert changes(before, ground.facts()) == {}
    assert ground.audit()[-1]["result"] == "unchanged"
    assert ground.audit()[-1]["counts"]["unchanged"] == 1


def test_dry_run_tells_the_truth_and_changes_nothing(ground: Box, update: Path, tmp_path: Path) -> None:
    tar = tmp_path / "update.tar"
    workload.pack(update, tar, "gzip")
    before, records = ground.facts(), len(ground.audit())
    told = ground.json("--dry-run", "apply", str(tar))

    assert changes(before, ground.facts()) == {}
    assert len(ground.audit()) == records
    listed = subprocess.run(["tar", "-tf", tar], capture_output=True, check=True).stdout
    assert told["members"] == listed.count(b"\n")
    assert told["payload"]["sha256"] == hashlib.sha256(tar.read_bytes()).hexdigest()
    assert ground.run("--dry-run", "apply", str(tar), "--sha256", "0" * 64).code == 23
    with tar.open("r+b") as file:
        file.truncate(tar.stat().st_size // 2)
    assert ground.run("--dry-run", "apply", str(tar)).code == 20


def test_second_apply_builds_on_the_first_and_replaces_it(ground: Box, tmp_path: Path) -> None:
    one, two = small(tmp_path / "one"), tmp_path / "two"
    (two / "etc").mkdir(parents=True)
    (two / "etc/issue").write_text("two\n")
    first = ground.json("apply", str(one), "-m", "one")["staged"]["number"]
    second = ground.json("apply", str(two), "-m", "two")["staged"]

    assert second["replaced"] == [first]
    assert list(ground.marks()) == [1, second["number"]]
    tree = ground.tree(second["number"])
    assert ((tree / "etc/motd").read_text(), (tree / "etc/issue").read_text()) == ("new\n", "two\n")
    record = ground.json("list")[-1]
    assert (record["base"], record["includes"], record["message"]) == (1, [first], "one; two")
    assert not ground.tree(first).exists()
    assert ground.json("verify")["problems"] == []


def test_failure_of_the_second_keeps_the_first(ground: Box, tmp_path: Path) -> None:
    ground.ok("apply", str(small(tmp_path / "one")))
    (tmp_path / "bad.tar").write_bytes(b"\x1f\x8b" + b"no gzip" * 100)

    ground.refuses(20, "apply", str(tmp_path / "bad.tar"))
    ground.refuses(51, "apply", "--base", "999", str(tmp_path / "one"))


def test_base_says_what_to_build_on(ground: Box, tmp_path: Path) -> None:
    first = ground.json("apply", str(small(tmp_path / "one")))["staged"]["number"]
    (tmp_path / "two/etc").mkdir(parents=True)
    (tmp_path / "two/etc/issue").write_text("two\n")
    second = ground.json("apply", "--base", "1", str(tmp_path / "two"))["staged"]

    assert (second["base"], second["replaced"]) == (1, [])
    assert list(ground.marks()) == [1, first, second["number"]]
    assert not (ground.tree(second["number"]) / "etc/motd").exists()


def test_pinned_work_is_not_replaced(ground: Box, tmp_path: Path) -> None:
    first = ground.json("apply", str(small(tmp_path / "one")))["staged"]["number"]
    ground.ok("pin", str(first))
    second = ground.json("apply", str(small(tmp_path / "two", "two\n")))["staged"]

    assert second["replaced"] == []
    assert list(ground.marks()) == [1, first, second["number"]]
    ground.refuses(52, "abort", str(first))
    ground.ok("unpin", str(first))


def test_commit_at_once(box: Box, tmp_path: Path) -> None:
    done = box.json("apply", str(small(tmp_path / "one")), "--commit", "--message", "at once")

    assert (done["staged"]["number"], done["committed"]["number"]) == (2, 2)
    assert box.marks() == {1: "NG", 2: "RT"}
    assert [record["verb"] for record in box.audit()] == ["init", "apply", "apply"]
    assert box.audit()[-1]["message"] == "at once"
    assert not (box.root / "etc/motd").exists()


def test_devices_need_a_word(ground: Box, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    os.mknod(tmp_path / "dev/one", 0o20666, os.makedev(1, 3))

    assert "--allow-devices" in ground.refuses(21, "apply", str(tmp_path))
    ground.ok("apply", "--allow-devices", str(tmp_path))
    assert (ground.tree(max(ground.marks())) / "dev/one").stat().st_rdev == os.makedev(1, 3)


def test_audit_tells_who_what_and_from_where(
    ground: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "anna")
    payload = small(tmp_path / "one")
    ground.ok("apply", str(payload), "-m", "because")
    record = ground.audit()[-1]

    assert record["argv"] == ["snaptx", "--sysroot", str(ground.root), "apply", str(payload), "-m", "because"]
    assert (record["who"]["uid"], record["who"]["sudo_user"]) == (0, "anna")
    assert (record["base"], record["generation"], record["message"]) == (1, max(ground.marks()), "because")
    assert (record["counts"]["added"], record["payload"]["source"]) == (1, str(payload))
    assert set(record["steps"]) == {"snapshot", "index", "write", "verify", "record"}
    assert record["seconds"] > 0
