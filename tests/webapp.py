"""An application called ``web`` in a sandbox: a real server, and the checks that ask it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.boxes import Box

CHECK = """#!/bin/sh
printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 127.0.0.1 {port} | grep -q ' 200 OK'
"""
PRIVATE_CHECK = """#!{python}
import os, socket
address = os.environ["SNAPTX_CHECK_ADDRESS"]
with open("{asked}", "a") as asked:
    asked.write(f"of {{os.environ['SNAPTX_GENERATION']}} at {{address}}\\n")
path = address.startswith("/")
with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as one:
    host, _, port = address.rpartition(":")
    one.connect(address if path else (host, int(port)))
    one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    raise SystemExit(b" 200 OK" not in one.recv(4096))
"""


@dataclass
class Web:
    """An application called ``web`` in a sandbox."""

    box: Box
    place: Path
    server: Path
    port: int

    def configure(self, **changed: str) -> None:
        """Write its settings; values are TOML."""
        check = self.place / "check"
        check.write_text(CHECK.format(port=self.port))
        check.chmod(0o755)
        known = {
            "start": '["/bin/server"]',
            "listen": f'["127.0.0.1:{self.port}"]',
            "check": f'["{check}"]',
            "timeout": "2",
            "drain": "2",
        }
        path = self.box.root / "etc/snaptx/apps/web.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {**known, **changed}
        path.write_text("".join(f"{name} = {value}\n" for name, value in values.items() if value))

    def check_privately(self, asked: Path, *, unix: bool = False) -> None:
        """Check at an address of its own first; whoever is checked, and where, goes to the file ``asked``."""
        listen = f'["127.0.0.1:{self.port}"]'
        if unix:
            listen = f'["{self.place}/web.sock"]'
        self.configure(check_at='"private"', listen=listen)
        (self.place / "check").write_text(PRIVATE_CHECK.format(python=sys.executable, asked=asked))

    def apply(self, version: str, *marks: str) -> None:
        """Stage a version of the server; ``marks`` are files in /etc."""
        tree = self.place / f"tree-{version}"
        for name in ("bin", "etc", "dev", "proc"):
            (tree / name).mkdir(parents=True)
        shutil.copy(self.server, tree / "bin/server")
        (tree / "etc/version").write_text(f"{version}\n")
        for name in marks:
            (tree / "etc" / name).touch()
        self.box.ok("app", "apply", "web", str(tree))

    def at(self) -> tuple[int, list[int]]:
        """Return the generation it is at, and those that run."""
        found = next(one for one in self.box.json("app", "list") if one["name"] == "web")
        return found["generation"], found["running"]
