"""What the tests of a whole machine have in common: snaptx in the guest, adopted, an update committed."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.run import Run

LONG = 1800.0
"""Seconds: grub-install and update-initramfs on an emulated processor."""


def snaptx(run: Run, *words: str) -> Any:
    """Run a verb in the guest and return its result."""
    return json.loads(run.check(["snaptx", "--json", "--quiet", *words], LONG))


def root_of(run: Run) -> str:
    """Return the subvolume that is mounted as the root."""
    return run.check(["findmnt", "--noheadings", "--output", "FSROOT", "/"]).strip().lstrip("/")


def commit_update(run: Run, text: str) -> int:
    """Commit a generation with another /etc/update and return its number."""
    run.put({"/run/update/etc/update": text})
    return int(snaptx(run, "apply", "--commit", "--message", text, "/run/update")["committed"]["number"])


def take_over(run: Run) -> str:
    """Adopt the root, with snaptx installed; return the root's subvolume."""
    run.state(LONG)  # the shell is there before everything is mounted
    adopted = root_of(run)
    plan = snaptx(run, "init", "--accept-rollback", "--dry-run")
    assert adopted in "\n".join(plan["steps"])
    snaptx(run, "init", "--accept-rollback")
    return adopted
