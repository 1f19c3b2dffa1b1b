"""Stand-ins for programs that reach past a generation, to the disk's boot loader or to running services.

They lie in the enclosure's own /run, first in PATH, say that they do nothing,
and succeed, as package scripts expect.  Nothing of them is in the tree, so
nothing of them can be left behind, packaged over or taken for the
generation's own.  Package scripts find them because they call programs by
name; apt, which sets a PATH of its own for dpkg, is told by its configuration.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from snaptx.idle import MARK
from snaptx.run import SAFE_PATH

_HOME = "snaptx"
PATH = f"/run/{_HOME}/bin:{SAFE_PATH}"
"""The PATH of a command."""

APT_CONFIG = f"/run/{_HOME}/apt.conf"
"""What APT_CONFIG names; see apt.conf(5)."""

CACHE = f"/run/{_HOME}/cache"
"""Where a package manager finds what was fetched before."""

# A package that the command installs can bring these along.
_BOOT = (
    *("grub-install", "grub2-install", "grub-multi-install", "grub-bios-setup", "grub2-bios-setup"),
    *("grub-sparc64-setup", "grub2-sparc64-setup", "efibootmgr"),
)
# Scripts take the presence of these for an init system, a boot loader or a distribution.
_WHERE_PRESENT = (
    *("bootctl", "update-bootloader", "extlinux", "extlinux-update", "lilo", "zipl", "flash-kernel"),
    *("u-boot-install", "mokutil"),
    *("invoke-rc.d", "service", "deb-systemd-invoke", "start-stop-daemon", "rc-service", "initctl"),
    *("telinit", "init", "halt", "poweroff", "reboot", "shutdown", "udevadm", "systemd-detect-virt"),
)
_PLACES = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin")

# 101 is what invoke-rc.d makes of a policy that forbids (Debian's policy-rc.d specification).
# The enclosure's process namespace is taken for a container: GRUB's and the kernel's package
# scripts would leave the generation's grub.cfg as it was.
_SCRIPT = f"""#!/bin/sh
name=${{0##*/}} status=0
real() {{
    PATH={SAFE_PATH}
    exec "$name" "$@"
}}
case $name in
systemd-detect-virt)
    case " $* " in
    *" --container "* | *" -c "*)
        case " $* " in *" --quiet "* | *" -q "*) ;; *) echo none ;; esac
        exit 1
        ;;
    esac
    real --vm "$@"
    ;;
udevadm)
    case $1 in trigger | control | settle) ;; *) real "$@" ;; esac
    ;;
invoke-rc.d)
    for word; do
        case $word in --query | --disclose-deny) status=101 ;; esac
    done
    ;;
esac
echo "snaptx: $name is left alone in a staged generation" >&2
exit $status
"""


def fill(run: int, holds: Callable[[str], bool]) -> None:
    """Put the stand-ins into what is to be /run, an open directory.

    ``holds`` tells whether the generation has something at a path.

    Raises:
        OSError: they could not be written.
    """
    present = [name for name in _WHERE_PRESENT if any(holds(f"{place}/{name}") for place in _PLACES)]
    os.mkdir(_HOME, 0o755, dir_fd=run)
    os.mkdir(f"{_HOME}/bin", 0o755, dir_fd=run)
    os.mkdir(f"{_HOME}/cache", 0o755, dir_fd=run)
    _write(run, os.path.basename(MARK), _SCRIPT.encode(), 0o755)
    _write(run, "apt.conf", f'DPkg::Path "{PATH}";\n'.encode(), 0o644)
    for name in (*_BOOT, *present):
        os.symlink(f"../{os.path.basename(MARK)}", f"{_HOME}/bin/{name}", dir_fd=run)


def _write(run: int, name: str, text: bytes, mode: int) -> None:
    fd = os.open(f"{_HOME}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=run)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
