"""What an administrator tells GRUB holds for snaptx's menu."""

from __future__ import annotations

import pytest

from tests.boxes import changes, made

pytestmark = pytest.mark.root


@pytest.mark.parametrize("layout", ["debian", "fedora"])
def test_the_menu_follows_what_grub_is_told_by_now(layout: str) -> None:
    with made(layout=layout) as box:
        told = box.root / "etc/default/grub"
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text("GRUB_TIMEOUT=17\nGRUB_CMDLINE_LINUX=nomodeset\n")
        assert box.run("verify").code == 0
        before = box.facts()
        assert "generation 1: its kernel is told other words" in box.ok("--dry-run", "repair")
        assert changes(before, box.facts()) == {}

        assert box.ok("repair").splitlines() == [
            "the menu's settings are those of today",
            "the boot entries and the default subvolume were put right",
        ]
        assert "set timeout=17\n" in (box.entry.parent / "settings.cfg").read_text()
        assert "nomodeset" in box.boot().entries[0].cmdline
        assert box.ok("repair") == "nothing to repair\n"
