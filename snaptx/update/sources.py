"""The sources that the configuration names, each with a cache of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from snaptx.errors import ConfigError, storage_error
from snaptx.machine import Machine
from snaptx.update import download
from snaptx.update.overlays import OverlaySource, Surroundings, trusted_keys
from snaptx.update.packages import KEY as PACKAGES
from snaptx.update.packages import Distribution, PackageSource
from snaptx.update.source import Source
from snaptx.update.state import Memory


def make(place: Path) -> None:
    """Make a directory for root alone, with those above it."""
    try:
        place.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, f"cannot make {place.name}") from error


def make_all(machine: Machine, names: Sequence[str], place: Path) -> list[Source]:
    """Return the sources called ``names``; what other ones left in the cache is removed.

    Raises:
        ConfigError: there is none, or one of them is none.
    """
    if not names:
        hint = "name one: [update] sources in snaptx.conf, or --source"
        raise ConfigError("there is no source of updates", hint=hint)
    config, cache = machine.config.update, place / "cache"
    caches = {name: cache / sha256(os.fsencode(name)).hexdigest()[:16] for name in names}
    make(cache)
    for left in set(cache.iterdir()) - set(caches.values()):
        download.remove(left)
    keys, memory = trusted_keys(machine.sysroot), Memory(place)
    return [
        _source(machine, name, Surroundings(keys, memory, own, config.max_download, config.timeout))
        for name, own in caches.items()
    ]


def _source(machine: Machine, name: str, around: Surroundings) -> Source:
    if name == PACKAGES:
        return PackageSource(Distribution(machine))
    make(around.cache)
    return OverlaySource(name, around)
