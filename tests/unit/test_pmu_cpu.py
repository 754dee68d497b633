"""Which CPU it is: captured machines, against what lscpu and people say of them."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.record.pmu.cpu import Cpu, identify
from numatrace.record.pmu.tables import load, select

TOPOLOGY = Path(__file__).resolve().parents[3] / "shared/captures/topology"
ROWS = load()

# Folder in the archive: the CPU in words, and the name of its row.
MACHINES = {
    "hwloc/16amd64-4n4c-cgroup-distance-merge.tar.bz2": ("AuthenticAMD family 16 model 2", "K10"),
    "hwloc/16amd64-8n2c.tar.bz2": ("AuthenticAMD family 15 model 33", "K8"),
    "hwloc/16amd64-8n2c-cpusets.tar.bz2": ("AuthenticAMD family 15 model 33", "K8"),
    "hwloc/16em64t-4s2c2t-offlines.tar.bz2": ("GenuineIntel family 15 model 6", None),
    "hwloc/20em64t-hybrid-1p6c2t+2ca4co1t.tar.bz2": (
        "GenuineIntel family 6 model 186",
        "Alder Lake, Raptor Lake (hybrid, one socket)",
    ),
    "hwloc/256ppc-8n8s4t.tar.bz2": ("POWER7 (architected), altivec supported", None),
    "hwloc/2arm-2c.tar.bz2": ("Arm implementer 0x41 part 0xc09", None),
    "hwloc/32amd64-4s2n4c-cgroup2.tar.bz2": ("AuthenticAMD family 16 model 9", "K10"),
    "hwloc/32em64t-2n8c+dax+nvme+mic+dimms.tar.bz2": (
        "GenuineIntel family 6 model 45",
        "Sandy Bridge-EP",
    ),
    "hwloc/40intel64-2g2n4c+pcilocality.tar.bz2": (
        "GenuineIntel family 6 model 47",
        "Nehalem, Westmere",
    ),
    "hwloc/48amd64-4pa2n6c-sparse.tar.bz2": ("AuthenticAMD family 16 model 9", "K10"),
    "hwloc/64amd64-4s2n4ca2co.tar.bz2": (
        "AuthenticAMD family 21 model 1",
        "Bulldozer, Piledriver, Steamroller, Excavator",
    ),
    "lscpu/arm-A510-A710-A715-X3.tar.gz": (
        "Arm implementer 0x41 part 0xd46, implementer 0x41 part 0xd4d, "
        "implementer 0x41 part 0xd47, implementer 0x41 part 0xd4e",
        None,
    ),
    "lscpu/ppc64-POWER7-64cpu.tar.gz": ("POWER7 (architected), altivec supported", None),
    "lscpu/rv64-milkvpioneer.tar.gz": ("RISC-V vendor 0x5b7", None),
    "lscpu/s390-kvm.tar.gz": ("IBM/S390", None),
    "lscpu/vmware_fpe.tar.gz": (
        "AuthenticAMD family 21 model 2",
        "Bulldozer, Piledriver, Steamroller, Excavator",
    ),
    "lscpu/x86_64-64cpu-linux6.2.tar.gz": (
        "GenuineIntel family 6 model 140",
        "Sandy Bridge to Rocket Lake (one socket)",
    ),
    "lscpu/x86_64-64cpu.tar.gz": ("GenuineIntel family 6 model 46", "Nehalem, Westmere"),
    "lscpu/x86_64-dell_e4310.tar.gz": ("GenuineIntel family 6 model 37", "Nehalem, Westmere"),
}


def archives() -> list[str]:
    return sorted(str(path.relative_to(TOPOLOGY)) for path in TOPOLOGY.glob("*/*.tar.*"))


def machine(name: str, root: Path) -> Path:
    """A machine's cpuinfo out of its archive."""
    if not (TOPOLOGY / name).is_file():
        pytest.skip(f"no captures here: {name} is kept outside of this repository")
    with tarfile.open(TOPOLOGY / name) as archive:
        member = next(each for each in archive if each.name.endswith("/proc/cpuinfo"))
        content = archive.extractfile(member)
        assert content is not None
        return cpuinfo(root, content.read())


def cpuinfo(root: Path, content: bytes) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_bytes(content)
    return root


@pytest.mark.parametrize("name", MACHINES)
def test_captured_machines_have_their_row(name: str, tmp_path: Path) -> None:
    cpu = identify(machine(name, tmp_path))
    row = select(cpu, ROWS)
    assert (str(cpu), row.name if row else None) == MACHINES[name]


def test_every_captured_machine_is_in_the_list() -> None:
    if not TOPOLOGY.is_dir():
        pytest.skip("no captures here: they are kept outside of this repository")
    assert set(archives()) == set(MACHINES)


@pytest.mark.parametrize("name", [name for name in MACHINES if name.startswith("lscpu/x86")])
def test_it_is_what_lscpu_says(name: str, tmp_path: Path) -> None:
    cpu = identify(machine(name, tmp_path))
    told = (TOPOLOGY / name.replace(".tar.gz", ".expected.txt")).read_text()
    said = dict(re.findall(r"^(Vendor ID|CPU family|Model|Stepping): +(\S+)$", told, re.M))
    assert said == {
        "Vendor ID": cpu.vendor,
        "CPU family": str(cpu.family),
        "Model": str(cpu.model),
        "Stepping": str(cpu.stepping),
    }


def test_arm_parts_come_from_the_id_registers_where_cpuinfo_has_none(tmp_path: Path) -> None:
    for cpu, midr in enumerate(("0x00000000413fd0c1", "0x00000000413fd0c1", "0x410fd4f0")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/regs/identification"
        folder.mkdir(parents=True)
        (folder / "midr_el1").write_text(midr + "\n")
    assert identify(tmp_path).parts == ((0x41, 0xD0C), (0x41, 0xD4F))


def test_arm_cores_of_two_makers(tmp_path: Path) -> None:
    blocks = [b"CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", b"CPU implementer\t: 0xc0\n"]
    content = b"\n".join([*blocks, b"CPU part\t: 0xac3\n"])
    assert identify(cpuinfo(tmp_path, content)).parts == ((0x41, 0xD0C), (0xC0, 0xAC3))


def test_no_cpuinfo_is_a_cpu_of_an_unknown_kind(tmp_path: Path) -> None:
    assert identify(tmp_path) == Cpu()
    assert str(identify(tmp_path)) == "of an unknown kind"


FIELD = st.sampled_from(["vendor_id", "cpu family", "model", "stepping", "CPU part", "model name"])
VALUE = st.one_of(st.text(max_size=40), st.integers().map(str), st.sampled_from(["0x41", "²", "1"]))


@given(st.lists(st.tuples(FIELD, VALUE), max_size=20))
def test_hostile_cpuinfo_gives_some_printable_cpu(
    tmp_path_factory: pytest.TempPathFactory, fields: list[tuple[str, str]]
) -> None:
    text = "\n".join(f"{key}\t: {value}" for key, value in fields)
    root = cpuinfo(tmp_path_factory.mktemp("cpu"), text.encode("utf-8", "surrogatepass"))
    cpu = identify(root)
    assert str(cpu).isprintable()
    assert len(str(cpu)) <= 200
    select(cpu, ROWS)
