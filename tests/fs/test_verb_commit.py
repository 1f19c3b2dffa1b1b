"""``snaptx commit``: one rename, durable and readable by GRUB; what the administrator changed comes along."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from snaptx.overlay.manifest import Manifest
from tests.boxes import Box, changes, inspect, made
from tests.fs.conftest import command


def payload(place: Path, **files: str) -> str:
    """Make an overlay of files in /etc (``__`` stands for a dot)."""
    (place / "etc").mkdir(parents=True)
    for name, text in files.items():
        (place / "etc" / name.replace("__", ".")).write_text(text)
    return str(place)


@pytest.fixture
def staged(box: Box, tmp_path: Path) -> Box:
    """Give a box with a staged generation 2 that changed /etc/hostname and brought /etc/motd."""
    (box.root / "etc/sub").mkdir()
    (box.root / "etc/sub/file").write_text("file\n")
    (box.root / "etc/kept").write_text("kept\n")
    (box.root / "etc/gone").write_text("gone\n")
    box.ok("apply", payload(tmp_path / "payload", hostname="two\n", motd="hello\n"), "-m", "the update")
    return box


def text(box: Box, number: int, name: str) -> str:
    """Return a file's content in a generation."""
    return (box.tree(number) / name).read_text()


def test_switch_is_one_rename_that_grub_sees(staged: Box) -> None:
    before, running = staged.boot(), inspect(staged.root, times=True)
    done = staged.json("commit")
    state = staged.boot()

    assert (done["number"], done["previous"], done["carried"], done["conflicts"]) == (2, 1, [], [])
    assert 0 < done["switch_seconds"] < 0.5
    assert (state.default, state.fallback, state.confirmed, state.tries) == (2, 1, False, 2)
    assert state.nonce != before.nonce
    assert [entry.number for entry in state.entries] == [2, 1]
    assert staged.default_subvolume() == "@snaptx/generations/2/root"
    assert staged.marks() == {1: "NG", 2: "RT"}
    assert changes(running, inspect(staged.root, times=True)) == {}
    assert staged.json("verify")["problems"] == []


def test_grub_reads_the_entry_and_its_kernel(staged: Box) -> None:
    staged.ok("commit")
    image, entry = staged.sandbox.disk, staged.boot().entries[0]

    assert command("grub-fstest", image, "cat", "(loop0)/@snaptx/grub/snaptx.cfg") == staged.entry.read_text()
    command("grub-script-check", staged.entry)
    assert entry.kernel == "/@snaptx/generations/2/root/boot/vmlinuz-0.0.0-sandbox"
    assert entry.cmdline.split()[:2] == [
        f"root=UUID={staged.sandbox.disk_uuid}",
        "rootflags=subvol=@snaptx/generations/2/root",
    ]
    for name in (entry.kernel, entry.initrd):
        assert "stands in" in command("grub-fstest", image, "cat", f"(loop0){name}")


def test_restart_lands_in_the_new_generation(staged: Box) -> None:
    staged.ok("commit")
    staged.reboot()

    assert (staged.root / "etc/hostname").read_text() == "two\n"
    assert staged.marks() == {1: "G", 2: "NRT"}
    assert not staged.json("status")["reboot_needed"]
    assert staged.json("verify")["problems"] == []


@pytest.mark.parametrize("layout", ["ubuntu", "fedora", "opensuse"])
def test_every_layout_goes_there_and_back(tmp_path: Path, layout: str) -> None:
    with made(layout=layout) as box:
        adopted = box.default_subvolume()
        box.ok("apply", "--commit", payload(tmp_path / "payload", hostname="two\n"))
        plan, entry = box.sandbox.plan, box.boot().entries[0]
        image = box.sandbox.boot_image if plan.boot else box.sandbox.disk
        place = "/snaptx/snaptx.cfg" if plan.boot else "/@snaptx/grub/snaptx.cfg"

        assert command("grub-fstest", image, "cat", f"(loop0){place}") == box.entry.read_text()
        assert "stands in" in command("grub-fstest", image, "cat", f"(loop0){entry.kernel}")
        assert box.default_subvolume() == "@snaptx/generations/2/root"
        box.reboot()
        assert (box.root / "etc/hostname").read_text() == "two\n"
        assert box.marks() == {1: "G", 2: "NRT"}
        box.ok("confirm", "--bad")
        assert box.default_subvolume() == adopted
        box.reboot()
        assert box.marks() == {1: "NRG", 2: "B"}
        assert box.json("prune", "2")["removed"] == [2]
        assert not (box.entry.parent / "2").exists()
        assert box.json("verify")["problems"] == []


def test_commands_to_paste_work_on_the_root_that_was_named(box: Box, tmp_path: Path) -> None:
    said = box.ok("apply", payload(tmp_path / "payload", motd="hello\n"))
    assert f"'{box.program} commit' makes it boot, '{box.program} abort' discards it" in said

    box.ok("commit")
    assert f"'{box.program} rollback 1' keeps this one" in box.ok("status")


def test_nothing_staged_and_twice(staged: Box) -> None:
    staged.ok("commit")

    assert "nothing is staged" in staged.refuses(51, "commit")
    assert "committed already" in staged.refuses(52, "commit", "2")
    assert "no generation 7" in staged.refuses(51, "commit", "7")


def test_dry_run_changes_nothing(staged: Box) -> None:
    before = staged.facts()

    assert staged.json("--dry-run", "commit") == {"number": 2, "carried": [], "conflicts": []}
    assert changes(before, staged.facts()) == {}


def test_without_kernel_it_stays_staged(box: Box, tmp_path: Path) -> None:
    (tmp_path / "payload/boot").mkdir(parents=True)
    (tmp_path / "payload/boot/.wh.vmlinuz-0.0.0-sandbox").touch()
    box.ok("apply", str(tmp_path / "payload"))

    assert "no kernel" in box.refuses(60, "commit")
    assert box.marks() == {1: "NRG", 2: "s"}


@pytest.mark.parametrize("on_disk", [False, True])
def test_edits_of_every_kind_are_carried_over(staged: Box, on_disk: bool) -> None:
    etc = staged.root / "etc"
    (etc / "kept").write_text("edited\n")
    (etc / "new").write_text("new\n")
    os.setxattr(etc / "new", "user.note", b"mine")
    os.chown(etc / "new", 12, 34)
    (etc / "gone").unlink()
    (etc / "passwd").chmod(0o600)
    (etc / "link").symlink_to("kept")
    (etc / "dir/deep").mkdir(parents=True)
    (etc / "dir/deep/file").write_text("deep\n")
    (etc / "group").unlink()
    (etc / "group").mkdir()
    (etc / "sub/file").rename(etc / "sub/moved")
    os.link(etc / "kept", etc / "also")
    if on_disk:
        command("sync", "-f", etc)
    done = staged.json("commit")
    new, mine = inspect(staged.tree(2) / "etc"), inspect(etc)

    assert done["conflicts"] == []
    assert {"etc/kept", "etc/new", "etc/gone", "etc/sub/moved", "etc/dir/deep/file"} <= set(done["carried"])
    assert set(changes(mine, new)) - {"kept", "also"} == {"hostname", "motd"}
    assert text(staged, 2, "etc/kept") == text(staged, 2, "etc/also") == "edited\n"
    assert staged.json("verify")["problems"] == []
    assert staged.audit()[-1]["carried"] == done["carried"]


def test_a_store_to_a_mapped_file_is_carried(staged: Box) -> None:
    with (staged.root / "etc/kept").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:4] = b"KEPT"
        assert staged.json("commit")["carried"] == ["etc/kept"]
    assert text(staged, 2, "etc/kept") == "KEPT\n"


def test_a_directory_that_became_a_file_is_carried(staged: Box) -> None:
    command("rm", "-r", staged.root / "etc/sub")
    (staged.root / "etc/sub").write_text("a file\n")
    staged.ok("commit")

    assert text(staged, 2, "etc/sub") == "a file\n"
    assert staged.json("verify")["problems"] == []


def test_what_is_passing_is_left_behind(staged: Box) -> None:
    for name in ("tmp", "run"):
        (staged.root / name / "passing").write_text("x")

    assert staged.json("commit")["carried"] == []


def test_conflict_stops_the_commit(staged: Box) -> None:
    (staged.root / "etc/hostname").write_text("mine\n")
    (staged.root / "etc/new").write_text("mine\n")
    said = staged.refuses(41, "commit")

    assert "/etc/hostname" in said
    assert "--conflicts=new" in said
    assert staged.marks() == {1: "NRG", 2: "s"}
    assert staged.audit()[-1]["error"]["type"] == "ConflictError"


@pytest.mark.parametrize(("policy", "wins"), [("new", "two\n"), ("old", "mine\n")])
def test_conflict_is_settled_as_told(staged: Box, policy: str, wins: str) -> None:
    (staged.root / "etc/hostname").write_text("mine\n")
    (staged.root / "etc/new").write_text("mine\n")
    done = staged.json("commit", f"--conflicts={policy}")

    assert done["conflicts"] == ["etc/hostname"]
    assert (text(staged, 2, "etc/hostname"), text(staged, 2, "etc/new")) == (wins, "mine\n")
    assert staged.audit()[-1]["conflicts"] == ["etc/hostname"]
    assert staged.json("verify")["problems"] == []


def test_configuration_settles_conflicts(staged: Box) -> None:
    staged.configure('[staging]\nconflicts = "old"\n')
    (staged.root / "etc/hostname").write_text("mine\n")
    staged.ok("commit")

    assert text(staged, 2, "etc/hostname") == "mine\n"
    assert text(staged, 2, "etc/snaptx/snaptx.conf").startswith("[staging]")


def test_the_same_edit_on_both_sides_is_no_conflict(staged: Box) -> None:
    command("cp", "-a", staged.tree(2) / "etc/hostname", staged.root / "etc/hostname")

    assert staged.json("commit")["conflicts"] == []


def test_deleted_here_and_changed_there_is_a_conflict(staged: Box) -> None:
    (staged.root / "etc/hostname").unlink()

    staged.refuses(41, "commit")
    staged.ok("commit", "--conflicts", "old")
    assert not (staged.tree(2) / "etc/hostname").exists()
    assert staged.json("verify")["problems"] == []


def test_edits_after_the_first_of_two_payloads_are_carried(staged: Box, tmp_path: Path) -> None:
    (staged.root / "etc/kept").write_text("edited\n")
    staged.ok("apply", payload(tmp_path / "second", issue="three\n"))
    done = staged.json("commit")

    assert (done["number"], done["carried"]) == (3, ["etc/kept"])
    assert [text(staged, 3, f"etc/{n}") for n in ("hostname", "kept", "issue")] == [
        "two\n",
        "edited\n",
        "three\n",
    ]


def test_edits_before_a_restart_are_carried_into_a_third(staged: Box, tmp_path: Path) -> None:
    staged.ok("commit")
    (staged.root / "etc/kept").write_text("edited\n")
    staged.ok("apply", payload(tmp_path / "second", issue="three\n"))

    assert staged.json("commit")["carried"] == ["etc/kept"]
    assert text(staged, 3, "etc/kept") == "edited\n"


def test_a_record_of_a_million_bytes_hinders_nobody(staged: Box) -> None:
    many = staged.root / "etc" / ("directory" * 20)
    many.mkdir()
    for number in range(6000):
        (many / f"{number:0100}").touch()
    staged.ok("commit")
    staged.ok("pin", "2")

    assert (staged.state / "audit/log").stat().st_size > 1 << 20
    assert staged.json("log", "--verify")["records"] == 4


def test_a_dry_run_tells_what_would_be_carried_and_changes_nothing(staged: Box) -> None:
    (staged.root / "etc/kept").write_text("edited\n")
    before = staged.facts()
    told = staged.json("commit", "--dry-run")

    assert (told["number"], told["carried"]) == (2, ["etc/kept"])
    assert changes(before, staged.facts()) == {}
    assert staged.json("commit")["carried"] == told["carried"]


def test_a_dry_run_foresees_a_conflict(staged: Box) -> None:
    (staged.root / "etc/hostname").write_text("edited\n")

    assert "/etc/hostname" in staged.refuses(41, "commit", "--dry-run")


def test_a_removed_directory_does_not_take_the_updates_files_along(box: Box, tmp_path: Path) -> None:
    (box.root / "etc/sub").mkdir()
    (box.root / "etc/sub/file").write_text("file\n")
    update = Path(payload(tmp_path / "payload"))
    (update / "etc/sub").mkdir()
    (update / "etc/sub/brought").write_text("by the update\n")
    box.ok("apply", str(update))
    (box.root / "etc/sub/file").unlink()
    (box.root / "etc/sub").rmdir()

    assert "/etc/sub" in box.refuses(41, "commit")
    box.ok("commit", "--conflicts=new")
    assert text(box, 2, "etc/sub/brought") == "by the update\n"


def test_without_kernel_nothing_that_was_carried_stays_in_the_index(box: Box, tmp_path: Path) -> None:
    (tmp_path / "payload/boot").mkdir(parents=True)
    (tmp_path / "payload/boot/.wh.vmlinuz-0.0.0-sandbox").touch()
    box.ok("apply", str(tmp_path / "payload"))
    (box.root / "etc/mine").write_text("mine\n")

    assert box.run("commit").code == 60
    with Manifest.open(box.state / "manifests/2.sqlite") as manifest:
        assert manifest.get(b"etc/mine") is None
    assert not (box.tree(2) / "etc/mine").exists()
