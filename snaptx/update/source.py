"""Where updates come from, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from snaptx.machine import Machine
from snaptx.stage import Staged
from snaptx.transaction import Request

Progress = Callable[[int, int, int | None], None]
"""Told the files done, the bytes done, and all bytes (None if unknown)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source has for this machine.

    ``key`` names the source in the records of generations, ``identity`` what a
    generation is at when it has the update.  ``size`` is in bytes, 0 if nobody
    knows.
    """

    key: str
    identity: str
    summary: str
    size: int = 0


class Source(Protocol):
    """A source of updates; every call may fail with an error of the tree, and has changed nothing then."""

    name: str
    """As the configuration has it."""

    def check(self, installed: Mapping[str, str]) -> Offer | None:
        """Return what there is beyond ``installed``, key to identity; None if nothing.

        Raises:
            FetchError: the source can't be reached.
            TrustError: what it says is not to be believed.
        """
        ...

    def is_bad(self, offer: Offer, rejected: Collection[str]) -> bool:
        """Return whether it would bring again what came with one of the ``rejected`` identities."""
        ...

    def download(self, offer: Offer, progress: Progress | None = None) -> None:
        """Bring all that ``stage`` needs to this machine, and check it.

        Raises:
            FetchError: the source can't be reached.
            SourceError: what came is not what was announced.
        """
        ...

    def stage(self, machine: Machine, request: Request, offer: Offer) -> Staged:
        """Stage what was downloaded; the caller holds the lock.

        The generations it makes carry the offer in their records.
        """
        ...
