"""Plugin of dnf 4: a generation of the system before a transaction, and what it changed on record.

Installed as snaptx.py in the directory "dnf-plugins" of the distribution's Python; [hooks] mode in
snaptx.conf turns it off.
"""

import os
import shutil
import subprocess

import dnf


class Snaptx(dnf.Plugin):
    """Calls snaptx around the work of rpm."""

    name = "snaptx"

    def _call(self, moment):
        command = shutil.which("snaptx")
        if command is None or self.base.conf.installroot != "/":
            return 0
        caller = str(os.getpid())
        return subprocess.call([command, "hook", moment, "--manager", "dnf", "--caller", caller])

    def pre_transaction(self):
        """Make the generation; only with mode "required" can that fail, and the transaction with it."""
        if self._call("before") != 0:
            raise dnf.exceptions.Error("snaptx could not make a generation of the running system")

    def transaction(self):
        """Put what was done on record."""
        self._call("after")
