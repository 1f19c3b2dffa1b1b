"""What is told of a payload before it is written, and how that travels to the writer."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.errors import DigestError, HostileError, SnaptxError
from snaptx.model import Kind, Member, Row
from snaptx.overlay.base import Ahead, Base
from snaptx.overlay.feed import feed
from snaptx.overlay.manifest import Manifest
from snaptx.overlay.payload import open_payload
from snaptx.overlay.sift import Match, Piece, Sifted, sift
from snaptx.system import descriptor
from tests.payloads import LARGE, Ground, directory, existing, file, hardlink, small_base, symlink, whiteout


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    made = small_base(tmp_path)
    made.start()
    return made


def _sifted(ground: Ground, members: Iterable[Member]) -> list[Sifted]:
    with (
        descriptor(ground.base, os.O_RDONLY) as base,
        Manifest.open(ground.base.parent / "base.manifest") as manifest,
        closing(Base(base, manifest)) as known,
    ):
        return list(sift(members, known))


def _pieces(ground: Ground, members: Iterable[Member]) -> list[Piece]:
    return [piece for piece in _sifted(ground, members) if not isinstance(piece, list)]


def _matches(ground: Ground, *members: Member) -> list[tuple[Match, int]]:
    """Return how far each is the base's, and how much content is left of it; a path alone is all of it."""
    return [
        (Match.ALL, 0) if isinstance(piece, list) else (piece.match, len(piece.data))
        for piece in _sifted(ground, members)
    ]


@pytest.mark.parametrize("path", ["etc/one", "usr/bin/large", "usr/lib/b"])
def test_content_of_the_base_is_left_behind(ground: Ground, path: str) -> None:
    asked = existing(ground.base, path)
    dressed = existing(ground.base, path)._replace(mode=0o600)

    assert _matches(ground, asked, dressed) == [(Match.ALL, 0), (Match.CONTENT, 0)]


CHANGES: dict[str, dict[str, Any]] = {
    "mode": {"mode": 0o600},
    "owner": {"uid": 1},
    "group": {"gid": 1},
    "time": {"mtime_ns": 1},
    "attributes": {"xattrs": {b"user.one": b"1"}},
}


@pytest.mark.parametrize("path", ["etc/one", "etc"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_path_alone_is_told_only_of_what_is_just_the_same(ground: Ground, path: str, change: str) -> None:
    other = existing(ground.base, path)._replace(**CHANGES[change])

    assert _sifted(ground, [existing(ground.base, path)]) == [[path.encode()]]
    assert [piece.match is Match.ALL for piece in _pieces(ground, [other])] == [False]


def test_a_path_alone_is_not_told_of_a_file_that_changed_since_it_was_indexed(ground: Ground) -> None:
    asked = existing(ground.base, "etc/one")
    os.utime(ground.base / "etc/one", ns=(asked.mtime_ns, asked.mtime_ns))  # a new ctime is all

    assert [piece.match for piece in _pieces(ground, [asked])] == [Match.NONE]


def test_path_through_a_symlink_finds_the_row_behind_it(ground: Ground) -> None:
    asked = existing(ground.base, "lib/a")
    (piece,) = _pieces(ground, [asked])

    assert piece.row is not None
    assert (piece.match, piece.row.path, asked.path) == (Match.ALL, b"usr/lib/a", b"lib/a")


def test_nothing_is_known_below_what_the_base_has_not(ground: Ground) -> None:
    deep = "new/" + "d/" * 1500
    asked = [file(deep + "one"), file("new/one"), existing(ground.base, "etc/one"), file(deep + "two")]

    assert [match for match, _ in _matches(ground, *asked)] == [Match.NONE, Match.NONE, Match.ALL, Match.NONE]


def test_large_file_is_told_from_where_it_differs(ground: Ground) -> None:
    data = LARGE[: 2 << 20] + b"!" + LARGE[(2 << 20) + 1 :]
    first, *more = _pieces(ground, [file("usr/bin/large", data)])

    assert (first.match, first.same, first.digest) == (Match.NONE, 2 << 20, b"")
    assert b"".join(bytes(piece.data) for piece in (first, *more)) == data[2 << 20 :]
    assert [bool(piece.digest) for piece in more] == [False, False, True]


ROWS = st.lists(
    st.binary(min_size=1, max_size=3).map(lambda path: path.replace(b"\0", b"\1")), max_size=400, unique=True
)


@given(held=ROWS, asked=st.lists(st.binary(min_size=1, max_size=3), max_size=100), ordered=st.booleans())
def test_reading_ahead_finds_what_a_query_finds(
    tmp_path_factory: pytest.TempPathFactory, held: list[bytes], asked: list[bytes], ordered: bool
) -> None:
    with Manifest.create(tmp_path_factory.mktemp("m") / "m") as manifest:
        manifest.put(Row(path, Kind.FIFO, 0, 0, 0, 0, 0, 0, b"", b"") for path in held)
        ahead = Ahead(manifest)
        paths = sorted(held + asked) if ordered else held + asked

        assert [ahead.get(path) for path in paths] == [manifest.get(path) for path in paths]


def _tar(path: Path, **files: bytes) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def _fed(ground: Ground, source: str, **options: str) -> tuple[list[Piece], str, int]:
    with (
        open_payload(source, **options) as payload,  # type: ignore[arg-type]
        descriptor(ground.base, os.O_RDONLY) as base,
        feed(payload, base, ground.base.parent / "base.manifest") as fed,
    ):
        told = [piece for piece in fed.pieces() if not isinstance(piece, list)]
        pieces = [piece._replace(data=bytes(piece.data)) for piece in told]
        return pieces, fed.payload.sha256, fed.bytes_read


def _travelled(piece: Piece) -> Piece:
    member = None if piece.member is None else piece.member._replace(data=None)
    return piece._replace(member=member, data=bytes(piece.data))


def test_what_is_fed_is_what_was_sifted(ground: Ground, tmp_path: Path) -> None:
    holes = bytes(5 << 20) + b"end"
    files = {"new": LARGE + b"!", "holes": holes, "none": b"", **{f"n{n}": b"x" * n for n in range(600)}}
    source = _tar(tmp_path / "tar", **files)
    found, digest, size = _fed(ground, source)
    with open_payload(source) as payload:
        expected = [_travelled(piece) for piece in _pieces(ground, payload.members)]
        told = payload.finish()

    assert found == expected
    assert (digest, size) == (told.sha256, told.size)


def test_every_kind_of_member_travels(ground: Ground, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/f").write_bytes(b"f")
    (tree / "etc/g").hardlink_to(tree / "etc/f")
    (tree / "etc/s").symlink_to("f")
    (tree / "etc/.wh.one").touch()
    os.mkfifo(tree / "etc/p")
    os.setxattr(tree / "etc/f", "user.a", b"1\0")
    found, _, _ = _fed(ground, str(tree))
    members = {piece.member.path: piece.member for piece in found if piece.member is not None}

    wanted = directory("etc"), file("etc/f", b"f"), hardlink("etc/g", "etc/f"), symlink("etc/s", "f")
    for asked in (*wanted, whiteout("etc/one")):
        assert (members[asked.path].kind, members[asked.path].link) == (asked.kind, asked.link)
    assert members[b"etc/f"].xattrs == {b"user.a": b"1\0"}
    assert members[b"etc/p"].kind is Kind.FIFO


def test_path_says_all_of_what_is_the_base_s(ground: Ground) -> None:
    with (
        open_payload(str(ground.base)) as payload,
        descriptor(ground.base, os.O_RDONLY) as base,
        feed(payload, base, ground.base.parent / "base.manifest") as fed,
    ):
        told = list(fed.pieces())
    paths = {path for piece in told if isinstance(piece, list) for path in piece}
    in_full = {piece.member.kind for piece in told if not isinstance(piece, list) and piece.member}

    assert {b"etc", b"etc/one", b"usr/bin/large"} <= paths
    assert Kind.FILE not in in_full


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [("../out", {}, HostileError), ("fine", {"expected_sha256": "0" * 64}, DigestError)],
)
def test_refusals_are_the_payload_s(
    ground: Ground, tmp_path: Path, name: str, options: dict[str, str], error: type[SnaptxError]
) -> None:
    with pytest.raises(error) as caught:
        _fed(ground, _tar(tmp_path / "tar", **{name: b"1"}), **options)

    assert type(caught.value) is error
    assert caught.value.hint


def test_payload_is_known_at_its_end_only(ground: Ground, tmp_path: Path) -> None:
    with (
        open_payload(_tar(tmp_path / "tar", one=b"1")) as payload,
        descriptor(ground.base, os.O_RDONLY) as base,
        feed(payload, base, ground.base.parent / "base.manifest") as fed,
        pytest.raises(RuntimeError, match="before"),
    ):
        _ = fed.payload
