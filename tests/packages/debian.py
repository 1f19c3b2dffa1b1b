"""A Debian whose packages are the archive's, repacked with a lower version, and what brings it up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.debs import Archive
from tests.packages.trees import SUITE, archive, inside, kept

OLD = "~old"
SLACK = {"=": OLD, ">=": "~~"}


def made_debian() -> Path:
    """Return a directory with ``root.tar``, the tree, and ``new``, an archive with what upgrades it."""

    def make(directory: Path) -> None:
        tree, new, old = directory / "tree", Archive(directory / "new"), directory / "old"
        _bootstrap(tree, new.directory)
        new.index()
        old.mkdir()
        with ThreadPoolExecutor(2) as workers:
            list(workers.map(lambda path: _repack(path, old), sorted(new.directory.glob("*.deb"))))
        shutil.copytree(old, tree / "tmp/old")
        script = "dpkg --force-downgrade,depends --install /tmp/old/*.deb && rm -r /tmp/old"
        inside(tree, "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", script)
        subprocess.run(["tar", "-C", tree, "-cf", directory / "root.tar", "--xattrs", "."], check=True)
        shutil.rmtree(tree)
        shutil.rmtree(old)

    return kept("debian", f"{SUITE} {Path(__file__).read_text()}", make)


def _bootstrap(tree: Path, packages: Path) -> None:
    """Make the tree, and get the packages it is made of."""
    fetch = (
        'chroot "$1" sh -c "cd /var/cache/apt/archives && '
        "apt-get download \\$(dpkg-query -W -f '\\${Package} ')\""
    )
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=directory"),
        *("--aptopt=APT::Install-Recommends false", f"--customize-hook={fetch}"),
        f'--customize-hook=mv "$1"/var/cache/apt/archives/*.deb {packages}',
        *(SUITE, str(tree), archive()),
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _older(line: str) -> str:
    if line.startswith("Version: "):
        return f"{line.rstrip()}{OLD}\n"
    if line.startswith(("Depends: ", "Pre-Depends: ")):
        return re.sub(r"\((>?=) ([^)]*)\)", lambda found: f"({found[1]} {found[2]}{SLACK[found[1]]})", line)
    return line


def _repack(package: Path, target: Path) -> None:
    """Make the same package with a lower version, and with dependencies that such versions fulfil."""
    tree = target / package.stem
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text("".join(map(_older, control.read_text().splitlines(keepends=True))))
    subprocess.run(["dpkg-deb", "-b", "-Zgzip", "-z1", tree, target], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
