"""``snaptx update``: bring the machine up to date, as far as the policy says."""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from typing import Any

from snaptx.cli import commit as commit_verb
from snaptx.cli import common, options
from snaptx.config import Policy
from snaptx.errors import RejectedError, SnaptxError
from snaptx.machine import Machine
from snaptx.update import perform
from snaptx.update.outcome import Outcome
from snaptx.update.policy import Step
from snaptx.update.situation import Asked
from snaptx.update.state import Result

UNCHANGED = (Result.CURRENT, Result.HELD, Result.EARLY, Result.OFF)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    policies = [policy.value for policy in Policy]
    add("--policy", choices=policies, help="how far to go (default: as configured)")
    add("--check", action="store_true", help="only look, as --policy check")
    add(
        "--source",
        action="append",
        type=options.filled,
        metavar="SOURCE",
        help="a directory or URL of overlays, or packages; may be repeated",
    )
    add("--unattended", action="store_true", help="keep to the interval, the window and what inhibits it")
    add(
        "--splay", type=common.seconds, default=0, metavar="SECONDS", help="first wait a random time up to it"
    )
    common.add_unchanged(parser)


def _asked(args: Namespace, machine: Machine) -> Asked:
    config = machine.config.update
    wanted = Policy.CHECK if args.check else Policy(args.policy or config.policy)
    sources = tuple(args.source or config.sources)
    return Asked(common.request(args), wanted, sources, args.unattended)


def run(args: Namespace) -> int:
    """Update."""
    if args.check:
        common.exclusive("--check", {f"--policy {args.policy}": args.policy not in (None, Policy.CHECK)})
    machine = common.machine(args)
    asked = _asked(args, machine)
    if args.dry_run:
        outcome = perform.rehearse(machine, asked)
        told: Iterable[str] = _would(outcome)
    else:
        time.sleep(random.uniform(0, args.splay))
        with common.Progress(args, "downloading") as progress:
            outcome = perform.update(machine, asked, progress)
        told = _lines(outcome)
    common.emit(args, _shown(outcome), told, _failure(outcome))
    return common.unchanged(args) if outcome.result in UNCHANGED else 0


def _failure(outcome: Outcome) -> SnaptxError | None:
    if outcome.failures:
        return outcome.failures[0]
    if outcome.result is not Result.REJECTED:
        return None
    hint = "its maker has to publish a newer one; 'snaptx log' tells what became of it"
    return RejectedError(outcome.message, hint=hint)


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "result": outcome.result,
        "message": outcome.message,
        "offers": outcome.offers,
        "rejected": outcome.rejected,
        "staged": outcome.staged,
        "committed": outcome.committed,
        "bound": {"step": outcome.bound.step.name.lower(), "reason": outcome.bound.reason},
    }


def _would(outcome: Outcome) -> Iterator[str]:
    does = f"would {outcome.bound.step.name.lower()} ({outcome.bound.reason})"
    if outcome.offers:
        yield f"{does}: {'; '.join(offer.summary for offer in outcome.offers)}"
    elif outcome.staged and outcome.bound.step >= Step.COMMIT:
        yield f"{does}: generation {outcome.staged}"
    elif outcome.restarts:
        yield "would restart the machine, for the update that is committed"
    elif not outcome.failures:
        yield outcome.message


def _lines(outcome: Outcome) -> Iterator[str]:
    if outcome.committed:
        yield from commit_verb.describe(outcome.committed)
    if not outcome.failures and outcome.result is not Result.REJECTED:
        yield outcome.message
