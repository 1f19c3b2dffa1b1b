"""What must not be rolled back: the rules, fstab's lines, the record, and bringing over what came late."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from snaptx import config, fstab, system
from snaptx.errors import FormatError, JournalError, LayoutError, UsageError
from snaptx.places import RULES, Rule
from snaptx.sharing import conversions, latecomers, rules
from snaptx.sharing.conversions import Conversion
from snaptx.sharing.rules import Finding, Seen, State
from snaptx.trees import copies

HOME, LOG, ROOT = RULES["/home"], RULES["/var/log"], RULES["/root"]
UUID = "d5a147e6"


def finding(path: str, state: State = State.INSIDE, *, entries: int = 1) -> Finding:
    """Return what is found at a well-known path."""
    return rules.judge(RULES[path], path, Seen(entries=entries if state is State.INSIDE else 0))


@pytest.mark.parametrize(
    ("rule", "seen", "state", "blocks"),
    [
        (HOME, Seen(entries=1), State.INSIDE, True),
        (HOME, Seen(), State.EMPTY, False),
        (HOME, Seen(mounted=True), State.MOUNT, False),
        (HOME, Seen(nested=True), State.NESTED, False),
        (HOME, Seen(awaited=True, entries=1), State.AWAITED, False),
        (LOG, Seen(entries=1), State.INSIDE, False),
        (RULES["/var/lib/mysql"], Seen(entries=1), State.INSIDE, True),
        (RULES["/var/lib/docker"], Seen(entries=1), State.INSIDE, True),
        (RULES["/var/mail"], Seen(entries=1), State.INSIDE, True),
        (RULES["/var/cache"], Seen(entries=1), State.INSIDE, False),
        (ROOT, Seen(entries=2, names=frozenset({".bashrc", ".profile"})), State.EMPTY, False),
        (ROOT, Seen(entries=2, names=frozenset({".bashrc", "thesis"})), State.INSIDE, True),
        (HOME, Seen(entries=2, names=frozenset({".bashrc"})), State.INSIDE, True),
    ],
)
def test_how_a_place_lies(rule: Rule, seen: Seen, state: State, blocks: bool) -> None:
    found = rules.judge(rule, rule.path, seen)

    assert (found.state, found.blocks) == (state, blocks)


def test_every_well_known_path_is_configured() -> None:
    assert config.SharedConfig().paths == tuple(RULES)


def test_rules_follow_the_configuration() -> None:
    found = list(rules.of(["/data/", "/home", "home", "/", "/var/log/app"], ["/var/log"]))

    assert [rule.path for rule in found] == ["/data", "/home"]
    assert found[0].blocks
    assert found[1] is HOME


def test_what_lies_below_goes_along() -> None:
    found = rules.chosen([finding("/var/spool/mail"), finding("/var/spool"), finding("/home")])

    assert [one.path for one in found] == ["/home", "/var/spool"]


@pytest.mark.parametrize("state", [State.MOUNT, State.NESTED, State.AWAITED, State.EMPTY])
def test_nothing_else_is_chosen(state: State) -> None:
    lies = {
        State.MOUNT: Seen(mounted=True),
        State.NESTED: Seen(nested=True),
        State.AWAITED: Seen(awaited=True),
        State.EMPTY: Seen(),
    }

    assert rules.chosen([rules.judge(HOME, "/home", lies[state])]) == ()


def test_what_is_kept_stays() -> None:
    found = [finding("/home"), finding("/srv")]

    assert [one.path for one in rules.chosen(found, ["/srv"])] == ["/home"]


def test_nothing_is_kept_below_what_goes() -> None:
    with pytest.raises(UsageError, match="/var/spool/mail"):
        rules.chosen([finding("/var/spool"), finding("/var/spool/mail")], ["/var/spool/mail"])


def test_data_stops_it_and_the_message_names_all_of_it() -> None:
    found = [finding("/home", entries=3), finding("/var/log"), finding("/srv")]

    with pytest.raises(LayoutError) as caught:
        rules.require_safe(found, ["/srv"])
    assert caught.value.message.endswith(": /home (users' files, 3 file(s))")
    assert "--convert" in caught.value.hint
    assert "--accept-rollback" in caught.value.hint
    rules.require_safe(found, ["/srv", "/home"])
    rules.require_safe([finding("/var/log")])


@pytest.mark.parametrize(("path", "name"), [("/home", "@home"), ("/var/lib/mysql", "@var_lib_mysql")])
def test_subvolumes_are_called_as_usual(path: str, name: str) -> None:
    assert rules.subvolume_name(path) == name


def test_two_places_can_not_become_one_subvolume() -> None:
    rules.require_distinct(["/var/log", "/var/log/audit", "/srv"])

    with pytest.raises(LayoutError, match="/var/log and /var_log would both become the subvolume @var_log"):
        rules.require_distinct(["/srv", "/var/log", "/var_log"])


DEBIAN = (
    f"# a comment\nUUID={UUID} / btrfs noatime,subvol=@rootfs,x-initrd.mount 0 0\ntmpfs /home/tmp tmpfs rw"
)


def test_lines_follow_the_root_and_take_its_options() -> None:
    text = fstab.add(DEBIAN, UUID, [("/srv", "@srv"), ("/home", "@home")])

    assert text.splitlines() == [
        "# a comment",
        f"UUID={UUID} / btrfs noatime,subvol=@rootfs,x-initrd.mount 0 0",
        f"UUID={UUID} /home btrfs noatime,subvol=@home 0 0",
        f"UUID={UUID} /srv btrfs noatime,subvol=@srv 0 0",
        "tmpfs /home/tmp tmpfs rw",
    ]


def test_lines_that_are_there_are_not_added_again() -> None:
    once = fstab.add(DEBIAN, UUID, [("/home", "@home")])

    assert fstab.add(once, UUID, [("/home", "@home")]) == once
    assert fstab.add(DEBIAN, UUID, []) == DEBIAN


def test_blanks_are_octal_numbers() -> None:
    text = fstab.add("", UUID, [("/my data", "@my data#1")])

    assert text == f"UUID={UUID} /my\\040data btrfs defaults,subvol=@my\\040data\\0431 0 0\n"
    assert next(fstab.entries(text)).target == "/my data"
    assert fstab.targets(text) == {"/my data"}


def test_comments_and_swap_mount_nothing() -> None:
    assert fstab.targets("# UUID=1 /home btrfs\nUUID=2 none swap sw\n\n/dev/sda1 /srv/ ext4\n") == {"/srv"}


RECORD = Conversion("/home", "@home", 1, 2, 3, 4)


def test_record_is_kept_by_path(tmp_path: Path) -> None:
    other = Conversion("/srv", "@srv", 1, 5, 6, 7, settled=True)
    conversions.put(tmp_path, RECORD, other)
    conversions.put(tmp_path, Conversion("/home", "@home", 2, 2, 8, 9))

    assert conversions.read(tmp_path) == {"/home": Conversion("/home", "@home", 2, 2, 8, 9), "/srv": other}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "converted": [{"path": "/"}]}']
)
def test_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / conversions.NAME).write_text(text)

    with pytest.raises(JournalError, match="damaged"):
        conversions.read(tmp_path)


def test_newer_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / conversions.NAME).write_text('{"format": 99, "converted": []}')

    with pytest.raises(FormatError):
        conversions.read(tmp_path)


class Places:
    """A place, its copy, and the times between which it was copied."""

    def __init__(self, directory: Path) -> None:
        self.source, self.copy = directory / "source", directory / "copy"
        for place in (self.source, self.copy):
            place.mkdir()
            (place / "old").write_text("old")
            (place / "dir").mkdir()
            (place / "dir/old").write_text("old")
            for name in ("old", "dir/old", "dir"):
                os.utime(place / name, ns=(1, 1))
        time.sleep(0.02)
        self.since = self.ready = system.file_clock_ns()
        time.sleep(0.02)

    def bring(self) -> tuple[list[bytes], list[bytes]]:
        """Bring over what came late; return what, and the conflicts."""
        with (
            system.descriptor(self.source, os.O_RDONLY) as source,
            system.descriptor(self.copy, os.O_RDONLY) as copy,
        ):
            late = latecomers.bring(source, copy, self.since, self.ready)
        return sorted(late.brought), sorted(late.conflicts)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Give a place and its copy."""
    return Places(tmp_path)


def test_nothing_late_nothing_brought(places: Places) -> None:
    assert places.bring() == ([], [])


def test_what_came_late_is_brought(places: Places) -> None:
    (places.source / "old").write_text("newer")
    (places.source / "fresh").mkdir()
    (places.source / "fresh/file").write_text("new")
    (places.source / "dir/link").symlink_to("/etc/passwd")

    assert places.bring() == ([b"dir/link", b"fresh", b"fresh/file", b"old"], [])
    assert (places.copy / "old").read_text() == "newer"
    assert (places.copy / "fresh/file").read_text() == "new"
    assert os.readlink(places.copy / "dir/link") == "/etc/passwd"


def test_a_directory_that_moved_is_brought_with_all_in_it(places: Places) -> None:
    (places.source / "dir").rename(places.source / "moved")

    assert places.bring() == ([b"moved", b"moved/old"], [])
    assert (places.copy / "moved/old").read_text() == "old"
    assert (places.copy / "dir/old").read_text() == "old"


def test_what_changed_in_the_copy_is_not_overwritten(places: Places) -> None:
    (places.source / "old").write_text("in the root")
    (places.copy / "old").write_text("in the copy")

    assert places.bring() == ([], [b"old"])
    assert (places.copy / "old").read_text() == "in the copy"


def test_what_is_equal_is_no_conflict(places: Places) -> None:
    for place in (places.source, places.copy):
        (place / "old").write_text("same")
        os.utime(place / "old", ns=(5, 5))

    assert places.bring() == ([], [])


def test_no_link_in_the_copy_is_followed(places: Places, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (places.copy / "dir/old").unlink()
    (places.copy / "dir").rmdir()
    (places.copy / "dir").symlink_to(tmp_path / "outside")
    (places.source / "dir/secret").write_text("secret")

    assert places.bring() == ([], [b"dir/secret"])
    assert os.listdir(tmp_path / "outside") == []


def unlike(places: Places) -> list[bytes]:
    """Return the paths in which the copy differs."""
    with (
        system.descriptor(places.source, os.O_RDONLY) as source,
        system.descriptor(places.copy, os.O_RDONLY) as copy,
    ):
        return sorted(copies.unlike(source, copy))


@pytest.fixture
def twins(places: Places) -> Places:
    """Give two trees that are the same."""
    for place in (places.source, places.copy):
        (place / "other").write_text("x")
        (place / "link").symlink_to("old")
        os.link(place / "old", place / "name")
        for name in ("", "other", "link"):
            os.utime(place / name, ns=(1, 1), follow_symlinks=False)
    assert unlike(places) == []
    return places


def test_each_difference_is_seen(twins: Places) -> None:
    copy = twins.copy
    (copy / "other").chmod(0o600)
    (copy / "link").unlink()
    (copy / "link").symlink_to("new")
    os.utime(copy / "link", ns=(1, 1), follow_symlinks=False)
    (copy / "dir/old").write_text("odl")
    os.utime(copy / "dir/old", ns=(1, 1))
    (copy / "dir/more").touch()
    os.utime(copy / "dir", ns=(1, 1))
    os.utime(copy, ns=(1, 1))

    assert unlike(twins) == [b"dir/more", b"dir/old", b"link", b"other"]


def test_a_hard_link_that_became_a_file_is_seen(twins: Places) -> None:
    (twins.copy / "name").unlink()
    (twins.copy / "name").write_text("old")
    os.utime(twins.copy / "name", ns=(1, 1))
    os.utime(twins.copy, ns=(1, 1))

    assert len(unlike(twins)) == 1


ODD = "\x0b\x0c\x1c\x85\xa0\u2028"
"""What ends a line or a word for Python, and for libmount is a character like another."""


@pytest.mark.parametrize("char", ODD)
def test_lines_and_words_of_fstab_end_where_mount_ends_them(char: str) -> None:
    comment = f"# the old disk:{char}/dev/sdb1 /boot ext4 defaults 0 2\n"
    text = f"{comment}UUID=1\t /  btrfs defaults 0 0\r\n/dev/sdc1 /a{char}b ext4 ro"

    assert fstab.targets(text) == {"/", f"/a{char}b"}
    added = fstab.add(text, UUID, [(f"/c{char}d", "@c")])
    assert added.startswith(comment)
    assert fstab.targets(added) == {"/", f"/a{char}b", f"/c{char}d"}
    assert added.replace("\n", "").startswith(text.partition("/dev/sdc1")[0].replace("\n", ""))


def test_a_line_of_fstab_may_end_as_another_system_has_it() -> None:
    assert [entry.options for entry in fstab.entries("/dev/sda1 / btrfs ro\r\n")] == ["ro"]
