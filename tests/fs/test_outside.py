"""What of the system lies outside the root: no generation holds it, and nobody is left to find that out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptx import system
from tests.boxes import Box, changes, made

pytestmark = pytest.mark.root


@contextmanager
def apart(box: Box, place: str, fstype: str = "btrfs") -> Iterator[Path]:
    """Let ``place`` of the root be a subvolume of its own, or another filesystem, with what is in it."""
    inside = box.root / place
    inside.mkdir(parents=True, exist_ok=True)
    made_at = box.top / f"@{place.replace('/', '_')}"
    device = next(mount.source for mount in system.mounts() if mount.target == str(box.top))
    subprocess.run(["btrfs", "-q", "subvolume", "create", made_at], check=True)
    subprocess.run(["cp", "-a", "--", f"{inside}/.", made_at], check=True)
    words = ["-o", f"subvol={made_at.name}", device] if fstype == "btrfs" else ["-t", fstype, fstype]
    subprocess.run(["mount", *words, inside], check=True)
    try:
        yield made_at
    finally:
        subprocess.run(["umount", inside], check=True)


def line(box: Box, place: str) -> str:
    """Return the line of fstab for such a subvolume."""
    return f"UUID={box.sandbox.disk_uuid} /{place} btrfs subvol=@{place.replace('/', '_')} 0 0\n"


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
@pytest.mark.parametrize("place", ["usr", "boot", "usr/lib"])
def test_a_system_in_pieces_is_not_adopted(place: str, words: tuple[str, ...]) -> None:
    with made(init=False) as box, apart(box, place):
        said = box.refuses(55, "init", *words)

        assert said.startswith(f"/{place} lies outside the root")
        assert "fstab" in said
        assert not box.state.exists()


def test_fstab_counts_where_nothing_is_mounted() -> None:
    with made(init=False) as box:
        with (box.root / "etc/fstab").open("a") as table:
            table.write(line(box, "usr"))

        assert box.refuses(55, "init").startswith("/usr lies outside the root")


def test_what_is_laid_over_the_root_for_a_while_is_nothing_of_it() -> None:
    with made(init=False) as box, apart(box, "usr", "tmpfs"):
        box.refuses(55, "init")
    with made(init=False) as box:
        usr, above = box.root / "usr", box.root / "above"
        for name in ("upper", "work"):
            (above / name).mkdir(parents=True)
        options = f"lowerdir={usr},upperdir={above}/upper,workdir={above}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", usr], check=True)
        try:
            box.ok("init")
        finally:
            subprocess.run(["umount", usr], check=True)


@pytest.mark.parametrize("layout", ["opensuse", "fedora"])
def test_usual_layouts_are(layout: str) -> None:
    with made(init=False, layout=layout) as box, apart(box, "var"), apart(box, "usr/local"):
        box.ok("init")


@pytest.fixture(scope="module")
def packaged(programs: Path) -> Iterator[Box]:
    """Give a machine with apt whose /var, with dpkg's database, is a subvolume of its own."""
    with made(source=programs, init=False) as box:
        for name, text in (
            ("usr/bin/apt-get", "#!/bin/sh\nexit 1\n"),
            ("var/lib/dpkg/status", "Package: tool\nStatus: install ok installed\nVersion: 1\n\n"),
            ("var/lib/tool/state", "one\n"),
            ("etc/os-release", "ID=debian\n"),
        ):
            (box.root / name).parent.mkdir(parents=True, exist_ok=True)
            (box.root / name).write_text(text)
            (box.root / name).chmod(0o755)
        with (box.root / "etc/fstab").open("a") as table:
            table.write(line(box, "var") + line(box, "opt"))
        with apart(box, "var"), apart(box, "opt"):
            yield box


def test_packages_known_elsewhere_are_told_and_no_upgrade_begins(packaged: Box) -> None:
    said = packaged.json("init")
    assert said["outside"] == ["/var/lib/dpkg"]

    refused = packaged.refuses(55, "upgrade")
    assert "/var/lib/dpkg" in refused
    assert "outside the root" in refused


def test_commands_see_data_that_is_mounted_and_no_database_of_packages(packaged: Box) -> None:
    if not packaged.state.exists():
        packaged.ok("init")
    before = packaged.facts()
    packaged.ok("run", "--", "/bin/sh", "-c", "echo two > /opt/new; test ! -e /var/lib/dpkg; echo x > /etc/x")
    packaged.ok("abort")

    assert (packaged.top / "@opt/new").read_text() == "two\n"
    found = changes(before, packaged.facts())
    assert {path for path in found if not path.startswith(("state ", "running /opt"))} == set()


def test_what_an_update_brings_where_nobody_will_see_it_is_told(tmp_path: Path) -> None:
    for name in ("var/lib/tool/state", "var/lib/tool/more", "usr/lib/tool", "boot/new", "srv/page"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("new\n")
    with made(layout="fedora") as box, apart(box, "var"):
        with (box.root / "etc/fstab").open("a") as table:
            table.write(line(box, "srv"))
        said = box.run("apply", str(tmp_path))

        assert said.code == 0
        told = [json.loads(text)["event"] for text in said.err.splitlines()]
        assert [text.partition(" path(s)")[0] for text in told] == ["1", "4"]
        assert told[0].endswith("something else is mounted at /srv")
        assert box.audit()[-1]["hidden"] == {"/srv": 1, "/var": 4}


@pytest.mark.parametrize(
    ("trace", "told"),
    [
        ("loader/loader.conf", "systemd-boot starts this machine"),
        ("EFI/systemd/systemd-bootx64.efi", "systemd-boot starts this machine"),
        ("grub/grub.cfg", "/boot is the EFI system partition"),
        ("vmlinuz-linux", "/boot is the EFI system partition"),
    ],
)
@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--no-boot-loader",)])
def test_the_efi_system_partition_at_boot_is_refused_with_what_works(
    trace: str, told: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_fat(path: Path) -> system.Mount | None:
        found = mount_at(path)
        return found._replace(fstype="vfat") if found and found.target.endswith("/boot") else found

    mount_at = system.mount_at
    with made(init=False) as box, apart(box, "boot", "tmpfs"):
        (box.root / "boot" / trace).parent.mkdir(parents=True, exist_ok=True)
        (box.root / "boot" / trace).write_text("")
        monkeypatch.setattr(system, "mount_at", as_fat)
        said = box.refuses(60, "init", *words)

        assert said.startswith(told)
        assert "/boot/efi" in said
        assert not box.state.exists()
