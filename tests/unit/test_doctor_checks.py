"""Doctor's checks of containers, kernel settings and hardware, on folders in place of machines."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from numatrace.record.checks import container, engines, hardware, privileges, settings
from numatrace.record.checks.capability import Capability, Host
from tests.unit.pmu_fake import fake_perf
from tests.unit.test_pmu_choose import GOOD, IBS, LOAD_LATENCY, SAPPHIRE, SKYLAKE, ZEN4
from tests.unit.test_pmu_choose import machine as pmu_machine

if TYPE_CHECKING:
    from pathlib import Path

ALL = 0x1FFFFFFFFFF
DOCKERS_OWN = 0xA80425FB
"""What a container of docker has without options."""


def write(root: Path, relative: str, text: str = "") -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine with everything, seen by root outside of any container."""
    for name in ("proc", "sys"):
        (tmp_path / name).mkdir()
    write(tmp_path, "etc/os-release", "ID=debian\n")
    write(tmp_path, "proc/self/uid_map", "         0          0 4294967295\n")
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/pid").symlink_to(privileges.INITIAL_PID_NAMESPACE)
    one = Host(root=tmp_path, argv=("/opt/my venv/numatrace", "doctor"), euid=0, search_path="")
    capabilities(one, ALL)
    return one


def capabilities(host: Host, bits: int, more: str = "") -> None:
    write(host.root, "proc/self/status", f"CapEff:\t{bits:016x}\n{more}")


def assert_helpful(found: Capability, *todo: str) -> None:
    assert found.state == "degraded"
    assert all((found.value, found.lost, found.why, found.todo))
    assert "\n" not in found.value + found.lost + found.why + found.todo
    for part in todo:
        assert part in found.todo


# Containers.

SIGNS = {
    "docker": {".dockerenv": ""},
    "podman": {"run/.containerenv": 'engine="podman-5.2"\n'},
    "kubernetes": {
        "proc/self/environ": "A=1\0KUBERNETES_SERVICE_HOST=10.0.0.1\0",
        ".dockerenv": "",
    },
    "lxc": {"run/systemd/container": "lxc\n"},
    "systemd-nspawn": {"proc/1/environ": "PATH=/bin\0container=systemd-nspawn\0"},
}
CGROUPS = {
    "docker": "0::/docker/0123\n",
    "podman": "0::/machine.slice/libpod-12.scope\n12:cpu:/libpod_parent/libpod-1\n",
    "kubernetes": "0::/kubepods.slice/kubepods-burstable.slice/x\n",
}


@pytest.mark.parametrize("kind", SIGNS)
def test_kinds_of_containers(host: Host, kind: str) -> None:
    assert engines.container_kind(host) == ""
    for name, text in SIGNS[kind].items():
        write(host.root, name, text)
    assert engines.container_kind(host) == kind


@pytest.mark.parametrize("kind", CGROUPS)
def test_kinds_of_containers_by_their_cgroup(host: Host, kind: str) -> None:
    write(host.root, "proc/self/cgroup", CGROUPS[kind])
    assert engines.container_kind(host) == kind


def test_hostile_name_of_a_container(host: Host) -> None:
    write(host.root, "run/systemd/container", "\x1b[2J\nx" * 100)
    kind = engines.container_kind(host)
    assert kind.isprintable()
    assert len(kind) <= 32


def test_no_container(host: Host) -> None:
    found = container.check_container(host)
    assert (found.state, found.value) == ("yes", "none")


def test_a_container_that_has_everything_is_no_obstacle(host: Host) -> None:
    write(host.root, ".dockerenv")
    found = container.check_container(host)
    assert found.state == "yes"
    assert "docker" in found.value


STEPS = {
    "docker": "docker run --privileged --pid=host",
    "podman": "sudo podman run --privileged --pid=host",
    "kubernetes": "hostPID: true",
    "lxc": "on the host",
    "systemd-nspawn": "on the host",
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_container_without_capabilities_says_how_to_start_it(host: Host, kind: str) -> None:
    for name, text in SIGNS[kind].items():
        write(host.root, name, text)
    capabilities(host, DOCKERS_OWN, "Seccomp:\t2\n")
    (host.root / "proc/self/ns/pid").unlink()
    (host.root / "proc/self/ns/pid").symlink_to("pid:[4026532999]")
    found = container.check_container(host)
    assert_helpful(found, STEPS[kind])
    for part in ("CAP_BPF", "process numbers", "seccomp"):
        assert part in found.value
    for check in (privileges.check_privileges, privileges.check_pid_namespace):
        assert STEPS[kind] in check(host).todo


# Settings of the kernel.


def limits(host: Host, paranoid: str, bpf: str) -> Capability:
    write(host.root, "proc/sys/kernel/perf_event_paranoid", paranoid)
    write(host.root, "proc/sys/kernel/unprivileged_bpf_disabled", bpf)
    return settings.check_limits(host)


@pytest.mark.parametrize(("paranoid", "bpf"), [("4\n", "2\n"), ("-1\n", "0\n"), ("2", "1")])
def test_no_setting_limits_root(host: Host, paranoid: str, bpf: str) -> None:
    found = limits(host, paranoid, bpf)
    assert found.state == "yes"
    assert f"perf_event_paranoid = {paranoid.strip()}" in found.value


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, ("CAP_PERFMON", "CAP_BPF")),
        (1 << 38, ("CAP_BPF",)),
        (1 << 39, ("CAP_PERFMON",)),
        (1 << 21, ()),  # CAP_SYS_ADMIN
        (1 << 38 | 1 << 39, ()),
    ],
)
def test_settings_limit_who_lacks_the_capability(
    host: Host, bits: int, words: tuple[str, ...]
) -> None:
    user = replace(host, euid=1000)
    capabilities(user, bits)
    found = limits(user, "2\n", "2\n")
    if not words:
        assert found.state == "yes"
        return
    assert_helpful(found)
    assert shlex.split(found.todo) == ["sudo", "/opt/my venv/numatrace", "doctor"]
    for name in ("CAP_PERFMON", "CAP_BPF"):
        assert (name in found.why) == (name in words)


def test_settings_that_limit_nobody(host: Host) -> None:
    capabilities(host, 0)
    assert limits(host, "-1\n", "0\n").state == "yes"


@pytest.mark.parametrize("text", ["", "x", "9" * 100, "\x1b[2J", "--1"])
def test_settings_that_cannot_be_read(host: Host, text: str) -> None:
    capabilities(host, 0)
    assert limits(host, text, text).state == "yes"
    write(host.root, "proc/sys/kernel/perf_event_max_sample_rate", text)
    assert settings.check_sample_rate(host).state == "yes"


@pytest.mark.parametrize(("rate", "state"), [(999, "degraded"), (1_000, "yes"), (100_000, "yes")])
def test_sampling_rate(host: Host, rate: int, state: str) -> None:
    write(host.root, "proc/sys/kernel/perf_event_max_sample_rate", f"{rate}\n")
    found = settings.check_sample_rate(host)
    assert found.state == state
    assert f"{rate:,}" in found.value
    if state == "degraded":
        assert_helpful(found, "sysctl -w kernel.perf_event_max_sample_rate=")
        assert settings.check_sample_rate(replace(host, euid=7)).todo.startswith("sudo sysctl")


# The hardware.


@pytest.fixture
def with_perf(tmp_path: Path) -> str:
    """A folder whose perf accepts everything."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake_perf(folder, **GOOD)
    return str(folder)


def pmu(tmp_path: Path, cpuinfo: str, files: tuple[str, ...], path: str = "") -> Capability:
    (tmp_path / "machine/etc").mkdir(parents=True)
    (tmp_path / "machine/etc/os-release").write_text("ID=fedora\n")
    root = pmu_machine(tmp_path / "machine", cpuinfo, *files)
    return hardware.check_pmu(Host(root=root, argv=("x",), euid=0, search_path=path))


@pytest.mark.parametrize(
    ("cpuinfo", "files", "words"),
    [(SKYLAKE, LOAD_LATENCY, "samples pebs"), (ZEN4, IBS, "samples ibs")],
)
def test_what_the_recorder_would_use(
    tmp_path: Path, with_perf: str, cpuinfo: str, files: tuple[str, ...], words: str
) -> None:
    found = pmu(tmp_path, cpuinfo, files, with_perf)
    assert found.state == "yes", found
    assert words in found.value


@pytest.mark.parametrize(
    ("cpuinfo", "files", "todo"),
    [
        (SAPPHIRE, (), "bare metal"),
        (SAPPHIRE, LOAD_LATENCY, "dnf install perf"),
        ("vendor_id\t: Other\ncpu family\t: 1\nmodel\t: 1\nstepping\t: 1\n", IBS, "/proc/cpuinfo"),
        ("", (), "/proc/cpuinfo"),
    ],
)
def test_why_the_hardware_tells_nothing(
    tmp_path: Path, cpuinfo: str, files: tuple[str, ...], todo: str
) -> None:
    found = pmu(tmp_path, cpuinfo, files)
    assert_helpful(found, todo)
    assert "sampled by the CPUs' clocks" in found.value


def test_perf_that_refuses_its_events(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    refuse = "echo 'Operation not permitted' >&2; exit 255"
    fake_perf(folder, **(GOOD | {"record": refuse, "stat": refuse}))
    found = pmu(tmp_path, SKYLAKE, LOAD_LATENCY, str(folder))
    assert_helpful(found)
    assert "Operation not permitted" in found.why


def test_bandwidth(host: Host) -> None:
    assert hardware.check_bandwidth(host).state == "yes"
    write(host.root, "proc/cpuinfo", "flags\t\t: fpu cqm_mbm_total cqm_mbm_local\n")
    found = hardware.check_bandwidth(host)
    assert_helpful(found, "mount -t resctrl resctrl /sys/fs/resctrl")
    (host.root / "sys/fs/resctrl/mon_data").mkdir(parents=True)
    write(host.root, "sys/fs/resctrl/info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\n")
    found = hardware.check_bandwidth(host)
    assert (found.state, found.value) == ("yes", "mbm_total_bytes, by resctrl")


def test_latencies(host: Host) -> None:
    assert hardware.check_latencies(host).state == "yes"
    for node in (0, 3):
        (host.root / f"sys/devices/system/node/node{node}").mkdir(parents=True)
    found = hardware.check_latencies(replace(host, euid=5))
    assert_helpful(found)
    assert shlex.split(found.todo)[:4] == ["sudo", "/opt/my venv/numatrace", "record",
                                           "--measure-links"]  # fmt: skip
    write(host.root, "sys/devices/system/node/node3/access0/initiators/read_latency", "90\n")
    assert hardware.check_latencies(host).value == "from the firmware (HMAT), for 1 of 2 nodes"
