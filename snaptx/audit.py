"""The audit trail: one record for each act, each bound to the one before it by its hash.

``audit/log`` holds one JSON object a line.  ``hash`` is the SHA-256 of the
record without it, in canonical JSON; ``prev`` is the hash of the record
before, so a record altered, taken out or moved breaks the chain.  What is cut
off at the end breaks no chain, so ``audit/head`` names the last record as a
witness.  A crash between the two leaves the witness one record behind, never
ahead.

A record is written when its act is over, and durable before success is
reported: the trail never claims what did not happen.  ``audit/reserve`` holds
space for that on a disk that an act has filled, and so lets ``prune`` begin;
with metadata it is ``spare`` that does.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from snaptx import durable, spare
from snaptx.errors import FormatError, NoSpaceError, SnaptxError, VerifyError
from snaptx.system import DIRECTORY, descriptor

FORMAT = 1
RESERVE = 256 << 10
"""Bytes kept back for records."""

START = "0" * 64
"""The ``prev`` of the first record."""

Result = TypeVar("Result")

REPAIR_HINT = "'snaptx repair' keeps what is sound and records what was lost"


def _digest(record: Mapping[str, Any]) -> str:
    bare = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, ensure_ascii=True).encode() + b"\n"


class Head(NamedTuple):
    """The last record: its sequence number and hash."""

    seq: int
    hash: str


class Audit:
    """The trail below one directory; ``metadata`` is where metadata is kept back, None for none."""

    def __init__(self, directory: Path, metadata: Path | None = None) -> None:
        self.log = directory / "log"
        self._witness = directory / "head"
        self._reserve = directory / "reserve"
        self._metadata = metadata

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records, oldest first, as they stand.

        Raises:
            VerifyError: a line is not a record, or the log no file.
        """
        with self._opened() as stream:
            for number, line in enumerate(stream, 1):
                yield self._parse(f"line {number}", line)

    def _opened(self) -> BinaryIO:
        """Open the log, or what is as empty as one that is not there.

        Raises:
            VerifyError: it is no file, and nothing could be added to it.
        """
        try:
            mode = self.log.lstat().st_mode
        except FileNotFoundError:
            return io.BytesIO()
        if not stat.S_ISREG(mode):
            raise VerifyError("the audit log is no file", hint=REPAIR_HINT)
        return self.log.open("rb")

    def _parse(self, where: str, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if not line.endswith(b"\n"):
                raise ValueError("cut off")
            if not (isinstance(record, dict) and {"format", "seq", "hash"} <= record.keys()):
                raise ValueError("not a record")
            newer = record["format"] > FORMAT
            if not newer and not isinstance(record["seq"], int):
                raise ValueError("seq is no number")
        except (ValueError, TypeError, RecursionError) as error:
            raise VerifyError(f"audit log, {where}: {error}", hint=REPAIR_HINT) from error
        if newer:
            raise FormatError("the audit log was written by a newer snaptx", hint="use that version or newer")
        return record

    def verify(self) -> int:
        """Check the whole chain and its witness; return the number of records.

        Raises:
            VerifyError: a record was altered, removed or moved, or there is no place for any.
        """
        if not self.log.parent.exists():
            raise VerifyError("the directory of the audit trail is missing", hint=REPAIR_HINT)
        last = Head(0, START)
        witness = self._read_witness()
        for record in self.records():
            last = self._follow(last, record)
            if witness and last.seq == witness.seq and last.hash != witness.hash:
                raise VerifyError(f"audit record {last.seq} was replaced", hint=REPAIR_HINT)
        if witness and last.seq < witness.seq:
            lost = witness.seq - last.seq
            raise VerifyError(f"the last {lost} audit record(s) were removed", hint=REPAIR_HINT)
        return last.seq

    def _follow(self, last: Head, record: Mapping[str, Any]) -> Head:
        seq = record.get("seq")
        if seq != last.seq + 1 or record.get("prev") != last.hash:
            raise VerifyError(f"audit record {last.seq + 1} was removed or moved", hint=REPAIR_HINT)
        if record.get("hash") != _digest(record):
            raise VerifyError(f"audit record {seq} was altered", hint=REPAIR_HINT)
        return Head(seq, record["hash"])

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Add a record, durable on return, and return it as written.

        Raises:
            StorageError: the filesystem refused; the trail is as it was.
        """
        with self._alone():
            return self._append(record)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other recorders out: not every verb that is recorded holds the machine's lock."""
        with descriptor(self.log.parent, DIRECTORY) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield

    def _append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        head = self.head()
        full = {"format": FORMAT, "seq": head.seq + 1, "prev": head.hash, **record}
        full["hash"] = _digest(full)
        self._add(_line(full))
        self._witness_to(Head(head.seq + 1, full["hash"]))
        self._keep_reserve()
        if self._metadata:
            spare.keep(self._metadata)
        return full

    def _add(self, line: bytes) -> None:
        while True:
            try:
                return durable.append(self.log, line)
            except NoSpaceError:
                if not (self.release() or self._release_metadata()):
                    raise

    def release(self) -> bool:
        """Give the reserved space to the filesystem, until the next record; return whether there was any."""
        return spare.release(self._reserve)

    def _release_metadata(self) -> bool:
        return self._metadata is not None and spare.release(self._metadata)

    def with_all(self, work: Callable[[], Result]) -> Result:
        """Return what comes of ``work``, done again with all that is kept back if the disk is full.

        Raises:
            NoSpaceError: there is no room for it with that either.
        """
        try:
            return work()
        except NoSpaceError:
            if not any([self.release(), self._release_metadata()]):
                raise
            return work()

    def _keep_reserve(self) -> None:
        try:
            with descriptor(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) as fd:
                os.posix_fallocate(fd, 0, RESERVE)
        except FileExistsError:
            return
        except OSError:
            with suppress(OSError):
                self._reserve.unlink()

    def _witness_to(self, head: Head) -> None:
        # Not flushed, and no reason to fail: an old witness is still a true one.
        fresh = self._witness.with_suffix(".tmp")
        with suppress(SnaptxError, OSError):
            durable.write_new(fresh, f"{head.seq} {head.hash}\n".encode(), flush=False)
            fresh.replace(self._witness)

    def _read_witness(self) -> Head | None:
        try:
            seq, digest = durable.read(self._witness).decode().split()
            return Head(int(seq), digest)
        except (FileNotFoundError, ValueError):
            return None  # an empty witness is what a power cut may leave of it

    def last(self) -> dict[str, Any] | None:
        """Return the newest record, reading only the end of the log."""
        tail = self._tail()
        return self._parse("the last line", tail) if tail else None

    def knows(self, transaction: str) -> bool:
        """Return whether there is a record of a transaction, the last one or not; damaged ones tell nothing.

        Raises:
            FormatError: a newer snaptx wrote the log.
            VerifyError: the log is no file.
        """
        with self._opened() as stream:
            return any(self._is_of(line, transaction) for line in stream)

    def _is_of(self, line: bytes, transaction: str) -> bool:
        try:
            return bool(self._parse("", line).get("transaction") == transaction)
        except VerifyError:
            return False

    def head(self) -> Head:
        """Return where the chain ends."""
        record = self.last()
        return Head(record["seq"], record["hash"]) if record else Head(0, START)

    def _tail(self, block: int = 1 << 16) -> bytes:
        """Return the last line, read in pieces of ``block`` bytes from the end; no line is too long."""
        with self._opened() as stream:
            start, tail = stream.seek(0, 2), b""
            while start and b"\n" not in tail[:-1]:
                size = min(block, start)
                start = stream.seek(start - size)
                tail = stream.read(size) + tail
        return tail.splitlines(keepends=True)[-1] if tail else b""

    def mend(self) -> str:
        """Keep the sound beginning of the trail, set the rest aside; return what was wrong, or "".

        The rest is kept beside the log, named by its first byte's position; no other is replaced.
        """
        if not self.log.parent.exists():
            self.log.parent.mkdir(mode=0o700)
            return "its directory was missing"
        with self._alone():
            try:
                self.verify()
                return ""
            except VerifyError as error:
                self._set_aside()
                return error.message

    def _set_aside(self) -> None:
        if os.path.lexists(self.log) and (self.log.is_symlink() or not self.log.is_file()):
            self.log.rename(durable.unused(self.log.with_name("damaged-0")))
        sound = self._sound_bytes()
        data = self.log.read_bytes() if self.log.exists() else b""
        if data[sound:]:
            durable.replace(durable.unused(self.log.with_name(f"damaged-{sound}")), data[sound:])
        durable.replace(self.log, data[:sound])
        self._witness.unlink(missing_ok=True)

    def _sound_bytes(self) -> int:
        last, size = Head(0, START), 0
        with self._opened() as stream:
            for line in stream:
                try:
                    last = self._follow(last, self._parse("", line))
                except VerifyError:
                    break
                size += len(line)
        return size
