"""Programs for the kernel that decide about the devices a control group may open: bpf(2).

Each wrapper raises OSError with the errno of the call.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from snaptx import system

# linux/bpf.h
_PROG_LOAD = 5
_PROG_ATTACH = 8
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_LDX_MEM_W, _AND64_K, _JEQ_K, _MOV64_K, _EXIT = 0x61, 0x57, 0x15, 0xB7, 0x95
_DEVCG_DEV_BLOCK, _DEVCG_ACC_WRITE = 1, 4
_KIND, _ACCESS = 0xFFFF, 16  # the halves of bpf_cgroup_dev_ctx.access_type

_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "armv7l": 386,
    "i686": 357,
    "ppc64": 361,
    "ppc64le": 361,
    "s390x": 351,
}
"""The number of bpf(2) by machine, from each architecture's table of system calls."""


def _instruction(code: int, *, to: int = 0, source: int = 0, jump: int = 0, value: int = 0) -> bytes:
    """Return one struct bpf_insn (linux/bpf.h)."""
    registers = to | source << 4 if sys.byteorder == "little" else to << 4 | source
    return struct.pack("=BBhi", code, registers, jump, value)


def _call(command: int, attributes: bytes) -> int:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) is not known on {machine}")
    return system.syscall(_NUMBERS[machine], command, attributes, len(attributes), about="bpf")


def no_block_writes() -> int:
    """Return a program, as a descriptor, that lets block devices be opened for reading only."""
    written = _DEVCG_ACC_WRITE << _ACCESS
    code = (
        _instruction(_LDX_MEM_W, to=0, source=1)  # r0 = context->access_type
        + _instruction(_AND64_K, to=0, value=written | _KIND)
        + _instruction(_JEQ_K, to=0, jump=2, value=written | _DEVCG_DEV_BLOCK)
        + _instruction(_MOV64_K, to=0, value=1)
        + _instruction(_EXIT)
        + _instruction(_MOV64_K, to=0, value=0)
        + _instruction(_EXIT)
    )
    count = len(code) // len(_instruction(_EXIT))
    with system.address(code) as start, system.address(b"\0") as license_text:
        fields = (_TYPE_CGROUP_DEVICE, count, start, license_text, 0, 0, 0, 0, 0)
        return _call(_PROG_LOAD, struct.pack("=IIQQIIQII", *fields))


def attach_to_cgroup(program: int, cgroup: int) -> None:
    """Put a group of version 2, an open directory, under ``program`` alone, with all groups below it."""
    _call(_PROG_ATTACH, struct.pack("=IIII", cgroup, program, _ATTACH_CGROUP_DEVICE, 0))
