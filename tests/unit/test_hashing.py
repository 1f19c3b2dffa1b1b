"""The digest of a file's content: what is in it decides, not how it is stored or read."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptx.overlay import hashing, scan

RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 3 * hashing.BLOCK)), min_size=1, max_size=8)


def _data(runs: list[tuple[bool, int]]) -> bytes:
    return b"".join(bytes([7 * filled]) * length for filled, length in runs)


def _of(pieces: list[bytes]) -> bytes:
    state = hashing.begin(hashing.LARGE)
    for piece in pieces:
        state.update(piece)
    return state.digest()


def test_that_of_a_small_file_is_what_everybody_computes() -> None:
    state = hashing.begin(10)
    state.update(b"0" * 10)

    assert state.digest() == sha256(b"0" * 10).digest()


@given(RUNS, st.integers(1, 2 * hashing.BLOCK))
def test_it_does_not_matter_in_what_pieces_it_is_read(runs: list[tuple[bool, int]], size: int) -> None:
    data = _data(runs)
    state = hashing.begin(hashing.LARGE)
    for filled, length in runs:
        if filled:
            state.update(b"\7" * length)
        else:
            hashing.skip(state, length)

    whole = _of([data])
    assert _of([data[at : at + size] for at in range(0, len(data), size)]) == whole
    assert state.digest() == whole


@given(RUNS, st.data())
def test_every_byte_and_its_place_count(runs: list[tuple[bool, int]], draw: st.DataObject) -> None:
    data = _data(runs)
    at = draw.draw(st.integers(0, len(data) - 1))
    other = bytearray(data)
    other[at] ^= 1

    assert _of([bytes(other)]) != _of([data])
    assert _of([data, b"\7"]) != _of([data, bytes(hashing.BLOCK), b"\7"])


def _hashed(path: Path) -> bytes:
    with path.open("rb") as file:
        return scan.hash_file(file.fileno(), path.stat().st_size)


def test_what_is_a_hole_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holes, written = tmp_path / "holes", tmp_path / "written"
    for path in (holes, written):
        with path.open("wb") as file:
            if path == written:
                file.write(bytes(3 << 20))
            file.seek((1 << 20) + 5000)
            file.write(b"something")
            file.truncate(hashing.LARGE + 4097)
    found = [_hashed(path) for path in (holes, written)]
    monkeypatch.setattr(scan, "_WORTH_ASKING", 1 << 62)
    found += [_hashed(holes)]

    assert len(set(found)) == 1


def test_a_terabyte_of_nothing_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "lastlog"
    with path.open("wb") as file:
        file.seek(1 << 40)
        file.write(b"the last one")
    begun = time.process_time()
    _hashed(path)

    assert time.process_time() - begun < 1
