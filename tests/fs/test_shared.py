"""``snaptx init --convert``: what must not be rolled back is moved out of the root, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boxes import Box, changes, inspect, made
from tests.fs.conftest import command
from tests.furnished import NAMES, PLACES, data, furnish, groups, is_sound, lines, mounted, subvolumes


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--keep", "/srv"), ("--json",)])
def test_data_inside_stops_init(full: Box, words: tuple[str, ...]) -> None:
    said = full.refuses(55, "init", *words)

    assert "/home (users' files, " in said
    assert "/var/lib/mysql (database, 1 file(s))" in said
    assert ("/srv" in said) == ("--keep" not in words)
    assert "/var/log" not in said
    assert "--convert" in said
    assert "--accept-rollback" in said
    assert not full.state.exists()


@pytest.mark.parametrize(
    "words", [("--accept-rollback",), ("--keep", "/home", "--keep", "srv", "--keep", "/var/lib")]
)
def test_it_goes_on_where_that_was_accepted(full: Box, words: tuple[str, ...]) -> None:
    before = inspect(full.root, times=True)
    said = full.ok("init", *words)

    assert "goes back with a rollback: /home" in said
    assert "/var/log (logs, 1 file(s))" in said
    assert changes(before, inspect(full.root, times=True)) == {}
    assert subvolumes(full) == {"@rootfs", "@snaptx"}
    assert "warning:  goes back with a rollback: /home, /srv, /var/lib/mysql;" in full.ok("status")
    assert full.json("status")["endangered"] == ["/home", "/srv", "/var/lib/mysql"]


def test_configuration_can_accept_it_for_good(full: Box) -> None:
    full.configure('[shared]\nignore = ["/home", "/srv", "/var"]\n')
    full.ok("init")

    assert "warning" not in full.ok("status")


def test_configuration_can_name_more(tmp_path: Path) -> None:
    with made(init=False) as box:
        (box.root / "data").mkdir()
        (box.root / "data/file").write_text("precious\n")
        box.configure('[shared]\npaths = ["/data"]\n')

        assert "/data (as configured, 1 file(s))" in box.refuses(55, "init")
        box.ok("init", "--convert")
        assert mounted(box) == {"data": "@data"}


def test_what_a_system_makes_by_itself_is_no_data(tmp_path: Path) -> None:
    with made(init=False) as box:
        (box.root / "root/.bashrc").write_text("# ~/.bashrc\n")
        (box.root / "home/nobody/empty").mkdir(parents=True)
        (box.root / "var/mail").symlink_to("spool/mail")
        box.ok("init")

        assert "warning" not in box.ok("status")


def test_dry_run_shows_what_would_be_converted(full: Box) -> None:
    before = full.facts()
    plan = full.json("--dry-run", "init", "--convert", "--keep", "/srv")
    found = {one["path"]: one["state"] for one in plan["shared"]["findings"]}

    assert plan["shared"]["chosen"] == ["/home", "/var/lib/mysql", "/var/log"]
    assert found["/srv"] == "inside the root"
    assert found["/root"] == "empty"
    assert "into the subvolume @home" in plan["steps"][0]
    assert changes(before, full.facts()) == {}
    assert not full.state.exists()


def test_every_byte_is_kept(full: Box) -> None:
    before, linked = data(full.root), groups(full.root)
    said = full.ok("init", "--convert")

    for name in PLACES:
        assert f"/{name} is the subvolume {NAMES[name]}: mounted" in said
    assert mounted(full) == NAMES
    assert changes(before, data(full.root)) == {}
    assert groups(full.root) == linked
    assert (full.root / "home/ann").stat().st_mtime_ns == 999_999_999_999
    assert "C" in command("lsattr", full.root / "var/lib/mysql/ibdata").split()[0]
    assert "a" in command("lsattr", full.root / "var/log/syslog").split()[0]
    assert lines(full) == ["/", "/home", "/srv", "/var/lib/mysql", "/var/log"]
    is_sound(full)
    assert subvolumes(full) == {"@rootfs", "@snaptx", *NAMES.values()}
    assert full.json("verify")["problems"] == []
    assert "warning" not in full.ok("status")


@pytest.mark.parametrize("name", ["home", "var/lib/mysql"])
def test_blocks_are_shared(full: Box, name: str) -> None:
    full.ok("init", "--convert")
    command("sync", "-f", full.root)
    _, row = command("btrfs", "filesystem", "du", "--raw", "-s", full.root / name).splitlines()

    total, exclusive, *_ = map(int, row.split()[:3])
    assert total > 100_000
    assert exclusive == 0


def test_what_lay_in_the_root_stays_there(full: Box) -> None:
    before = data(full.root)
    full.ok("init", "--convert")

    assert changes(before, data(full.top / "@rootfs")) == {}


def test_the_audit_trail_names_it(full: Box) -> None:
    full.ok("init", "--convert")
    first, second = full.audit()

    assert first["converted"] == [f"/{name} is {NAMES[name]}" for name in PLACES]
    assert "adopted" in second
    assert "converted: /home is @home" in full.ok("log")
    assert full.ok("log", "--verify") == "2 records, an unbroken chain\n"


@pytest.mark.parametrize("layout", ["ubuntu", "fedora", "opensuse"])
def test_what_is_apart_already_stays_apart(tmp_path: Path, layout: str) -> None:
    with made(layout=layout, init=False) as box:
        furnish(box.root)
        own = mounted(box)
        before = data(box.root)
        box.ok("init", "--convert")

        assert mounted(box) == NAMES | own
        assert changes(before, data(box.root)) == {}
        assert ("@home" in subvolumes(box)) == (layout != "fedora")
        is_sound(box)
        box.reboot()
        assert mounted(box) == NAMES | own
        assert changes(before, data(box.root)) == {}


def test_every_generation_mounts_it_and_no_rollback_touches_it(full: Box, tmp_path: Path) -> None:
    full.ok("init", "--convert")
    full.reboot()
    assert mounted(full) == NAMES
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("new\n")
    full.ok("apply", "--commit", str(tmp_path / "update"))
    full.reboot()
    assert mounted(full) == NAMES
    assert (full.root / "etc/motd").exists()
    (full.root / "home/ann/letter").write_text("written later\n")
    full.ok("confirm")

    full.ok("rollback")
    full.reboot()
    assert mounted(full) == NAMES
    assert not (full.root / "etc/motd").exists()
    assert (full.root / "home/ann/letter").read_text() == "written later\n"
    assert full.json("verify")["problems"] == []


def test_a_generation_from_before_the_conversion_follows(full: Box, tmp_path: Path) -> None:
    full.ok("init", "--accept-rollback")
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("new\n")
    full.ok("apply", "--commit", str(tmp_path / "update"))
    full.reboot()
    full.ok("confirm")
    assert "/home is the subvolume @home" in full.ok("init", "--convert")
    (full.root / "home/ann/letter").write_text("written later\n")

    number = full.json("rollback", "1")["number"]
    assert full.json("verify", str(number))["problems"] == []
    full.reboot()
    assert mounted(full) == NAMES
    assert (full.root / "home/ann/letter").exists()
    assert not (full.root / "etc/motd").exists()


def test_before_a_pending_restart_nothing_is_converted(full: Box, tmp_path: Path) -> None:
    full.ok("init", "--accept-rollback")
    (tmp_path / "update/etc").mkdir(parents=True)
    (tmp_path / "update/etc/motd").write_text("new\n")
    full.ok("apply", "--commit", str(tmp_path / "update"))

    assert "generation 2 boots next" in full.refuses(52, "init", "--convert")


def test_what_is_written_goes_where_no_generation_is(full: Box) -> None:
    full.ok("init", "--convert")
    (full.root / "home/ann/letter").write_text("new\n")

    assert (full.top / "@home/ann/letter").exists()
    assert not (full.top / "@rootfs/home/ann/letter").exists()


def test_what_lay_in_the_root_can_be_removed(full: Box, tmp_path: Path) -> None:
    """These are the commands of the manual."""
    full.ok("init", "--convert")
    before = data(full.root)
    command("mount", "--bind", full.root, tmp_path)
    try:
        command("find", tmp_path / "home", "-mindepth", "1", "-delete")
    finally:
        command("umount", tmp_path)

    assert not any((full.top / "@rootfs/home").iterdir())
    assert changes(before, data(full.root)) == {}
    full.reboot()
    assert changes(before, data(full.root)) == {}
    assert full.ok("init", "--convert") == "there is nothing to convert\n"


def test_twice_is_once(full: Box) -> None:
    full.ok("init", "--convert")
    before, records = full.facts(), len(full.audit())

    assert full.ok("init", "--convert") == "there is nothing to convert\n"
    assert full.run("init", "--convert", "--unchanged-exit-77").code == 77
    assert changes(before, full.facts()) == {}
    assert len(full.audit()) == records


def test_somebody_elses_subvolume_is_not_taken(full: Box) -> None:
    command("btrfs", "subvolume", "create", full.top / "@srv")
    (full.top / "@srv/theirs").write_text("another system's\n")

    assert "@srv exists" in full.refuses(55, "init", "--convert")
    assert not full.state.exists()


def test_subvolumes_inside_are_not_hidden(full: Box) -> None:
    full.configure('[staging]\nnested = "carry"\n')
    command("btrfs", "subvolume", "create", full.root / "srv/inner")
    (full.root / "srv/inner/file").write_text("x")

    assert "/srv/inner" in full.refuses(55, "init", "--convert")


def test_what_is_in_use_waits_for_the_next_boot(full: Box) -> None:
    with (full.root / "var/log/syslog").open("a") as log:
        said = full.ok("init", "--convert")
        assert "/var/log is the subvolume @var_log: in use" in said
        assert set(mounted(full)) == {"home", "srv", "var/lib/mysql"}
        assert "go on with /var/log, which waits" in full.ok("--dry-run", "init", "--convert")
        log.write("a late line\n")
        (full.root / "var/log/late").write_text("a late file\n")
    assert "/var/log" in lines(full)
    assert "/var/log" in full.json("status")["unsettled"]
    assert "/var/log" not in full.json("status")["endangered"]

    full.reboot()
    assert mounted(full) == NAMES
    assert not (full.root / "var/log/late").exists()
    assert "brought over, changed meanwhile: 2 path(s)" in full.ok("repair", "--boot")
    assert (full.root / "var/log/late").read_text() == "a late file\n"
    assert (full.root / "var/log/syslog").read_text() == "a line\na late line\n"
    assert "a" in command("lsattr", full.root / "var/log/syslog").split()[0]
    assert full.json("status")["unsettled"] == []
    assert full.audit()[-1]["carried"] == ["/var/log/late", "/var/log/syslog"]
    assert full.json("verify")["problems"] == []


def test_a_second_call_mounts_what_is_free_by_then(full: Box) -> None:
    with (full.root / "home/ann/named").open():
        full.ok("init", "--convert")
        assert "home" not in mounted(full)
    (full.root / "home/ann/named").write_text("changed\n")

    assert "/home is the subvolume @home: mounted" in full.ok("init", "--convert")
    assert mounted(full) == NAMES
    assert (full.root / "home/ann/named").read_text() == "changed\n"


def test_what_both_sides_changed_is_named_and_kept(full: Box) -> None:
    with (full.root / "srv/site").open():
        full.ok("init", "--convert")
    (full.root / "srv/site").write_text("in the root\n")
    full.reboot()
    (full.root / "srv/site").write_text("since the boot\n")

    said = full.ok("repair", "--boot")
    assert "changed on both sides, left as they are: /srv/site" in said
    assert (full.root / "srv/site").read_text() == "since the boot\n"
    assert (full.top / "@rootfs/srv/site").read_text() == "in the root\n"
    assert full.audit()[-1]["conflicts"] == ["/srv/site"]


def test_no_link_leads_a_mount_of_the_sandbox_outside(box: Box, tmp_path: Path) -> None:
    command("btrfs", "subvolume", "create", box.top / "@evil")
    (box.root / "evil").symlink_to(tmp_path)
    with (box.root / "etc/fstab").open("a") as file:
        file.write(f"UUID={box.sandbox.disk_uuid} /evil btrfs subvol=@evil 0 0\n")
    box.reboot()

    assert not tmp_path.is_mount()
    assert mounted(box) == {}
