"""Counting in the initramfs, on a real Btrfs: each boot leaves a trace, the last one turns away or waits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from snaptx.bootloader import entryfile
from snaptx.model import BootEntry, BootState

pytestmark = pytest.mark.root

HOOK = Path(__file__).parents[2] / "hooks/initramfs-count.sh"
# In mounts of its own: nothing of it reaches this machine.
RUN = """
mount -t tmpfs none /run
mount --bind "$1" /proc/cmdline
mount --bind "$2" /dev/console
export PATH=$3:$PATH
case $6 in
    initramfs-tools) ROOT=UUID=$(blkid -o value -s UUID "$4" || echo 0) sh "$5" ;;
    dracut) root=block:$4 sh -euc '. "$1"; echo "the next hook"' sh "$5" ;;
esac
cat /run/snaptx/why 2>/dev/null || :
"""
ENTRIES = tuple(
    BootEntry(number, f"{number}", f"/{number}/vmlinuz", "", f"root=UUID=1 n={number}") for number in (2, 1)
)
STATE = BootState(2, 1, "abcd", 2, False, ENTRIES)


class Initramfs:
    """A machine with generation 2 on trial, as far as its initramfs goes."""

    def __init__(self, top: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.home = top / "@snaptx/grub"
        self.home.mkdir(parents=True)
        out = entryfile.escape(STATE)
        assert out
        (self.home / "snaptx.cfg").write_text(entryfile.render(STATE, "1"))
        (self.home / "escape-abcd.cfg").write_text(entryfile.render(out, "1"))
        (self.home / "sums-abcd").write_text("0 /2/vmlinuz\n")
        find = ["findmnt", "--noheadings", "--output", "SOURCE", f"{top}"]
        self.device = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
        (scratch / "bin").mkdir()
        for name in ("reboot", "sleep"):
            (scratch / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
            (scratch / "bin" / name).chmod(0o755)
        (scratch / "console").write_text("\n")

    def boots(self, *words: str, maker: str = "initramfs-tools") -> str:
        """Run the hook as ``maker``'s initramfs does, told ``words``; return what it says."""
        (self.scratch / "cmdline").write_text(" ".join(["ro", *words, "quiet"]) + "\n")
        names = ("cmdline", "console", "bin")
        places = [*(f"{self.scratch / name}" for name in names), self.device, f"{HOOK}", maker]
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", RUN, "sh"]
        done = subprocess.run([*command, *places], capture_output=True, text=True, check=True)
        return done.stdout

    @property
    def default(self) -> int:
        """Return what boots next."""
        return entryfile.parse((self.home / "snaptx.cfg").read_text()).default


@pytest.fixture
def initramfs(btrfs: Path, tmp_path: Path) -> Initramfs:
    """Give one."""
    return Initramfs(btrfs, tmp_path)


def test_two_tries_then_the_last_good_one_then_it_waits(initramfs: Initramfs) -> None:
    told = [initramfs.boots("panic=30", "snaptx.trial") for _ in range(2)]
    assert told == ["", ""]
    assert initramfs.default == 2

    assert "reboot -f" in initramfs.boots("panic=30", "snaptx.trial")
    assert initramfs.default == 1

    told = [initramfs.boots("snaptx.fallback") for _ in range(3)]
    assert told[:2] == ["", ""]
    assert "STOPPED" in told[2]
    assert told[2].endswith("stopped\n")


@pytest.mark.parametrize("maker", ["initramfs-tools", "dracut"])
def test_a_root_that_is_not_there_is_waited_for(initramfs: Initramfs, maker: str) -> None:
    initramfs.device = "/dev/null"
    told = initramfs.boots("snaptx.trial", maker=maker)

    assert told.count("sleep 1\n") == 90
    assert not (initramfs.home / "tries").exists()


def test_the_last_good_one_is_told_that_it_is_counted(initramfs: Initramfs) -> None:
    text = (initramfs.home / "escape-abcd.cfg").read_text()

    assert "'snaptx.fallback'" in text.partition("menuentry")[2].partition("menuentry")[0]


def test_a_confirmed_generation_is_not_counted(initramfs: Initramfs) -> None:
    assert initramfs.boots() == ""

    assert not (initramfs.home / "tries").exists()
    assert (initramfs.home / "sums-abcd").exists()


def test_the_count_of_another_trial_says_nothing(initramfs: Initramfs) -> None:
    (initramfs.home / "tries").write_text("4567 0\n")
    initramfs.boots("snaptx.trial")

    assert (initramfs.home / "tries").read_text() == "abcd 1\n"


def test_what_runs_is_whole_from_then_on(initramfs: Initramfs) -> None:
    initramfs.boots("snaptx.trial")

    assert not (initramfs.home / "sums-abcd").exists()


@pytest.mark.parametrize("word", ["snaptx.trial", "quiet"])
def test_dracut_goes_on_after_it(initramfs: Initramfs, word: str) -> None:
    """It sources its hooks: one that exits takes the others with it."""
    assert initramfs.boots(word, maker="dracut") == "the next hook\n"
    assert (initramfs.home / "tries").exists() == (word == "snaptx.trial")


def test_without_a_way_out_it_goes_on(initramfs: Initramfs) -> None:
    (initramfs.home / "escape-abcd.cfg").unlink()
    told = [initramfs.boots("snaptx.trial") for _ in range(4)]

    assert told == [""] * 4
    assert initramfs.default == 2
