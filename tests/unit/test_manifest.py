"""The index of a tree: exact, sorted, bounded, and honest about damage."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.errors import FormatError, SnaptxError, VerifyError
from snaptx.model import Kind, Row
from snaptx.overlay import scan, xattrs
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.scan import index_row, scan_tree
from snaptx.system import descriptor
from tests.payloads import every_row

TREE = [
    b"",
    b"a",
    b"a-b",
    b"a.b",
    b"a/b",
    b"a/b/c",
    b"a/b0",
    b"a/\xff\xfe",
    b"a0",
    b"ab",
    b"b",
    b"b/" + b"\xff" * 255,
]


def row(path: bytes, /, **more: object) -> Row:
    """Make a row with every field set."""
    made = Row(path, Kind.FILE, 0o644, 1, 2, 3, 4, 0, b"s" * 32, b"x" * 32, 5, 6)
    return made._replace(**more)  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    made = Manifest.create(tmp_path / "m")
    made.put(row(path) for path in TREE)
    return made


def paths(manifest: Manifest) -> list[bytes]:
    return [row.path for row in every_row(manifest)]


def test_row_comes_back_as_it_was_put(tmp_path: Path) -> None:
    device = row(b"dev", kind=Kind.CHAR, device=os.makedev(5, 1), uid=2**32 - 2, mtime_ns=-5, sha256=b"")
    with Manifest.create(tmp_path / "m") as manifest:
        manifest.put([device, row(b"\xff")])
    with Manifest.open(tmp_path / "m") as manifest:
        assert manifest.get(b"dev") == device
        assert manifest.get(b"\xff") == row(b"\xff")
        assert manifest.get(b"missing") is None
        assert manifest.count() == 2


@pytest.mark.parametrize("when", [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, -(10**30)])
def test_no_time_is_too_far(manifest: Manifest, when: int) -> None:
    manifest.put([row(b"far", mtime_ns=when)])

    assert manifest.get(b"far") == row(b"far", mtime_ns=when)
    assert row(b"far", mtime_ns=when) in every_row(manifest)


def test_put_replaces(manifest: Manifest) -> None:
    manifest.put([row(b"a", size=99)])

    assert manifest.get(b"a") == row(b"a", size=99)
    assert manifest.count() == len(TREE)


def test_rows_are_sorted_by_bytes(manifest: Manifest) -> None:
    assert paths(manifest) == sorted(TREE)


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        (b"a", {b"a", b"a/b", b"a/b/c", b"a/b0", b"a/\xff\xfe"}),
        (b"a/b", {b"a/b", b"a/b/c"}),
        (b"b", {b"b", b"b/" + b"\xff" * 255}),
        (b"missing", set()),
        (b"", set(TREE)),
    ],
)
def test_remove_tree_takes_all_below_and_no_neighbour(
    manifest: Manifest, path: bytes, gone: set[bytes]
) -> None:
    manifest.remove_tree(path)

    assert paths(manifest) == sorted(set(TREE) - gone)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", [b"a", b"a-b", b"a.b", b"a0", b"ab", b"b"]),
        (b"a", [b"a/b", b"a/b0", b"a/\xff\xfe"]),
        (b"b", [b"b/" + b"\xff" * 255]),
        (b"ab", []),
    ],
)
def test_children(manifest: Manifest, path: bytes, expected: list[bytes]) -> None:
    assert [row.path for row in manifest.children(path)] == expected


NAMES = st.sampled_from([b"a", b"b", b"a-", b"a0", b"\xff", b"."])


@given(
    st.sets(st.lists(NAMES, min_size=1, max_size=4).map(b"/".join), max_size=12), st.lists(NAMES, max_size=2)
)
def test_prefixes_are_those_of_components(
    tmp_path_factory: pytest.TempPathFactory, tree: set[bytes], top: list[bytes]
) -> None:
    path = b"/".join(top)
    with Manifest.create(tmp_path_factory.mktemp("m") / "m") as manifest:
        manifest.put(map(row, tree))
        found = [one.path for one in manifest.children(path)]
        manifest.remove_tree(path)
        left = paths(manifest)

    prefix = path + b"/" if path else b""
    assert found == sorted(p for p in tree if p.startswith(prefix) and b"/" not in p[len(prefix) :])
    assert left == sorted(p for p in tree if p != path and not p.startswith(prefix))


def test_fork_shares_nothing_that_is_written(manifest: Manifest, tmp_path: Path) -> None:
    manifest.close()
    before = (tmp_path / "m").read_bytes()
    with Manifest.fork(tmp_path / "m", tmp_path / "n") as fork:
        fork.remove_tree(b"a")
        fork.put([row(b"new")])

    assert (tmp_path / "m").read_bytes() == before
    with Manifest.open(tmp_path / "n") as fork:
        assert fork.get(b"new") == row(b"new")
        assert fork.get(b"a/b") is None


def test_create_and_fork_never_overwrite(manifest: Manifest, tmp_path: Path) -> None:
    manifest.close()
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(SnaptxError):
        Manifest.create(tmp_path / "m")
    with pytest.raises(SnaptxError):
        Manifest.fork(tmp_path / "m", tmp_path / "m")

    assert (tmp_path / "m").read_bytes() == before


def test_readonly_refuses_to_write(manifest: Manifest, tmp_path: Path) -> None:
    manifest.close()
    with Manifest.open(tmp_path / "m") as reader, pytest.raises(SnaptxError):
        reader.put([row(b"new")])


def test_newer_format_is_refused_with_a_hint(manifest: Manifest, tmp_path: Path) -> None:
    manifest.close()
    with sqlite3.connect(tmp_path / "m") as db:
        db.execute("UPDATE meta SET value = 2")
    with pytest.raises(FormatError, match="format 2") as caught:
        Manifest.open(tmp_path / "m")

    assert "newer" in caught.value.hint


@pytest.mark.parametrize("damage", ["missing", "empty", "zeroed", "cut", "text", "no format"])
def test_damage_is_noticed(manifest: Manifest, tmp_path: Path, damage: str) -> None:
    manifest.put(row(b"%d" % number) for number in range(2000))
    manifest.close()
    path = tmp_path / "m"
    content = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "zeroed":
            path.write_bytes(bytes(len(content)))
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "text":
            path.write_bytes(b"not a database\n" * 1000)
        case _:
            with sqlite3.connect(path) as db:
                db.execute("DELETE FROM meta")
    with pytest.raises(VerifyError) as caught, Manifest.open(path) as opened:
        list(every_row(opened))

    assert "repair" in caught.value.hint


def test_unknown_kind_is_damage(manifest: Manifest, tmp_path: Path) -> None:
    manifest.close()
    with sqlite3.connect(tmp_path / "m") as db:
        db.execute("UPDATE rows SET kind = 'unheard of' WHERE path = x'61'")
    with Manifest.open(tmp_path / "m") as opened, pytest.raises(VerifyError):
        opened.get(b"a")


def test_scan_follows_no_link_and_misses_nothing(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d/e").mkdir(parents=True)
    (tree / "d/f").write_bytes(b"content")
    (tree / "up").symlink_to("..")
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    (tmp_path / "outside").write_text("secret")
    with descriptor(tree, os.O_RDONLY) as fd:
        found = {row.path: row for row in scan_tree(fd)}

    assert {path: row.kind.value for path, row in found.items()} == {
        b"": "directory",
        b"d": "directory",
        b"d/e": "directory",
        b"d/f": "file",
        b"up": "symlink",
        b"dangling": "symlink",
        b"fifo": "fifo",
    }
    assert found[b"d/f"].sha256.hex() == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert found[b"d/f"].size == 7
    assert found[b"up"].size == 2


def test_index_row_of_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"\0" * (3 << 20))
    with descriptor(tmp_path, os.O_RDONLY) as fd:
        found = index_row(fd, b"large", b"x/large")

    assert (found.path, found.size) == (b"x/large", 3 << 20)
    assert found.sha256 == hashlib.sha256(bytes(3 << 20)).digest()


@pytest.mark.parametrize("data", [(), (0,), (5 << 20, 90 << 20), ((96 << 20) - 1,)])
def test_holes_of_a_large_file_are_hashed_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: tuple[int, ...]
) -> None:
    path, read = tmp_path / "large", [0]
    with path.open("wb") as file:
        file.truncate(96 << 20)
        for offset in data:
            file.seek(offset)
            file.write(b"x")
    expected = hashlib.sha256(path.read_bytes()).digest()

    def counting(call: Callable[..., bytes]) -> Callable[..., bytes]:
        def counted(*given: int) -> bytes:
            found = call(*given)
            read[0] += len(found)
            return found

        return counted

    for name in ("read", "pread"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    with descriptor(tmp_path, os.O_RDONLY) as fd:
        assert index_row(fd, b"large", b"large").sha256 == expected
    assert read[0] <= len(data) * scan.CHUNK


def test_xattr_digest_is_canonical() -> None:
    one = xattrs.digest({b"user.a": b"1", b"user.b": b"2"})

    assert one == xattrs.digest({b"user.b": b"2", b"user.a": b"1"})
    assert one != xattrs.digest({b"user.a": b"", b"user.b": b"12"})
    assert one != xattrs.digest({b"user.a": b"1"})
    assert xattrs.digest({}) == b""
    assert xattrs.digest({b"security.selinux": b"label", b"btrfs.compression": b"zstd"}) == b""
