"""nginx of Debian under load: requests lost, and for how long nobody answered.

    python -m tests.bench_service [--rounds 10] [--clients 4]

Fetches the distribution's package with apt-get and unpacks it; nothing is installed.
Measured are a live switch of the root it runs in, ``snaptx restart``, ``live --off`` and a
restart again; the switch and the rollback of an application tree with the sockets
handed on, and a switch whose check fails in private.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from snaptx import machine, restart, run, transaction
from snaptx.run import Result
from snaptx.running import services
from snaptx.transaction import Request
from tests.appload import Load, ask, free_port, loaded
from tests.boxes import Box, made

UNIT = "nginx.service"
PAGE = "usr/share/nginx/html/index.html"
CONFIG = """
daemon off;
user root;
worker_processes 2;
pid /run/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    server {{ listen 127.0.0.1:{port} backlog=511; root /usr/share/nginx/html; {extra} }}
}}
"""
START = """
/usr/bin/busybox sed "s/listen [^ ]*/listen $SNAPTX_LISTEN/" /etc/nginx.conf >/run/nginx.conf &&
NGINX="3;" exec /usr/sbin/nginx -c /run/nginx.conf
"""
CHECK = r"""#!/bin/sh
set -- "${SNAPTX_CHECK_ADDRESS%:*}" "${SNAPTX_CHECK_ADDRESS##*:}"
printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 2 "$@" | grep -q ' 200 OK'
"""
SETTLE = 0.5
"""Seconds of load before and after what is measured."""


def unpacked(place: Path) -> Path:
    """Return a tree of nginx with the libraries it needs and a shell, and no more."""
    subprocess.run(["apt-get", "-qq", "download", "nginx"], cwd=place, check=True, capture_output=True)
    tree = place / "nginx"
    (package,) = place.glob("nginx_*.deb")
    subprocess.run(["dpkg", "-x", package, place / "deb"], check=True)
    for name in ("usr/sbin", "usr/bin", "etc", "run", "dev", "proc", "sys", "var/log/nginx", "var/lib/nginx"):
        (tree / name).mkdir(parents=True)
    shutil.copy(place / "deb/usr/sbin/nginx", tree / "usr/sbin/nginx")
    shutil.copy("/bin/busybox", tree / "usr/bin/busybox")
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    said = subprocess.run(["ldd", tree / "usr/sbin/nginx"], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", said):
        target = tree / ("usr" + library.removeprefix("/usr"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/false\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    return tree


def version(tree: Path, place: Path, word: str, port: int, extra: str = "") -> Path:
    """Return a copy of the tree that serves ``word``."""
    copy = place / f"tree-{word}"
    shutil.copytree(tree, copy, symlinks=True)
    (copy / PAGE).parent.mkdir(parents=True)
    (copy / PAGE).write_text(f"{word}\n")
    (copy / "etc/nginx.conf").write_text(CONFIG.format(port=port, extra=extra))
    with (copy / "usr/sbin/nginx").open("ab") as program:
        program.write(word.encode())  # another program, as an update brings it
    return copy


@dataclass
class Tally:
    """What the clients saw of one kind of act, over all rounds; ``paused`` in seconds, as snaptx says."""

    loads: list[Load] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """Return it in words."""
        answered = sum(sum(load.answers.values()) for load in self.loads)
        lost = [trouble for load in self.loads for trouble in load.lost]
        gaps = sorted(load.gap for load in self.loads)
        longest = max(load.longest for load in self.loads)
        paused = f", held {_ms(self.paused[len(self.paused) // 2])}" if self.paused else ""
        kinds = {kind: lost.count(kind) for kind in sorted(set(lost))}
        return (
            f"{name:28s} {len(self.loads)} rounds, {answered} answered, {len(lost)} lost; no answer for "
            f"{_ms(gaps[len(gaps) // 2])} (worst {_ms(gaps[-1])}), longest request {_ms(longest)}{paused}"
            + "".join(f"\n    {count} x {kind}" for kind, count in kinds.items())
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


@contextmanager
def measured(tally: Tally, port: int, clients: int) -> Iterator[None]:
    """Load the server from before the block until after it."""
    with loaded(port, clients=clients) as load:
        time.sleep(SETTLE)
        begun = time.monotonic()
        yield
        tally.seconds.append(time.monotonic() - begun)
        time.sleep(SETTLE)
    tally.loads.append(load)


def wait_for(port: int, word: str, seconds: float = 10) -> None:
    """Return when the server says ``word``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ask(port) == word:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"{word} did not come"
        time.sleep(0.005)


class Service:
    """nginx in the root of a sandbox, and what stands for the systemd that knows it as a unit."""

    def __init__(self, box: Box, port: int) -> None:
        self._words = ["chroot", str(box.root), "/usr/sbin/nginx", "-c", "/etc/nginx.conf"]
        self._port, self._machine = port, machine.open_machine(box.root)
        self._running = self._started()
        self._invocation = 1

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, stderr=subprocess.DEVNULL)

    def restart(self, word: str) -> None:
        """Let ``snaptx restart`` restart it, and wait for the answer."""
        units = services.parse(self._systemctl(["systemctl", "show"]).stdout)
        with (
            patch.object(run, "run", self._systemctl),
            transaction.exclusive(self._machine, "restart"),
        ):
            restart.make(self._machine, Request("restart"), services.decide(units), units)
        wait_for(self._port, word)

    def _systemctl(self, argv: Sequence[str]) -> Result:
        """Restart it as Debian's unit does: SIGQUIT lets nginx answer what it has begun to."""
        if argv[1] == "restart":
            self.stop()
            self._running = self._started()
            self._invocation += 1
        state = "active" if self._running.poll() is None else "failed"
        facts = (f"Id={UNIT}", "Type=forking", f"ActiveState={state}", f"InvocationID={self._invocation}")
        return Result(0, "\n".join(facts), "")

    def stop(self) -> None:
        """End it in good order."""
        self._running.send_signal(signal.SIGQUIT)
        self._running.wait()


def live(tree: Path, place: Path, rounds: int, clients: int) -> Iterator[tuple[str, Tally]]:
    """Measure a live switch, a restart, its end and a restart."""
    port = free_port()
    names = ("live switch", "restart with the new", "live --off", "restart with the old")
    tallies = {name: Tally() for name in names}
    with made(source=version(tree, place, "one", port), size=1 << 30) as box:
        box.ok("apply", str(version(tree, place, "two", port)))
        subprocess.run(["mount", "--bind", "/dev", box.root / "dev"], check=True)
        service = Service(box, port)
        acts: list[Callable[[], object]] = [
            lambda: box.ok("live", "2"),
            lambda: service.restart("two"),
            lambda: box.ok("live", "--off"),
            lambda: service.restart("one"),
        ]
        try:
            wait_for(port, "one")
            for _ in range(rounds):
                for name, word, act in zip(names, ("two", "two", "one", "one"), acts, strict=True):
                    with measured(tallies[name], port, clients):
                        act()
                        wait_for(port, word)
        finally:
            service.stop()
            subprocess.run(["umount", box.root / "dev"], check=True)
    yield from tallies.items()


def app(tree: Path, place: Path, rounds: int, clients: int) -> Iterator[tuple[str, Tally]]:
    """Measure the switch and the rollback of an application tree, and a switch whose check fails."""
    port = free_port()
    tallies = {name: Tally() for name in ("app switch", "app rollback", "app switch, refused")}
    with made(size=1 << 30) as box:
        configure(box, place, port)
        box.ok("app", "create", "web")
        box.ok("app", "apply", "web", str(version(tree, place, "app-one", port)))
        box.ok("app", "switch", "web")
        bad = version(tree, place, "app-bad", port, "return 500;")
        fresh = version(tree, place, "app-two", port)
        try:
            for _ in range(rounds):
                box.ok("app", "apply", "web", str(fresh))
                with measured(tallies["app switch"], port, clients):
                    done = box.json("app", "switch", "web")
                tallies["app switch"].paused.append(done["pause_seconds"])
                with measured(tallies["app rollback"], port, clients):
                    done = box.json("app", "rollback", "web")
                tallies["app rollback"].paused.append(done["pause_seconds"])
                box.ok("app", "apply", "web", str(bad))
                with measured(tallies["app switch, refused"], port, clients):
                    assert box.run("app", "switch", "web").code == 32
                wait_for(port, "app-one")
        finally:
            box.ok("app", "stop", "web")
    yield from tallies.items()


def configure(box: Box, place: Path, port: int) -> None:
    """Say how nginx is started, checked and stopped; it has to be told what the socket it gets listens at."""
    check = place / "check"
    check.write_text(CHECK)
    check.chmod(0o755)
    settings = box.root / "etc/snaptx/apps/web.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(
        f"start = {json.dumps(['/usr/bin/busybox', 'sh', '-c', START])}\n"
        f'listen = ["127.0.0.1:{port}"]\ncheck = ["{check}"]\ncheck_at = "private"\n'
        'nonblocking = true\nstop = "QUIT"\ntimeout = 1\ndrain = 10\n'
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what clients of nginx see of a switch.")
    parser.add_argument("--rounds", type=int, default=10, help="of each act (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="asking at once (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tree = unpacked(place)
        for measure in (live, app):
            for act, tally in measure(tree, place, args.rounds, args.clients):
                print(tally.line(act), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
