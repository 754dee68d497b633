"""`numatrace doctor` on this machine: every probe must see the stimulus that it is fired at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from numatrace.model.errors import CapabilityError
from numatrace.record import capabilities
from numatrace.record.bpf.stimulus import Stimulus, StimulusError
from numatrace.record.checks import bpf, probes, tools
from numatrace.record.checks.capability import Host

ROOT = Path(__file__).parents[2]
NOBODY = 65534

Document = dict[str, dict[str, str]]


def run_doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "numatrace", "doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def run_in_python(code: str, *wrapper: str) -> str:
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def document() -> Document:
    done = run_doctor("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["recording_works"] is True
    return {one["id"]: one for one in found["checks"]}


@pytest.mark.parametrize(
    ("id_", "value"),
    [
        ("faults", "1,000 of 1,000 fresh pages seen"),
        ("kernel_faults", "100 of 100 pages seen"),
        ("lifecycle", "a thread's and a process's fork, exec and exit seen"),
    ],
)
def test_a_probe_sees_exactly_what_was_done(document: Document, id_: str, value: str) -> None:
    assert (document[id_]["state"], document[id_]["value"]) == ("yes", value)


@pytest.mark.parametrize(
    "id_",
    [
        "privileges",
        "pid_namespace",
        "bcc",
        "libbcc",
        "tracefs",
        "bpf",
        "ring_buffer",
        "programs",
        "oncpu",
        "moves",
        "access",
    ],
)
def test_what_recording_needs_is_there(document: Document, id_: str) -> None:
    assert document[id_]["state"] == "yes", document[id_]


def test_nodes_and_moves_agree(document: Document) -> None:
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    assert document["nodes"]["value"].split()[0].rstrip(",") == str(nodes)
    cross = probes.hop_cpus(Host())[2]
    expected = f"{probes.HOPS} of {probes.HOPS} seen" if cross else "0 seen in 23 hops on one node"
    assert document["moves"]["value"] == expected


def test_a_probe_that_sees_nothing_is_not_called_working(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that never sees the process: as if the tracepoint had gone silent."""
    monkeypatch.setattr(probes.Probes, "follow", lambda *_: None)
    monkeypatch.setattr(probes.Probes, "follow_thread", lambda *_: None)
    found = {one.id: one for one in probes.fire_at_probes(Host())}
    for id_ in ("faults", "kernel_faults", "oncpu", "lifecycle", "access"):
        assert found[id_].state == "degraded"
        assert found[id_].why
        assert found[id_].todo
    assert found["faults"].value.startswith("0 of 1,000")


def test_programs_that_do_not_load_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_plan: object) -> None:
        raise CapabilityError("cannot load", "line 3: no such thing\n" * 99, "Do that")

    monkeypatch.setattr(probes, "Probes", refuse)
    (found,) = probes.fire_at_probes(Host())
    assert (found.id, found.state, found.todo) == ("programs", "no", "Do that")
    assert found.why.startswith("line 3: no such thing")


def test_text_is_narrow_and_ends_with_the_verdict() -> None:
    done = run_doctor()
    rows = done.stdout.splitlines()
    assert done.returncode == 0
    assert max(map(len, rows)) < 80
    assert done.stdout.isascii()
    assert any(row.startswith("recording works here") for row in rows[-3:])


def test_without_privileges_doctor_and_record_say_the_same() -> None:
    """As nobody, who may not read our files: in a child that has imported everything already."""
    said = run_in_python(
        f"""
        import json, os
        from numatrace.model.errors import CapabilityError
        from numatrace.record.capabilities import require_for_record
        from numatrace.record.checks.capability import Host
        from numatrace.record.checks.privileges import check_privileges
        os.setgroups([])
        os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
        os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        host = Host(argv=("/opt/numatrace", "record", "-p", "1"))
        try:
            require_for_record(host)
        except CapabilityError as error:
            found = check_privileges(host)
            print(json.dumps([error.why, error.todo, found.why, found.todo]))
        """
    )
    why, todo, doctors_why, doctors_todo = json.loads(said)
    assert (why, todo) == (doctors_why, doctors_todo)
    assert "CAP_BPF" in why
    assert todo == "sudo /opt/numatrace record -p 1"


def test_without_cap_bpf_the_kernel_agrees_that_it_is_not_allowed() -> None:
    """What `may_use_bpf` reads from /proc, against bpf(2) itself, with capabilities dropped."""
    said = run_in_python(
        """
        from numatrace.record.checks import bpf
        from numatrace.record.checks.capability import Host
        try:
            bpf.create_map(bpf.BPF_MAP_TYPE_RINGBUF, 0, 0, 65536)
            print(bpf.may_use_bpf(Host()), True)
        except PermissionError:
            print(bpf.may_use_bpf(Host()), False)
        """,
        _setpriv(),
        "--bounding-set=-bpf,-perfmon,-sys_admin",
        "--inh-caps=-bpf,-perfmon,-sys_admin",
    )
    assert said == "False False"


def _setpriv() -> str:
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("no setpriv (util-linux)")
    return program


def test_tracefs_is_mounted_where_it_is_not() -> None:
    """In a mount namespace of its own, from which tracefs is unmounted first."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare (util-linux)")
    said = run_in_python(
        """
        import ctypes
        from pathlib import Path
        from numatrace.record.checks import tracefs
        from numatrace.record.checks.capability import Host
        libc = ctypes.CDLL(None)
        while tracefs.tracefs_folder(Host()) is not None:
            place = str(tracefs.tracefs_folder(Host())).encode()
            assert libc.umount2(place, 2) == 0
        assert not Path("/sys/kernel/tracing/events").exists()
        print(tracefs.check_tracefs(Host()).value)
        print(Path("/sys/kernel/tracing/events/sched").is_dir())
        print(tracefs.check_tracefs(Host()).value)
        """,
        unshare,
        "--mount",
        "--propagation=private",
    )
    assert said.splitlines() == [
        "numatrace has just mounted it at /sys/kernel/tracing",
        "True",
        "mounted at /sys/kernel/tracing",
    ]


def test_a_pid_namespace_is_noticed() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare (util-linux)")
    said = run_in_python(
        """
        from numatrace.record.checks.capability import Host
        from numatrace.record.checks.privileges import check_pid_namespace
        print(check_pid_namespace(Host()).state)
        """,
        unshare,
        "--pid",
        "--fork",
        "--mount-proc",
    )
    assert said == "no"


def test_a_user_namespace_is_noticed() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare (util-linux)")
    said = run_in_python(
        """
        from numatrace.record.checks.capability import Host
        from numatrace.record.checks.privileges import check_privileges, effective_capabilities
        print(effective_capabilities(Host()) >> 39 & 1, check_privileges(Host()).state)
        """,
        unshare,
        "--user",
        "--map-root-user",
    )
    assert said == "1 no"


def test_own_pages_are_where_numa_maps_says() -> None:
    nodes = tools.own_page_nodes(64)
    known = {int(path.name[4:]) for path in Path("/sys/devices/system/node").glob("node[0-9]*")}
    assert len(nodes) == 64
    assert set(nodes) <= known


def test_bpf_maps_are_not_left_behind() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        bpf.create_map(bpf.BPF_MAP_TYPE_RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_require_for_record_passes_here() -> None:
    capabilities.require_for_record()


def test_stimulus_ends_with_its_context() -> None:
    with Stimulus() as child:
        pid = child.pid
        assert child.touch(10)["bytes"] == 10 * os.sysconf("SC_PAGESIZE")
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(StimulusError):
        child.settle()


def test_stimulus_that_died_is_an_error_and_no_hang() -> None:
    with Stimulus() as child:
        os.kill(child.pid, 9)
        with pytest.raises(StimulusError):
            child.touch(10)
