"""Downloads from a server that breaks off, lies, dawdles or leads elsewhere."""

from __future__ import annotations

import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from snaptx.errors import ConfigError, DigestError, FetchError, LimitError, NoSpaceError, SourceError
from snaptx.update import download, http, overlays
from snaptx.update.http import HttpTransport
from snaptx.update.index import Entry
from snaptx.update.transport import BrokenOffError, DirectoryTransport
from tests.updates import Server, serving

DATA = bytes(range(256)) * 4000
FILE = "data.tar"
ENTRY = Entry(1, FILE, len(DATA), sha256(DATA).hexdigest())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Give a server of one file."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / FILE).write_bytes(DATA)
    with serving(tmp_path / "shop") as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Give an empty cache."""
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def fetch(server: Server, cache: Path, *, entry: Entry = ENTRY, timeout: float = 5) -> Path:
    """Download the file."""
    return download.fetch(HttpTransport(server.url, timeout), entry, cache)


def names(cache: Path) -> list[str]:
    """Return what is in the cache."""
    return sorted(os.listdir(cache))


def test_a_file_arrives_and_is_not_asked_for_again(server: Server, cache: Path) -> None:
    assert fetch(server, cache).read_bytes() == DATA
    assert names(cache) == [ENTRY.sha256]
    fetch(server, cache)
    assert server.asked == [(FILE, "")]


def test_what_rots_in_the_cache_is_fetched_anew(server: Server, cache: Path) -> None:
    fetch(server, cache).write_bytes(b"rotten")

    assert fetch(server, cache).read_bytes() == DATA


@pytest.mark.parametrize("quiet", [False, True])
def test_a_download_that_breaks_off_goes_on_where_it_was(server: Server, cache: Path, quiet: bool) -> None:
    server.cut[FILE] = [300_000, 300_000]
    server.quiet_about_length = quiet

    assert fetch(server, cache).read_bytes() == DATA
    assert server.asked == [(FILE, ""), (FILE, "bytes=300000-"), (FILE, "bytes=600000-")]


def test_the_part_is_kept_for_the_next_run(server: Server, cache: Path) -> None:
    server.cut[FILE] = [100_000] * download.TRIES
    with pytest.raises(FetchError, match="broke off after 400000 of 1024000 bytes"):
        fetch(server, cache)
    assert names(cache) == [ENTRY.sha256 + download.PART]

    assert fetch(server, cache).read_bytes() == DATA
    assert server.asked[-1] == (FILE, "bytes=400000-")
    assert names(cache) == [ENTRY.sha256]


def test_a_server_that_refuses_ranges_begins_again(server: Server, cache: Path) -> None:
    (cache / (ENTRY.sha256 + download.PART)).write_bytes(DATA[:100])
    server.status[FILE] = [416]

    assert fetch(server, cache).read_bytes() == DATA
    assert server.asked == [(FILE, "bytes=100-"), (FILE, "")]


def test_a_server_without_ranges_begins_again(server: Server, cache: Path) -> None:
    server.cut[FILE] = [300_000]
    server.ranges = False

    assert fetch(server, cache).read_bytes() == DATA


@pytest.mark.parametrize("begun", [b"something else" * 1000, DATA + b"more", bytes(len(DATA))])
def test_a_part_of_something_else_is_not_used(server: Server, cache: Path, begun: bytes) -> None:
    (cache / (ENTRY.sha256 + download.PART)).write_bytes(begun)

    assert fetch(server, cache).read_bytes() == DATA


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_busy_is_asked_again(server: Server, cache: Path, status: int) -> None:
    server.status[FILE] = [status, status]

    assert fetch(server, cache).read_bytes() == DATA
    assert server.count(FILE) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_server_that_refuses_is_not(server: Server, cache: Path, status: int) -> None:
    server.status[FILE] = [status]

    with pytest.raises(FetchError, match=f"the server says {status}"):
        fetch(server, cache)
    assert server.count(FILE) == 1


@pytest.mark.parametrize(
    ("data", "quiet", "error", "complaint"),
    [
        (DATA[:-1], False, DigestError, "has 1023999 bytes, the index says 1024000"),
        (DATA + b"x", False, DigestError, "has 1024001 bytes"),
        (DATA[:-1], True, FetchError, "data.tar can't be had"),
        (DATA + b"x", True, DigestError, "has more than the 1024000 bytes"),
    ],
)
def test_another_size_is_refused(
    server: Server, cache: Path, data: bytes, quiet: bool, error: type[SourceError], complaint: str
) -> None:
    (server.directory / FILE).write_bytes(data)
    server.quiet_about_length = quiet

    with pytest.raises(error, match=complaint):
        fetch(server, cache)
    assert not (cache / ENTRY.sha256).exists()


def test_another_content_is_refused_and_not_kept(server: Server, cache: Path) -> None:
    (server.directory / FILE).write_bytes(bytes(len(DATA)))

    with pytest.raises(DigestError, match="another SHA-256"):
        fetch(server, cache)
    assert names(cache) == []


def test_a_redirect_within_the_server_is_followed(server: Server, cache: Path) -> None:
    (server.directory / "moved").write_bytes(DATA)
    server.redirect[FILE] = "/moved"

    assert fetch(server, cache).read_bytes() == DATA


@pytest.mark.parametrize(
    "where", ["http://localhost:{port}/moved", "http://127.0.0.1:1/x", "file:///etc/passwd"]
)
def test_a_redirect_elsewhere_is_refused(server: Server, cache: Path, where: str) -> None:
    server.redirect[FILE] = where.format(port=server.url.rstrip("/").rpartition(":")[2])

    with pytest.raises(FetchError, match=r"another server|302"):
        fetch(server, cache)
    assert server.count("moved") == 0


def test_redirects_in_a_circle_end(server: Server, cache: Path) -> None:
    server.redirect[FILE] = f"/{FILE}"

    with pytest.raises(FetchError):
        fetch(server, cache)
    assert server.count(FILE) < 10


def test_a_server_that_says_nothing_is_given_up(server: Server, cache: Path) -> None:
    server.drip[FILE] = 30

    with pytest.raises(FetchError, match="timed out"):
        fetch(server, cache, timeout=0.05)


def test_a_server_that_drips_is_given_up(server: Server, cache: Path) -> None:
    server.drip[FILE] = 0.05

    with pytest.raises(FetchError, match="too slow"):
        fetch(server, cache, timeout=0.2)


@contextmanager
def dripping(head: bytes, drop: bytes, pause: float) -> Iterator[str]:
    """Give the URL of a server that sends ``head``, then ``drop`` again and again with pauses between."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.sendall(head)
                while True:
                    connection.sendall(drop)
                    time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("head", "drop", "pause", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", 0.02, "too slow"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001, "end of its headers"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x", 0.02, "too slow"),
    ],
    ids=["a header", "many headers", "the size of a chunk"],
)
def test_a_server_that_drips_what_is_no_content(
    cache: Path, head: bytes, drop: bytes, pause: float, said: str
) -> None:
    with dripping(head, drop, pause) as url, pytest.raises(FetchError, match=said):
        download.fetch(HttpTransport(url, 0.2), ENTRY, cache)


def test_a_redirect_that_does_not_end_is_not_read(server: Server, tmp_path: Path) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {server.url}{FILE}\r\n\r\n".encode()
    with dripping(head, bytes(1 << 20), 0) as url, pytest.raises(FetchError, match="another server"):
        HttpTransport(url, 5).document(FILE, len(DATA))
    with dripping(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", bytes(1 << 20), 0) as url:
        tracemalloc.start()
        began = time.monotonic()
        with pytest.raises(FetchError, match="302"):
            HttpTransport(url, 5).document(FILE, len(DATA))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peak < 4 << 20
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("said", ["9" * 5000, "x" * 60_000], ids=["digits", "letters"])
@pytest.mark.parametrize(
    "line",
    ["404 {}", "200 OK\r\nContent-Length: {}", "{} OK", "206 Partial\r\nContent-Range: bytes {}-1/2",
     "302 x\r\nLocation: http://{}/"],
    ids=["reason", "length", "status", "range", "redirect"],
)  # fmt: skip
def test_a_server_is_not_quoted_at_length(cache: Path, line: str, said: str) -> None:
    (cache / (ENTRY.sha256 + download.PART)).write_bytes(DATA[:100])
    head = f"HTTP/1.1 {line.format(said)}\r\n\r\n".encode()

    with dripping(head, b"x", 0.001) as url, pytest.raises(SourceError) as caught:
        download.fetch(HttpTransport(url, 1), ENTRY, cache)
    assert len(caught.value.message) < 500


def test_the_time_for_a_server_ends(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST", -1)

    with pytest.raises(FetchError, match="takes longer than"):
        fetch(server, cache)
    monkeypatch.undo()
    assert fetch(server, cache).read_bytes() == DATA


def test_nobody_there(cache: Path) -> None:
    with pytest.raises(FetchError, match="refused"):
        download.fetch(HttpTransport("http://127.0.0.1:1/", 1), ENTRY, cache)


def test_a_proxy_of_the_environment_is_asked(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    transport = HttpTransport("http://updates.invalid/", 5)

    with pytest.raises(
        FetchError, match="404"
    ):  # the proxy was asked for the whole URL, and has no such file
        download.fetch(transport, ENTRY, cache)
    assert server.asked == [("http://updates.invalid/data.tar", "")]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(server, cache).read_bytes() == DATA


def test_documents_are_bounded_and_whole(server: Server) -> None:
    transport = HttpTransport(server.url, 5)

    assert transport.document(FILE, len(DATA)) == DATA
    with pytest.raises(LimitError, match="more than 1000 bytes"):
        transport.document(FILE, 1000)
    server.cut[FILE] = [1000]
    with pytest.raises(BrokenOffError, match="broke off"):
        transport.document(FILE, len(DATA))


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[::1/",
        "http://host:port/",
        "https://user:secret@host/",
        "http://host/?q=1",
        "http://host/#a",
    ],
)
def test_what_is_no_url_of_a_directory(url: str) -> None:
    with pytest.raises(ConfigError):
        HttpTransport(url, 5)


def test_origins() -> None:
    assert http.origin("http://a/x") == http.origin("http://A:80/y")
    assert http.origin("http://a/") != http.origin("https://a/")
    assert http.origin("http://a/") != http.origin("http://a:81/")


def test_a_directory_is_read_like_a_server(tmp_path: Path, cache: Path) -> None:
    (tmp_path / FILE).write_bytes(DATA)
    (tmp_path / "link.tar").symlink_to(FILE)
    transport = DirectoryTransport(tmp_path)

    assert download.fetch(transport, ENTRY, cache).read_bytes() == DATA
    (tmp_path / FILE).write_bytes(DATA[:-1])
    (cache / ENTRY.sha256).unlink()
    with pytest.raises(FetchError):
        download.fetch(transport, ENTRY, cache)
    for name, error in (("link.tar", FetchError), ("missing", FetchError), ("cache", SourceError)):
        with pytest.raises(error):
            transport.document(name, 10)


def test_a_path_with_a_null_byte_is_no_source() -> None:
    with pytest.raises(ConfigError, match="no source"):
        overlays.transport("/srv/\0web", 5)


def test_room_is_asked_for_before_anything_is_downloaded(cache: Path) -> None:
    huge = Entry(1, FILE, 1 << 50, ENTRY.sha256)

    with pytest.raises(LimitError, match="1125899906842624 bytes"):
        download.require_room(cache, [huge], 1 << 40)
    with pytest.raises(NoSpaceError):
        download.require_room(cache, [huge], 1 << 60)
    download.require_room(cache, [ENTRY], 1 << 40)


def test_the_cache_keeps_nothing_else(cache: Path) -> None:
    for name in (ENTRY.sha256, ENTRY.sha256 + download.PART, "0" * 64, "1" * 64 + download.PART):
        (cache / name).write_bytes(b"x")
    download.clean(cache, [ENTRY])

    assert names(cache) == [ENTRY.sha256, ENTRY.sha256 + download.PART]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, cache: Path) -> None:
    data = os.urandom(1 << 20) * 32
    (tmp_path / FILE).write_bytes(data)
    entry = Entry(1, FILE, len(data), sha256(data).hexdigest())
    del data
    tracemalloc.start()
    try:
        download.fetch(DirectoryTransport(tmp_path), entry, cache)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20
