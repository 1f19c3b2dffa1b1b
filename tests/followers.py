"""Sandboxes that follow a shop, for tests of ``update``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.boxes import Box
from tests.updates import Server, Shop, key


def trust(box: Box) -> Box:
    """Let a sandbox trust key 0."""
    place = box.root / "etc/snaptx/keys.d"
    place.mkdir(parents=True, exist_ok=True)
    (place / "mine.pub").write_bytes(key()[1])
    return box


def update(box: Box, shop: Shop | Server, *words: str) -> Any:
    """Update from a shop and return the result, which has to be a success."""
    return box.json("update", *source(shop), *words)


def source(shop: Shop | Server) -> tuple[str, str]:
    """Return the words that name a shop as the source."""
    return "--source", shop.url if isinstance(shop, Server) else str(shop.place)


def kept(box: Box) -> dict[str, object]:
    """Return everything that must be as before, but for what updates remember and what is downloaded."""
    return {name: fact for name, fact in box.facts().items() if not name.startswith("state update")}


def cached(box: Box) -> list[Path]:
    """Return what lies in the cache."""
    return [path for path in (box.state / "update/cache").rglob("*") if path.is_file()]
