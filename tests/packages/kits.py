"""What a test has to know of a package manager to try it: how its packages are made and how it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.packages import pkgs, rpms
from tests.packages.trees import inside, managers, newer_managers, scratch

ROOT = Path(__file__).parents[2]
REPOSITORY = "[test]\nname=test\nbaseurl={url}\nenabled=1\ngpgcheck=0\ntype=rpm-md\nautorefresh=1\n"
PACMAN = "[options]\nArchitecture = auto\nSigLevel = Never\n[test]\nServer = {url}\n"
RELAY = """#!/bin/sh
[ -p /tmp/relay/ask ] || exit 0  # in a generation: snaptx itself sees that and does nothing
case " $* " in *" --caller "*) ;; *) set -- "$@" --caller $PPID ;; esac
echo "$*" >/tmp/relay/ask
read -r status </tmp/relay/answer
exit "$status"
"""


@dataclass(frozen=True)
class Kit:
    """One package manager, in the root that ``tree`` returns; ``title`` is told in the names of tests.

    ``aborts`` is whether a script that fails before the files come makes it
    fail.
    """

    name: str
    make: Callable[..., Any]
    build: Callable[..., None]
    first: tuple[str, ...]
    install: tuple[str, ...]
    remove: tuple[str, ...]
    failing: str
    aborts: bool
    arch: str = ""
    release: str = ""
    beside: str = ".rpmnew"
    plugins: tuple[tuple[str, str], ...] = ()
    base: tuple[rpms.Rpm, ...] = ()
    title: str = ""
    tree: Callable[[], Path] = managers

    def prepare(self, root: Path, url: str) -> None:
        """Configure the manager, with one repository."""
        for name in ("etc/rpm", "etc/yum.repos.d", "etc/zypp/repos.d", "var/lib/rpm", "var/lib/pacman"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "etc/rpm/macros").write_text("%_dbpath /var/lib/rpm\n%_pkgverify_level none\n")
        for name in ("etc/yum.repos.d/test.repo", "etc/zypp/repos.d/test.repo"):
            (root / name).write_text(REPOSITORY.format(url=url))
        (root / "etc/zypp/zypp.conf").write_text("[main]\nrepo.refresh.delay = 0\n")
        (root / "etc/pacman.conf").write_text(PACMAN.format(url=url))
        (root / "etc/resolv.conf").touch()
        for source, target in self.plugins:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "hooks" / source, root / target)
        (root / "usr/bin/snaptx").write_text(RELAY)
        (root / "usr/bin/snaptx").chmod(0o755)

    def put(self, root: Path, repository: Path) -> None:
        """Install what the repository has, without asking it."""
        with scratch(root, "first") as place:
            paths = [*repository.glob("*.rpm"), *repository.glob("*.pkg.tar")]
            for path in paths:
                shutil.copy(path, place)
            inside(root, *self.first, *(f"/tmp/first/{path.name}" for path in paths))

    def named(self, name: str) -> str:
        """Return a package's name as the manager's database has it."""
        return name + self.arch

    def version(self, number: int) -> str:
        """Return version ``number`` as the manager's database has it."""
        return f"{number}-1"


_RPM_FIRST = ("rpm", "-i", "--nodeps", "--force-debian")
SHELL = rpms.Rpm("shell", "1", {"/usr/share/shell": "1"}, provides="/bin/sh")
"""What packages with scripts depend on."""

DNF = Kit(
    name="dnf",
    make=rpms.Rpm,
    build=rpms.build,
    first=_RPM_FIRST,
    install=("dnf", "-y", "--refresh", "install"),
    remove=("dnf", "-y", "remove"),
    failing="pre",
    aborts=True,
    base=(SHELL,),
    arch=".noarch",
    plugins=(("dnf4.py", "usr/lib/python3/dist-packages/dnf-plugins/snaptx.py"),),
)

KITS = (
    DNF,
    replace(
        DNF,
        title="dnf5",
        first=("rpm", "-i", "--nodeps"),
        tree=newer_managers,
        plugins=(("dnf5.actions", "etc/dnf/libdnf5-plugins/actions.d/snaptx.actions"),),
    ),
    Kit(
        name="zypper",
        make=rpms.Rpm,
        build=rpms.build,
        first=_RPM_FIRST,
        install=("zypper", "--non-interactive", "install"),
        remove=("zypper", "--non-interactive", "remove"),
        failing="pre",
        aborts=True,
        base=(SHELL,),
        arch=".noarch",
        plugins=(("zypp-plugin", "usr/lib/zypp/plugins/commit/snaptx"),),
    ),
    Kit(
        name="pacman",
        make=pkgs.Pkg,
        build=pkgs.build,
        first=("pacman", "-U", "--noconfirm"),
        install=("pacman", "-Sy", "--noconfirm"),
        remove=("pacman", "-R", "--noconfirm"),
        failing="pre_upgrade",
        aborts=False,
        release="-1",
        beside=".pacnew",
        plugins=(
            ("pacman-before.hook", "usr/share/libalpm/hooks/05-snaptx-before.hook"),
            ("pacman-after.hook", "usr/share/libalpm/hooks/zz-snaptx-after.hook"),
        ),
    ),
)


@contextmanager
def relayed(root: Path) -> Iterator[list[str]]:
    """Answer the ``snaptx`` in ``root`` by that of this checkout; give what was asked and answered."""
    asked: list[str] = []
    with scratch(root, "relay") as place:
        for name in ("ask", "answer"):
            os.mkfifo(place / name)

        def serve() -> None:
            while True:
                words = (place / "ask").read_text().split()
                if not words:
                    return
                command = [sys.executable, "-m", "snaptx", "--sysroot", str(root), *words]
                done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
                asked.append(f"{done.returncode} {' '.join(words)}: {done.stdout}{done.stderr}")
                (place / "answer").write_text(f"{done.returncode}\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            (place / "ask").write_text("\n")
            thread.join()
