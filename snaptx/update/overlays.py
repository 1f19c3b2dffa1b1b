"""The overlays of a directory or URL, in the order of its signed index.

    index, signature ──> keys ──> not out of date, not replayed ──> what is missing here
                                                                          │
    staged, one over the other <── size, SHA-256 <── cache <── download <─┘

Nothing is downloaded but what a signed index names, and nothing is staged but
what is byte for byte what it names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from snaptx import stage, system
from snaptx.errors import ConfigError, FetchError, LimitError, TrustError
from snaptx.machine import Machine
from snaptx.model import Counts, Generation
from snaptx.stage import Staged
from snaptx.transaction import Request
from snaptx.update import download, index, signature
from snaptx.update.index import Entry, Index
from snaptx.update.source import Offer, Progress
from snaptx.update.state import Memory
from snaptx.update.transport import BrokenOffError, DirectoryTransport, Transport

KEYS = ("usr/lib/snaptx/keys.d", "etc/snaptx/keys.d")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a source works with: trusted keys by name, what was seen before, a cache of its own, limits.

    ``limit`` is the most bytes of one update, ``timeout`` the seconds a server may say nothing.
    """

    keys: Mapping[str, bytes]
    memory: Memory
    cache: Path
    limit: int
    timeout: float


def trusted_keys(sysroot: Path) -> dict[str, bytes]:
    """Return the public keys of a root; one in /etc goes over one of the same name in /usr/lib."""
    found = {}
    for directory in KEYS:
        for path in sorted((sysroot / directory).glob("*.pub")):
            found[path.name] = system.read_in_root(sysroot, f"{directory}/{path.name}")
    return {name: text for name, text in found.items() if text}


def transport(name: str, timeout: float) -> Transport:
    """Return how the files of the source called ``name`` are read.

    Raises:
        ConfigError: it is none.
    """
    if name.lower().startswith(("http://", "https://")):
        from snaptx.update.http import HttpTransport  # slow to load, and not every source needs it

        return HttpTransport(name, timeout)
    if not name.startswith("/") or "\0" in name:
        hint = "give the path of a directory from / on, or a URL with http:// or https://"
        raise ConfigError(f"{name!r} is no source of updates", hint=hint)
    return DirectoryTransport(Path(name))


class OverlaySource:
    """A directory or URL of overlays."""

    def __init__(self, name: str, around: Surroundings) -> None:
        self.name = name
        self._around = around
        self._transport = transport(name, around.timeout)
        self._index: Index | None = None
        self._pending: tuple[Entry, ...] = ()

    def check(self, installed: Mapping[str, str]) -> Offer | None:
        """Return what the index has beyond ``installed``.

        Raises:
            FetchError: it can't be had.
            TrustError: it is not signed by a trusted key, out of date or replayed.
            SourceError: it is malformed.
        """
        found = self._index = self._read()
        self._pending = index.pending(found, installed.get(found.name, ""))
        download.clean(self._around.cache, self._pending)
        if not self._pending:
            return None
        said = ", ".join(filter(None, (entry.message or entry.file for entry in self._pending)))
        summary = f"{found.name} {self._pending[-1].number}: {said}"
        return Offer(found.name, self._pending[-1].identity, summary, sum(e.size for e in self._pending))

    def is_bad(self, offer: Offer, rejected: Collection[str]) -> bool:
        """Return whether the last entry of the offer was the last of a bad one: a newer one may mend it."""
        return offer.identity in rejected

    def _read(self) -> Index:
        """Return the index, once it is known to be right."""
        signature.require()
        if not self._around.keys:
            hint = "put the public key of the source's maker into /etc/snaptx/keys.d/NAME.pub"
            raise TrustError("no key is trusted to sign updates", hint=hint)
        data = self._document(index.NAME, index.MAX_BYTES)
        signature.verify(data, self._signature(), self._around.keys)
        found, memory = index.parse(data), self._around.memory
        memory.put(self.name, index.accept(found, memory.get(self.name), system.now()))
        return found

    def _signature(self) -> bytes:
        try:
            return self._document(index.SIGNATURE, signature.BYTES)
        except LimitError as error:
            hint = f"it is {signature.BYTES} bytes as they are, not text"
            raise TrustError("the signature is too long", hint=hint) from error
        except FetchError as error:
            if isinstance(error.__cause__, BrokenOffError):
                raise
            hint = "its maker has to sign it: 'snaptx publish' does"
            raise TrustError(f"the index is not signed: {error.message}", hint=hint) from error

    def _document(self, name: str, limit: int) -> bytes:
        return download.patiently(lambda: self._transport.document(name, limit), name)

    def download(self, offer: Offer, progress: Progress | None = None) -> None:
        """Bring the files of the offer into the cache."""
        download.require_room(self._around.cache, self._pending, self._around.limit)
        for entry in self._pending:
            download.fetch(self._transport, entry, self._around.cache, progress)

    def stage(self, machine: Machine, request: Request, offer: Offer) -> Staged:
        """Lay the entries that are missing over what is staged, or over the default; return the newest."""
        had = index.level(_base(machine).updates.get(offer.key, ""))
        staged = Staged(0, _base(machine).number, Counts())
        for entry in (entry for entry in self._pending if entry.number > had):
            message = entry.message or entry.file
            asked = request._replace(message=message, updates={offer.key: entry.identity})
            path = str(self._around.cache / entry.sha256)
            called = f"{self.name.rstrip('/')}/{entry.file}"
            done = stage.apply(machine, path, asked, sha256=entry.sha256, called=called)
            staged = done if done.number else staged
        return staged


def _base(machine: Machine) -> Generation:
    return machine.generations.read(stage.choose_base(machine, None).number)
