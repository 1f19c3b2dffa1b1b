"""Files by HTTP and HTTPS, with the standard library's urllib.

A redirect may not lead to another server.  What is slower than a modem is
given up, headers or content, and so is what does not end.  A file that was
begun is asked for from where it ended (RFC 9110, 14.2).  Proxies are those of
the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).  What the server
says is only believed as far as it fits what was signed.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from snaptx import __version__
from snaptx.errors import ConfigError, DigestError, FetchError
from snaptx.update.transport import BrokenOffError, NoSuchPartError, Stream, too_long

SLOWEST = 256
"""Bytes a second, on the average of the time a server may say nothing; below it, it is given up."""

HEADERS = 4
"""How many times that time all headers of an answer may take."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that may be others in a while."""

REDIRECTS = 5

QUOTED = 150
"""Characters that are told of what a server says."""

LONGEST = 5 * 3600
"""Seconds for all that one run asks of one server; less than snaptx-update.service gives the run."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port of a URL."""
    parts = urllib.parse.urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default


class _SameServer(urllib.request.HTTPRedirectHandler):
    max_redirections = REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        fp.close()  # or urllib reads its body, which need not have an end
        if origin(newurl) != origin(req.full_url):
            host = _quoted(urllib.parse.urlsplit(newurl).netloc)
            hint = "if that is meant, name that server as the source"
            raise FetchError(f"{req.full_url} leads to another server: {host}", hint=hint)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Paced(io.RawIOBase):
    """The bytes of a socket; what comes too slowly breaks off, be it headers or a body.

    ``until`` is when the headers have to be there, None when they are.
    """

    def __init__(self, raw: io.RawIOBase, patience: float) -> None:
        self._raw, self._patience = raw, patience
        self._since, self._count = time.monotonic(), 0
        self.until: float | None = self._since + HEADERS * patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._raw.readinto(buffer) or 0
        now, self._count = time.monotonic(), self._count + count
        if self.until is not None and now > self.until:
            raise TimeoutError("the server does not come to the end of its headers")
        elapsed = now - self._since
        if elapsed >= self._patience:
            if self._count < SLOWEST * elapsed:
                raise TimeoutError(f"the server is too slow: {self._count} bytes in {elapsed:.1f} s")
            self._since, self._count = now, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._paced = _Paced(self.fp.detach(), sock.gettimeout() or LONGEST)
        self.fp = io.BufferedReader(self._paced)

    def begin(self) -> None:
        super().begin()
        self._paced.until = None


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


def _opener() -> urllib.request.OpenerDirector:
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        _Http,
        _Https,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _SameServer,
    ):
        made.add_handler(handler())
    return made


def _is_directory(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return whole and not (parts.username or parts.query or parts.fragment)


class HttpTransport:
    """The files below a URL; ``timeout`` is how many seconds the server may say nothing."""

    def __init__(self, base: str, timeout: float) -> None:
        if not _is_directory(base):
            hint = "as in: https://updates.example.org/overlays/"
            raise ConfigError(f"{base} is no URL of a directory", hint=hint)
        self._base = base.rstrip("/") + "/"
        self._timeout = timeout
        self._until = time.monotonic() + LONGEST
        self._opener = _opener()

    def document(self, name: str, limit: int) -> bytes:
        """Return a whole file."""
        with self._ask(name, 0) as answer:
            body, data = _Body(answer, 0, self._until), b""
            while part := body.read(limit + 1 - len(data)):
                data += part
                if len(data) > limit:
                    raise too_long(name, limit)
            announced = answer.headers.get("Content-Length")
            if announced is not None and announced != str(len(data)):
                raise BrokenOffError(f"{name} broke off after {len(data)} of {_quoted(announced)} bytes")
            return data

    @contextmanager
    def stream(self, name: str, offset: int, size: int) -> Iterator[Stream]:
        """Open a file at ``offset``, or at its beginning if the server can't."""
        with self._ask(name, offset) as answer:
            begin = _begin(answer, name, offset, size)
            yield _Body(answer, begin, self._until)

    def _ask(self, name: str, offset: int) -> http.client.HTTPResponse:
        url = self._base + urllib.parse.quote(name)
        headers = {"User-Agent": f"snaptx/{__version__}"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(url, headers=headers)
        with _translated(url):
            try:
                return self._opener.open(request, timeout=self._timeout)  # type: ignore[no-any-return]
            except urllib.error.HTTPError as error:
                error.close()
                raise _refusal(error, url) from error


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Tell what the network did as something that may pass."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise BrokenOffError(f"{url}: {_quoted(reason) or type(error).__name__}") from error


def _quoted(said: object) -> str:
    """Return what a server said as a short line: it goes where people and monitoring read it."""
    text = " ".join(str(said).split())
    return text if len(text) <= QUOTED else text[:QUOTED] + "…"


def _refusal(error: urllib.error.HTTPError, url: str) -> Exception:
    said = f"{url}: the server says {error.code} {_quoted(error.reason)}"
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return NoSuchPartError(said)
    if error.code in PASSING:
        return BrokenOffError(said)
    return FetchError(said, hint="is the URL of the source right, and the source complete?")


def _begin(answer: http.client.HTTPResponse, name: str, offset: int, size: int) -> int:
    """Return where the body begins.

    Raises:
        DigestError: the server says that the file has another size.
        BrokenOffError: it sends something else than what was asked for.
    """
    length = answer.headers.get("Content-Length")
    if answer.status == http.client.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not found or found[1] != str(offset):
            raise BrokenOffError(f"{name}: the server sends another part than was asked for")
        begin, whole = offset, found[2]
    else:
        begin, whole = 0, length or "*"
    if whole not in ("*", str(size)):
        hint = "its maker has to publish it anew"
        raise DigestError(f"{name} has {_quoted(whole)} bytes, the index says {size}", hint=hint)
    return begin


class _Body:
    """The rest of an answer, until the time for this server is up."""

    def __init__(self, answer: http.client.HTTPResponse, offset: int, until: float) -> None:
        self.offset = offset
        self._answer: Any = answer
        self._until = until

    def read(self, size: int, /) -> bytes:
        if time.monotonic() > self._until:
            hint = "what has arrived is kept, the next run goes on from it"
            raise FetchError(f"{self._answer.url} takes longer than {LONGEST / 3600:.0f} hours", hint=hint)
        with _translated(self._answer.url):
            part: bytes = self._answer.read1(size)
        return part
