from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.errors import HostileError
from snaptx.model import Kind
from snaptx.overlay import names

LONG = b"n" * 255


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"etc/passwd", b"etc/passwd"),
        (b"./etc/passwd", b"etc/passwd"),
        (b"./", b""),
        (b".", b""),
        (b"", b""),
        (b"usr/", b"usr"),
        (b"usr//lib///x//", b"usr/lib/x"),
        (b".//etc", b"etc"),
        (b"a/./b/.", b"a/b"),
        (b"././a", b"a"),
        (b".config", b".config"),
        (b"a/.config/..data", b"a/.config/..data"),
        (b"..data/...", b"..data/..."),
        (b"\xff\xfe \n", b"\xff\xfe \n"),
        (LONG, LONG),
        (b"/".join([LONG] * 15), b"/".join([LONG] * 15)),
        (b"/".join([LONG] * 15) + b"/" + b"e" * 255, b"/".join([LONG] * 15) + b"/" + b"e" * 255),
    ],
)
def test_a_path_has_one_form(path: bytes, expected: bytes) -> None:
    assert names.clean(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/etc/passwd",
        b"/",
        b"//",
        b"..",
        b"../etc",
        b"a/..",
        b"a/../b",
        b"./..",
        b"a/b/../../../c",
        b"a\0b",
        b"a/.x/\0",
        b"n" * 256,
        b"a/" + b"n" * 256 + b"/b",
        b"/".join([b"12345678"] * 455) + b"/x",
        b"./" + b"n" * 256,
    ],
)
def test_a_path_that_leads_out_or_can_not_be_is_refused(path: bytes) -> None:
    with pytest.raises(HostileError) as caught:
        names.clean(path)

    assert caught.value.hint


PARTS = st.sampled_from([b"a", b".", b"..", b"", b".wh.a", b"\0", b"x" * 255, b"y" * 256])


@given(st.lists(PARTS).map(b"/".join))
def test_what_passes_is_relative_and_does_not_change_again(path: bytes) -> None:
    try:
        clean = names.clean(path)
    except HostileError:
        return
    parts = clean.split(b"/") if clean else []

    assert not {b"", b".", b".."} & set(parts)
    assert all(len(part) <= 255 and b"\0" not in part for part in parts)
    assert names.clean(clean) == clean


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"etc/.wh.passwd", (Kind.WHITEOUT, b"etc/passwd")),
        (b".wh.top", (Kind.WHITEOUT, b"top")),
        (b".wh...data", (Kind.WHITEOUT, b"..data")),
        (b"etc/.wh..wh..opq", (Kind.OPAQUE, b"etc")),
        (b".wh..wh..opq", (Kind.OPAQUE, b"")),
        (b"etc/passwd", None),
        (b"etc/x.wh.y", None),
        (b"x.wh./y", None),
    ],
)
def test_whiteouts_say_what_they_hide(path: bytes, expected: tuple[Kind, bytes] | None) -> None:
    assert names.whiteout(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        b".wh.",
        b"etc/.wh.",
        b".wh..",
        b"etc/.wh..",
        b"etc/.wh...",
        b"etc/.wh..wh.plnk",
        b"etc/.wh..wh.",
        b"etc/.wh..wh..opqx",
        b".wh.dir/file",
        b"etc/.wh.dir/file",
        b"etc/.wh.dir/.wh.file",
    ],
)
def test_a_reserved_name_without_meaning_is_refused(path: bytes) -> None:
    with pytest.raises(HostileError):
        names.whiteout(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b".wh..wh.aufs", True),
        (b".wh..wh.plnk/12.34", True),
        (b".wh..wh..opq", False),
        (b".wh.file", False),
        (b"etc/.wh..wh.plnk", False),
    ],
)
def test_metadata_of_aufs_is_known(path: bytes, expected: bool) -> None:
    assert names.is_metadata(path) is expected


def test_a_name_can_not_drive_the_terminal() -> None:
    assert names.show(b"a\x1b[31m\n\xff\xc3\xa9") == "a\\x1b[31m\\n\\xffé"
    assert names.show(b"") == "."
