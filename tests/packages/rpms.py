"""RPM packages and a repository of them, made by the rpmbuild and createrepo_c of a tree."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.packages.trees import inside, scratch

SPEC = """
Name: {name}
Version: {version}
Release: 1
Summary: made for a test
License: none
BuildArch: noarch
{provides}
%description
Made for a test.
%install
{install}
{scripts}
%files
{files}
"""


@dataclass(frozen=True)
class Rpm:
    """A package: its files by path, those of /etc being configuration, and its scriptlets by name."""

    name: str
    version: str
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    provides: str = ""

    @property
    def spec(self) -> str:
        """Return what rpmbuild is told."""
        lines = []
        for path, text in self.files.items():
            lines.append(f"mkdir -p %{{buildroot}}{Path(path).parent}; echo '{text}' > %{{buildroot}}{path}")
        scripts = "\n".join(f"%{name}\n{text}" for name, text in self.scripts.items())
        files = "\n".join(
            ("%config(noreplace) " if path.startswith("/etc/") else "") + path for path in self.files
        )
        return SPEC.format(
            provides=f"Provides: {self.provides}" if self.provides else "",
            name=self.name,
            version=self.version,
            install="\n".join(lines),
            scripts=scripts,
            files=files,
        )


def build(root: Path, directory: Path, *packages: Rpm) -> None:
    """Make packages by the tools of ``root``, put them into ``directory`` and make its index anew."""
    with scratch(root, "build") as place:
        for package in packages:
            (place / "spec").write_text(package.spec)
            inside(root, "rpmbuild", "-bb", "--define", "_topdir /tmp/build/top", "/tmp/build/spec")
        for path in place.glob("top/RPMS/noarch/*.rpm"):
            shutil.copy(path, directory)
        shutil.copytree(directory, place / "repository", ignore=shutil.ignore_patterns("repodata"))
        inside(root, "createrepo_c", "-q", "/tmp/build/repository")
        shutil.rmtree(directory / "repodata", ignore_errors=True)
        shutil.copytree(place / "repository/repodata", directory / "repodata")
