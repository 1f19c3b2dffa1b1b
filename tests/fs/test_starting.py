"""A package of GRUB takes the place of snaptx's menu: the hook that comes after it puts that back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaptx.bootloader import install
from snaptx.errors import BootError
from tests.boxes import Box, Said, made

pytestmark = pytest.mark.root


class Started:
    """An installer whose machine starts by what a file says."""

    steps = ("install GRUB",)

    def __init__(self, says: Path) -> None:
        self._says = says

    def is_replaced(self) -> bool:
        """Return whether it says anything else than snaptx."""
        return self._says.read_text() != "snaptx"

    def install(self) -> None:
        """Let it say snaptx, unless it must not be written."""
        if self._says.read_text() == "broken":
            raise BootError("grub-install is not installed", hint="install it")
        self._says.write_text("snaptx")


def call(box: Box, says: Path, *words: str) -> Said:
    """Call a verb on a machine that starts by what ``says`` holds."""

    def live() -> None:
        install.find = lambda *_: Started(says)  # type: ignore[assignment]

    return box.start(*words, before=live).wait()


def hook(box: Box, moment: str, says: Path) -> Said:
    """Call a hook there."""
    return call(box, says, "hook", moment, "--manager", "apt", "--caller", str(os.getpid()))


@pytest.mark.parametrize(
    ("before", "package", "after"),
    [
        ("snaptx", "debian", "snaptx"),
        ("snaptx", "snaptx", "snaptx"),
        ("debian", "debian", "debian"),
        ("snaptx", "broken", "broken"),
    ],
    ids=["taken", "left alone", "somebody's wish", "can't be put back"],
)
def test_what_started_before_starts_afterwards(tmp_path: Path, before: str, package: str, after: str) -> None:
    says = tmp_path / "starts by"
    with made() as box:
        says.write_text(before)
        assert hook(box, "before", says).code == 0
        says.write_text(package)
        done = hook(box, "after", says)

        assert done.code == 0
        assert says.read_text() == after
        assert ("snaptx repair" in done.err) is (package == "broken")
        records = [one for one in box.audit() if "boot_loader" in one]
        assert [one["result"] for one in records] == ["done"] * ((before, package) == ("snaptx", "debian"))
        assert box.marks() == {1: "NRG"}


def test_where_no_hook_is_it_is_told_and_repaired(tmp_path: Path) -> None:
    says = tmp_path / "starts by"
    says.write_text("debian")
    with made() as box:
        assert "repair" in call(box, says, "repair", "--boot").err
        found = call(box, says, "verify")
        assert (found.code, "does not start by snaptx's menu" in found.out) == (40, True)
        assert "starts by snaptx's menu again" in call(box, says, "repair").out
        assert call(box, says, "repair").out == "nothing to repair\n"
        assert call(box, says, "verify").code == 0
        assert call(box, says, "repair", "--boot").err == ""
