"""What is in a guest: the packages, and what an administrator has set.  Nothing of snaptx."""

from __future__ import annotations

from pathlib import Path

SUITE = "trixie"
GUEST = Path(__file__).parent / "guest"
"""Files of the harness in the guest."""

PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "login", "passwd", "mount", "kmod", "procps", "busybox"),
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd"),
    *("btrfs-progs", "dosfstools", "e2fsprogs", "gdisk"),
    *("grub-common", "grub2-common", "grub-pc-bin", "grub-efi-amd64-bin", "efibootmgr"),
    *("python3", "python3-sh", "python3-structlog", "python3-btrfsutil", "python3-zstandard"),
)

NOT_INSTALLED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")

# Everything the layouts need, and little else: small and fast to unpack where the processor is emulated.
INITRAMFS = {
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n",
    "etc/initramfs-tools/modules": "btrfs\next4\nvirtio_pci\nvirtio_blk\n",
}

GRUB_DEFAULTS = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=3
GRUB_DISTRIBUTOR=`( . /etc/os-release; echo ${NAME:-Debian} ) 2>/dev/null || echo Debian`
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=ttyS0,115200"
"""
# OVMF shows its console on the serial line, so GRUB's own driver would compete for the keys.
GRUB_TERMINALS = {
    "bios": 'GRUB_TERMINAL="serial console"\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n',
    "uefi": "GRUB_TERMINAL=console\n",
}

# They would be at work at any moment of a test.
DISABLED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service")
PASSWORD = "root:root"
HOSTNAME = "guest"
