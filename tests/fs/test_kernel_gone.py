"""Files that the boot entries name are there, and ``repair`` names others where they are not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes import Box, made
from tests.fs.test_verb_repair import problems, repaired


@pytest.fixture(params=["debian", "fedora"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """Give a sandbox that runs generation 2, which is good; with a /boot of its own, or without."""
    (tmp_path / "two/etc").mkdir(parents=True)
    (tmp_path / "two/etc/two").write_text("two")
    with made(layout=request.param) as box:
        box.ok("apply", str(tmp_path / "two"), "--commit")
        box.reboot()
        box.ok("confirm")
        yield box


def named(box: Box, at: int = 0) -> list[Path]:
    """Return the kernel and the initrd of an entry."""
    top = box.root / "boot" if (box.root / "boot").is_mount() else box.top
    entry = box.boot().entries[at]
    return [top / path.lstrip("/") for path in (entry.kernel, entry.initrd)]


@pytest.mark.parametrize("kind", [0, 1], ids=["kernel", "initrd"])
def test_another_kernel_takes_the_place_of_one_that_is_gone(machine: Box, kind: int) -> None:
    """The autoremoval of an old kernel in the running root, for one."""
    boot = machine.root / "boot"
    for name in ("vmlinuz-0.0.0-sandbox", "initrd.img-0.0.0-sandbox"):
        shutil.copy(boot / name, boot / name.replace("0.0.0", "0.0.1"))
    assert problems(machine) == ""
    gone = named(machine)[kind]
    gone.unlink()
    (boot / gone.name).unlink(missing_ok=True)

    assert f"generation 2 is to boot {gone.name}, which is missing" in problems(machine)
    assert "which is missing" in machine.ok("repair", "--dry-run")
    repaired(machine, "boot entries")
    assert [path.name[-14:] for path in named(machine) if path.exists()] == ["-0.0.1-sandbox"] * 2
    assert machine.boot().default == 2


def test_a_kernel_that_had_an_initrd_is_not_booted_without(machine: Box) -> None:
    """It would panic, where GRUB goes on to the last good generation as long as the entry names the file."""
    before = machine.boot()
    initrd = named(machine)[1]
    initrd.unlink()
    (machine.root / "boot" / initrd.name).unlink(missing_ok=True)

    assert "is to boot" in problems(machine)
    said = machine.run("repair")
    assert said.code == 60
    assert f"{initrd.name} is missing" in said.complaint[0]
    assert machine.boot() == before
    machine.ok("rollback")


@pytest.mark.parametrize("machine", ["debian"], indirect=True)
def test_a_generation_without_a_kernel_leaves_the_menu(machine: Box) -> None:
    """With a /boot of its own its kernel is copied again."""
    named(machine, 1)[0].unlink()

    assert "generation 1 is to boot" in problems(machine)
    repaired(machine, "boot entries")
    assert [entry.number for entry in machine.boot().entries] == [2]
