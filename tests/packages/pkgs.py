"""Packages of pacman, and a repository of them made by the repo-add of a tree."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.packages.trees import inside, scratch


@dataclass(frozen=True)
class Pkg:
    """A package: its files by path, those of /etc being configuration, and the functions of its .INSTALL."""

    name: str
    version: str
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)

    def build(self, directory: Path) -> Path:
        """Make it in ``directory``."""
        info = {
            "pkgname": self.name,
            "pkgver": self.version,
            "pkgdesc": "made for a test",
            "arch": "any",
            "size": "1",
        }
        lines = [f"{key} = {value}\n" for key, value in info.items()]
        lines += [f"backup = {path.lstrip('/')}\n" for path in self.files if path.startswith("/etc/")]
        members = {".PKGINFO": "".join(lines)}
        if self.scripts:
            members[".INSTALL"] = "".join(f"{name}() {{\n{text}\n}}\n" for name, text in self.scripts.items())
        members |= {path.lstrip("/"): f"{text}\n" for path, text in self.files.items()}
        target = directory / f"{self.name}-{self.version}-any.pkg.tar"
        with tarfile.open(target, "w") as tar:
            for name, text in members.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(text), 0o644
                tar.addfile(member, io.BytesIO(text.encode()))
        return target


def build(root: Path, directory: Path, *packages: Pkg) -> None:
    """Make packages in ``directory``, and its index anew by the tools of ``root``."""
    for package in packages:
        package.build(directory)
    with scratch(root, "build") as place:
        for path in directory.glob("*.pkg.tar"):
            shutil.copy(path, place)
        names = [f"/tmp/build/{path.name}" for path in sorted(place.glob("*.pkg.tar"))]
        inside(root, "repo-add", "-q", "/tmp/build/test.db.tar.gz", *names)
        for name in ("test.db", "test.db.tar.gz"):
            shutil.copy(place / name, directory / name)
