"""Packages for a guest, out of the Debian archive: the guest has no network."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.vm import image, recipe

KERNEL = "linux-image-cloud-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BACKPORTS = f"{recipe.SUITE}-backports"


def newer_kernel(directory: Path) -> list[Path]:
    """Download a newer kernel than the guests have, and what it needs, into ``directory``.

    Raises:
        subprocess.CalledProcessError: apt failed, as told on stderr.
        AssertionError: the archive has none.
    """
    return package(directory, KERNEL, BACKPORTS)


def package(directory: Path, name: str, release: str = recipe.SUITE) -> list[Path]:
    """Download a package of a release, and what it needs that the guests lack, into ``directory``.

    Raises:
        subprocess.CalledProcessError: apt failed, as told on stderr.
        AssertionError: the guests have it, and nothing newer is there.
    """
    return packages(directory, [name], release)


def packages(
    directory: Path, names: Iterable[str], release: str = recipe.SUITE, without: str = ""
) -> list[Path]:
    """Do the same for several packages, which may take the place of the guests' ``without``.

    Raises:
        subprocess.CalledProcessError: apt failed, as told on stderr.
        AssertionError: the guests have them, and nothing newer is there.
    """
    apt = ["apt-get", "-qq", *_options(directory)]
    subprocess.run([*apt, "update"], check=True, stdin=subprocess.DEVNULL)
    words = ["--yes", "--no-install-recommends", "--download-only", f"--target-release={release}"]
    wanted = [*names, *([f"{without}-", "--allow-remove-essential"] if without else [])]
    subprocess.run([*apt, *words, "install", *wanted], check=True, stdin=subprocess.DEVNULL)
    found = sorted(directory.glob("archives/*.deb"))
    assert found, f"nothing of {names} in {release} is newer than what the guests have"
    return found


def _options(directory: Path) -> list[str]:
    """Return what makes apt think of a guest instead of this machine."""
    for name in ("archives/partial", "lists/partial"):
        (directory / name).mkdir(parents=True)
    suites = (recipe.SUITE, BACKPORTS)
    (directory / "sources.list").write_text(
        "".join(f"deb [signed-by={KEYRING}] {image.archive()} {suite} main\n" for suite in suites)
    )
    with tarfile.open(image.base() / "root.tar") as system:
        status = system.extractfile("./var/lib/dpkg/status")
        assert status
        (directory / "status").write_bytes(status.read())
    return [
        f"--option={name}={value}"
        for name, value in {
            "Dir::Etc::SourceList": directory / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": directory / "lists",
            "Dir::State::Status": directory / "status",
            "Dir::Cache": directory,
            "APT::Sandbox::User": "root",
        }.items()
    ]
