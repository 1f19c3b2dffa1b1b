"""Files on their way into a guest: a tar archive on a disk, because the guest has no network."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

Content = str | bytes | Path
LEFT_OUT = ("__pycache__",)


def packed(files: Mapping[str, Content]) -> bytes:
    """Return a tar archive of ``files`` {absolute path: content}, owned by root.

    Text and bytes that begin with ``#!`` are executable; a directory brings all that is in it.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            _add(tar, path.lstrip("/"), content)
    return archive.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: Content) -> None:
    if isinstance(content, Path):
        tar.add(content, name, filter=_of_root)
        return
    data = content.encode() if isinstance(content, str) else content
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), int(time.time())
    member.mode = 0o755 if data.startswith(b"#!") else 0o644
    tar.addfile(member, io.BytesIO(data))


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if Path(member.name).name in LEFT_OUT:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
