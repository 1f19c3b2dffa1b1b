from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import threading
from pathlib import Path

import pytest
import zstandard

from snaptx.errors import DigestError, HostileError, LimitError, SourceError, UsageError
from snaptx.model import Member, Payload
from snaptx.overlay.limits import Limits
from snaptx.overlay.payload import OpenPayload, open_payload
from tests import tars
from tests.tars import END, file, header

ARCHIVE = file(b"etc/motd", b"hello") + file(b"usr/random", random.Random(3).randbytes(700_000)) + END


def _all(payload: OpenPayload) -> dict[bytes, bytes]:
    return {member.path: tars.content(member) for member in payload.members}


def _read(source: Path | str, limits: Limits | None = None, sha256: str | None = None) -> Payload:
    with open_payload(str(source), limits=limits, expected_sha256=sha256) as payload:
        _all(payload)
        return payload.finish()


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "update.tar.zst"
    path.write_bytes(zstandard.compress(ARCHIVE))
    return path


def test_a_packed_tar_gives_members_progress_and_its_digest(archive: Path) -> None:
    raw = archive.read_bytes()

    with open_payload(str(archive)) as payload:
        assert (payload.total, payload.bytes_read) == (len(raw), 0)
        next(payload.members)
        assert 0 < payload.bytes_read <= len(raw)
        rest = _all(payload)
        found = payload.finish()

    assert list(rest) == [b"usr/random"]
    assert found == Payload(str(archive), hashlib.sha256(raw).hexdigest(), len(raw))


def test_the_digest_is_that_of_every_byte_even_of_padding(tmp_path: Path) -> None:
    path = tmp_path / "plain.tar"
    path.write_bytes(ARCHIVE + bytes(1 << 20))

    assert _read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_members_can_be_passed_over(archive: Path) -> None:
    with open_payload(str(archive)) as payload:
        assert sum(1 for _ in payload.members) == 2
        assert payload.finish().sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_the_announced_digest_is_accepted(archive: Path, change: type[str]) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()

    assert _read(archive, sha256=change(digest)).sha256 == digest


def test_another_digest_is_not(archive: Path) -> None:
    with pytest.raises(DigestError) as caught:
        _read(archive, sha256="0" * 64)

    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "abc", "g" * 64, "0" * 63, "0" * 65, "sha256:" + "0" * 64, "0" * 63 + "\n"], ids=ascii
)
def test_a_digest_that_is_none_is_a_mistake_of_usage(archive: Path, text: str) -> None:
    with pytest.raises(UsageError), open_payload(str(archive), expected_sha256=text):
        pass


def test_standard_input_is_a_payload() -> None:
    raw = gzip.compress(ARCHIVE)

    with open_payload("-", stdin=io.BytesIO(raw)) as payload:
        assert payload.total is None
        found = _all(payload)

    assert found[b"etc/motd"] == b"hello"
    assert payload.finish() == Payload("-", hashlib.sha256(raw).hexdigest(), len(raw))


def test_a_standard_input_that_is_closed_is_no_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)

    with pytest.raises(UsageError), open_payload("-"):
        pass


def test_a_terminal_is_no_payload() -> None:
    primary, secondary = os.openpty()
    try:
        with (
            os.fdopen(secondary, "rb", buffering=0, closefd=False) as terminal,
            pytest.raises(UsageError),
            open_payload("-", stdin=terminal),
        ):
            pass
    finally:
        os.close(primary)
        os.close(secondary)


def test_a_fifo_is_read_like_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(ARCHIVE,))
    writer.start()
    try:
        assert _read(path).size == len(ARCHIVE)
    finally:
        writer.join()


@pytest.mark.parametrize(
    "source", ["missing.tar", "missing/", "nul\0byte", "/dev/null", "/dev/zero", "broken-link"], ids=ascii
)
def test_what_can_not_be_a_payload_is_refused_with_a_cure(tmp_path: Path, source: str) -> None:
    (tmp_path / "broken-link").symlink_to("nowhere")

    with pytest.raises(SourceError) as caught, open_payload(str(tmp_path / source)):
        pass

    assert caught.value.hint


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(SourceError, match="neither a file nor a directory"), open_payload("socket"):
            pass


def test_an_input_that_breaks_off_is_an_error_of_the_source() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            part = super().read(size)
            if not part:
                raise OSError(5, "Input/output error")
            return part

    with (
        pytest.raises(SourceError, match="Input/output error"),
        open_payload("-", stdin=Broken(ARCHIVE[:2000])) as payload,
    ):
        _all(payload)


def test_a_file_that_is_truncated_while_it_is_read_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "plain.tar"
    path.write_bytes(ARCHIVE)

    with open_payload(str(path)) as payload:
        next(payload.members)
        os.truncate(path, 300_000)
        with pytest.raises(SourceError, match="truncated"):
            _all(payload)


def test_an_unfinished_payload_has_no_digest(archive: Path) -> None:
    with open_payload(str(archive)) as payload:
        next(payload.members)
        with pytest.raises(RuntimeError):
            payload.finish()


def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.zst"
    path.write_bytes(zstandard.compress(header(b"zeros", size=200 << 20) + bytes(200 << 20) + END))

    with pytest.raises(LimitError) as caught:
        _read(path)
    assert "max_ratio" in caught.value.hint
    assert _read(path, Limits(max_ratio=1_000_000)).size == path.stat().st_size


def test_a_bomb_of_padding_is_stopped_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.zst"
    path.write_bytes(zstandard.compress(file(b"small", b"x") + bytes(20 << 20)))

    with pytest.raises(LimitError) as caught:
        _read(path, Limits(max_bytes=10 << 20))
    assert "max_bytes" in caught.value.hint


@pytest.mark.parametrize("bad", [file(b"/absolute"), header(b"tty", b"3", device=(b"5", b"1")), b"x" * 512])
def test_hostile_members_come_to_light_while_streaming(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(file(b"good") + bad + END)
    seen: list[Member] = []

    with pytest.raises(SourceError) as caught, open_payload(str(path)) as payload:
        seen.extend(payload.members)

    assert [member.path for member in seen] == [b"good"]
    assert isinstance(caught.value, HostileError) or bad[:1] == b"x"


def test_nothing_stays_open(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/b/file").write_bytes(b"x")
    before = _open_descriptors()

    for source in (archive, tmp_path / "tree"):
        _read(source)
        with open_payload(str(source)) as payload:
            next(payload.members)
        with pytest.raises(LimitError):
            _read(source, Limits(max_files=1))

    assert _open_descriptors() == before


def test_a_directory_has_a_digest_of_its_content_alone(tmp_path: Path) -> None:
    def make(name: str, content: bytes) -> Path:
        root = tmp_path / name
        (root / "etc").mkdir(parents=True)
        (root / "etc/motd").write_bytes(content)
        (root / "etc/link").symlink_to("motd")
        for path in ("etc/motd", "etc/link", "etc"):
            os.utime(root / path, ns=(0, 1_700_000_000_123_456_789), follow_symlinks=False)
        return root

    one, same, other = make("one", b"hello"), make("same", b"hello"), make("other", b"hullo")
    found = _read(one)

    assert found.size == 5
    assert found.sha256 == _read(same, sha256=found.sha256).sha256
    assert found.sha256 != _read(other).sha256
    os.chmod(same / "etc/motd", 0o600)
    with pytest.raises(DigestError):
        _read(same, sha256=found.sha256)


def test_the_digest_of_a_directory_does_not_depend_on_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "b").write_bytes(b"")

    with open_payload(str(tmp_path)) as payload:
        assert payload.total is None
        assert sum(1 for _ in payload.members) == 2
        unread = payload.finish()

    assert unread == _read(tmp_path)
    assert unread.size == 3_000_000
