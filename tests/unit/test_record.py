"""What a transaction keeps of what it did, beside the manifest."""

from __future__ import annotations

from pathlib import Path

from snaptx.overlay.manifest import Manifest
from snaptx.overlay.record import SCHEMA, Record


def _tables(manifest: Manifest, schema: str) -> set[str]:
    return {
        name
        for (name,) in manifest.db.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'")
    }


def test_no_table_hides_behind_one_of_the_manifest(tmp_path: Path) -> None:
    with Manifest.create(tmp_path / "base"):
        pass
    with Manifest.fork(tmp_path / "base", tmp_path / "new") as manifest:
        record = Record(manifest)
        record.begin()

        assert not _tables(manifest, "main") & _tables(manifest, SCHEMA)
        record.drop()
