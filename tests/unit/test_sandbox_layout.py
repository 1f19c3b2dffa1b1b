"""What a sandbox is made of, as far as it is data."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptx.errors import UsageError
from snaptx.sandbox.layout import PLANS, Layout, Sandbox, fstab, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4G", 4 << 30),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("1t", 1 << 40),
        ("64K", 65536),
        ("300000000", 300000000),
        (" 2GB ", 2 << 30),
    ],
)
def test_sizes_are_powers_of_1024(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "1.5G", "4 G", "4GG", "0x10", "٤G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


def test_every_layout_has_a_row() -> None:
    assert set(PLANS) == set(Layout)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("debian", "UUID=d / btrfs defaults,subvol=@rootfs 0 0\n"),
        ("ubuntu", "UUID=d / btrfs defaults,subvol=@ 0 0\nUUID=d /home btrfs defaults,subvol=@home 0 0\n"),
        (
            "fedora",
            "UUID=d / btrfs defaults,subvol=root 0 0\n"
            "UUID=d /home btrfs defaults,subvol=home 0 0\n"
            "UUID=b /boot ext4 defaults 1 2\n",
        ),
        ("opensuse", "UUID=d / btrfs defaults 0 0\n"),
        ("flat", "UUID=d / btrfs defaults 0 0\n"),
    ],
)
def test_fstab_is_the_distributions(layout: str, expected: str) -> None:
    assert fstab(Sandbox(Path("/box"), Layout(layout), "d", "b")) == expected
