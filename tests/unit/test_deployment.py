"""How a process was started, from its cgroup paths, and which process serves the model."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.process import (
    Cgroup,
    Deployment,
    Process,
    deployment_of,
    inference_server,
    ollama_serve,
)
from numatrace.record.machine.deployment import deployment, of_path

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
POD = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
SAFE_POD = POD.replace("-", "_")
STATIC_POD = "0123456789abcdef0123456789abcdef"
KUBE = "/kubepods.slice/kubepods-burstable.slice"
USER = "/user.slice/user-1000.slice/user@1000.service"


def unit(name: str, manager: str = "system") -> Deployment:
    return Deployment(unit=name, manager=manager)


def container(kind: str, name: str = ID, **more: str) -> Deployment:
    return Deployment(container_kind=kind, container_id=name, **more)


# The shapes are those that systemd.io ("Control Group APIs"), runc's systemd and cgroupfs drivers,
# the kubelet, podman, LXC and LXD document or make.
PATHS = {
    # systemd
    "/": Deployment(),
    "": Deployment(),
    "/init.scope": unit("init.scope"),
    "/system.slice/ollama.service": unit("ollama.service"),
    "/system.slice/ollama.service (deleted)": unit("ollama.service"),
    "/system.slice/system-ollama.slice/ollama@1.service": unit("ollama@1.service"),
    r"/system.slice/llama\x2dserver.service": unit(r"llama\x2dserver.service"),
    r"/system.slice/system-llama.slice/llama@gpu\x2d0.service": unit(r"llama@gpu\x2d0.service"),
    "/system.slice/_cpu.service": unit("cpu.service"),
    "/system.slice/snap.ollama.ollama.service": unit("snap.ollama.ollama.service"),
    "/ai.slice/ai-llm.slice/llama.service": unit("llama.service"),
    "/system.slice/ollama.service/workers/gpu": unit("ollama.service"),
    f"{USER}/app.slice/ollama.service": unit("ollama.service", "user"),
    f"{USER}/init.scope": unit("init.scope", "user"),
    f"{USER}/app.slice/app-gnome\\x2dterminal-42.scope": unit(
        "app-gnome\\x2dterminal-42.scope", "user"
    ),
    "/user.slice/user-1000.slice/session-3.scope": unit("session-3.scope"),
    "/user/1000.user/c2.session": Deployment(),
    # docker: systemd and cgroupfs drivers, rootless, in Amazon's ECS, in itself
    f"/system.slice/docker-{ID}.scope": container("docker"),
    f"/docker/{ID}": container("docker"),
    f"/docker/{ID}/system.slice/ollama.service": container(
        "docker", unit="ollama.service", manager="container"
    ),
    f"/docker/{OTHER}/docker/{ID}": container("docker"),
    f"/ollama-node1.slice/docker-{ID}.scope": container("docker"),
    f"{USER}/user.slice/docker-{ID}.scope": container(
        "docker", unit="user@1000.service", manager="system"
    ),
    f"/ecs/0123456789abcdef0123456789abcdef/{ID}": container("docker"),
    "/system.slice/docker.service": unit("docker.service"),
    # podman: root, rootless, quadlet, the monitor beside the container
    f"/machine.slice/libpod-{ID}.scope": container("podman"),
    f"/machine.slice/libpod-{ID}.scope/container": container("podman"),
    f"/libpod_parent/libpod-{ID}": container("podman"),
    f"/system.slice/ollama.service/libpod-payload-{ID}": container(
        "podman", unit="ollama.service", manager="system"
    ),
    f"{USER}/app.slice/ollama.service/libpod-payload-{ID}": container(
        "podman", unit="ollama.service", manager="user"
    ),
    f"/machine.slice/libpod-conmon-{ID}.scope": Deployment(),
    # containerd (nerdctl) without Kubernetes
    f"/default/{ID}": container("containerd"),
    f"/system.slice/nerdctl-{ID}.scope": container("containerd"),
    # Kubernetes: containerd, CRI-O, docker; systemd and cgroupfs drivers; a static pod; kind
    f"{KUBE}/kubepods-burstable-pod{SAFE_POD}.slice/cri-containerd-{ID}.scope": container(
        "kubepods", pod=POD
    ),
    f"/kubepods.slice/kubepods-pod{SAFE_POD}.slice/cri-containerd-{ID}.scope": container(
        "kubepods", pod=POD
    ),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SAFE_POD}.slice"
    f"/crio-{ID}.scope": container("kubepods", pod=POD),
    f"{KUBE}/kubepods-burstable-pod{SAFE_POD}.slice/docker-{ID}.scope": container(
        "kubepods", pod=POD
    ),
    f"/kubepods/burstable/pod{POD}/{ID}": container("kubepods", pod=POD),
    f"/kubepods/pod{POD}/{ID}": container("kubepods", pod=POD),
    f"/kubepods/burstable/pod{STATIC_POD}/{ID}": container("kubepods", pod=STATIC_POD),
    "/system.slice/containerd.service"
    f"/kubepods-burstable-pod{SAFE_POD}.slice:cri-containerd:{ID}": container(
        "kubepods", pod=POD, unit="containerd.service", manager="system"
    ),
    f"/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
    f"/kubelet-kubepods-burstable-pod{SAFE_POD}.slice/cri-containerd-{ID}.scope": container(
        "kubepods", pod=POD
    ),
    # LXC, LXD and Incus, Proxmox, systemd-nspawn
    "/lxc.payload.ollama": container("lxc", "ollama"),
    "/lxc.payload.ollama/system.slice/ollama.service": container(
        "lxc", "ollama", unit="ollama.service", manager="container"
    ),
    "/lxc/101/ns": container("lxc", "101"),
    "/lxc.payload/web": container("lxc", "web"),
    "/lxc.monitor.ollama": Deployment(),
    "/machine.slice/systemd-nspawn@llm.service/payload": container(
        "nspawn", "llm", unit="systemd-nspawn@llm.service", manager="system"
    ),
    r"/machine.slice/machine-qemu\x2d1\x2dvm.scope": unit(r"machine-qemu\x2d1\x2dvm.scope"),
    # others
    "/uid_2008/job_15389/step_0": Deployment(),
    "/slurm/uid_1000/job_42/step_batch": Deployment(),
    "/system.slice/slurmstepd.scope/job_42/step_0/user/task_0": unit("slurmstepd.scope"),
    "/a b;reboot.service": Deployment(),
    "/lxc.payload.$(reboot)": Deployment(),
    f"/docker/{ID[:-1]}": Deployment(),
    f"/system.slice/docker-{ID}0.scope": unit(f"docker-{ID}0.scope"),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_cgroup_path_tells_how_the_process_was_started(path):
    assert of_path(path) == PATHS[path]


def test_the_first_hierarchy_that_tells_counts():
    paths = ["/", "/system.slice/ollama.service", f"/docker/{ID}", "/system.slice/other.service"]
    assert deployment(paths) == container("docker", unit="ollama.service", manager="system")
    assert deployment([]) == Deployment()


folders = st.sampled_from(
    [f"docker-{ID}.scope", ID, "docker", "lxc", "pod" + POD, "user@1.service", "_", "x.service"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(folders | st.text(max_size=20), max_size=8).map("/".join))
def test_any_path_is_safe(path):
    found = of_path(path)
    assert Deployment.from_json(found.to_json()) == found
    for text in (found.unit, found.container_id, found.pod):
        assert re.fullmatch(r"[A-Za-z0-9:_.\\@-]*", text)


# --- which process serves the model, and who manages it


def process(tgid: int, argv: str, ppid: int = 1, exe: str = "", **more) -> Process:
    words = tuple(argv.split())
    exe = exe or words[0]
    return Process(tgid, ppid, exe.rpartition("/")[2][:15], words, exe, **more)


BLOB = "/usr/share/ollama/.ollama/models/blobs/sha256-6a0746a1ec1a"
SERVE = process(10, "/usr/bin/ollama serve", deployment=unit("ollama.service"))
CLIENT = process(20, "ollama run llama3.2", ppid=500)
SERVER = process(30, f"/usr/lib/ollama/llama-server --model {BLOB} --port 4001", ppid=10)
RUNNER = process(31, f"/usr/local/bin/ollama runner --model {BLOB} --port 4001", ppid=10)
OLD = process(32, f"/tmp/ollama123/runners/cpu_avx2/ollama_llama_server --model {BLOB}", ppid=10)
SHELL = process(500, "-bash", deployment=unit("session-3.scope"))

FOUND = {
    "ollama since 0.30": ([SERVE, CLIENT, SERVER], {30: 1 << 30}, 30, "systemd"),
    "ollama 0.5.8 to 0.24": ([SERVE, CLIENT, RUNNER], {}, 31, "systemd"),
    "ollama to 0.5.7": ([SERVE, OLD], {32: 1}, 32, "systemd"),
    "mlx": ([SERVE, process(33, "ollama runner --mlx-engine --model x", 10)], {}, 33, "systemd"),
    "a replaced program": (
        [process(40, "./x -m a.gguf", exe="/opt/llama-server (deleted)")],
        {},
        40,
        "hand",
    ),
    "through an interpreter": (
        [process(41, "llama-server --model=a.gguf", exe="/usr/bin/python3.11")],
        {41: 0},
        41,
        "hand",
    ),
    "by environment": (
        [process(42, "llama-server", environment={"LLAMA_ARG_MODEL": "a.gguf"})],
        {},
        42,
        "hand",
    ),
    "a router and its child": (
        [process(50, "llama-server --models-dir /m"), process(51, "llama-server -m a", ppid=50)],
        {51: 5},
        51,
        "hand",
    ),
    "another program with a model": (
        [SHELL, process(60, "python serve.py", 500, "/usr/bin/python3"), CLIENT],
        {60: 1 << 30},
        60,
        "hand",
    ),
    "a server without mapping before a copy program with one": (
        [process(70, "llama-server --no-mmap -m a.gguf"), process(71, "cp a.gguf b")],
        {71: 1 << 30},
        70,
        "hand",
    ),
    "a unit": (
        [process(80, "llama-server -m a", deployment=unit("llama.service"))],
        {},
        80,
        "systemd",
    ),
    "a unit of the user": (
        [process(81, "llama-server -m a", deployment=unit("llama.service", "user"))],
        {},
        81,
        "systemd",
    ),
    "a login without sessions": (
        [process(82, "llama-server -m a", deployment=unit("ssh.service"))],
        {},
        82,
        "hand",
    ),
    "a container": (
        [process(83, "/app/llama-server -m a", deployment=container("docker"))],
        {83: 1},
        83,
        "docker",
    ),
    "ollama in a container": (
        [
            process(84, "/bin/ollama serve", deployment=container("docker")),
            process(85, "/usr/lib/ollama/llama-server --model a", 84),
        ],
        {85: 1},
        85,
        "docker",
    ),
}


@pytest.mark.parametrize("situation", FOUND)
def test_the_server_is_found(situation):
    processes, gguf, tgid, manager = FOUND[situation]
    found, reason = inference_server(processes, gguf)
    assert found == tgid
    assert f"pid {tgid}" in reason
    chosen = next(each for each in processes if each.tgid == tgid)
    assert deployment_of(ollama_serve(chosen, processes) or chosen) == manager


NOT_SERVERS = {
    "no process": [],
    "only a client and a server of nothing": [SERVE, CLIENT, SHELL],
    "a server that looks for devices": [SERVE, process(90, "llama-server --list-devices", 10)],
    "a runner of something else": [process(91, "gitlab-runner runner")],
    "an argument that names one": [process(92, "vim llama-server --model")],
}


@pytest.mark.parametrize("situation", NOT_SERVERS)
def test_no_server_is_made_up(situation):
    processes = NOT_SERVERS[situation]
    found, reason = inference_server(processes, {})
    assert found is None
    assert f"none of {len(processes)} processes" in reason


def test_of_several_the_one_that_maps_the_most_and_the_others_are_named():
    servers = [process(pid, "llama-server -m a") for pid in range(100, 110)]
    found, reason = inference_server(servers, {pid: pid << 20 for pid in range(100, 109)})
    assert found == 108
    assert "maps 108 MiB" in reason
    assert "llama-server (pid 107) maps 107 MiB" in reason
    assert reason.endswith("and 4 more")


def test_parents_that_go_in_circles_end():
    circle = [process(1, "a", ppid=2), process(2, "b", ppid=1)]
    assert ollama_serve(circle[0], circle) is None
    assert ollama_serve(SERVER, [SERVER, SERVE]) == SERVE
    assert ollama_serve(SERVE, [SERVE]) == SERVE


KINDS = {
    "docker": (container("docker"), "docker"),
    "docker, rootless": (
        container("docker", unit="user@1000.service", manager="system"),
        "docker",
    ),
    "podman below a unit": (
        container("podman", unit="ollama.service", manager="system"),
        "podman",
    ),
    "a pod": (container("kubepods", pod=POD), "kubernetes"),
    "a unit inside of lxc": (
        container("lxc", "box", unit="ollama.service", manager="container"),
        "lxc",
    ),
    "containerd": (container("containerd"), "container"),
    "nspawn": (container("nspawn", "box"), "container"),
    "a unit": (unit("ollama.service"), "systemd"),
    "a scope": (unit("run-1.scope"), "hand"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_the_cgroup_path_says_decides_how_it_is_run(name):
    found, kind = KINDS[name]
    assert deployment_of(process(1, "llama-server", deployment=found)) == kind


@pytest.mark.parametrize(
    "login",
    ["ssh", "sshd", "ssh@3-10.0.0.1:22", "user@1000", "getty@tty1", "cron", "docker", "gdm"],
)
def test_a_unit_that_people_work_in_is_not_the_servers(login):
    found = unit(f"{login}.service")
    assert deployment_of(process(1, "llama-server", deployment=found)) == "hand"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "hand"), ("", "hand"), ("/llm", "cgroup"), ("/1/c2.session", "hand")],
)
def test_a_cgroup_that_somebody_made_is_told_from_the_root(path, kind):
    found = process(1, "llama-server", cgroup=Cgroup(paths={"": path}))
    assert deployment_of(found) == kind
