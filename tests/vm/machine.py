"""A machine in QEMU, and one run of it from power-on to its end, driven over serial lines.

    with Machine(image, tmp_path) as machine:
        with machine.boot() as run:
            run.choose("Debian GNU/Linux")
            assert run.shell(["uname", "-s"]).output == "Linux\n"
            assert run.poweroff() is End.POWEROFF

The processor is emulated, so that the tests run in a virtual machine, too.
Every boot is a new QEMU that ends where the machine would start anew: that a
machine rebooted by itself is known for sure, and the next boot is the test's.

    image (cached, never written)
      └─ DIRECTORY/disk.qcow2         what this machine has written
         DIRECTORY/variables.fd       the firmware's variables (UEFI)
         DIRECTORY/parcel             what put() hands in: a tar on the second disk
         DIRECTORY/boot-N-console     first serial line: firmware, GRUB, kernel, login
         DIRECTORY/boot-N-shell       second serial line: a root shell
         DIRECTORY/boot-N-monitor     QEMU's events
         DIRECTORY/boot-N-qemu        QEMU's own complaints
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType

from tests.vm.run import Run

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
# Without cx16: QEMU 7.2 gets the flags of cmpxchg16b wrong, and the guest's kernel falls over it.
PROCESSOR = "Nehalem,-cx16"
MEMORY = 1024
"""MiB."""
PARCEL = 1 << 30


class Firmware(Enum):
    """What starts GRUB."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True)
class Image:
    """A disk to start from, never written to; ``variables`` is the firmware's memory (UEFI only)."""

    disk: Path
    firmware: Firmware
    variables: Path | None = None
    form: str = "raw"


@dataclass(frozen=True)
class Kernel:
    """A kernel that QEMU loads itself, past firmware and boot loader."""

    kernel: Path
    initrd: Path
    command_line: str

    def options(self) -> list[str]:
        """Return QEMU's options."""
        return ["-kernel", f"{self.kernel}", "-initrd", f"{self.initrd}", "-append", self.command_line]


def _drive(number: int, path: Path, form: str, unwritable: int | None = None) -> list[str]:
    node = f"disk{number}"
    backend = f"format={form},file={path}"
    if unwritable is not None:
        fault = f"event=none,iotype=write,sector={unwritable},errno={errno.EROFS}"
        faults = ",".join(f"inject-error.0.{word}" for word in fault.split(","))
        backend = f"driver=blkdebug,image.driver={form},image.file.filename={path},{faults}"
    return [
        *("-drive", f"if=none,id={node},{backend}"),
        *("-device", f"virtio-blk-pci,drive={node},bootindex={number + 1}"),
    ]


@dataclass
class Machine:
    """A machine made of ``image``, whose files are in ``directory``; boots one after the other."""

    image: Image
    directory: Path
    processors: int = 1
    memory: int = MEMORY
    runs: list[Run] = field(default_factory=list)
    unwritable: int | None = None
    """A sector of the disk (512 bytes) that reads well and can't be written."""
    also: tuple[Path, ...] = ()
    """Raw files that are further disks, written to themselves."""

    def __post_init__(self) -> None:
        """Make the disk that takes the writes."""
        self.directory.mkdir(parents=True, exist_ok=True)
        image = self.image
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", image.form, "-b", f"{image.disk}"]
        subprocess.run([*command, f"{self.disk}"], check=True)
        if image.firmware is Firmware.UEFI:
            shutil.copyfile(image.variables or VARIABLES, self.variables)
        with self.parcel.open("wb") as file:
            file.truncate(PARCEL)

    @property
    def disk(self) -> Path:
        """What this machine has written."""
        return self.directory / "disk.qcow2"

    @property
    def variables(self) -> Path:
        """The firmware's variables."""
        return self.directory / "variables.fd"

    @property
    def parcel(self) -> Path:
        """The second disk."""
        return self.directory / "parcel"

    def frozen(self) -> Image:
        """Return this machine as it is as an image to make others of; it must not boot again itself."""
        variables = self.variables if self.image.firmware is Firmware.UEFI else None
        return Image(self.disk, self.image.firmware, variables, "qcow2")

    def boot(self, kernel: Kernel | None = None) -> Run:
        """Switch it on.

        Raises:
            RuntimeError: it is on.
        """
        if any(run.end is None for run in self.runs):
            raise RuntimeError("the machine is on already")
        options = [*self._hardware(), *(kernel.options() if kernel else [])]
        run = Run(self.directory / f"boot-{len(self.runs) + 1}", options, self.parcel)
        self.runs.append(run)
        return run

    def _hardware(self) -> list[str]:
        return [
            *("-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", f"{self.processors}"),
            *("-m", f"{self.memory}", "-nodefaults", "-display", "none", "-vga", "std", "-nic", "none"),
            *("-device", "i6300esb", "-action", "watchdog=reset"),
            *self._firmware(),
            *_drive(0, self.disk, "qcow2", self.unwritable),
            *_drive(1, self.parcel, "raw"),
            *(word for at, path in enumerate(self.also, 2) for word in _drive(at, path, "raw")),
        ]

    def _firmware(self) -> list[str]:
        if self.image.firmware is Firmware.BIOS:
            return []
        return [
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={CODE}"),
            *("-drive", f"if=pflash,unit=1,format=raw,file={self.variables}"),
        ]

    def __enter__(self) -> Machine:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut the power."""
        for run in self.runs:
            run.close()
