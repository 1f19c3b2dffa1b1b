"""The menu and its users in GRUB itself: grub-emu runs GRUB's own code on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptx.bootloader import access, entryfile, grub
from snaptx.bootloader.grub import static_config
from snaptx.model import BootEntry, BootState

ENTRIES = tuple(BootEntry(number, f"{number}: title", "/k", "/i", "ro") for number in (2, 1))
STATE = BootState(2, 1, "nonce", 2, True, ENTRIES)
RAN, ASKED, EDITOR = b"RAN-2", b"Enter username", b"setparams"
PATIENCE = 20.0
"""Seconds."""


class Menu:
    """GRUB at work in a process of its own."""

    def __init__(self, home: Path) -> None:
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.execvpe("grub-emu", ["grub-emu", "-d", str(home)], {**os.environ, "TERM": "vt100"})

    def type(self, keys: str) -> None:
        """Press some keys."""
        os.write(self._terminal, keys.encode())

    def first(self, *wanted: bytes) -> bytes:
        """Return which of these GRUB shows first, b"" if none of them in time."""
        seen, end = b"", time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0 and select.select([self._terminal], [], [], left)[0]:
            try:
                seen += os.read(self._terminal, 1 << 16)
            except OSError:  # it has ended
                break
            found = [(at, word) for word in wanted if (at := seen.find(word)) >= 0]
            if found:
                return min(found)[1]
        return b""

    def close(self) -> None:
        """End it."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture(scope="module")
def digest() -> str:
    """Return the digest of the password "secret"."""
    command = ["grub-mkpasswd-pbkdf2", "--iteration-count=1000"]
    made = subprocess.run(command, input="secret\nsecret\n", capture_output=True, text=True, check=True)
    return made.stdout.split()[-1]


@pytest.fixture
def menu(request: pytest.FixtureRequest, tmp_path: Path, digest: str) -> Iterator[Menu]:
    """Start the menu beside a distribution's that has no users, locks entries, or only their editing."""
    given = {"none": "", "locked": "menuentry 'x' {\n}\n", "open": "menuentry 'x' --unrestricted {\n}\n"}
    users = f"set superusers=root\npassword_pbkdf2 root {digest}\n" if request.param != "none" else ""
    (tmp_path / grub.ACCESS).write_text(access.render(users + given[request.param], ""))
    # What an entry does is not asked here: it tells that it runs.
    text = entryfile.render(STATE, "uuid")
    entries = re.sub(r"(?s)(menuentry '(\d): [^{]*\{).*?\n\}", r"\1\necho RAN-\2\nsleep 9\n}", text)
    (tmp_path / entryfile.NAME).write_text(entries)
    config = static_config().decode().replace("set timeout=5", "set timeout=2")
    (tmp_path / "grub.cfg").write_text(f"set config_directory='(host){tmp_path}'\n{config}")
    started = Menu(tmp_path)
    yield started
    started.close()


@pytest.mark.parametrize(
    ("menu", "found"), [("none", RAN), ("open", RAN), ("locked", ASKED)], indirect=["menu"]
)
def test_left_alone_it_boots_where_the_distributions_menu_would(menu: Menu, found: bytes) -> None:
    assert menu.first(RAN, ASKED) == found


@pytest.mark.parametrize("menu", ["open", "locked"], indirect=True)
def test_nobody_edits_an_entry_without_the_password(menu: Menu) -> None:
    assert menu.first(b"title") == b"title"
    menu.type("e")
    assert menu.first(ASKED, EDITOR, RAN) == ASKED
    menu.type("root\r")
    assert menu.first(b"password") == b"password"
    menu.type("secret\r")
    assert menu.first(EDITOR, RAN) == EDITOR


@pytest.mark.parametrize("menu", ["none"], indirect=True)
def test_without_users_everybody_does(menu: Menu) -> None:
    assert menu.first(b"title") == b"title"
    menu.type("e")
    assert menu.first(ASKED, EDITOR, RAN) == EDITOR
