"""The frame of every change: lock, settle what was left, journal, act, audit.

::

    with transaction.exclusive(machine, "apply"):
        with transaction.begin(machine, Act.STAGE, request, ...) as txn:
            txn.step("snapshot")
            ...
            txn.succeed(generation=7)

Not succeeded means gone: leaving the block in any other way hands the
transaction to ``recover``, the same code that meets it after a power cut.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from snaptx import lock, log, recover, switch, system
from snaptx.errors import FULL_HINT, NoSpaceError, OutcomeUnknownError, SnaptxError, no_memory
from snaptx.journal import Intent
from snaptx.machine import Machine
from snaptx.model import EMPTY, BootState, Tree, jsonable
from snaptx.recover import Act, Remedy

COMPLETED = f"was {Remedy.COMPLETE.value}"


class Request(NamedTuple):
    """What somebody asked for: the verb, the whole command line, and why.

    ``updates`` is what an unattended update brings: source to identity.
    """

    verb: str
    argv: tuple[str, ...] = ()
    message: str = ""
    updates: Mapping[str, str] = EMPTY


def note(machine: Machine, request: Request, **outcome: Any) -> None:
    """Put on record what is no transaction: nothing of it has to be settled if it breaks off."""
    told = {"verb": request.verb, "argv": list(request.argv), "message": request.message}
    who = {"who": system.identity()._asdict()}
    machine.audit.append({"time": system.now(), **told, **who, **jsonable(outcome)})


def failure_of(error: BaseException) -> SnaptxError:
    """Return what ended a verb as an error of the tree."""
    if isinstance(error, SnaptxError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return SnaptxError(f"interrupted by {system.signal_of(error).name}")
    if isinstance(error, MemoryError):
        return no_memory()
    return SnaptxError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


@contextmanager
def exclusive(machine: Machine, verb: str, patience: float = 0.0) -> Iterator[None]:
    """Be the only snaptx that changes this machine, on a machine where nothing is left open.

    Another one is waited for, for ``patience`` seconds at most.

    Raises:
        LockError: another one is at work.
        JournalError: what an earlier one left can't be understood.
        VerifyError: the audit trail can't be continued.
    """
    machine.require_writable()
    with lock.exclusive(machine.lock, verb, patience):
        recover.leftovers(machine)
        machine.audit.head()
        yield


class Transaction:
    """An open transaction; ``before`` is the default when it was begun."""

    def __init__(self, machine: Machine, intent: Intent, before: int) -> None:
        self.machine = machine
        self.intent = intent
        self.before = before
        self.ended = False
        self.switched = False
        self._begun = time.monotonic()
        self._steps: dict[str, float] = {}

    def step(self, name: str) -> None:
        """Note that a step begins; tests stop here to see what a crash would leave."""
        self.machine.journal.step(name)
        self._steps[name] = round(time.monotonic() - self._begun, 6)
        log.debug(name)

    def prepare(self, number: int, complete: Callable[[], None] = lambda: None) -> BootState:
        """Make all that comes before the rename (switch.prepare); return what is to boot then.

        Raises:
            SnaptxError: nothing that boots has changed.
        """
        state = switch.plan(self.machine, number)
        switch.prepare(self.machine, state, complete)
        return state

    def turn(self, state: BootState, *, spent: Iterable[Tree] = ()) -> float:
        """Make what was prepared boot; return the seconds the rename took.

        ``spent`` trees were kept for the way back, and go with it.

        Raises:
            SnaptxError: nothing that boots has changed.
            OutcomeUnknownError: the rename was made, but may not survive a power cut.
        """
        self.step("switch")
        pause = switch.turn(self.machine, state, spent)
        self.switched = True
        return pause

    def switch(self, number: int) -> float:
        """Make generation ``number``, which is complete, what boots: ``prepare`` and ``turn``."""
        return self.turn(self.prepare(number))

    def succeed(self, **details: Any) -> None:
        """Record success: durable before anybody is told."""
        self._close("done", details)

    def drop(self, **details: Any) -> None:
        """End without a generation because nothing would have changed."""
        recover.discard(self.machine, self.intent.generation)
        self._close("unchanged", details)

    def _close(self, result: str, details: Mapping[str, Any]) -> None:
        record = {
            "time": system.now(),
            **self.intent.actor,
            "transaction": self.intent.transaction,
            "result": result,
            "seconds": round(time.monotonic() - self._begun, 3),
            "steps": self._steps,
            **{key: jsonable(value) for key, value in details.items()},
        }
        self.machine.audit.append(record)
        self.ended = True
        try:
            self.machine.journal.end()
        except OSError as error:  # it is done and on record: that is what counts
            log.warning("the journal is closed by the next snaptx", reason=str(error))


@contextmanager
def begin(
    machine: Machine,
    act: Act,
    request: Request,
    *,
    generation: int,
    base: int = 0,
    targets: tuple[int, ...] = (),
    lasting: bool = True,
    known: Mapping[str, Any] | None = None,
) -> Iterator[Transaction]:
    """Open a transaction; the journal is durable before the block runs.

    ``known`` goes into its audit record, also where recovery has to write that.

    Without ``lasting`` it gets so with the first commit of its filesystem: for
    a block that writes nowhere else before that.

    Raises:
        SnaptxError: whatever the block raised, after what it did was settled.
    """
    intent = _intent(act, request, generation, base, targets, known or {})
    txn = Transaction(machine, intent, _default(machine))
    log.bind(transaction=txn.intent.transaction)
    if act is Act.REMOVE:
        machine.audit.release()  # on a full disk removing is the cure, and takes a little space itself
    try:
        _open(machine, txn.intent, lasting)
        yield txn
        if not txn.ended:
            raise RuntimeError("a transaction ended without saying how")
    except OutcomeUnknownError:
        raise  # stays open: the next boot decides, the next snaptx settles it
    except BaseException as error:
        with _to_the_end():
            _give_up(txn, error)
        raise
    finally:
        log.bind(transaction="")


def _open(machine: Machine, intent: Intent, lasting: bool) -> None:
    start = partial(machine.journal.begin, intent, lasting=lasting)
    if intent.act == Act.REMOVE:
        machine.audit.with_all(start)
    else:
        start()


@contextmanager
def _to_the_end() -> Iterator[None]:
    """Hold signals back and forget them: a terminal that closes sends more than one, and one is enough."""
    with system.undisturbed():
        try:
            yield
        finally:
            while signal.sigtimedwait(system.HELD, 0):
                pass


def _give_up(txn: Transaction, error: BaseException) -> None:
    """Settle what ``error`` ended; once the switch was made, nothing may be reported as if it were not.

    Raises:
        OutcomeUnknownError: the switch was made, here or by the settling.
    """
    failure = failure_of(error)
    if isinstance(error, NoSpaceError) and txn.intent.act == Act.REMOVE:
        error.hint = FULL_HINT  # to remove something is what has failed
    became = _settle(txn, failure)
    default = _default(txn.machine)
    outcome = f"'snaptx {txn.intent.actor['verb']}' {became}{_boots(default)}"
    error.add_note(outcome)
    if became == COMPLETED and isinstance(error, SnaptxError):
        error.hint = f"{outcome}; {error.hint}"  # who is told of a failure does not expect that
    if (txn.switched or default not in (0, txn.before)) and isinstance(
        error, SnaptxError | OSError | MemoryError
    ):
        message = f"generation {default or txn.intent.generation} boots next, but something failed: "
        raise OutcomeUnknownError(message + failure.message, hint="run: snaptx repair") from error


def _boots(default: int) -> str:
    return f", generation {default} boots next" if default else ""


def _settle(txn: Transaction, failure: SnaptxError) -> str:
    """Settle the transaction unless the error came before or after it; return in words what became of it."""
    try:
        if not txn.machine.journal.path.exists():
            return COMPLETED if txn.ended else "was not begun"
        return f"was {recover.settle(txn.machine, txn.intent, failure).value}"
    except OutcomeUnknownError:
        raise
    except (SnaptxError, OSError, MemoryError) as another:
        log.warning("what was interrupted stays open for the next snaptx", reason=failure_of(another).message)
        return "stays open for the next snaptx"


def _default(machine: Machine) -> int:
    """Return what boots next, 0 if nothing of snaptx's or if that can't be told."""
    try:
        state = machine.boot.read()
    except SnaptxError:
        return 0
    return state.default if state else 0


def _intent(
    act: Act,
    request: Request,
    generation: int,
    base: int,
    targets: tuple[int, ...],
    known: Mapping[str, Any],
) -> Intent:
    actor = {
        "started": system.now(),
        "verb": request.verb,
        "argv": list(request.argv),
        "message": request.message,
        "generation": generation,
        "base": base,
        "who": system.identity()._asdict(),
        **({"updates": dict(request.updates)} if request.updates else {}),
        **known,
    }
    return Intent(
        transaction=os.urandom(8).hex(),
        act=act.value,
        generation=generation,
        base=base,
        targets=targets,
        boot_id=system.boot_id(),
        pid=os.getpid(),
        start=system.process_start(os.getpid()),
        actor=actor,
    )
