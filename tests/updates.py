"""Updates for tests: overlays with a signed index, and a server that gives them out well or badly."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from snaptx.update import index, publish, signature

NOW = 1_800_000_000.0
"""A moment for tests that bring their own clock."""


@cache
def key(number: int = 0) -> tuple[bytes, bytes]:
    """Return a private key and its public one, in PEM; another for each number."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    private = made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return private, made.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


def overlay(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of files; one that begins with ``#!`` is executable."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            member.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


class Shop:
    """A directory of overlays, signed with key 0."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(exist_ok=True)

    def put(self, name: str, files: Mapping[str, bytes], message: str = "") -> None:
        """Add an overlay, and publish."""
        (self.place / f"{name}.tar").write_bytes(overlay(files))
        self.publish(message=message)

    def publish(self, *, message: str = "", days: int = 30, now: float | None = None) -> index.Index:
        """Make and sign the index anew."""
        moment = time.time() if now is None else now
        made, _ = publish.publish(
            self.place, name="shop", message=message, days=days, now=moment, key=key()[0]
        )
        return made

    def unsign(self) -> None:
        """Take the signature away."""
        (self.place / index.SIGNATURE).unlink()

    def sign(self, data: bytes, number: int = 0) -> None:
        """Put an index in place as it is, signed with a key."""
        (self.place / index.NAME).write_bytes(data)
        (self.place / index.SIGNATURE).write_bytes(signature.sign(data, key(number)[0]))


@dataclass
class Server:
    """An HTTP server for a directory; faults are by file name, and pass after so many requests.

    ``hang`` says nothing more about a file that was cut;
    ``cut`` breaks off after so many bytes, ``status`` answers with that, ``redirect`` leads
    elsewhere, ``drip`` sends a byte each so many seconds, ``lie`` announces another length.
    """

    directory: Path
    cut: dict[str, list[int]] = field(default_factory=dict)
    status: dict[str, list[int]] = field(default_factory=dict)
    redirect: dict[str, str] = field(default_factory=dict)
    drip: dict[str, float] = field(default_factory=dict)
    lie: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    quiet_about_length: bool = False
    hang: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def count(self, name: str) -> int:
        """Return how often a file was asked for."""
        return sum(1 for asked, _ in self.asked if asked == name)


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Serve a directory on a port of this machine, until the end of the block."""
    served = Server(directory)

    class Handler(_Handler):
        server_facts = served

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        served.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_facts: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer, as the faults of this file have it."""
        facts, name = self.server_facts, self.path.lstrip("/")
        wanted = self.headers.get("Range", "")
        facts.asked.append((name, wanted))
        self.close_connection = True
        if facts.status.get(name):
            self._plain(facts.status[name].pop(0))
        elif name in facts.redirect:
            self._plain(302, facts.redirect[name])
        elif not (facts.directory / name).is_file():
            self._plain(404)
        else:
            self._file(name, wanted)

    def _plain(self, status: int, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, name: str, wanted: str) -> None:
        facts = self.server_facts
        data = (facts.directory / name).read_bytes()
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and facts.ranges else 0
        if begin and begin >= len(data):
            self._plain(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if not facts.quiet_about_length:
            self.send_header("Content-Length", str(facts.lie.get(name, len(data) - begin)))
        self.end_headers()
        self._send(name, data[begin:])

    def _send(self, name: str, data: bytes) -> None:
        facts = self.server_facts
        if facts.cut.get(name):
            data = data[: facts.cut[name].pop(0)]
        try:
            if name not in facts.drip:
                self.wfile.write(data)
                while facts.hang == name:
                    time.sleep(0.02)
                return
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(facts.drip[name])
        except OSError:
            return  # the client has had enough
