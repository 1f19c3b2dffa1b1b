"""The lines between a test and a machine: what came in, what was not looked at yet, and the transcript."""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TAIL = 25
"""How many lines of a transcript a failure shows."""

BUFFER = 256 << 20
_SO_SNDBUFFORCE = 32
"""From <asm-generic/socket.h>; the socket module does not have it."""

_ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cDM])|[\x00-\x08\x0b-\x1f\x7f]")


class Deadline:
    """A point in time, seconds from its making."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return self.left == 0

    def shorten(self, seconds: float) -> None:
        """Let it pass in ``seconds`` at the latest."""
        self._end = min(self._end, time.monotonic() + seconds)


class Line:
    """One end of a socket whose other end is QEMU's; everything received is appended to ``transcript``."""

    def __init__(self, transcript: Path) -> None:
        self.transcript = transcript
        self.pending = b""
        self.open = True
        self.socket, self.far = socket.socketpair()
        # QEMU sends byte by byte, drops what does not fit, and the kernel charges nearly 1 KiB for each.
        self.far.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, BUFFER)
        self.socket.setblocking(False)
        self._file = transcript.open("ab", buffering=0)

    def receive(self) -> bytes:
        """Take in what is there; b"" where nothing is."""
        taken = b""
        while self.open:
            try:
                chunk = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            except ConnectionResetError:
                chunk = b""
            self.open = bool(chunk)
            taken += chunk
        self._file.write(taken)
        self.pending += taken
        return taken

    def send(self, data: bytes) -> None:
        """Send everything.

        Raises:
            OSError: the machine takes nothing for a minute, or is off.
        """
        self.socket.settimeout(60)
        try:
            self.socket.sendall(data)
        finally:
            self.socket.setblocking(False)

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Look for ``pattern`` in what is pending; a match uses it up to the match's end."""
        found = pattern.search(self.pending)
        if found:
            self.pending = self.pending[found.end() :]
        return found

    def tail(self, count: int = TAIL) -> str:
        """Return the last lines of the transcript, without control sequences."""
        text = _ESCAPES.sub(b"", self.transcript.read_bytes()).decode("utf-8", "replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-count:])

    def close(self) -> None:
        """Close both ends and the transcript."""
        self.socket.close()
        self.far.close()
        self._file.close()


class Monitor(Line):
    """QEMU's machine protocol (QMP): JSON objects, one a line."""

    def __init__(self, transcript: Path) -> None:
        super().__init__(transcript)
        self.events: list[dict[str, Any]] = []
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: object) -> None:
        """Send a command; its answer is only kept in the transcript."""
        self.send(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")

    def receive(self) -> bytes:
        """Take in what is there, and keep the events."""
        taken = super().receive()
        *complete, self.pending = self.pending.split(b"\n")
        messages = [json.loads(line) for line in complete if line.strip()]
        self.events += [message for message in messages if "event" in message]
        return taken


def wait(lines: Sequence[Line], seconds: float) -> bool:
    """Take in what comes on any of ``lines``, for at most ``seconds``; False if nothing did."""
    with selectors.DefaultSelector() as selector:
        for line in lines:
            if line.open:
                selector.register(line.socket, selectors.EVENT_READ)
        ready = selector.select(seconds) if selector.get_map() else []
    for line in lines:
        line.receive()
    return bool(ready)
