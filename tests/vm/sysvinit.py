"""A machine without systemd: Debian that is started by sysvinit, as its release notes say how.

Its packages are replaced while it is off.  The second serial line gets its
root shell from inittab, when the services of the runlevel have been started.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.vm import product
from tests.vm.parcel import Content

PACKAGES = ("sysvinit-core", "orphan-sysvinit-scripts")
REPLACED = "systemd-sysv"

# dpkg would start services here, with no init.
NO_SERVICE = "/usr/sbin/policy-rc.d"
SHELL = "/usr/libexec/serial-shell-of-init"
INITTAB = f"T1:2:respawn:{SHELL}"
FILES: dict[str, Content] = {
    NO_SERVICE: "#!/bin/sh\nexit 101\n",
    SHELL: (
        "#!/bin/sh\n"
        "export HOME=/root TERM=dumb LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\n"
        "cd /root\n"
        "exec setsid --wait --ctty /usr/libexec/serial-shell <>/dev/ttyS1 >&0 2>&1\n"
    ),
}


# apt, since dpkg knows no order of pre-dependencies.
SCRIPT = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get -qq --yes --no-install-recommends --allow-remove-essential install /root/packages/*.deb {REPLACED}-
echo '{INITTAB}' >>/etc/inittab
rm -r /root/packages {NO_SERVICE}
"""


def convert(root: Path, packages: Iterable[Path]) -> None:
    """Let a mounted root start without systemd; ``packages`` are PACKAGES and whatever else it gets."""
    product.unpack(root, FILES | {f"/root/packages/{package.name}": package for package in packages})
    product.run_in(root, SCRIPT)
