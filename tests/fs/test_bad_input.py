"""Payloads that are damaged, too large or meant to do harm: refused with a reason, nothing is left."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from snaptx.errors import DigestError, HostileError, LimitError, SourceError
from tests import tars
from tests.boxes import Box, made
from tests.fs.conftest import command
from tests.minimal_root import eventually

LIMITS = """
[limits]
max_bytes = 100_000_000
max_file_bytes = 50_000_000
max_files = 500
max_ratio = 10
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Give a sandbox with tight limits to all tests: nothing that they do changes it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("etc/full/file", "usr/lib/lib"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("there\n")
    (tree / "lib").symlink_to("usr/lib")
    (tree / "out").symlink_to("/tmp")
    (tree / "up").symlink_to("../../..")
    with made(source=tree, init=False) as box:
        box.configure(LIMITS)
        box.ok("init")
        yield box


def link(name: bytes, to: bytes) -> bytes:
    """Return a member: a symlink."""
    return tars.header(name, b"2", link=to)


def hard(name: bytes, to: bytes) -> bytes:
    """Return a member: a hard link."""
    return tars.header(name, b"1", link=to)


def directory(name: bytes) -> bytes:
    """Return a member: a directory."""
    return tars.header(name, b"5", mode=b"0000755")


def long(name: bytes) -> bytes:
    """Return a member with a name of any length."""
    return tars.extended([(b"path", name)]) + tars.file(b"short", b"x")


GOOD = tars.file(b"etc/good", b"good\n")
HOSTILE = {
    "absolute path": tars.file(b"/etc/evil", b"x"),
    "dot dot": tars.file(b"../evil", b"x"),
    "dot dot inside": tars.file(b"etc/../../evil", b"x"),
    "dot dot at the end": directory(b"etc/.."),
    "symlink out, then through it": link(b"esc", b"/tmp") + tars.file(b"esc/evil", b"x"),
    "symlink up, then through it": link(b"etc/esc", b"../../..") + tars.file(b"etc/esc/evil", b"x"),
    "symlink inside, then through it": link(b"esc", b"etc") + tars.file(b"esc/evil", b"x"),
    "symlink in place of a directory": link(b"etc/full", b"/tmp"),
    "whiteout, symlink, through it": tars.file(b"etc/.wh.full") + link(b"etc/full", b"/tmp")
    + tars.file(b"etc/full/evil", b"x"),
    "through it, then the symlink": tars.file(b"esc/evil", b"x") + link(b"esc", b"/tmp"),
    "whiteout through a symlink": link(b"esc", b"/tmp") + tars.file(b"esc/.wh.evil"),
    "opaque through a symlink": link(b"esc", b"/tmp") + tars.file(b"esc/.wh..wh..opq"),
    "chain of symlinks": link(b"a", b"b") + link(b"b", b"/tmp") + tars.file(b"a/evil", b"x"),
    "hard link to an absolute path": hard(b"evil", b"/etc/passwd"),
    "hard link up": hard(b"evil", b"../../etc/passwd"),
    "hard link through a symlink": link(b"esc", b"/etc") + hard(b"evil", b"esc/passwd"),
    "hard link to a symlink": link(b"esc", b"/etc/passwd") + hard(b"evil", b"esc"),
    "hard link to a directory": hard(b"evil", b"etc/full"),
    "hard link to nothing": hard(b"evil", b"etc/nothing"),
    "hard link to what is removed": tars.file(b"etc/full/.wh.file") + hard(b"evil", b"etc/full/file"),
    "hard link to itself": hard(b"evil", b"evil"),
    "character device": tars.header(b"evil", b"3", device=(b"0000001", b"0000003")),
    "block device": tars.header(b"evil", b"4", device=(b"0000010", b"0000000")),
    "member twice": tars.file(b"twice", b"1") + tars.file(b"twice", b"2"),
    "member twice, differently spelt": tars.file(b"twice", b"1") + tars.file(b"./twice", b"2"),
    "member twice, through a link of the root": tars.file(b"lib/new", b"1") + tars.file(b"usr/lib/new", b"2"),
    "directory, then a file": directory(b"twice") + tars.file(b"twice", b"2"),
    "file, then below it": tars.file(b"file", b"1") + tars.file(b"file/below", b"2"),
    "file over a directory": tars.file(b"etc/full", b"x"),
    "directory over a file": directory(b"etc/full/file"),
    "below a file": tars.file(b"etc/full/file/below", b"x"),
    "replaces the root": link(b"./", b"/tmp"),
    "out through a link of the root": tars.file(b"up/evil", b"x"),
    "name of 256 bytes": long(b"etc/" + b"n" * 256),
    "path of 4097 bytes": long(b"/".join([b"d" * 200] * 21)),
    "NUL in a name": long(b"etc/a\0b"),
    "whiteout of everything": tars.file(b".wh..."),
    "symlink with a size": tars.header(b"evil", b"2", size=5000, link=b"x") + tars.padded(b"few"),
    "negative size": tars.header(b"evil", size=b"\xff" * 12),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payload(target: Box, tmp_path: Path, name: str) -> None:
    tar = tmp_path / "hostile.tar"
    tar.write_bytes(GOOD + HOSTILE[name] + tars.END)
    records = len(target.audit())

    target.refuses((HostileError.code, SourceError.code), "apply", str(tar))
    assert [record["result"] for record in target.audit()[records:]] == ["failed"]
    assert not [place for place in (Path("/tmp"), target.root, target.top) if (place / "evil").exists()]


def test_link_of_the_root_that_leads_out_stays_inside(target: Box, tmp_path: Path) -> None:
    """An absolute link of the root is meant from the root: what goes through it lands in the generation."""
    (tmp_path / "tar").write_bytes(tars.file(b"out/inside", b"x") + tars.END)
    number = target.json("apply", str(tmp_path / "tar"))["staged"]["number"]

    assert (target.tree(number) / "tmp/inside").read_text() == "x"
    assert not Path("/tmp/inside").exists()
    target.ok("abort")


def test_names_as_long_as_linux_allows(target: Box, tmp_path: Path) -> None:
    longest = b"/".join([b"d" * 199] * 20 + [b"f" * 95])
    assert len(longest) == 4095
    (tmp_path / "tar").write_bytes(long(b"n" * 255) + long(longest) + tars.END)
    number = target.json("apply", str(tmp_path / "tar"))["staged"]["number"]

    assert (target.tree(number) / ("n" * 255)).exists()
    assert target.json("verify", str(number))["problems"] == []
    target.ok("abort")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give a tar of some files that do not compress."""
    tree, rng = tmp_path_factory.mktemp("sound"), random.Random(3)
    (tree / "opt").mkdir()
    for number in range(12):
        (tree / f"opt/{number}").write_bytes(rng.randbytes(rng.randint(1, 30_000)))
    command("tar", "--format=pax", "--sort=name", "-cf", tree / "tar", "-C", tree, "opt")
    return (tree / "tar").read_bytes()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("form", sorted(PACKERS))
def test_cut_at_many_places(target: Box, tmp_path: Path, sound: bytes, form: str) -> None:
    packed, tar = PACKERS[form](sound), tmp_path / "cut"
    end = len(sound.rstrip(b"\0")) if form == "plain" else len(packed)
    cuts = [1, 5, 511, 513, 3000, end // 2, end - 20_000, end - 600, end - 1]
    before, code = target.facts(), []
    for cut in cuts:
        tar.write_bytes(packed[:cut])
        code.append(target.run("apply", str(tar)).code)

    assert code == [SourceError.code] * len(cuts)
    assert target.facts() == before
    tar.write_bytes(packed)
    target.ok("apply", str(tar))
    target.ok("abort")


@pytest.mark.parametrize("form", ["gz", "xz", "zst"])
def test_damaged_compression(target: Box, tmp_path: Path, sound: bytes, form: str) -> None:
    packed, tar = bytearray(PACKERS[form](sound)), tmp_path / "damaged"
    packed[len(packed) // 2] ^= 0xFF
    tar.write_bytes(packed)

    target.refuses(SourceError.code, "apply", str(tar))


DAMAGED = {
    "empty": b"",
    "no tar": b"neither a tar nor anything packed\n" * 100,
    "other compression": b"BZh91AY&SY" + bytes(600),
    "size beyond the end": tars.header(b"etc/lies", size=5000) + tars.padded(b"few"),
    "wrong checksum": GOOD[:100] + b"1" + GOOD[101:],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_payload(target: Box, tmp_path: Path, name: str) -> None:
    (tmp_path / "tar").write_bytes(DAMAGED[name] + (tars.END if "size" in name or "sum" in name else b""))

    target.refuses(SourceError.code, "apply", str(tmp_path / "tar"))


def test_bomb_by_ratio(target: Box, tmp_path: Path) -> None:
    bomb = tars.header(b"bomb", size=80_000_000) + bytes(80_000_384) + tars.END
    (tmp_path / "bomb").write_bytes(gzip.compress(bomb, 9))

    assert "max_" in target.refuses(LimitError.code, "apply", str(tmp_path / "bomb"))


@pytest.mark.parametrize(
    ("limit", "members"),
    [
        ("max_file_bytes", [tars.header(b"large", size=50_000_001)]),
        ("max_files", [tars.file(b"%d" % number) for number in range(501)]),
        ("max_bytes", [tars.header(b"%d" % n, size=50_000_000) + bytes(50_000_384) for n in range(3)]),
    ],
)  # fmt: skip
def test_beyond_a_limit(target: Box, tmp_path: Path, limit: str, members: list[bytes]) -> None:
    (tmp_path / "tar").write_bytes(b"".join(members) + tars.END)

    said = target.refuses(LimitError.code, "apply", str(tmp_path / "tar"))
    assert limit in said
    assert "snaptx.conf" in said


def test_sparse_bomb(target: Box, tmp_path: Path) -> None:
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(1 << 40)

    assert "max_file_bytes" in target.refuses(LimitError.code, "apply", str(tmp_path))


def test_wrong_digest(target: Box, tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "tar").write_bytes(sound)
    wrong = hashlib.sha256(sound + b"x").hexdigest()

    assert wrong in target.refuses(DigestError.code, "apply", str(tmp_path / "tar"), "--sha256", wrong)


def test_data_after_the_end_is_part_of_the_digest(target: Box, tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "tar").write_bytes(sound + b"\0" * 512 + b"appended")
    digest = hashlib.sha256(sound).hexdigest()

    codes = (SourceError.code, DigestError.code)
    target.refuses(codes, "apply", str(tmp_path / "tar"), "--sha256", digest)


def test_standard_input_that_ends_too_early(target: Box, sound: bytes) -> None:
    target.refuses(SourceError.code, "apply", "-", stdin=sound[: len(sound) // 2])
    target.refuses(SourceError.code, "apply", "-", stdin=b"")
    target.refuses(SourceError.code, "apply", "-")


def test_fifo_whose_writer_goes_away(target: Box, tmp_path: Path, sound: bytes) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb") as stream:
            stream.write(sound[: len(sound) // 3])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        target.refuses(SourceError.code, "apply", str(fifo))
    finally:
        writer.join()


def test_directory_that_changes_meanwhile(target: Box, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"x" * 40_000_000)
    for name in "bcd":
        (tree / name).mkdir()
        (tree / name / "file").write_text("x")
    before = target.facts()
    running = target.start("apply", str(tree))
    eventually(lambda: any(_leads(name, tree / "a") for name in _opened(running.pid)))
    subprocess.run(["rm", "-r", *(tree / name for name in "bcd")], check=True)
    with (tree / "a").open("ab") as file:
        file.write(b"more")
    said = running.wait()

    assert said.code == SourceError.code, (said.out, said.err)
    assert "changed while it was read" in said.complaint[0]
    assert target.facts() == before


def _opened(pid: int) -> list[Path]:
    """Return the descriptors of a process and its children, as long as they are there."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [fd for one in (pid, *children) for fd in Path(f"/proc/{one}/fd").glob("*")]


def _leads(name: Path, path: Path) -> bool:
    try:
        return os.readlink(name) == str(path)
    except OSError:
        return False


def test_what_is_no_payload(target: Box, tmp_path: Path) -> None:
    os.mknod(tmp_path / "device", 0o600 | 0o20000, os.makedev(1, 5))
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "missing", tmp_path / "device", tmp_path / "loop", "/proc/self/mem"):
        target.refuses(SourceError.code, "apply", str(path))
    target.refuses(2, "apply")


def test_mount_point_inside_a_directory(target: Box, tmp_path: Path) -> None:
    (tmp_path / "tree/inside").mkdir(parents=True)
    command("mount", "-t", "tmpfs", "none", tmp_path / "tree/inside")
    try:
        assert "mount point" in target.refuses(SourceError.code, "apply", str(tmp_path / "tree"))
    finally:
        command("umount", tmp_path / "tree/inside")
