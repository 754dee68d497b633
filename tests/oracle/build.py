"""Compile the plugin and the programs that it counts, once, in the cache; start a guest with it.

The guest sees the host's files, so what the host has built is there; compiling under emulation
would take long. Standard library only.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path.insert(0, str(TESTS.parent / "scripts"))

from numavm.packages import cache_folder  # noqa: E402 (found only once its folder is on the path)

GCC = ("gcc", "-Wall", "-Wextra", "-Werror", "-pthread")
PLUGIN = ("-std=c11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden")


def build_plugin() -> Path:
    """The QEMU plugin. Raises CalledProcessError when gcc does not like it."""
    return _build(PLUGIN, HERE / "numa_oracle.c", HERE / "qemu_api.h")


def build_counted() -> Path:
    """The program that makes a known number of accesses."""
    return _build(("-O1",), HERE / "counted.c")


def build_known() -> Path:
    """The workload of known truth."""
    folder = TESTS / "known"
    return _build(("-O2",), folder / "known.c", *sorted(folder.glob("*.h")))


def _build(flags: tuple[str, ...], source: Path, *others: Path) -> Path:
    content = b"".join(path.read_bytes() for path in (source, *others))
    digest = hashlib.sha256(" ".join(flags).encode() + content).hexdigest()
    built = cache_folder().parent / "oracle" / f"{source.stem}-{digest[:16]}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        part = built.with_suffix(".part")
        subprocess.run([*GCC, *flags, "-o", str(part), str(source)], check=True)
        part.rename(built)
    return built


def guest_options(shared: Path) -> list[str]:
    """Options of scripts/numa-vm for a guest that is counted; `shared` is a folder of its --rw."""
    build_counted()
    build_known()
    output = shared / "oracle"
    loaded = f"{_quoted(build_plugin())},out={_quoted(output)}"
    return ["--qemu-arg=-plugin", f"--qemu-arg={loaded}", f"--env=NUMA_ORACLE={output}"]


def _quoted(path: Path) -> str:
    return str(path).replace(",", ",,")
