"""A server of an application tree, and a bounded load on it over the loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("server.c")
PATIENCE = 10.0
"""Seconds after which an answer counts as lost."""


def build(place: Path) -> Path:
    """Compile the server, which needs nothing of the tree it runs in; return where it is."""
    target = place / "server"
    subprocess.run(["cc", "-O1", "-Wall", "-static", "-o", target, SOURCE], check=True)
    return target


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(port: int) -> str:
    """Return the answer's body, of a server that says 200.

    Raises:
        OSError: it is not there, or says something else.
    """
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as one:
        one.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        try:
            text = b"".join(iter(lambda: one.recv(4096), b"")).decode()
        except TimeoutError as error:  # not the same as one that could not connect
            raise TimeoutError("connected, and not answered") from error
    head, _, body = text.partition("\r\n\r\n")
    if " 200 " not in head.partition("\r\n")[0]:
        raise OSError(f"it says {head.partition(chr(13))[0]!r}")
    return body.strip()


@dataclass
class Load:
    """What those who asked saw: answers by body's first word, losses, and the longest an answer took."""

    answers: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    longest: float = 0.0
    gap: float = 0.0
    """The longest time, in seconds, without any answer."""

    _last: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, begun: float, body: str | None, trouble: str) -> None:
        """Take one outcome down."""
        now = time.monotonic()
        with self._lock:
            if body is None:
                self.lost.append(trouble)
                return
            word = body.partition(" ")[0]
            self.answers[word] = self.answers.get(word, 0) + 1
            self.longest = max(self.longest, now - begun)
            self.gap, self._last = max(self.gap, now - self._last), now


def ask_until(port: int, ended: threading.Event, *, clients: int, pause: float) -> Load:
    """Ask the server from some threads, each with a pause in seconds between, until it is ``ended``."""
    seen = Load()

    def client() -> None:
        while not ended.wait(pause):
            begun = time.monotonic()
            try:
                seen.note(begun, ask(port), "")
            except OSError as error:
                seen.note(begun, None, repr(error))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


@contextmanager
def loaded(port: int, *, clients: int = 4, pause: float = 0.002) -> Iterator[Load]:
    """Have the server asked by a process of its own for the length of the block; then what it saw is given.

    Of its own, because a verb that a test forks would keep the test's connections open.
    """
    words = [sys.executable, "-m", "tests.appload", str(port), str(clients), str(pause)]
    seen = Load()
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as asking:
        assert asking.stdout
        asking.stdout.readline()  # the first answer is there
        try:
            yield seen
        finally:
            out, _ = asking.communicate()
            for name, value in json.loads(out).items():
                setattr(seen, name, value)


def main() -> None:
    """Ask until standard input ends, and print what was seen as JSON."""
    port, clients, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    ask(port)
    print("ready", flush=True)
    threading.Thread(target=wait, daemon=True).start()
    seen = ask_until(port, ended, clients=clients, pause=pause)
    names = ("answers", "lost", "longest", "gap")
    print(json.dumps({name: getattr(seen, name) for name in names}))


if __name__ == "__main__":
    main()
