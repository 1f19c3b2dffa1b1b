"""Keep what runs as a user from typing into the terminal that it was started in.

A process can put characters into the input of its terminal, where root's shell
reads them as soon as the process has ended: TIOCSTI, and TIOCLINUX in a virtual
console.  A filter of system calls (seccomp(2)) refuses these two, for good and
for all that the process starts.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import termios

from snaptx import system

# linux/prctl.h, linux/seccomp.h, linux/filter.h
_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM

# Where struct seccomp_data has the number, the architecture and the lower half of the second argument.
_NUMBER, _ARCHITECTURE, _REQUEST = 0, 4, 24 if sys.byteorder == "little" else 28

_TIOCLINUX = 0x541C
_REFUSED = (termios.TIOCSTI, _TIOCLINUX)

_X86 = ((0x40000003, 54),)
_ARM = ((0x40000028, 54),)
_PPC = ((0x80000015, 54), (0x14, 54))
_IOCTL = {
    "x86_64": ((0xC000003E, 16), (0xC000003E, 0x40000000 | 514), *_X86),
    "i686": _X86,
    "aarch64": ((0xC00000B7, 29), *_ARM),
    "armv7l": _ARM,
    "riscv64": ((0xC00000F3, 29), (0x400000F3, 29)),
    "loongarch64": ((0xC0000102, 29),),
    "ppc64le": ((0xC0000015, 54),),
    "ppc64": _PPC,
    "s390x": ((0x80000016, 54), (0x16, 54)),
}
"""By machine, AUDIT_ARCH_* (linux/audit.h) and the number of ioctl(2) of all kinds of programs it runs."""


def keep_input() -> None:
    """Refuse this process, which has root's rights yet, to type into its terminal.

    Raises:
        OSError: the kernel has no such filters, or the numbers are not known for this machine.
    """
    machine = os.uname().machine
    if machine not in _IOCTL:
        raise OSError(errno.ENOSYS, f"the number of ioctl(2) is not known on {machine}")
    code = _code(_IOCTL[machine])
    with system.address(code) as start:
        program = struct.pack("@HP", len(code) // len(_instruction(_RETURN, 0)), start)
        system.check(system.libc().prctl(_SET_SECCOMP, _MODE_FILTER, program, 0, 0))


def _code(calls: tuple[tuple[int, int], ...]) -> bytes:
    end = _instruction(_LOAD, _REQUEST)
    for position, request in enumerate(_REFUSED):
        end += _instruction(_IF_EQUAL, request, to=len(_REFUSED) - position)
    end += _instruction(_RETURN, _ALLOW) + _instruction(_RETURN, _REFUSE)
    code = b""
    for left, (architecture, number) in zip(reversed(range(len(calls))), calls, strict=True):
        code += _instruction(_LOAD, _ARCHITECTURE) + _instruction(_IF_EQUAL, architecture, otherwise=2)
        # Past the pairs that are left, four instructions each, and the verdict on all else.
        code += _instruction(_LOAD, _NUMBER) + _instruction(_IF_EQUAL, number, to=4 * left + 1)
    return code + _instruction(_RETURN, _ALLOW) + end


def _instruction(code: int, value: int, *, to: int = 0, otherwise: int = 0) -> bytes:
    """Return one struct sock_filter (linux/filter.h); the jumps count from the instruction after it."""
    return struct.pack("=HBBI", code, to, otherwise, value)
