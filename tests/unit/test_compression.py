from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptx.errors import LimitError, SnaptxError, SourceError
from snaptx.overlay.compression import open_stream

PLAIN = random.Random(1).randbytes(100_000) + b"text " * 100_000

Pack = Callable[[bytes], bytes]


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS: dict[str, Pack] = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zstd": _zstd}

packers = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS.keys())


def unpack(data: bytes, size: int = 1 << 18) -> bytes:
    """Read the whole stream, and once more at its end."""
    stream, parts = open_stream(io.BytesIO(data)), []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    assert stream.read(size) == b""
    return b"".join(parts)


@packers
@pytest.mark.parametrize("size", [1000, 1 << 18, 1 << 24])
def test_what_was_packed_comes_back(pack: Pack, size: int) -> None:
    assert unpack(pack(PLAIN), size) == PLAIN


@packers
def test_a_stream_may_have_many_members(pack: Pack) -> None:
    assert unpack(pack(b"one") + pack(b"") + pack(PLAIN) + pack(b"end")) == b"one" + PLAIN + b"end"


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b", b"plain" * 1000])
def test_anything_else_passes_as_it_is(data: bytes) -> None:
    assert unpack(data) == data


@pytest.mark.parametrize(
    "command",
    [
        *("gzip", "bzip2", "xz -T2", "xz -9 --check=crc32"),
        *(
            "zstd",
            "zstd --no-check",
            "zstd -19",
            "zstd --long=27",
            "zstd -T2 --rsyncable",
            "zstd --ultra -22",
        ),
    ],
)
def test_the_systems_packers_are_understood(command: str) -> None:
    packed = subprocess.run(command.split(), input=PLAIN, capture_output=True, check=True).stdout

    assert unpack(packed) == PLAIN


@packers
def test_a_cut_stream_is_never_taken_for_whole(pack: Pack) -> None:
    packed = pack(b"first") + pack(PLAIN[:3000] + b"x" * 200_000)
    border = len(pack(b"first"))
    for cut in {*range(7, border), *range(border + 1, len(packed), 41), len(packed) - 1}:
        with pytest.raises(SourceError) as caught:
            unpack(packed[:cut])
        assert caught.value.hint


@packers
@pytest.mark.parametrize("garbage", [b"x", b"garbage" * 100, b"\0", PLAIN[:5000]])
def test_what_follows_has_to_be_another_member(pack: Pack, garbage: bytes) -> None:
    with pytest.raises(SourceError):
        unpack(pack(b"data") + garbage)


def test_the_padding_of_xz_is_no_garbage() -> None:
    assert unpack(lzma.compress(b"a") + bytes(8) + lzma.compress(b"b") + bytes(4)) == b"ab"
    with pytest.raises(SourceError):
        unpack(lzma.compress(b"a") + bytes(6))


def test_skippable_frames_of_zstd_are_skipped() -> None:
    skippable = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"

    assert unpack(skippable + _zstd(b"a") + skippable + _zstd(b"b") + skippable) == b"ab"
    with pytest.raises(SourceError, match="truncated"):
        unpack(_zstd(b"a") + skippable[:-1])


def test_the_checksum_of_zstd_is_verified() -> None:
    packed = bytearray(_zstd(PLAIN))
    packed[-1] ^= 1

    with pytest.raises(SourceError, match="corrupt"):
        unpack(bytes(packed))


def test_memory_has_a_bound_and_its_error_a_cure() -> None:
    # A frame that asks for 2 GiB: descriptor without flags, window exponent 21, then an empty last block.
    window = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\1\0\0"
    single = b"\x28\xb5\x2f\xfd\xe0" + (1 << 31).to_bytes(8, "little") + b"\1\0\0"

    for frame in (window, single):
        with pytest.raises(LimitError) as caught:
            unpack(frame)
        assert "--long=27" in caught.value.hint


def test_xz_that_wants_too_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 192 << 20, "mf": lzma.MF_HC3, "mode": lzma.MODE_FAST}]
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)

    with pytest.raises(LimitError):
        unpack(compressor.compress(b"x") + compressor.flush())


@packers
def test_a_bomb_is_unpacked_piece_by_piece(pack: Pack) -> None:
    packed = pack(bytes(64 << 20))
    tracemalloc.start()
    try:
        stream, total = open_stream(io.BytesIO(packed)), 0
        while part := stream.read(1 << 18):
            total += len(part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert total == 64 << 20
    # The dictionary of xz alone is 8 MiB.
    assert peak < 12 << 20


@settings(max_examples=200, deadline=None)
@given(
    pack=st.sampled_from(list(PACKERS.values())),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_no_damage_causes_anything_but_an_error_of_ours(pack: Pack, flips: list[tuple[int, int]]) -> None:
    packed = bytearray(pack(PLAIN[99_000:102_000]))
    for position, value in flips:
        packed[position % len(packed)] ^= value
    try:
        unpack(bytes(packed))
    except SnaptxError as error:
        hint = error.hint
    else:
        return
    assert hint
