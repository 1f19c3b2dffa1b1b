"""Payloads that mean harm: whatever they try, and in whatever order, nothing outside the root changes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaptx.errors import HostileError, SourceError
from snaptx.model import Kind, Member
from snaptx.overlay.readback import differences
from tests.payloads import Ground, directory, file, hardlink, member, opaque, rows, symlink, whiteout

SECRET = "../outside/secret"
UP = "../outside"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Give a base with treacherous links; after the test, nothing beside the root may have changed."""
    ground = _make(tmp_path)
    before = _fingerprint(tmp_path)
    yield ground
    assert _fingerprint(tmp_path) == before


def _make(place: Path) -> Ground:
    ground = Ground(place)
    base = ground.base
    (place / "outside/below").mkdir(parents=True)
    (place / "outside/secret").write_text("secret")
    (place / "outside/below/secret").write_text("secret")
    (base / "d/e").mkdir(parents=True)
    (base / "d/f").write_text("f")
    (base / "d/e/f").write_text("f")
    (base / "real").mkdir()
    (base / "real/f").write_text("f")
    (base / "alias").symlink_to("real")
    (base / "absolute").symlink_to("/real")
    (base / "escape").symlink_to(UP)
    (base / "d/escape").symlink_to("../" + UP)
    (base / "host").symlink_to(place / "outside")
    (base / "loop").symlink_to("pool")
    (base / "pool").symlink_to("loop")
    (base / "self").symlink_to("self/self")
    (base / "dangling").symlink_to("nothing/here")
    (base / "to-file").symlink_to("d/f")
    ground.start()
    return ground


def _fingerprint(place: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for tree in (place / "outside", place / "base"):
        for path in [tree, *sorted(tree.rglob("*"))]:
            at = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found.append(
                (path, at.st_mode, at.st_uid, at.st_nlink, at.st_mtime_ns, at.st_ino, at.st_size, content)
            )
    return found


@pytest.mark.parametrize("target", [UP, "/outside", "/", ".", "..", "d", "/d", "x", "real", "alias"])
@pytest.mark.parametrize(
    "then",
    [
        file("x/secret", b"evil"),
        directory("x/below"),
        file("x/below/secret", b"evil"),
        symlink("x/secret", "/"),
        member("x/fifo", Kind.FIFO),
        hardlink("x/new", "d/f"),
        hardlink("new", "x/secret"),
        whiteout("x/secret"),
        whiteout("x/below"),
        opaque("x"),
        opaque("x/below"),
    ],
    ids=lambda asked: f"{asked.kind}-{os.fsdecode(asked.path)}",
)
def test_symlink_of_the_payload_is_never_followed(ground: Ground, target: str, then: Member) -> None:
    with pytest.raises(HostileError):
        ground.lay(symlink("x", target), then)


@pytest.mark.parametrize("name", ["escape", "d/escape", "host", "loop", "self", "dangling", "to-file"])
@pytest.mark.parametrize("below", ["secret", "below/secret"])
def test_symlink_of_the_base_that_leads_nowhere_good(ground: Ground, name: str, below: str) -> None:
    for asked in (
        file(f"{name}/{below}", b"evil"),
        directory(f"{name}/{below}"),
        symlink(f"{name}/{below}", "x"),
        hardlink(f"{name}/{below}", "d/f"),
        directory(name),
    ):
        with pytest.raises(HostileError):
            ground.lay(asked)


@pytest.mark.parametrize("name", ["escape", "d/escape", "loop", "self", "to-file"])
def test_nothing_is_removed_or_linked_through_a_bad_symlink(ground: Ground, name: str) -> None:
    for asked in (whiteout(f"{name}/secret"), opaque(name), hardlink("new", f"{name}/secret")):
        with pytest.raises(HostileError):
            ground.lay(asked)


@pytest.mark.parametrize("name", ["host", "dangling"])
def test_absolute_symlink_is_read_inside_the_root(ground: Ground, name: str) -> None:
    ground.lay(whiteout(f"{name}/secret"), opaque(name))
    with pytest.raises(SourceError):
        ground.lay(hardlink("new", f"{name}/secret"))


@pytest.mark.parametrize("target", [UP, "d", "real", "/real"])
def test_symlink_that_was_in_use_and_is_replaced(ground: Ground, target: str) -> None:
    with pytest.raises(HostileError, match="symlink of its own"):
        ground.lay(file("alias/before"), symlink("alias", target), file("alias/after"))


@pytest.mark.parametrize(
    ("target", "cure"),
    [("mine", "--hard-dereference"), ("to-file", "--hard-dereference"), ("d", "do not trust")],
)
def test_a_hard_link_to_no_regular_file_is_refused_with_what_to_do(
    ground: Ground, target: str, cure: str
) -> None:
    with pytest.raises(HostileError, match="no regular file") as caught:
        ground.lay(symlink("mine", "d/f"), hardlink("new", target))

    assert cure in str(caught.value.hint)
    assert not os.path.lexists(ground.root / "new")


ATTACKS = {
    "symlink and file": [symlink("x", UP), file("x/secret", b"evil")],
    "symlink over a directory": [whiteout("d"), symlink("d", UP), file("d/secret", b"evil")],
    "over a directory in use": [file("d/a"), whiteout("d"), symlink("d", UP), file("d/secret", b"evil")],
    "over an emptied one": [opaque("d"), symlink("d", UP), file("d/secret", b"evil")],
    "two links": [symlink("x", "y"), symlink("y", UP), file("x/secret", b"evil")],
    "link in a link": [symlink("d/x", ".."), symlink("y", "d/x/" + UP), file("y/secret", b"evil")],
    "hard link to a symlink": [symlink("x", SECRET), hardlink("y", "x"), file("y", b"evil")],
    "hard link through one": [symlink("x", UP), hardlink("y", "x/secret"), file("y", b"evil")],
    "file over a symlink": [symlink("x", SECRET), file("x", b"evil")],
    "whiteout through one": [symlink("x", UP), whiteout("x/secret"), opaque("x")],
    "base link replaced": [file("alias/a"), symlink("alias", UP), file("alias/secret", b"evil")],
    "base link removed": [file("alias/a"), whiteout("alias"), symlink("alias", UP), file("alias/secret")],
    "base target replaced": [file("alias/a"), whiteout("real"), symlink("real", UP), file("alias/secret")],
    "deep": [whiteout("d/e"), symlink("d/e", "../../outside"), file("d/e/below/secret", b"evil")],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_in_every_order(tmp_path: Path, attack: str) -> None:
    refused = 0
    orders = list(itertools.permutations(ATTACKS[attack]))
    for number, order in enumerate(orders):
        place = tmp_path / str(number)
        ground = _make(place)
        before = _fingerprint(place)
        try:
            ground.lay(*order)
        except SourceError:
            refused += 1
        assert _fingerprint(place) == before
        assert not (ground.root / "secret").exists()

    assert refused


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "d/..", "d/../x", "/x", "/", "x/", ".", "./x", "x//y", "d/../../outside/secret", "x\0y"],
)
def test_unclean_path_is_refused(ground: Ground, path: str) -> None:
    for asked in (
        file(path),
        directory(path),
        symlink(path, "x"),
        whiteout(path),
        opaque(path),
        hardlink(path, "d/f"),
    ):
        with pytest.raises(HostileError):
            ground.lay(asked)
    with pytest.raises(HostileError):
        ground.lay(hardlink("new", path))


@pytest.mark.parametrize(
    "asked", [file(""), symlink("", "x"), hardlink("", "d/f"), whiteout(""), member("", Kind.FIFO)]
)
def test_root_itself_is_not_replaced(ground: Ground, asked: Member) -> None:
    with pytest.raises(HostileError, match="root directory"):
        ground.lay(asked)


@pytest.mark.parametrize(
    ("one", "other"),
    [*itertools.product([file("n"), directory("n"), symlink("n", "d"), hardlink("n", "d/f")], repeat=2)],
)
def test_same_path_twice(ground: Ground, one: Member, other: Member) -> None:
    with pytest.raises(HostileError, match="twice"):
        ground.lay(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alias/n", "real/n"),
        ("real/n", "absolute/n"),
        ("real/f", "alias/f"),
        ("alias/f", "real/f"),
        ("n", "n"),
    ],
)
def test_same_path_twice_under_two_names(ground: Ground, one: str, other: str) -> None:
    with pytest.raises(HostileError, match="twice"):
        ground.lay(file(one, b"1"), file(other, b"2"))


@pytest.mark.parametrize(
    "members",
    [
        [file("d")],
        [symlink("d", "x")],
        [hardlink("d", "real/f")],
        [member("d", Kind.FIFO)],
        [directory("d/f")],
        [file("d/f/below")],
        [directory("to-file")],
        [file("n/f"), file("n")],
        [file("n"), file("n/f")],
        [file("d/new"), file("d")],
        [file("d/f"), whiteout("d/f"), directory("d/f")],
        [directory("d"), whiteout("d"), file("d")],
    ],
)
def test_file_and_directory_clash(ground: Ground, members: list[Member]) -> None:
    with pytest.raises(HostileError) as caught:
        ground.lay(*members)

    assert caught.value.hint


@pytest.mark.parametrize("target", ["d", "alias", "missing", "d/missing", "missing/below", "new"])
def test_hard_link_to_what_is_no_file(ground: Ground, target: str) -> None:
    with pytest.raises(SourceError, match="hard link"):
        ground.lay(hardlink("new", target))


@pytest.mark.parametrize(
    "members",
    [
        [whiteout("d/f"), hardlink("new", "d/f")],
        [hardlink("new", "d/f"), whiteout("d/f")],
        [opaque("d"), hardlink("new", "d/f")],
        [hardlink("new", "d/f"), opaque("d")],
        [hardlink("new", "d/f"), whiteout("d")],
        [hardlink("new", "d/f"), file("d/f", b"replaced")],
    ],
)
def test_hard_link_to_what_is_removed_or_replaced(ground: Ground, members: list[Member]) -> None:
    with pytest.raises(HostileError):
        ground.lay(*members)


def test_names_as_long_as_can_be(ground: Ground) -> None:
    name, odd = "n" * 255, b"\xff" * 255
    path = "/".join(["d" * 250] * 16)
    counts = ground.lay(file(name), directory(odd), file(odd + b"/" + odd), file(path), whiteout("m" * 255))

    assert counts.added == 19
    assert (ground.root / name).exists()
    assert rows(ground.root).keys() >= {name.encode(), odd, odd + b"/" + odd, path.encode()}


@pytest.mark.parametrize("name", ["n" * 256, "d/" + "n" * 256 + "/x", "/".join(["d" * 250] * 17)])
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.WHITEOUT])
def test_longer_names_are_refused(ground: Ground, name: str, kind: Kind) -> None:
    with pytest.raises(HostileError, match="too long"):
        ground.lay(member(name, kind, link=b"x"))


@pytest.mark.parametrize(
    "more", [{"uid": 2**32}, {"gid": 2**40}, {"uid": -2}, {"mtime_ns": 2**63}, {"mtime_ns": -(2**70)}]
)
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.FIFO])
def test_numbers_no_filesystem_holds(ground: Ground, kind: Kind, more: dict[str, int]) -> None:
    with pytest.raises(HostileError):
        ground.lay(member("n", kind, link=b"x", **more))


def test_symlink_target_no_filesystem_holds(ground: Ground) -> None:
    for target in (b"", b"x\0y", b"x" * 4096):
        with pytest.raises(SourceError):
            ground.lay(symlink("n", target))


@pytest.mark.parametrize("xattr", [b"\x02\0\0\0\x01\0\x06\0", b"\x03\0\0\0" + bytes(24), b"garbage"])
def test_acl_that_is_none(ground: Ground, xattr: bytes) -> None:
    with pytest.raises(SourceError):
        ground.lay(file("n", xattrs={b"system.posix_acl_access": xattr}))


PATHS = st.lists(
    st.sampled_from(["d", "e", "f", "alias", "escape", "host", "x"]), min_size=1, max_size=3
).map("/".join)
TARGETS = st.sampled_from(["d", "..", "/", UP, "../" + UP, "real", "x", "/d/e"])
MEMBERS = st.one_of(
    st.builds(file, PATHS, st.binary(max_size=3)),
    st.builds(directory, PATHS),
    st.builds(symlink, PATHS, TARGETS),
    st.builds(hardlink, PATHS, PATHS),
    st.builds(whiteout, PATHS),
    st.builds(opaque, PATHS),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(MEMBERS, max_size=9))
def test_any_payload_stays_inside_and_leaves_a_true_manifest(
    tmp_path_factory: pytest.TempPathFactory, members: list[Member]
) -> None:
    place = tmp_path_factory.mktemp("any")
    ground = _make(place)
    before = _fingerprint(place)
    try:
        ground.lay(*members)
    except SourceError:
        pass
    else:
        found, indexed = rows(ground.root), ground.indexed()
        assert sorted(indexed) == sorted(found)
        assert [path for path, row in indexed.items() if differences(row, found[path])] == []
    assert _fingerprint(place) == before
