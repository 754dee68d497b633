"""scripts/numa-vm: options, QEMU's arguments, the initrd, the choice of kernels, exit statuses."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import itertools

from numavm import VmError, initrd
from numavm.emulator import backports_source
from numavm.guest import exit_status
from numavm.kernels import newest, vmlinux
from numavm.machine import parse_machine, parse_size_mib
from numavm.options import parse_options
from numavm.qemu import Files, qemu_argv

SCRIPTS = Path(initrd.__file__).parents[1]
FILES = Files("qemu", Path("/k/vmlinux"), 7, None, {"stdout": 3, "console": 4})


def argv(*arguments: str) -> list[str]:
    return qemu_argv(parse_options([*arguments, "true"]), FILES)


def values(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


def fields(value: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in value.split(",") if "=" in part)


# --- options


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["sh", "-c", "exit 3"], ("sh", "-c", "exit 3")),
        (["--", "sh", "--", "x"], ("sh", "--", "x")),
        (["--nodes", "3", "prog", "--nodes", "9"], ("prog", "--nodes", "9")),
        (["--timeout", "5", "--", "--odd-name"], ("--odd-name",)),
    ],
)
def test_everything_after_the_options_is_the_command(arguments, command):
    assert parse_options(arguments).command == command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which command"),
        (["--nodes", "0", "x"], "--nodes is 0"),
        (["--nodes", "65", "x"], "--nodes is 65"),
        (["--nodes", "3", "--cpus-per-node", "1,2", "x"], "2 values for 3 nodes"),
        (["--cpus-per-node", "0", "x"], "0 CPUs"),
        (["--cpus-per-node", "200", "x"], "400 CPUs"),
        (["--cpus-per-node", "1,-1", "x"], "'-1' is not a number"),
        (["--cpus-per-node", "1,0", "--memory-per-node", "1G,0", "x"], "node 1 has neither"),
        (["--memory-per-node", "2", "x"], "'2' is not a number with"),
        (["--memory-per-node", "64M,1G", "x"], "node 0 64 MiB"),
        (["--distances", "10,20", "x"], "2 rows of 2"),
        (["--distances", "10,20;20,10;1,1", "x"], "2 rows of 2"),
        (["--distances", "11,20;20,10", "x"], "11 from node 0 to itself"),
        (["--distances", "10,10;20,10", "x"], "10 from node 0 to 1"),
        (["--distances", "10,20;255,10", "x"], "255 from node 1 to 0"),
        (["--distances", "10,a;20,10", "x"], "'a' is not a number"),
        (["--timeout", "0", "x"], "--timeout '0'"),
        (["--timeout", "nan", "x"], "--timeout 'nan'"),
        (["--kernel", "../../etc", "x"], "--kernel"),
        (["--rw", "/no/such/folder", "x"], "--rw '/no/such/folder'"),
        (["--cwd", "/dev/null", "x"], "--cwd '/dev/null'"),
        (["--env", "1A=x", "x"], "--env '1A=x'"),
        (["--env", "A", "x"], "--env 'A'"),
        (["--node", "2", "x"], "unrecognized"),
    ],
)
def test_a_wrong_option_ends_with_status_2_and_says_which(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_guest_gets_the_path_and_what_env_adds_but_nothing_else(monkeypatch):
    monkeypatch.setenv("PATH", "/a:/b")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    environment = parse_options(["--env", "A=b=c", "--env", "LANG=C", "x"]).environment
    assert environment["PATH"] == "/a:/b:/usr/sbin:/sbin"
    assert environment["A"] == "b=c"
    assert environment["LANG"] == "C"
    assert "SECRET_TOKEN" not in environment


@given(st.integers(1, 999_999), st.sampled_from("MGTmgt"))
def test_sizes(number, unit):
    mib = {"m": 1, "g": 1 << 10, "t": 1 << 20}[unit.lower()]
    assert parse_size_mib(f"{number}{unit}") == number * mib


# --- QEMU's arguments


@st.composite
def machines(draw):
    nodes = draw(st.integers(1, 8))
    cpus = draw(st.lists(st.integers(0, 4), min_size=nodes, max_size=nodes).filter(any))
    memory = [draw(st.sampled_from([512, 1024, 3000])) for _ in cpus]
    distance = st.integers(11, 254)
    rows = [[10 if a == b else draw(distance) for b in range(nodes)] for a in range(nodes)]
    return cpus, memory, rows


@given(machines())
def test_qemu_gets_every_cpu_and_mib_once_and_every_distance(machine):
    cpus, memory, rows = machine
    arguments = argv(
        *("--nodes", str(len(cpus)), "--cpus-per-node", ",".join(map(str, cpus))),
        *("--memory-per-node", ",".join(f"{mib}M" for mib in memory)),
        *("--distances", ";".join(",".join(map(str, row)) for row in rows)),
    )
    numa = values(arguments, "-numa")
    backends = {f["id"]: f["size"] for f in map(fields, values(arguments, "-object"))}
    owner: dict[int, int] = {}
    for node in (fields(text) for text in numa if text.startswith("node,")):
        number = int(node["nodeid"])
        assert backends[node["memdev"]] == f"{memory[number]}M"
        first, last = map(int, node.get("cpus", "0--1").split("-", 1))
        owner |= dict.fromkeys(range(first, last + 1), number)
    assert [list(owner.values()).count(number) for number in range(len(cpus))] == cpus
    assert sorted(owner) == list(range(sum(cpus)))
    assert values(arguments, "-m") == [f"{sum(memory)}M"]
    found = {
        (int(f["src"]), int(f["dst"])): int(f["val"])
        for f in (fields(text) for text in numa if text.startswith("dist,"))
    }
    assert found == {
        (a, b): rows[a][b] for a in range(len(cpus)) for b in range(len(cpus)) if a != b
    }


@given(machines())
def test_no_socket_spans_two_nodes(machine):
    cpus, _, _ = machine
    text = values(
        argv("--nodes", str(len(cpus)), "--cpus-per-node", ",".join(map(str, cpus))), "-smp"
    )[0]
    total = int(text.split(",")[0])
    cores = int(fields(text)["cores"])
    assert total == sum(cpus) == int(fields(text)["sockets"]) * cores
    assert all(count % cores == 0 for count in cpus)


def test_a_node_without_memory_has_no_backend():
    arguments = argv("--memory-per-node", "1G,0")
    assert len(values(arguments, "-object")) == 1
    assert values(arguments, "-numa")[1] == "node,nodeid=1,cpus=2-3"


def test_folders_are_shared_under_their_tags_and_commas_are_doubled(tmp_path):
    odd = tmp_path / "a,b c"
    odd.mkdir()
    arguments = argv("--rw", str(tmp_path), "--rw", str(odd))
    shares = values(arguments, "-fsdev")
    assert [fields(share)["id"] for share in shares] == ["root", "rw0", "rw1"]
    assert ",readonly=on" in shares[0]
    assert not any("readonly" in share for share in shares[1:])
    assert f"path={tmp_path}/a,,b c," in shares[2]


def test_accelerators():
    assert values(argv(), "-accel") == ["tcg,thread=multi"]
    assert values(argv(), "-cpu")[0].startswith("max")
    assert values(argv("--kvm"), "-accel") == ["kvm"]
    assert values(argv("--kvm"), "-cpu") == ["host"]


def test_arguments_of_the_user_come_last_so_that_they_win():
    arguments = argv(
        "--qemu-arg=-cpu", "--qemu-arg", "Haswell", "--append", "numa_balancing=disable"
    )
    assert arguments[-2:] == ["-cpu", "Haswell"]
    assert values(arguments, "-append")[0].endswith(" numa_balancing=disable")


# --- the initrd

# What a shell and an environment can hold: no NUL, and no lone surrogates but those of bytes.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
REPORT = "import json,os,sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"


@settings(max_examples=20, deadline=None)
@given(st.lists(WORDS, max_size=4), WORDS)
def test_the_command_arrives_exactly(words, value):
    command = [sys.executable, "-c", REPORT, *words]
    options = parse_options(["--cwd", "/usr", "--env", f"ODD={value}", "--", *command])
    script = os.fsencode(initrd.command_script(options))
    output = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout
    arguments, environment, folder = json.loads(output)
    assert [arguments, environment["ODD"], folder] == [words, value, "/usr"]
    assert set(environment) - {"LC_CTYPE"} == set(options.environment)


def test_a_missing_folder_is_the_guest_s_failure_not_the_command_s(tmp_path):
    options = parse_options(["--cwd", str(tmp_path), "true"])
    tmp_path.rmdir()
    script = initrd.command_script(options)
    assert (
        subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=False).returncode
        == 125
    )


def test_set_up_calls_only_what_was_asked_for(tmp_path):
    assert initrd.setup_script(parse_options(["true"])) == ""
    odd = tmp_path / "it's"
    odd.mkdir()
    script = initrd.setup_script(parse_options(["--rw", str(odd), "--disk", "1G", "true"]))
    functions = 'share() { printf "%s|" share "$@"; }; disk() { printf "%s|" disk "$@"; }\n'
    output = subprocess.check_output(["/bin/sh", "-c", functions + script], text=True)
    assert output == f"share|rw0|{odd}|disk|"


def test_modules_are_loaded_after_those_they_need():
    text = (
        "kernel/fs/netfs/netfs.ko.xz:\n"
        "kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz\n"
        "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n"
        "kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n"
        "kernel/net/9p/9pnet_fd.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n"
        "kernel/fs/overlayfs/overlay.ko.xz:\n"
    )
    needs = dict(line.split(":") for line in text.splitlines())
    order = initrd.boot_modules(text)
    names = {Path(path).name.removesuffix(".ko.xz") for path in order}
    assert names == {"netfs", "9pnet", "9p", "9pnet_virtio", "overlay"}
    for position, path in enumerate(order):
        assert set(needs[path].split()) <= set(order[:position])


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox reads the archive")
def test_archives_one_after_the_other_unpack_as_one(tmp_path):
    files = {"d/a": b"1", "d/bc": b"", "d/def": bytes(range(256)) * 3}
    first, second = initrd.cpio(["d"], files), initrd.cpio([], {"init": b"x"})
    assert len(first) % 4 == 0  # else the kernel does not find the second
    for archive in (first, second):
        command = ["busybox", "cpio", "-i"]
        subprocess.run(command, input=archive, cwd=tmp_path, check=True, capture_output=True)
    for name, content in {**files, "init": b"x"}.items():
        assert (tmp_path / name).read_bytes() == content
        assert os.access(tmp_path / name, os.X_OK)


def test_the_scripts_of_the_guest_are_valid_shell():
    for script in ("init.sh", "guest.sh"):
        subprocess.run(["/bin/sh", "-n", SCRIPTS / "numavm" / script], check=True)


# --- kernels and QEMU

VERSIONS = [
    *("6.1.0-47-amd64", "6.1.0-56-amd64", "6.1.0-56-cloud-amd64", "6.1.0-99-rt-amd64"),
    *("6.12.107+deb12-amd64", "6.12.43+deb13-amd64", "6.12.117+deb12-cloud-amd64"),
    *("6.12.117+deb12-rt-amd64", "5.10.0-0.deb11.2-amd64", "6.120.1-amd64", "work-1"),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.107+deb12-amd64"),
        ("6.12.43", "6.12.43+deb13-amd64"),
        ("6.12.107+deb12", "6.12.107+deb12-amd64"),
        ("6.1.0-47", "6.1.0-47-amd64"),
        ("6.1.0-47-amd64", "6.1.0-47-amd64"),
        ("5.10", "5.10.0-0.deb11.2-amd64"),
        ("6.1.0-5", None),
        ("6", "6.120.1-amd64"),
        ("7.0", None),
    ],
)
def test_the_newest_plain_kernel_that_starts_so(wanted, found):
    assert newest(VERSIONS, wanted) == found


def bz_image(payload: bytes, setup_sectors: int = 3) -> bytes:
    image = bytearray((setup_sectors + 1) * 512)
    image[0x1F1] = setup_sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + b"\xcc" * 100 + payload + b"\xcc" * 50


KERNEL = b"\x7fELF" + bytes(range(256)) * 40


@pytest.mark.parametrize("setup_sectors", [3, 27])
@pytest.mark.parametrize("name", ["gzip", "xz", "zstd"])
def test_a_kernel_is_unpacked(name, setup_sectors):
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    size = struct.pack("<I", len(KERNEL))
    payload = {
        "gzip": lambda: gzip.compress(KERNEL),
        "xz": lambda: lzma.compress(KERNEL, check=lzma.CHECK_CRC32) + size,
        "zstd": lambda: subprocess.check_output(["zstd", "-c"], input=KERNEL) + size,
    }[name]()
    assert vmlinux(bz_image(payload, setup_sectors)) == KERNEL


def test_what_is_no_kernel_is_refused():
    with pytest.raises(VmError, match="not a bzImage"):
        vmlinux(bytes(4096))
    with pytest.raises(VmError, match="compression is unknown"):
        vmlinux(bz_image(b"LZO?" * 10))


def test_backports_come_from_where_debian_comes_from():
    targets = (
        "http://mirror.example/debian/ bookworm-updates\n"
        "http://mirror.example/debian/ bookworm\n"
        "http://other.example/debian-security/ bookworm-security\n"
    )
    line = backports_source(targets)
    assert re.sub(r"\[.*\] ", "", line) == (
        "deb http://mirror.example/debian/ bookworm-backports main\n"
    )
    with pytest.raises(VmError):
        backports_source("http://mirror.example/ubuntu/ noble-updates\n")


# --- the exit status


@pytest.mark.parametrize("status", [0, 1, 7, 124, 137, 255])
def test_exit_status_as_the_guest_writes_it(status):
    written = subprocess.check_output(["/bin/sh", "-c", f'status={status}; echo "$status"'])
    assert exit_status(written) == status


@pytest.mark.parametrize("report", [b"", b"1", b"256\n", b"-1\n", b"0\n0\n", b"x\n", b"1 \n"])
def test_what_is_no_exit_status_is_none(report):
    assert exit_status(report) is None


def test_default_distances():
    assert parse_machine(2, "1", "1G", None).distances == ((10, 21), (21, 10))
