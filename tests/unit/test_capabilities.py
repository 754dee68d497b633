"""Each check of `numatrace doctor`, on folders that stand for machines on which it says no."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.cli import doctor as cli_doctor
from numatrace.model.errors import CapabilityError
from numatrace.record import capabilities
from numatrace.record.bpf.bcc_import import import_bcc
from numatrace.record.bpf.plan import OPTIONAL_TRACEPOINTS, REQUIRED_TRACEPOINTS
from numatrace.record.checks import bcc, bpf, privileges, system, tools, tracefs
from numatrace.record.checks.capability import Capability, Host
from numatrace.record.machine import distribution
from numatrace.record.machine.distribution import read_distribution

ALL_CAPABILITIES = 0x1FFFFFFFFFF
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
REAL = Path("/")


def write(root: Path, relative: str, text: str = "") -> None:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def set_capabilities(host: Host, bits: int) -> None:
    write(host.root, "proc/self/status", f"Name:\tx\nCapEff:\t{bits:016x}\n")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine on which everything is there that a folder can show."""
    write(tmp_path, "etc/os-release", DEBIAN)
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1.0-test\n")
    write(tmp_path, "proc/sys/kernel/numa_balancing", "1\n")
    write(tmp_path, "proc/self/uid_map", "         0          0 4294967295\n")
    write(tmp_path, "proc/self/mounts", "tracefs /sys/kernel/tracing tracefs rw 0 0\n")
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/pid").symlink_to(privileges.INITIAL_PID_NAMESPACE)
    for name in REQUIRED_TRACEPOINTS + OPTIONAL_TRACEPOINTS:
        write(tmp_path, f"sys/kernel/tracing/events/{name}/format")
    for name in ("libbcc.py", "table.py", "__init__.py"):
        write(tmp_path, f"usr/lib/python3/dist-packages/bcc/{name}")
    write(tmp_path, "usr/lib/python3/dist-packages/bcc/version.py", "__version__ = '0.31.0'\n")
    for node in (0, 2):
        (tmp_path / f"sys/devices/system/node/node{node}").mkdir(parents=True)
    (tmp_path / "sys/bus/event_source/devices").mkdir(parents=True)
    one = Host(root=tmp_path, argv=("/opt/venv/bin/numatrace", "record"), euid=0, search_path="")
    set_capabilities(one, ALL_CAPABILITIES)
    return one


@pytest.fixture(autouse=True)
def _no_real_system_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here creates a BPF map or mounts anything."""
    monkeypatch.setattr(bpf, "create_map", lambda *_: None)

    def refuse(_host: Host) -> None:
        raise AssertionError("a unit test tried to mount tracefs")

    monkeypatch.setattr(tracefs, "mount_tracefs", refuse)
    monkeypatch.setattr(bcc, "find_namesake", lambda: None)


def assert_helpful(found: Capability, state: str, *todo: str) -> None:
    assert found.state == state
    assert found.value
    assert found.lost
    assert found.why
    assert found.todo
    for part in todo:
        assert part in found.todo


# A machine that has everything, and the words of each check where something is missing.


def test_everything_there_is_yes(host: Host) -> None:
    for check in capabilities.REQUIRED:
        found = check(host)
        assert found.state == "yes", found
        assert (found.lost, found.why, found.todo) == ("", "", "")
    capabilities.require_for_record(host)


def test_ids_are_unique(host: Host) -> None:
    ids = [check(host).id for check in capabilities.CHECKS]
    assert len(set(ids)) == len(ids)
    assert set(capabilities.REQUIRED) <= set(capabilities.CHECKS)


def test_not_linux(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.platform, "system", lambda: "Darwin")
    assert_helpful(system.check_kernel(host), "no", "Linux")
    assert [one.id for one in capabilities.examine(host)] == ["kernel"]


def test_other_architecture(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.platform, "machine", lambda: "riscv64")
    found = system.check_architecture(host)
    assert_helpful(found, "degraded")
    assert "riscv64" in found.value


def test_nodes_with_a_hole_and_one_node_and_none(host: Host) -> None:
    assert system.check_nodes(host).value == "2 (0, 2)"
    folder = host.root / "sys/devices/system/node"
    (folder / "node2").rmdir()
    assert system.check_nodes(host).value.startswith("1,")
    (folder / "node0").rmdir()
    assert_helpful(system.check_nodes(host), "degraded", "CONFIG_NUMA")


@pytest.mark.parametrize(
    ("value", "words"),
    [("0", "off"), ("1", "on"), ("2", "tiering"), ("77", "unknown"), ("", "not in this kernel")],
)
def test_balancing(host: Host, value: str, words: str) -> None:
    write(host.root, "proc/sys/kernel/numa_balancing", value)
    assert words in system.check_balancing(host).value


def test_missing_python_package(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "pyarrow":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(system.metadata, "version", version)
    found = system.check_python(host)
    assert_helpful(found, "no", "-m pip install pyarrow")
    assert shlex.split(found.todo)[0] == sys.executable


# Privileges.


def test_user_without_capabilities_gets_the_sudo_command(host: Host) -> None:
    argv = ("/opt/my venv/bin/numatrace", "record", "-p", "12", "-o", "a b.arrow")
    user = replace(host, euid=1000, argv=argv)
    set_capabilities(user, 0)
    found = privileges.check_privileges(user)
    assert_helpful(found, "no")
    assert "CAP_BPF" in found.why
    assert "CAP_PERFMON" in found.why
    assert shlex.split(found.todo) == ["sudo", *argv]
    assert found.todo_is_command


def test_sudo_command_of_python_m(host: Host) -> None:
    user = replace(host, euid=1000, argv=("/x/numatrace/__main__.py", "doctor"))
    assert shlex.split(user.this_command()) == [sys.executable, "-m", "numatrace", "doctor"]


def test_sudo_command_has_a_full_path_when_called_by_a_relative_one(host: Host) -> None:
    user = replace(host, argv=("bin/numatrace", "doctor"))
    program = shlex.split(user.this_command())[0]
    assert Path(program) == Path.cwd() / "bin/numatrace"


@pytest.mark.parametrize(
    ("bits", "state"),
    [
        ((39,), "no"),
        ((38,), "no"),
        ((38, 39), "degraded"),  # others' processes cannot be looked at
        ((38, 39, 19), "degraded"),
        ((38, 39, 19, 2), "yes"),
        ((38, 39, 19, 1), "yes"),
        ((21, 19, 2), "yes"),  # CAP_SYS_ADMIN stands in for BPF and PERFMON
    ],
)
def test_which_capabilities_do(host: Host, bits: tuple[int, ...], state: str) -> None:
    set_capabilities(host, sum(1 << bit for bit in bits))
    found = privileges.check_privileges(replace(host, euid=1000))
    assert found.state == state
    if state != "yes":
        assert_helpful(found, state, "sudo /opt/venv/bin/numatrace record")


def test_root_in_a_container_without_capabilities_is_not_told_to_sudo(host: Host) -> None:
    set_capabilities(host, 0xA80425FB)  # Docker's default
    found = privileges.check_privileges(host)
    assert_helpful(found, "no", "--privileged")
    assert "sudo" not in found.todo


def test_all_capabilities_of_a_user_namespace_are_none(host: Host) -> None:
    write(host.root, "proc/self/uid_map", "0 1000 1\n")
    found = privileges.check_privileges(host)
    assert_helpful(found, "no", "host")
    assert not privileges.has_capability(host, 39)
    assert not bpf.may_use_bpf(host)


@pytest.mark.parametrize("status", ["", "CapEff:\n", "CapEff:\tzzzz\n", "CapEff:\t" + "f" * 40])
def test_unreadable_capabilities_are_none(host: Host, status: str) -> None:
    write(host.root, "proc/self/status", status)
    assert privileges.effective_capabilities(host) == 0
    assert_helpful(privileges.check_privileges(host), "no")


def test_other_pid_namespace(host: Host) -> None:
    link = host.root / "proc/self/ns/pid"
    link.unlink()
    assert_helpful(privileges.check_pid_namespace(host), "no", "--pid=host")
    link.symlink_to("pid:[4026532999]")
    found = privileges.check_pid_namespace(host)
    assert_helpful(found, "no", "--pid=host")
    assert "4026532999" in found.why


# bcc and the distribution's command.

OS_RELEASES = {
    "apt install python3-bpfcc": [
        "ID=debian",
        "ID=ubuntu\nID_LIKE=debian",
        'ID=linuxmint\nID_LIKE="ubuntu debian"',
    ],
    "dnf install python3-bcc": [
        "ID=fedora",
        'ID="rhel"\nID_LIKE="fedora"',
        'ID="rocky"\nID_LIKE="rhel centos fedora"',
        'ID="amzn"\nID_LIKE="fedora"',
        'ID="ol"\nID_LIKE="fedora"',
        "ID='centos'",
    ],
    "zypper install python3-bcc": [
        'ID="sles"\nID_LIKE="suse"',
        'ID="opensuse-leap"\nID_LIKE="suse opensuse"',
        "ID=opensuse-tumbleweed",
    ],
    "pacman -S python-bcc": ["ID=arch", "ID=manjaro\nID_LIKE=arch"],
    "apk add py3-bcc": ["ID=alpine"],
}


@pytest.mark.parametrize(
    ("os_release", "command"),
    [(text, command) for command, texts in OS_RELEASES.items() for text in texts],
)
def test_bcc_missing_names_the_distributions_command(
    host: Host, os_release: str, command: str
) -> None:
    (host.root / "usr/lib/python3/dist-packages/bcc/table.py").unlink()
    write(host.root, "etc/os-release", os_release)
    found = bcc.check_bcc(host)
    assert_helpful(found, "no")
    assert found.todo == command
    assert bcc.check_bcc(replace(host, euid=1000)).todo == f"sudo {command}"
    assert_helpful(bcc.check_libbcc(host), "no", command)


def test_ubuntus_perf_is_the_running_kernels(host: Host) -> None:
    write(host.root, "etc/os-release", "ID=ubuntu\nID_LIKE=debian")
    assert "linux-tools-$(uname -r)" in tools.check_perf(host).todo


def test_os_release_in_usr_lib(host: Host) -> None:
    (host.root / "etc/os-release").unlink()
    write(host.root, "usr/lib/os-release", "ID=arch\nNAME='Arch Linux'\n")
    assert read_distribution(host.root) == distribution.Distribution("Arch Linux", ("arch",))


@pytest.mark.parametrize(
    "text",
    ["", "ID=", "ID='x", "=", "ID=$(reboot)", "ID=../../x", "ID=gentoo", "\0\0", "ID=\x1b[2J"],
)
def test_unknown_distribution_gets_a_step_and_no_command(host: Host, text: str) -> None:
    write(host.root, "etc/os-release", text)
    found = read_distribution(host.root)
    assert found.family is None
    for tool in ("bcc", "perf", "numactl"):
        assert found.install(tool, root=False) == distribution.ANYWHERE[tool]
        assert found.install(tool)[0].isupper()


@given(st.binary(max_size=400))
def test_os_release_of_any_bytes(data: bytes) -> None:
    check_hostile_os_release(data)


@given(st.text(max_size=200), st.text(max_size=200))
def test_os_release_of_any_values(name: str, id_: str) -> None:
    check_hostile_os_release(f'PRETTY_NAME="{name}"\nID={id_}\n'.encode("utf-8", "replace"))


def check_hostile_os_release(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "etc").mkdir()
        (root / "etc/os-release").write_bytes(data)
        found = read_distribution(root)
    assert found.name.isprintable()
    assert 0 < len(found.name) <= 80
    known = {command for tools_ in distribution.COMMANDS.values() for command in tools_.values()}
    assert found.install("bcc") in known | {distribution.ANYWHERE["bcc"]}


def test_huge_os_release_is_bounded(host: Host) -> None:
    write(host.root, "etc/os-release", "X=" + "a" * 10_000_000 + "\nID=debian\n")
    assert read_distribution(host.root).family is None


@pytest.mark.parametrize(
    "folder",
    [
        "usr/lib/python3.13/site-packages",
        "usr/lib64/python3.9/site-packages",
        "usr/local/lib/python3.11/site-packages",
    ],
)
def test_bcc_where_other_distributions_have_it(host: Host, folder: str) -> None:
    old = host.root / "usr/lib/python3/dist-packages/bcc"
    (host.root / folder).mkdir(parents=True)
    old.rename(host.root / folder / "bcc")
    found = bcc.check_bcc(host)
    assert found.state == "yes"
    assert found.value.startswith("0.31.0, in ")
    assert folder in found.value


def namesake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install what PyPI calls bcc: a package of that name with nothing of bcc in it."""
    monkeypatch.undo()
    write(folder, "bcc/__init__.py", "")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "bcc", raising=False)


def test_the_bcc_of_pypi_is_recognised(
    host: Host, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("site")
    namesake(other, monkeypatch)
    assert bcc.find_namesake() == other / "bcc"
    (host.root / "usr/lib/python3/dist-packages/bcc/libbcc.py").unlink()
    found = bcc.check_bcc(host)
    assert_helpful(found, "no", "python3-bpfcc")
    assert "PyPI" in found.why
    assert str(other) in found.why


def test_a_damaged_bcc_says_what_it_raised(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_folder: Path) -> None:
        raise OSError("libbcc.so.0: cannot open shared object file\x1b[31m\n" + "x" * 10_000)

    monkeypatch.setattr(bcc, "import_bcc", broken)
    found = bcc.check_libbcc(host)
    assert_helpful(found, "no", "python3-bpfcc")
    assert "libbcc.so.0: cannot open" in found.why
    assert found.why.isprintable()
    assert len(found.why) <= 200


@pytest.mark.parametrize("text", ["", "__version__ = ", "__version__ = '\x1b[2J", "x" * 100_000])
def test_hostile_bcc_version(host: Host, text: str) -> None:
    write(host.root, "usr/lib/python3/dist-packages/bcc/version.py", text)
    assert bcc.check_bcc(host).value.startswith("of unknown version, in ")


# Tracing.


def test_tracefs_unmounted_and_no_right_to_mount(host: Host) -> None:
    write(host.root, "proc/self/mounts", "proc /proc proc rw 0 0\n")
    set_capabilities(host, 0)
    found = tracefs.check_tracefs(replace(host, euid=1000))
    assert_helpful(found, "no")
    assert found.todo == "sudo mount -t tracefs tracefs /sys/kernel/tracing"


def test_tracefs_is_mounted_when_that_is_allowed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(host.root, "proc/self/mounts", "")
    mounted: list[Host] = []
    monkeypatch.setattr(tracefs, "mount_tracefs", mounted.append)
    found = tracefs.check_tracefs(host)
    assert mounted == [host]
    assert found.state == "yes"
    assert "just mounted" in found.value


def test_tracefs_that_cannot_be_mounted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    write(host.root, "proc/self/mounts", "x\ntracefs\ntracefs /elsewhere tracefs rw\n")

    def fail(_host: Host) -> None:
        raise OSError(errno.ENODEV, "x")

    monkeypatch.setattr(tracefs, "mount_tracefs", fail)
    found = tracefs.check_tracefs(host)
    assert_helpful(found, "no", "mount -t tracefs")
    assert "No such device" in found.why
    assert_helpful(tracefs.check_tracepoints(host), "no", "mount -t tracefs")


def test_tracefs_below_debugfs_only(host: Host) -> None:
    write(
        host.root, "proc/self/mounts", "tracefs /sys/kernel/debug/tracing tracefs rw,relatime 0 0"
    )
    assert tracefs.check_tracefs(host).value.endswith("/sys/kernel/debug/tracing")


@pytest.mark.parametrize("name", REQUIRED_TRACEPOINTS + OPTIONAL_TRACEPOINTS)
def test_missing_tracepoint(host: Host, name: str) -> None:
    (host.root / f"sys/kernel/tracing/events/{name}/format").unlink()
    found = tracefs.check_tracepoints(host)
    assert_helpful(found, "no" if name in REQUIRED_TRACEPOINTS else "degraded")
    assert name in found.why
    total = len(REQUIRED_TRACEPOINTS + OPTIONAL_TRACEPOINTS)
    assert found.value == f"{total - 1} of {total}"
    assert tracefs.LOST_WITHOUT[name] in found.lost


def test_words_for_exactly_the_tracepoints_of_the_plan() -> None:
    assert set(tracefs.LOST_WITHOUT) == set(REQUIRED_TRACEPOINTS + OPTIONAL_TRACEPOINTS)


def test_lockdown(host: Host) -> None:
    path = "sys/kernel/security/lockdown"
    write(host.root, path, "none [integrity] confidentiality\n")
    assert bpf.check_bpf(host).state == "yes"
    write(host.root, path, "none integrity [confidentiality]\n")
    assert_helpful(bpf.check_bpf(host), "no", "lockdown=integrity")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSYS, "CONFIG_BPF_SYSCALL"), (errno.EPERM, "sandbox")]
)
def test_bpf_refused(host: Host, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    refuse_maps(monkeypatch, number)
    found = bpf.check_bpf(host)
    assert_helpful(found, "no", words)
    assert f"errno {number}" in found.why


def test_no_ring_buffer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_maps(monkeypatch, errno.EINVAL)
    found = bpf.check_ring_buffer(host)
    assert_helpful(found, "no", "5.8")
    assert "6.1.0-test" in found.why


def refuse_maps(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(bpf, "create_map", refuse)


@pytest.mark.parametrize("check", [bpf.check_bpf, bpf.check_ring_buffer, tracefs.check_tracepoints])
def test_what_needs_privileges_is_not_tried_without(
    host: Host, monkeypatch: pytest.MonkeyPatch, check: capabilities.Check
) -> None:
    monkeypatch.setattr(bpf, "create_map", lambda *_: pytest.fail("tried all the same"))
    set_capabilities(host, 0)
    found = check(replace(host, euid=1000))
    assert_helpful(found, "no", "sudo /opt/venv/bin/numatrace record")
    assert found.value == "not tried"


# Tools beside BPF.


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tooled(host: Host) -> Host:
    folder = host.root / "bin"
    folder.mkdir()
    return replace(host, search_path=str(folder))


def test_tools_missing(host: Host) -> None:
    assert_helpful(tools.check_perf(host), "degraded", "apt install linux-perf")
    assert_helpful(tools.check_fix_tools(host), "degraded", "apt install numactl")


def test_only_one_fix_tool_missing(tooled: Host) -> None:
    program(tooled.root / "bin", "numactl", "exit 0")
    found = tools.check_fix_tools(tooled)
    assert_helpful(found, "degraded")
    assert found.value == "without numastat"
    program(tooled.root / "bin", "numastat", "exit 0")
    assert tools.check_fix_tools(tooled).state == "yes"


def test_perf_version(tooled: Host) -> None:
    program(tooled.root / "bin", "perf", 'printf "perf version 6.1.187\\033[31m\\n"')
    found = tools.check_perf(tooled)
    assert found.state == "yes"
    assert found.value.startswith("6.1.187")
    assert found.value.isprintable()


def test_perf_wrapper_without_the_kernels_perf(tooled: Host) -> None:
    program(tooled.root / "bin", "perf", 'echo "WARNING: perf not found for kernel 6.8"; exit 2')
    found = tools.check_perf(tooled)
    assert_helpful(found, "degraded", "apt install")
    assert "not found for kernel 6.8" in found.why


def test_perf_that_hangs_is_given_up(tooled: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOL_TIMEOUT_S", 0.2)
    program(tooled.root / "bin", "perf", "exec sleep 30")
    started = time.monotonic()
    assert_helpful(tools.check_perf(tooled), "degraded")
    assert time.monotonic() - started < 5


def test_move_pages_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[int]:
        raise OSError(errno.EPERM, "x")

    monkeypatch.setattr(tools, "own_page_nodes", refuse)
    assert_helpful(tools.check_placement(host), "degraded", "host")
    monkeypatch.setattr(tools, "own_page_nodes", lambda: [0, 0, -errno.ENOENT])
    found = tools.check_placement(host)
    assert_helpful(found, "degraded")
    assert "1 of 3" in found.why


# What record does at once.


def test_require_says_doctors_words(host: Host) -> None:
    user = replace(host, euid=1000)
    set_capabilities(user, 0)
    words = privileges.check_privileges(user)
    with pytest.raises(CapabilityError) as caught:
        capabilities.require_for_record(user)
    assert (caught.value.why, caught.value.todo) == (words.why, words.todo)
    assert words.value in caught.value.what


def test_require_stops_at_each_missing_thing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for check in capabilities.REQUIRED:
        blocked = replace(check(host), state="no", lost="l", why="w", todo="t")
        required = tuple(
            (lambda _host, blocked=blocked: blocked) if one is check else one
            for one in capabilities.REQUIRED
        )
        with monkeypatch.context() as patched:
            patched.setattr(capabilities, "REQUIRED", required)
            with pytest.raises(CapabilityError, match=blocked.title):
                capabilities.require_for_record(host)


def test_require_passes_what_is_only_degraded(host: Host) -> None:
    set_capabilities(host, 1 << 38 | 1 << 39)
    for name in OPTIONAL_TRACEPOINTS:
        (host.root / f"sys/kernel/tracing/events/{name}/format").unlink()
    capabilities.require_for_record(host)


def test_require_is_quick(host: Host) -> None:
    best = min(timed(host) for _ in range(5))
    assert best < 0.05


def timed(host: Host) -> float:
    started = time.perf_counter()
    capabilities.require_for_record(host)
    return time.perf_counter() - started


def test_the_quick_checks_import_neither_numpy_nor_pyarrow() -> None:
    code = """
        import sys
        from numatrace.record.capabilities import require_for_record
        from numatrace.model.errors import CapabilityError
        try:
            require_for_record()
        except CapabilityError:
            pass
        print([name for name in ("numpy", "pyarrow", "bcc") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"


def test_nothing_is_fired_at_when_something_is_missing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_capabilities(host, 0)
    monkeypatch.setattr(bcc, "import_bcc", lambda _folder: pytest.fail)
    last = capabilities.examine(replace(host, euid=1000))[-1]
    assert_helpful(last, "no")
    assert (last.id, last.value) == ("probes", "not tried")


# The verb.

YES = Capability("a", "first", "yes", "fine")
NO = Capability("b", "second", "no", "gone", "recording", "because", "sudo mend it")
PART = Capability("c", "third", "degraded", "half", "the rest", "since", "Do this and that")
HOSTILE = Capability("d", "t\x1b[2J", "degraded", "v\nw\u202e", "l\x07", "y\x9b", "Do\r this")


def run_doctor(
    monkeypatch: pytest.MonkeyPatch, found: list[Capability], *arguments: str
) -> tuple[int, str]:
    monkeypatch.setattr(capabilities, "examine", lambda: found)
    result = CliRunner().invoke(cli_doctor.doctor, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([YES], 0, "recording works here"),
        ([YES, PART], 0, "recording works here; limited: third"),
        ([YES, NO, PART], 1, "recording does not work here; first to mend: second"),
    ],
)
def test_verdict_and_exit_status(
    monkeypatch: pytest.MonkeyPatch, found: list[Capability], status: int, words: str
) -> None:
    code, output = run_doctor(monkeypatch, found)
    assert code == status
    assert output.splitlines()[-1] == words


def test_a_no_shows_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = run_doctor(monkeypatch, [NO])
    for words in ("NO   second", "why:  because", "lost: recording", "do:   sudo mend it"):
        assert words in output


def test_the_same_thing_to_do_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, output = run_doctor(monkeypatch, [NO, replace(NO, id="e", title="other", why="too")])
    assert output.count("sudo mend it") == 1
    assert "why:  too" in output


def test_no_control_characters_and_no_colour_outside_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, output = run_doctor(monkeypatch, [HOSTILE, YES, NO])
    assert all(line.isprintable() for line in output.splitlines())


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run_doctor(monkeypatch, [YES, NO], "--json")
    document = json.loads(output)
    assert code == 1
    assert document["recording_works"] is False
    assert [one["id"] for one in document["checks"]] == ["a", "b", "plugins"]
    assert document["checks"][1]["todo"] == "sudo mend it"
    assert [one["todo_is_command"] for one in document["checks"][:2]] == [False, True]
    assert document["distribution"] == read_distribution().name


def test_a_long_name_of_a_distribution_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_doctor, "_distribution", lambda: "Some Linux " * 7)
    assert max(map(len, cli_doctor.lines([YES], works=True))) < 80


words = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=12)
sentences = st.lists(words, min_size=1, max_size=40).map(" ".join)


@given(sentences, sentences, sentences, sentences)
def test_lines_are_under_80_columns(value: str, lost: str, why: str, todo: str) -> None:
    one = Capability("x", "some title", "degraded", value, lost, why, "Do " + todo)
    rows = list(cli_doctor.lines([one], works=True))
    assert max(len(cli_doctor.click.unstyle(row)) for row in rows) < 80


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"))), max_size=30))
def test_a_wrapped_command_is_the_same_command_to_a_shell(argv: list[str]) -> None:
    rows = cli_doctor.command_lines(shlex.join(["show", *argv]), 60)
    script = """show() { printf '%s\\0' "$@"; }\n""" + "\n".join(rows)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    # printf without arguments still runs its format once
    assert done.stdout.decode().split("\0")[:-1] == (argv or [""])


def test_help_ends_with_examples() -> None:
    lines = CliRunner().invoke(cli_doctor.doctor, ["--help"]).output.rstrip().splitlines()
    at = next(index for index, line in enumerate(lines) if "Examples:" in line)
    assert at > len(lines) // 2
    assert all("numatrace doctor" in line for line in lines[at + 1 :])


@pytest.mark.parametrize(
    ("environment", "shows"),
    [
        ({"LANG": "en_GB.UTF-8"}, True),
        ({"LC_ALL": "C", "LANG": "en_GB.UTF-8"}, False),
        ({"LANG": "C"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
        ({}, False),
    ],
)
def test_marks_by_the_terminals_locale(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], shows: bool
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli_doctor.utf8_terminal() is shows


def test_a_namesake_that_was_imported_before_is_put_aside(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real bcc comes from its folder, with its own parts."""
    before = {name: sys.modules.pop(name) for name in parts_of_bcc()}
    other = tmp_path_factory.mktemp("site")
    write(other, "bcc/__init__.py", "from . import libbcc\n")
    write(other, "bcc/libbcc.py", "lib = 'namesake'\n")
    monkeypatch.syspath_prepend(str(other))
    real = tmp_path_factory.mktemp("dist")
    write(real, "bcc/__init__.py", "from . import libbcc\n")
    write(real, "bcc/libbcc.py", "lib = 'real'\n")
    try:
        assert importlib.import_module("bcc").libbcc.lib == "namesake"
        assert import_bcc(real).libbcc.lib == "real"
        assert import_bcc(real) is sys.modules["bcc"]
    finally:
        for name in parts_of_bcc():
            del sys.modules[name]
        sys.modules.update(before)


def parts_of_bcc() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "bcc"]
