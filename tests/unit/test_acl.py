from __future__ import annotations

import struct

import pytest

from snaptx.errors import SourceError
from snaptx.overlay import acl

NOBODY = 0xFFFFFFFF
OWNERS = ((1, 6, NOBODY), (2, 6, 0), (2, 5, 1000), (4, 4, NOBODY), (8, 1, 5))
FULL = (*OWNERS, (0x10, 7, NOBODY), (0x20, 4, NOBODY))
BINARY = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in FULL)


@pytest.mark.parametrize(
    "text",
    [
        b"user::rw-\nuser:0:rw-\nuser:1000:r-x\ngroup::r--\ngroup:5:--x\nmask::rwx\nother::r--\n",
        b"user::rw-\t#effective:r--\nuser:root:rw-\nuser:1000:r-x\ngroup::r--\ngroup:5:--x\nmask:rwx\nother:r--\n",
        b"other::r--,mask::rwx,group:nobody-here:--x:5,group::r--,user:me:r-x:1000,user:you:rw-:0,user::rw-",
        b"u::rw,u:0:wr,u:1000:rx,g::r,g:5:x,m::rwx,o::r",
    ],
    ids=["numbers", "GNU tar", "libarchive", "short"],
)
def test_one_acl_has_one_form(text: bytes) -> None:
    assert acl.encode(acl.from_text(text)) == BINARY


def test_the_kernels_form_is_sorted_and_kept() -> None:
    shuffled = BINARY[:4] + b"".join(reversed([BINARY[at : at + 8] for at in range(4, len(BINARY), 8)]))

    assert acl.encode(acl.decode(BINARY)) == BINARY
    assert acl.encode(acl.decode(shuffled)) == BINARY


def test_no_entries_are_no_acl() -> None:
    assert acl.from_text(b"\n,# nothing\n") == ()
    assert acl.decode(struct.pack("<I", 2)) == ()


@pytest.mark.parametrize(
    "text",
    [
        b"user::rwx",
        b"user::rwx,group::r-x",
        b"user::rwx,group::r-x,other::r-x,user:5:rwx",
        b"user::rwx,user::rwx,group::r-x,other::r-x",
        b"user::rwx,group::r-x,other::r-x,mask::rwx,user:5:rwx,user:5:r--",
        b"user::rwz,group::r-x,other::r-x",
        b"owner::rwx,group::r-x,other::r-x",
        b"user::rwx,group::r-x,other:5:r-x",
        b"user::rwx,group::r-x,other::r-x,mask::rwx,user:4294967295:rwx",
        b"user::rwx,group::r-x,other::r-x,mask::rwx,user:a:b:c:d",
        b"user",
        b"\xff\0",
    ],
)
def test_an_impossible_text_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError):
        acl.from_text(text)


def test_somebody_unknown_is_named() -> None:
    with pytest.raises(SourceError, match="no-such-user") as caught:
        acl.from_text(b"user::rwx,user:no-such-user:rwx,group::r-x,mask::rwx,other::r-x")

    assert "--numeric-owner" in caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\2\0\0",
        BINARY[:-1],
        struct.pack("<I", 1) + BINARY[4:],
        BINARY[:4] + struct.pack("<HHI", 0x40, 7, NOBODY) + BINARY[4:],
        BINARY[:6] + struct.pack("<H", 8) + BINARY[8:],
        BINARY[:12] + BINARY[4:],
    ],
)
def test_an_impossible_binary_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError):
        acl.decode(data)
