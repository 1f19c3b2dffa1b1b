"""What /proc says of a process, with odd names, and who answers for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.enclosure import guard
from snaptx.running import proc
from snaptx.running.proc import Kind, Mapping, Owner

MAPS = rb"""00400000-0040b000 r-xp 00000000 00:4a 257                                /usr/bin/cat
7f0000000000-7f0000001000 r--p 00001000 fd:01 99   /usr/lib/a b  (deleted)
7f0000002000-7f0000003000 r--p 00000000 fd:01 98                         /tmp/new\012line
7f0000003000-7f0000004000 rw-p 00000000 00:00 0
7f0000004000-7f0000005000 rw-p 00000000 00:00 0                          [heap]
7f0000005000-7f0000006000 rw-s 00000000 00:01 1024                       /memfd:x (deleted)
7f0000006000-7f0000007000 rw-s 00000000 00:01 7                          /dev/zero (deleted)
7f0000007000-7f0000008000 rw-p 00000000 00:0f 12                         anon_inode:[perf_event]
7f0000008000-7f0000009000 r-xp 00002000 fd:01 98                         /tmp/new\012line
"""


def test_maps_are_files_with_any_name() -> None:
    found = list(proc.parse_maps(MAPS.splitlines(keepends=True)))

    assert [mapping.path for mapping in found] == [
        b"/usr/bin/cat",
        b"/usr/lib/a b  (deleted)",
        b"/tmp/new\nline",
        b"/memfd:x (deleted)",
        b"/dev/zero (deleted)",
        b"/tmp/new\nline",
    ]
    assert found[0] == Mapping(0x400000, 0x40B000, True, b"00:4a", 257, b"/usr/bin/cat")
    assert not found[1].executable


def test_one_mapping_stands_for_a_file() -> None:
    found = proc.distinct(proc.parse_maps(MAPS.splitlines(keepends=True)))

    assert len(found) == 5
    assert [mapping.executable for mapping in found if mapping.inode == 98] == [True]


DOCKER = "5f0c" * 16


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0::/system.slice/nginx.service\n", Kind.UNIT, "nginx.service"),
        ("0::/system.slice/foo.service/payload/inner.scope\n", Kind.UNIT, "foo.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", Kind.UNIT, "getty@tty1.service"),
        ("0::/init.scope\n", Kind.UNIT, "init.scope"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", Kind.SESSION, "user 1000: session-3.scope"),
        (
            "0::/user.slice/user-7.slice/user@7.service/app.slice/app-gnome-term.scope\n",
            Kind.SESSION,
            "user 7: app-gnome-term.scope",
        ),
        (f"0::/system.slice/docker-{DOCKER}.scope\n", Kind.CONTAINER, DOCKER[:12]),
        (f"0::/docker/{DOCKER}/init.scope\n", Kind.CONTAINER, DOCKER[:12]),
        ("0::/machine.slice/machine-web\\x2d1.scope/payload\n", Kind.CONTAINER, "web-1"),
        ("0::/machine.slice/systemd-nspawn@web.service/payload/x.service\n", Kind.CONTAINER, "web"),
        ("0::/lxc.payload.mail/system.slice/cron.service\n", Kind.CONTAINER, "mail"),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{DOCKER}.scope\n",
         Kind.CONTAINER, DOCKER[:12]),
        (f"0::/kubepods.slice/pod1.slice/cri-containerd-{DOCKER}.scope\n", Kind.CONTAINER, DOCKER[:12]),
        ("12:pids:/a\n1:name=systemd:/system.slice/cron.service\n0::/\n", Kind.UNIT, "cron.service"),
        ("0::/a:b.service\n", Kind.UNIT, "a:b.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/a\x0b0::/system.slice/cron.service\n",
         Kind.SESSION, "user 1000: cron.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/a\r0::/system.slice/cron.service\n",
         Kind.SESSION, "user 1000: cron.service"),
        ("0::/\n", Kind.OTHER, "/"),
        ("", Kind.OTHER, "/"),
    ],
)  # fmt: skip
def test_owner_is_told_by_the_control_group(text: str, kind: Kind, name: str) -> None:
    assert proc.parse_cgroup(text) == Owner(kind, name)


def test_the_guard_s_own_group_may_have_any_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "cgroup"
    told.write_bytes("1:cpu:/\n0::/user/a\f\u2028b\n".encode())
    monkeypatch.setattr(guard, "Path", lambda _: told)

    assert guard._own_group() == "user/a\f\u2028b"
