"""Who may do what at the menu: what the distribution's own menu says, and no more than that."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from snaptx.bootloader import access, grub
from snaptx.bootloader.grub import static_config
from snaptx.bootloader.inroot import GrubInRoot
from snaptx.bootloader.onboot import GrubOnBoot
from snaptx.model import BootEntry, BootState

DIGEST = "grub.pbkdf2.sha512.10000.0123ABCD.4567EF"
LOCKED = f"set superusers=\"root\"\npassword_pbkdf2 root {DIGEST}\nmenuentry 'x' --class gnu-linux {{\n}}\n"
OPEN = LOCKED.replace("--class", "--unrestricted --class")
FEDORA = """
if [ -f ${prefix}/user.cfg ]; then
  source ${prefix}/user.cfg
  if [ -n "${GRUB2_PASSWORD}" ]; then
    set superusers="root"
    export superusers
    password_pbkdf2 root ${GRUB2_PASSWORD}
  fi
fi
insmod blscfg
blscfg
"""
PLAIN = "set superusers=a\npassword 'a' \"it's\"\n"
USERS = f"set superusers='root'\nexport superusers\npassword_pbkdf2 'root' '{DIGEST}'\n"


@pytest.mark.parametrize(
    ("config", "user", "found"),
    [
        ("set timeout=5\nmenuentry 'x' {\n}\n", "", ""),
        (LOCKED, "", USERS + "set snaptx_access=\n"),
        (OPEN, "", USERS),
        (f"# {LOCKED}", "", ""),
        (FEDORA, "", ""),
        (FEDORA, f"GRUB2_PASSWORD={DIGEST}\n", USERS),
        ("menuentry 'x' {\n}\n", f"GRUB2_PASSWORD={DIGEST}\n", ""),
        (PLAIN, "", "set superusers='a'\nexport superusers\npassword 'a' 'it'\\''s'\nset snaptx_access=\n"),
    ],
    ids=["none", "locked", "open", "commented", "fedora without", "fedora", "not asked for", "plain"],
)
def test_users_are_those_of_the_distributions_menu(config: str, user: str, found: str) -> None:
    assert access.render(config, user) == found


@pytest.mark.parametrize("apart", [False, True])
def test_each_switch_takes_them_up(tmp_path: Path, apart: bool) -> None:
    boot, home = tmp_path / "boot", tmp_path / "state/grub"
    (boot / "grub").mkdir(parents=True)
    home.parent.mkdir()
    loader = (
        GrubOnBoot(boot, lambda: "uuid") if apart else GrubInRoot(home, lambda: "uuid", lambda: None, boot)
    )
    loader.home.mkdir()
    file = loader.home / grub.ACCESS
    state = BootState(1, 1, "nonce", 2, True, (BootEntry(1, "title", "/k", "/i", "ro"),))
    for config, there in (("", False), (LOCKED, True), ("set timeout=1\n", False)):
        (boot / "grub/grub.cfg").write_text(config)
        loader.prepare(state)

        assert bool(file.exists() and file.read_text()) is there
        if there:
            assert file.stat().st_mode & 0o777 == 0o600


def test_grub_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "all.cfg"
    path.write_text(access.render(LOCKED, "") + static_config().decode())

    subprocess.run(["grub-script-check", path], check=True)
