"""An application whose instances are units of a running systemd, which keeps their socket.

A template runs in the generation's tree, the socket unit outlives every instance,
and a plain service of the socket's name starts the application on the first
connection after a boot.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import appload
from tests.vm import image, product
from tests.vm.guests import snaptx
from tests.vm.machine import Machine
from tests.vm.parcel import Content
from tests.vm.run import End, Run

pytestmark = pytest.mark.vm

PORT = 8080
SOCKET = f"""[Socket]
ListenStream=127.0.0.1:{PORT}

[Install]
WantedBy=sockets.target
"""
TEMPLATE = """[Unit]
Requires=web.socket
After=web.socket

[Service]
RootDirectory=/run/snaptx/apps/web/%i
ExecStart=/bin/server
Sockets=web.socket
"""
ON_DEMAND = """[Service]
Type=oneshot
ExecStart=snaptx app start web
"""
ASK = f"""#!/usr/bin/python3
import socket
with socket.create_connection(("127.0.0.1", {PORT}), 60) as one:
    one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    head, _, body = b"".join(iter(lambda: one.recv(4096), b"")).decode().partition("\\r\\n\\r\\n")
print(body.split()[0])
raise SystemExit(" 200 " not in head.partition("\\r\\n")[0])
"""
LOAD = """#!/bin/sh
until [ -e /run/enough ]; do
    /usr/bin/ask >>/run/answers || echo lost >>/run/answers
done
touch /run/ended
"""
UNITS: dict[str, Content] = {
    "/etc/systemd/system/web.socket": SOCKET,
    "/etc/systemd/system/web@.service": TEMPLATE,
    "/etc/systemd/system/web.service": ON_DEMAND,
    "/etc/snaptx/apps/web.conf": 'unit = "web@"\ncheck = ["/usr/bin/ask"]\ntimeout = 120\nwait = 60\n',
    "/usr/bin/ask": ASK,
    "/usr/bin/load": LOAD,
}


def update(server: Path, word: str, *marks: str) -> dict[str, Content]:
    """Return a version of the application, in /run; ``marks`` are what its server looks for in /etc."""
    names = [*(f"etc/{mark}" for mark in marks), "proc/.keep", "dev/.keep"]
    tree: dict[str, Content] = {"bin/server": server, "etc/version": f"{word}\n", **dict.fromkeys(names, "")}
    return {f"/run/{word}/{path}": content for path, content in tree.items()}


def answer(run: Run) -> str:
    """Return which version answers."""
    return run.check(["/usr/bin/ask"]).strip()


def active(run: Run) -> list[str]:
    """Return the instances that run."""
    words = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "web@*.service"]
    return [line.split()[0] for line in run.check(words).splitlines()]


def staged(run: Run, server: Path, word: str, *marks: str) -> None:
    """Stage a version."""
    run.put(update(server, word, *marks))
    snaptx(run, "app", "apply", "web", f"/run/{word}")


def moves_under_load(run: Run, server: Path) -> None:
    """Switch while somebody asks all the time: nothing is lost, and the socket stays where it was."""
    staged(run, server, "two")
    run.check(["systemd-run", "--unit=load", "/usr/bin/load"])
    done = snaptx(run, "app", "switch", "web")
    assert done["handed_on"]
    assert active(run) == ["web@3.service"]
    assert answer(run) == "two"
    run.check(["touch", "/run/enough"])
    run.check(["sh", "-c", "until [ -e /run/ended ]; do sleep 1; done"])
    answers = run.check(["cat", "/run/answers"]).split()
    assert set(answers) <= {"one", "two"}
    assert answers


def is_taken_back(run: Run, server: Path) -> None:
    """Switch to one that is bad: what ran runs on."""
    staged(run, server, "bad", "broken")
    failed = run.shell(["snaptx", "app", "switch", "web"])
    assert failed.status == 32
    assert active(run) == ["web@3.service"]
    assert answer(run) == "two"


def test_instances_are_units_and_a_boot_starts_what_the_pointer_names(tmp_path: Path) -> None:
    server = appload.build(tmp_path)
    with Machine(image.image("debian"), tmp_path) as machine:
        with machine.boot() as run:
            run.put({**product.files(), **UNITS})
            # How it boots is for other tests: the boot loader stays what it was.
            snaptx(run, "init", "--accept-rollback", "--no-boot-loader")
            run.check(["systemctl", "daemon-reload"])
            run.check(["systemctl", "enable", "--now", "web.socket"])
            snaptx(run, "app", "create", "web")
            staged(run, server, "one")
            snaptx(run, "app", "switch", "web")
            assert active(run) == ["web@2.service"]
            assert answer(run) == "one"
            moves_under_load(run, server)
            is_taken_back(run, server)
            assert run.reboot() is End.REBOOT
        with machine.boot() as run:
            run.state()
            assert active(run) == []
            assert answer(run) == "two"
            assert active(run) == ["web@3.service"]
            snaptx(run, "app", "stop", "--all")
            assert active(run) == []
