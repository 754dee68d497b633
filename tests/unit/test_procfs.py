"""Processes and threads read from /proc: against psutil, the kernel's own clocks, and trees."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.cpulist import parse_cpulist
from numatrace.model.document import loads
from numatrace.model.errors import TraceError
from numatrace.model.process import ARGV_BYTES, Cgroup, Deployment, Process, Thread
from numatrace.record.machine import procfs
from numatrace.record.machine.cgroup import cgroup_paths, read_cgroup
from numatrace.record.machine.environment import (
    process_document,
    read_process,
    read_thread,
    read_threads,
    thread_document,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ME = os.getpid()
GONE = 1 << 22
"""No process: PID_MAX_LIMIT, and every pid is below it."""


@contextmanager
def child(code: str, **environ: str):
    """A Python process that runs `code`, says so on a line, and then waits."""
    command = [sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | environ,
    ) as running:
        running.stdout.readline()
        try:
            yield running.pid
        finally:
            running.kill()


@contextmanager
def threads(count: int):
    """Threads of this process that wait."""
    over = threading.Event()
    waiting = [threading.Thread(target=over.wait) for _ in range(count)]
    for each in waiting:
        each.start()
    try:
        yield [each.native_id for each in waiting]
    finally:
        over.set()
        for each in waiting:
            each.join()


# --- stat


numbers = st.integers(0, (1 << 64) - 1)


@unhurried
@given(st.binary(max_size=64), st.lists(numbers, min_size=49, max_size=49))
def test_stat_is_taken_apart_whatever_the_comm(name, values):
    # proc_pid_stat(5): pid (comm) state, and then fields 4 to 52.
    line = b"7 (" + name + b") S " + " ".join(map(str, values)).encode() + b"\n"
    stat = procfs.parse_stat(line, ticks_per_s=100)
    tick_ns = 10_000_000
    assert stat == procfs.Stat(
        pid=7,
        comm=name.decode("utf-8", "replace"),
        state="S",
        ppid=values[0],
        flags=values[5],
        minflt=values[6],
        majflt=values[8],
        utime_ns=values[10] * tick_ns,
        stime_ns=values[11] * tick_ns,
        n_threads=values[16],
        start_ns=values[18] * tick_ns,
        cpu=values[35],
    )


@unhurried
@given(st.binary(max_size=400))
def test_any_stat_is_taken_or_refused(data):
    procfs.parse_stat(data)


def test_a_name_that_looks_like_the_rest_of_the_line():
    with child(r"open('/proc/self/comm', 'w').write(') Z 1 (\\ \n')") as pid:
        stat = procfs.stat(pid)
        assert stat.comm == ") Z 1 (\\ \n"
        assert stat.ppid == ME
        assert read_thread(pid, pid).comm == stat.comm == procfs.comm(pid)


def test_faults_and_times_are_those_of_getrusage():
    before = resource.getrusage(resource.RUSAGE_SELF)
    stat = procfs.stat(ME)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert before.ru_minflt <= stat.minflt <= after.ru_minflt
    assert before.ru_majflt <= stat.majflt <= after.ru_majflt
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert before.ru_utime - tick_s <= stat.utime_ns / 1e9 <= after.ru_utime + tick_s


def test_schedstat_is_the_time_on_cpu():
    tid = threading.get_native_id()
    until = time.thread_time_ns() + 20_000_000
    while time.thread_time_ns() < until:
        pass
    before = time.thread_time_ns()
    found = procfs.schedstat(ME, tid)
    after = time.thread_time_ns()
    assert found.slices > 0
    # The file is as of the last tick or switch of the thread, at most some ms ago.
    assert before - 15_000_000 <= found.oncpu_ns <= after


# --- who is there, and who started whom


def test_what_is_not_there_is_none():
    assert procfs.stat(GONE) is None
    assert procfs.schedstat(GONE, GONE) is None
    assert procfs.tgid_of(GONE) is None
    assert not procfs.is_alive(GONE)
    assert not procfs.is_kernel_thread(GONE)
    assert procfs.comm(GONE) == procfs.policy(GONE, GONE) == ""
    assert procfs.thread_ids(GONE) == procfs.children(GONE) == procfs.process_tree([GONE]) == ()
    assert process_document(GONE) is None
    assert thread_document(GONE, GONE) is None
    assert read_threads(GONE) == ()
    assert read_cgroup(GONE, Path("/")) == Cgroup()


def test_a_zombie_is_not_alive_and_can_be_read():
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not procfs.is_alive(process.pid)
        found = read_process(process.pid)
        assert (found.ppid, found.argv, found.exe, found.policy) == (ME, (), "", "")


def test_a_process_whose_first_thread_ended_is_alive():
    # exit(2), the system call, ends one thread only; the C library's ends all.
    number = {"x86_64": 60, "aarch64": 93}.get(platform.machine())
    if number is None:
        pytest.skip(f"the number of exit(2) on {platform.machine()} is not known to this test")
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        f"print(flush=True)\nctypes.CDLL(None).syscall({number}, 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            deadline = time.monotonic() + 10
            while procfs.stat(process.pid).state != "Z" and time.monotonic() < deadline:
                time.sleep(0.01)
            assert procfs.stat(process.pid).state == "Z"
            assert procfs.is_alive(process.pid)
        finally:
            process.kill()


def test_threads_come_and_go_while_they_are_read():
    over = time.monotonic() + 0.5

    def churn():
        while time.monotonic() < over:
            short = threading.Thread(target=int)
            short.start()
            short.join()

    churning = threading.Thread(target=churn)
    churning.start()
    seen = set()
    while churning.is_alive():
        seen |= {thread.tid for thread in read_threads(ME)}
        for tid in range(ME, ME + 20):
            procfs.schedstat(ME, tid)
    churning.join()
    assert ME in seen


def test_threads_are_those_of_psutil():
    with threads(5) as tids:
        assert set(procfs.thread_ids(ME)) == {each.id for each in psutil.Process().threads()}
        assert set(tids) < set(procfs.thread_ids(ME))
        assert procfs.tgid_of(tids[0]) == procfs.tgid_of(ME) == ME
        assert {each.tid for each in read_threads(ME)} == set(procfs.thread_ids(ME))


TREE = """
import subprocess, threading
sleep = lambda: subprocess.Popen(['sleep', '60'])
sleep()
other = threading.Thread(target=sleep)
other.start()
other.join()
"""


def test_a_tree_has_everything_below():
    with child(TREE) as pid:
        below = psutil.Process(pid).children(recursive=True)
        wanted = sorted(each.pid for each in below)
        try:
            assert len(wanted) == 2
            assert list(procfs.children(pid)) == wanted
            assert list(procfs._children_by_parent(pid, procfs.PROC)) == wanted
            tree = procfs.process_tree([ME, pid])
            assert len(tree) == len(set(tree))
            assert tree.index(ME) < tree.index(pid) < min(map(tree.index, wanted))
            above = [each.pid for each in psutil.Process(wanted[0]).parents()]
            assert list(procfs.ancestors(wanted[0])) == [each for each in above if each != 1]
        finally:
            for each in below:
                each.kill()


def test_children_without_the_kernels_list(tmp_path):
    for pid, ppid in ((1, 0), (7, 1), (8, 7), (9, 7), (10, 9)):
        write_process(tmp_path, pid, ppid=ppid)
    assert procfs.children(7, tmp_path / "proc") == (8, 9)
    assert procfs.process_tree([7], tmp_path / "proc") == (7, 8, 9, 10)
    assert procfs.ancestors(10, tmp_path / "proc") == (9, 7)


def test_parents_that_go_in_circles_end(tmp_path):
    write_process(tmp_path, 7, ppid=8)
    write_process(tmp_path, 8, ppid=7)
    assert procfs.ancestors(7, tmp_path / "proc") == (8,)
    assert procfs.process_tree([7], tmp_path / "proc") == (7, 8)


def test_the_kernels_own_threads(tmp_path):
    assert not procfs.is_kernel_thread(ME)
    write_process(tmp_path, 2, comm="kthreadd", flags=0x208040)
    assert procfs.is_kernel_thread(2, tmp_path / "proc")
    if procfs.in_initial_pid_namespace():
        assert procfs.is_kernel_thread(2)


@pytest.mark.parametrize(
    ("link", "initial"), [("pid:[4026531836]", True), ("pid:[4026532999]", False), (None, True)]
)
def test_the_initial_pid_namespace(link, initial, tmp_path):
    (tmp_path / "self/ns").mkdir(parents=True)
    if link:
        (tmp_path / "self/ns/pid").symlink_to(link)
    assert procfs.in_initial_pid_namespace(tmp_path) == initial


# --- the memory policy of a task


def set_policy(mode: int, nodes: int) -> None:
    """set_mempolicy(2) for the calling thread."""
    number = {"x86_64": 238, "aarch64": 237}.get(platform.machine())
    if number is None:
        pytest.skip(f"the number of set_mempolicy(2) on {platform.machine()} is not known here")
    libc = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_ulong * 16)(nodes)
    result = libc.syscall(number, mode, mask, ctypes.c_ulong(1024))
    assert result == 0, os.strerror(ctypes.get_errno())


def needs_numa_maps() -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("this kernel has no NUMA support: there is no /proc/PID/numa_maps")


def test_each_thread_has_its_own_policy():
    needs_numa_maps()
    set_policy(0, 0)
    modes = {"prefer:0": 1, "bind:0": 2, "interleave:0": 3}
    found: dict[str, str] = {}

    def look(name: str, mode: int) -> None:
        set_policy(mode, 1)
        found[name] = procfs.policy(ME, threading.get_native_id())

    for name, mode in modes.items():
        thread = threading.Thread(target=look, args=(name, mode))
        thread.start()
        thread.join()
    assert found == {name: name for name in modes}
    assert procfs.policy(ME, ME) == "default"


def test_no_more_than_a_line_of_numa_maps_is_asked_for(monkeypatch):
    needs_numa_maps()
    asked: list[tuple[str, int]] = []
    read = os.read

    def spy(fd: int, size: int) -> bytes:
        asked.append((str(Path(f"/proc/self/fd/{fd}").readlink()), size))
        return read(fd, size)

    monkeypatch.setattr(os, "read", spy)
    assert read_process(ME).policy == "default"
    sizes = [size for name, size in asked if name.endswith("/numa_maps")]
    assert sizes == [64]


@pytest.mark.parametrize(
    ("policy", "length"),
    [
        ("default", "1000"),
        ("local", "1000"),
        ("bind:0-1", "1000"),
        ("bind=static:0,2", "1000"),
        ("interleave=relative|balancing:0-3", "1000"),
        ("weighted interleave:0-1", "1000"),
        ("prefer (many):0-1", "1000"),
        ("interleave:" + ",".join(map(str, range(0, 200, 2))), "1000"),
        ("", "80001000"),  # a large first mapping: walking it costs too much
        ("", "0"),
    ],
)
def test_policies_as_numa_maps_writes_them(policy, length, tmp_path):
    folder = write_process(tmp_path, 7)
    (folder / "maps").write_text(
        f"400000-{0x400000 + int(length, 16):x} r-xp 00000000 08:01 5 /x\n"
    )
    line = f"00400000 {policy or 'default'} file=/x mapped=3 N0=3 kernelpagesize_kB=4\n"
    (folder / "task/7/numa_maps").write_text(line)
    assert procfs.policy(7, 7, tmp_path / "proc") == policy


# --- documents of live processes


def test_a_process_is_as_psutil_sees_it():
    with child("", LLAMA_ARG_THREADS="4", HOME="/nowhere") as pid:
        found, oracle = read_process(pid), psutil.Process(pid)
        assert found.tgid == pid
        assert found.ppid == oracle.ppid() == ME
        assert found.comm == oracle.name()[:15]
        assert list(found.argv) == oracle.cmdline()
        assert (found.exe, found.cwd) == (oracle.exe(), oracle.cwd())
        assert found.uid == oracle.uids().effective
        assert found.n_threads == oracle.num_threads() == 1
        assert list(found.cpus_allowed) == sorted(oracle.cpu_affinity())
        assert found.start_ns / 1e9 == pytest.approx(
            oracle.create_time() - psutil.boot_time(), abs=0.02
        )
        assert found.environment["LLAMA_ARG_THREADS"] == "4"
        assert "HOME" not in found.environment


def test_allowed_cpus_are_the_threads_own():
    mine = os.sched_getaffinity(0)
    with threads(1) as (tid,):
        os.sched_setaffinity(tid, {max(mine)})
        assert read_thread(ME, tid).cpus_allowed == (max(mine),)
        assert read_thread(ME, ME).cpus_allowed == tuple(sorted(mine))


def test_cgroups_are_the_kernels():
    paths = cgroup_paths(ME, Path("/proc"))
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        assert {paths[name] for name in names.split(",")} == {path}
    found = read_cgroup(ME, Path("/"))
    if found.cpus:  # where a cpuset can be read, no thread may leave it
        assert set(read_process(ME).cpus_allowed) <= set(found.cpus)


def test_reading_a_process_of_128_threads_takes_well_under_100_ms():
    def elapsed() -> float:
        start = time.perf_counter()
        read_process(ME)
        assert len(read_threads(ME)) >= 128
        return time.perf_counter() - start

    with threads(127):
        assert min(elapsed() for _ in range(5)) < 0.1


def test_reading_needs_no_heavy_imports():
    code = (
        "import sys, numatrace.record.machine.environment, numatrace.record.machine.sysfs\n"
        "print(*sys.modules.keys() & {'numpy', 'pyarrow', 'psutil', 'bcc', 'click'})"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    assert run.stdout.split() == []


# --- documents of trees


STATUS = """Name:\tllama-server
Tgid:\t{pid}
PPid:\t{ppid}
Uid:\t1000\t998\t1000\t1000
Cpus_allowed_list:\t0-3,8
Mems_allowed_list:\t0,2
"""


def write_process(root: Path, pid: int, ppid: int = 1, comm: str = "x", flags: int = 0) -> Path:
    folder = root / f"proc/{pid}"
    (folder / f"task/{pid}").mkdir(parents=True)
    fields = [ppid, 0, 0, 0, 0, flags, *[0] * 10, 9, 0, 500, *[0] * 30]
    line = f"{pid} ({comm}) S {' '.join(map(str, fields))}\n"
    status = STATUS.format(pid=pid, ppid=ppid)
    for place in (folder, folder / f"task/{pid}"):
        (place / "stat").write_text(line)
        (place / "status").write_text(status)
    return folder


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


UNIFIED = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 20 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "32 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 20 0:29 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n"
)


def test_a_service_under_cgroup_v2(tmp_path):
    folder = write_process(tmp_path, 7, comm="llama-server")
    (folder / "cgroup").write_text("0::/ai.slice/ollama.service\n")
    slice_ = "sys/fs/cgroup/ai.slice"
    write_files(
        tmp_path,
        {
            "proc/self/mountinfo": UNIFIED,
            f"{slice_}/cpuset.cpus.effective": "0-3\n",
            f"{slice_}/cpuset.mems.effective": "0,2\n",
            f"{slice_}/cpu.max": "150000 100000\n",
            f"{slice_}/memory.max": "1073741824\n",
            f"{slice_}/ollama.service/cpu.max": "max 100000\n",
            f"{slice_}/ollama.service/memory.max": "max\n",
            "sys/fs/cgroup/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/memory.max": "2147483648\n",
        },
    )
    found = read_process(7, tmp_path)
    assert found.cgroup == Cgroup(
        {"": "/ai.slice/ollama.service"}, (0, 1, 2, 3), (0, 2), 1.5, 1 << 30
    )
    assert found.deployment == Deployment("ollama.service", "system")
    assert (found.uid, found.n_threads, found.comm) == (998, 9, "llama-server")
    assert (found.cpus_allowed, found.mems_allowed) == ((0, 1, 2, 3, 8), (0, 2))
    assert found.start_ns == 500 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_a_container_under_cgroup_v1(tmp_path):
    docker = f"/docker/{'ab' * 32}"
    folder = write_process(tmp_path, 7)
    (folder / "cgroup").write_text(
        f"4:memory:{docker}\n3:cpu,cpuacct:{docker}\n2:cpuset:{docker}\n1:name=systemd:/\n0::/\n"
    )
    base = "sys/fs/cgroup"
    write_files(
        tmp_path,
        {
            "proc/self/mountinfo": "1 1 0:1 / / rw - ext4 /dev/x rw\ngarbage\n" + V1,
            f"{base}/cpuset{docker}/cpuset.effective_cpus": "4-5\n",
            f"{base}/cpuset{docker}/cpuset.mems": "2\n",
            f"{base}/cpu,cpuacct{docker}/cpu.cfs_quota_us": "50000\n",
            f"{base}/cpu,cpuacct{docker}/cpu.cfs_period_us": "100000\n",
            f"{base}/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            f"{base}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            f"{base}/my memory{docker}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{base}/my memory/memory.limit_in_bytes": "4096\n",
        },
    )
    found = read_process(7, tmp_path)
    assert (found.cgroup.cpus, found.cgroup.mems) == ((4, 5), (2,))
    assert (found.cgroup.quota_cpus, found.cgroup.memory_max_bytes) == (0.5, 4096)
    assert found.deployment.container_kind == "docker"
    assert found.deployment.container_id == "ab" * 32


@pytest.mark.parametrize(
    ("top", "path", "cpus"),
    [
        ("/", "/a", (1,)),
        ("/outer", "/outer/a", (1,)),  # a mount of a part, as in a container
        ("/", "/../a", ()),  # outside of this process's cgroup namespace
        ("/", "/a/../../../../secret", ()),
        ("/", "/gone/b", (0,)),
    ],
)
def test_paths_that_are_seen_from_elsewhere(top, path, cpus, tmp_path):
    folder = write_process(tmp_path, 7)
    (folder / "cgroup").write_text(f"0::{path}\n")
    name = "cpuset.cpus.effective"
    files = {f"sys/fs/cgroup/a/{name}": "1", f"sys/fs/cgroup/{name}": "0", f"secret/{name}": "2"}
    mount = f"30 20 0:26 {top} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    write_files(tmp_path, files | {"proc/self/mountinfo": mount})
    assert read_cgroup(7, tmp_path).cpus == cpus


def test_secrets_stay_where_they_are(tmp_path):
    folder = write_process(tmp_path, 7)
    (folder / "cmdline").write_bytes(
        b"llama-server\0--api-key\0s3cret\0--hf-token=s3cret\0-m\0a.gguf\0--api-key-file\0f\0-hft\0"
    )
    environ = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "LLAMA_API_KEY": "s3cret",
        "MY_OMP_X": "s3cret",
        "OLLAMA_API_KEY": "s3cret",
        "LLAMA_ARG_NUMA": "distribute",
        "OLLAMA_HOST": "a=b",
        "OMP_NUM_THREADS": "8",
        "GOMP_CPU_AFFINITY": "0-7",
        "GGML_NUMA": "",
    }
    (folder / "environ").write_text("\0".join(f"{k}={v}" for k, v in environ.items()) + "\0OMP_X")
    found = read_process(7, tmp_path)
    assert "s3cret" not in json.dumps(found.to_json())
    assert found.argv[2:4] == ("(withheld)", "--hf-token=(withheld)")
    assert found.argv[4:] == ("-m", "a.gguf", "--api-key-file", "f", "-hft")
    assert found.environment == {
        "OLLAMA_API_KEY": "(withheld)",
        "LLAMA_ARG_NUMA": "distribute",
        "OLLAMA_HOST": "a=b",
        "OMP_NUM_THREADS": "8",
        "GOMP_CPU_AFFINITY": "0-7",
        "GGML_NUMA": "",
    }


HUGE = {
    "one long argument": b"\xff" * (ARGV_BYTES + 99),
    "many empty arguments": b"\0" * ARGV_BYTES,
    "secrets without end": b"--token\0x\0" * 6600,
}


@pytest.mark.parametrize("what", HUGE)
def test_what_is_hostile_is_bounded_and_read_back(what, tmp_path):
    folder = write_process(tmp_path, 7, comm="\x1b[31m\n" * 40)
    (folder / "cmdline").write_bytes(HUGE[what])
    (folder / "environ").write_bytes(b"".join(b"OMP_%d=%b\0" % (i, b"y" * 9999) for i in range(99)))
    (folder / "cgroup").write_text("0::/" + "x" * 9999 + "\n" + "\n".join(map(str, range(99))))
    (folder / "exe").symlink_to("/" + "/".join(["z" * 200] * 20))
    found = read_process(7, tmp_path)
    assert 1 <= sum(map(len, found.argv)) + len(found.argv) <= 2 * ARGV_BYTES
    assert len(found.environment) == 64
    text = json.dumps(found.to_json())
    assert Process.from_json(loads(text, "process")) == found


@pytest.mark.parametrize("name", ["stat", "status", "cmdline", "environ", "cgroup", "maps"])
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\n(", b"Uid: x\nCpus_allowed_list: 9-1\nName:"])
def test_nonsense_in_a_file_raises_nothing(name, data, tmp_path):
    folder = write_process(tmp_path, 7)
    (folder / name).write_bytes(data)
    (folder / "task/7/status").write_bytes(data)
    process_document(7, tmp_path)
    thread_document(7, 7, tmp_path)
    procfs.tgid_of(7, tmp_path / "proc")


# --- reading documents back


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
lists = st.sampled_from(["", "0", "0-3,8"]).map(parse_cpulist)
processes = st.builds(
    Process,
    tgid=st.integers(0, 1 << 22),
    ppid=st.integers(0, 1 << 22),
    comm=words,
    argv=st.lists(words, max_size=4).map(tuple),
    exe=words,
    cwd=words,
    cpus_allowed=lists,
    mems_allowed=lists,
    policy=words,
    cgroup=st.builds(
        Cgroup,
        st.dictionaries(words, words, max_size=3),
        lists,
        lists,
        st.none() | st.floats(0, 1e6),
        st.none() | st.integers(0, 1 << 62),
    ),
    deployment=st.builds(
        Deployment, words, st.sampled_from(["", "user"]), words.map(lambda w: w[:9])
    ),
    environment=st.dictionaries(words, words, max_size=3),
)


@unhurried
@given(processes)
def test_a_process_is_read_back(process):
    assert Process.from_json(loads(json.dumps(process.to_json()), "process")) == process


@unhurried
@given(st.builds(Thread, st.integers(0, 1 << 22), words, lists, lists, words))
def test_a_thread_is_read_back(thread):
    assert Thread.from_json(loads(json.dumps(thread.to_json()), "thread")) == thread


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tgid": 1 << 23}, "tgid is 8388608"),
        ({"tgid": None}, "no tgid"),
        ({"tgid": "7"}, "tgid is '7'"),
        ({"comm": "x" * 65}, "comm is 'xxx"),
        ({"argv": "a b"}, "argv is 'a b'"),
        ({"argv": ["x" * ARGV_BYTES] * 3}, "characters"),
        ({"argv": [""] * 9000}, "9000 items"),
        ({"argv": [1]}, "argv is 1"),
        ({"cpus_allowed": "0-16384"}, "cpus_allowed is '0-16384'"),
        ({"mems_allowed": "1024"}, "mems_allowed is '1024'"),
        ({"cgroup": []}, "list instead of an object"),
        ({"cgroup": {"quota_cpus": float("nan")}}, "quota_cpus is nan"),
        ({"cgroup": {"quota_cpus": -1}}, "quota_cpus is -1"),
        ({"cgroup": {"paths": {"": 5}}}, "is 5"),
        ({"deployment": {"manager": "upstart"}}, "unknown service manager"),
        ({"environment": {str(i): "" for i in range(65)}}, "65 fields"),
    ],
)
def test_nonsense_is_refused_with_its_value(change, why):
    with pytest.raises(TraceError) as caught:
        Process.from_json({"tgid": 7, "comm": "x"} | change)
    assert why in caught.value.why
    assert len(str(caught.value)) < 300
