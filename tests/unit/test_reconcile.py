"""What a boot means: a table; and what the menu file offers those who come back from a failed one."""

from __future__ import annotations

import pytest

from snaptx.bootloader import defaults, entryfile, settings
from snaptx.model import BootEntry, BootState
from snaptx.reconcile import Arrival, Why, judge

ENTRIES = tuple(
    BootEntry(number, f"{number}", f"/{number}/vmlinuz", f"/{number}/initrd", f"root=UUID=1 n={number}")
    for number in (9, 8, 7, 6, 5, 4, 3)
)
STATE = BootState(9, 4, "nonce", 2, False, ENTRIES)

TABLE = [
    # booted, why, meaning
    (0, Why.NOTHING, Arrival.FOREIGN),
    (9, Why.NOTHING, Arrival.AS_CHOSEN),
    (9, Why.STOPPED, Arrival.AS_CHOSEN),
    (4, Why.TRIES, Arrival.FELL_BACK),
    (4, Why.LOAD, Arrival.FELL_BACK),
    (4, Why.COUNTER, Arrival.NOT_TRIED),
    (4, Why.STOPPED, Arrival.NOT_TRIED),
    (4, Why.NOTHING, Arrival.BY_HAND),
    (7, Why.NOTHING, Arrival.BY_HAND),
]


@pytest.mark.parametrize(("booted", "why", "meaning"), TABLE)
def test_each_boot_has_its_meaning(booted: int, why: Why, meaning: Arrival) -> None:
    assert judge(STATE, booted, why) is meaning


def test_what_the_initramfs_turned_away_from_has_failed() -> None:
    turned = STATE._replace(default=4, failed=9)

    assert judge(turned, 4, Why.NOTHING) is Arrival.FELL_BACK
    assert judge(turned, 4, Why.STOPPED) is Arrival.NOT_TRIED


def test_the_fallback_is_in_the_first_menu_and_named_by_its_place() -> None:
    text = entryfile.render(STATE, "uuid")
    first, _, older = text.partition("submenu ")
    ids = [line.split("--id ")[1].split()[0] for line in first.splitlines() if line.startswith("menuentry")]

    assert ids == ["'snaptx-9'", "'snaptx-8'", "'snaptx-7'", "'snaptx-6'", "'snaptx-4'"]
    assert "set fallback='4'" in first.splitlines()
    assert "snaptx-5" in older
    assert "snaptx-3" in older


def test_only_the_two_that_are_tried_are_counted() -> None:
    blocks = entryfile.render(STATE, "uuid").split("menuentry ")[1:]
    counted = {block.split("'")[1]: block.partition("snaptx_count ")[2].split("\n")[0] for block in blocks}

    assert counted == {"9": "trial", "4": "fallback", **dict.fromkeys("87653", "")}


def test_the_way_out_leads_to_the_fallback_and_names_what_failed() -> None:
    trial = ENTRIES[0]._replace(cmdline=f"{ENTRIES[0].cmdline} {entryfile.TRIAL}")
    out = entryfile.escape(STATE._replace(entries=(trial, *ENTRIES[1:])))

    assert out is not None
    assert (out.default, out.fallback, out.failed, out.confirmed) == (4, 4, 9, True)
    assert out.entries[0].number == 4
    assert all("snaptx.trial" not in entry.cmdline for entry in out.entries)
    assert entryfile.parse(entryfile.render(out, "uuid")) == out


@pytest.mark.parametrize("change", [{"confirmed": True}, {"counter": "1:/x"}, {"fallback": 9}])
def test_without_need_there_is_no_way_out(change: dict[str, object]) -> None:
    assert entryfile.escape(STATE._replace(**change)) is None  # type: ignore[arg-type]


def test_the_settings_are_those_of_the_distribution() -> None:
    text = """
GRUB_TIMEOUT=7
GRUB_TERMINAL="serial console"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`
"""
    lines = settings.render(defaults.parse(text), settings.Ways("/@/boot/grub/grub.cfg")).splitlines()

    assert lines[1:] == [
        "set timeout=7",
        "serial --unit=0 --speed=115200",
        "terminal_input serial console",
        "terminal_output serial console",
        "set snaptx_original='/@/boot/grub/grub.cfg'",
    ]


def test_what_a_submenu_needs_is_exported() -> None:
    ways = settings.Ways(
        adopted="/@/.snapshots/1/snapshot", adopted_words="root=UUID=1 rootflags=subvol=x ro"
    )

    assert settings.render({}, ways).splitlines()[1:] == [
        "set snaptx_adopted='/@/.snapshots/1/snapshot'",
        "export snaptx_adopted",
        "set snaptx_adopted_words='root=UUID=1 rootflags=subvol=x ro'",
        "export snaptx_adopted_words",
    ]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("\tlinux\t/@/boot/vmlinuz-6 root=UUID=1 ro rootflags=subvol=@ quiet", True),
        ("linux /vmlinuz-6 root=UUID=1 ro quiet", False),
        ("linuxefi /vmlinuz-6 root=UUID=1 ro ${extra_cmdline}", False),
        ("linux /a root=UUID=1 rootflags=subvol=@\nlinux /b root=UUID=1 single", False),
        ("linux /ROOT/debian@/boot/vmlinuz-6 root=ZFS=rpool/ROOT/debian ro", True),
        ("linux16 /memtest86+x64.bin", True),
        ("blscfg", True),
    ],
)
def test_a_menu_that_leaves_the_root_to_the_default_is_known(config: str, named: bool) -> None:
    assert settings.names_roots(f"set timeout=5\n{config}\n# linux root=\n") is named


@pytest.mark.parametrize("value", ["serial; reboot", "$(reboot)", "`reboot`", "'a b\"c'", "7; halt"])
def test_a_setting_runs_nothing(value: str) -> None:
    text = f'GRUB_TIMEOUT="{value}"\nGRUB_TERMINAL="{value}"\nGRUB_SERIAL_COMMAND="{value}"\n'

    assert len(settings.render(defaults.parse(text)).splitlines()) == 1
