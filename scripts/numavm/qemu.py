"""The command line of QEMU for a machine: numbers and names in, arguments out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numavm.machine import Machine
    from numavm.options import Options

ROOT_TAG = "root"
# mitigations=off: emulated CPUs look vulnerable, and page-table isolation is slow under emulation.
# tsc=reliable: else the kernel falls back to the HPET, which emulation makes a slow clock.
# cryptomgr.notests, apparmor=0: of no use here, and time at every boot.
KERNEL_PARAMETERS = (
    *("console=ttyS0", "panic=-1", "mitigations=off", "tsc=reliable", "no_timer_check"),
    *("cryptomgr.notests", "apparmor=0"),
)


@dataclass(frozen=True, slots=True)
class Files:
    """QEMU and what it opens. The descriptors are inherited; `disk` is None without a disk."""

    qemu: str
    vmlinux: Path
    initrd: int
    disk: int | None
    ports: dict[str, int]
    """Connected sockets: `console` for the serial line, every other one a virtio port."""


def qemu_argv(options: Options, files: Files) -> list[str]:
    """QEMU with its arguments."""
    verbosity = "loglevel=7" if options.console else "quiet"
    return [
        *(files.qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        # An uncompressed kernel and qboot: under plugins, or one instruction per block,
        # SeaBIOS and unpacking the kernel take longer than everything after them.
        *("-machine", "q35", "-bios", "qboot.rom", "-kernel", str(files.vmlinux)),
        *("-initrd", _descriptor(files.initrd)),
        *("-append", " ".join((*KERNEL_PARAMETERS, verbosity, *options.append))),
        *("-accel", options.accel, "-cpu", _cpu(options.accel)),
        *_numa(options.machine),
        *_ports(files.ports),
        *_share(ROOT_TAG, Path("/"), read_only=True),
        *(part for tag, path in rw_tags(options.rw) for part in _share(tag, path)),
        *_disk(files.disk),
        *options.qemu_args,
    ]


def rw_tags(folders: tuple[Path, ...]) -> list[tuple[str, Path]]:
    """The name under which the guest finds each writable folder."""
    return [(f"rw{index}", folder) for index, folder in enumerate(folders)]


def _cpu(accel: str) -> str:
    # Emulated, "max" has what llama.cpp wants (AVX2, FMA, F16C). Without five-level page tables a
    # tenth less time goes into a boot.
    return "host" if accel.startswith("kvm") else "max,la57=off"


def _numa(machine: Machine) -> list[str]:
    cpus = [count for count in machine.cpus if count]
    # A socket never spans nodes on real machines, and the scheduler complains when one does.
    sockets, cores = (len(cpus), cpus[0]) if len(set(cpus)) == 1 else (sum(cpus), 1)
    arguments = ["-m", f"{sum(machine.memory_mib)}M"]
    arguments += ["-smp", f"{sum(cpus)},sockets={sockets},cores={cores},threads=1"]
    for node, (cpu_range, size) in enumerate(
        zip(machine.cpu_ranges(), machine.memory_mib, strict=True)
    ):
        text = f"node,nodeid={node}"
        if size:
            arguments += ["-object", f"memory-backend-ram,id=mem{node},size={size}M"]
            text += f",memdev=mem{node}"
        if cpu_range:
            text += f",cpus={cpu_range[0]}-{cpu_range[1]}"
        arguments += ["-numa", text]
    for source, row in enumerate(machine.distances):
        for target, distance in enumerate(row):
            if source != target:
                arguments += ["-numa", f"dist,src={source},dst={target},val={distance}"]
    return arguments


def _ports(ports: dict[str, int]) -> list[str]:
    arguments = ["-device", "virtio-serial-pci"]
    for name, descriptor in ports.items():
        arguments += ["-chardev", f"socket,id={name},fd={descriptor}"]
        if name == "console":
            arguments += ["-serial", f"chardev:{name}"]
        else:
            arguments += ["-device", f"virtserialport,chardev={name},name={name}"]
    return arguments


def _share(tag: str, path: Path, *, read_only: bool = False) -> list[str]:
    # multidevs=remap: inode numbers of different file systems below one folder must not collide.
    options = f"local,id={tag},path={_quoted(path)},security_model=none,multidevs=remap"
    if read_only:
        options += ",readonly=on"
    return ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _disk(descriptor: int | None) -> list[str]:
    if descriptor is None:
        return []
    drive = f"if=none,id=disk,format=raw,cache=unsafe,file={_descriptor(descriptor)}"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]


def _descriptor(number: int) -> str:
    return f"/proc/self/fd/{number}"


def _quoted(path: Path) -> str:
    return str(path).replace(",", ",,")
