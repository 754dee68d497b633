"""A process, its threads and how it was deployed; and which process serves the model.

`Process` and `Thread` are the values of the trace's `process` and `thread` rows. They come from
/proc of a machine that may be hostile, so every text here is bounded and unescaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from numatrace.model.cpulist import NODE_LIMIT, format_cpulist
from numatrace.model.document import document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numatrace.model.document import Document

PID_LIMIT = 1 << 22
"""Process ids are at most this (PID_MAX_LIMIT, linux/threads.h)."""
ARGV_BYTES = 65536
"""Bytes of a command line that are kept; arguments after them are dropped."""
ARGV_COUNT = 8192
COMM_LIMIT = 64
"""Characters of a comm: 15 bytes, or 63 for kernel threads (TASK_COMM_LEN, WQ_WORKER's desc)."""
ENVIRON_COUNT = 64
ENVIRON_VALUE_LIMIT = 1024
CGROUP_COUNT = 32
VERSION_LIMIT = 64
PORT_COUNT = 64
"""TCP ports of one process that are kept."""
PORT_LIMIT = 65_535

Manager = Literal["", "system", "user", "container"]
DeploymentKind = Literal[
    "hand", "systemd", "docker", "podman", "kubernetes", "lxc", "container", "cgroup"
]
"""How a process is run, and so where its settings have to be changed; see `deployment_of`."""
Relation = Literal["", "starter", "client"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a cgroup path says of how a process was started; "" where it says nothing.

    `unit` is the systemd unit as systemctl takes it; `manager` says which: of the system, of a
    user (`systemctl --user`), or one that runs inside the container.
    `container_kind` is docker, podman, containerd, cri-o, kubepods, lxc or nspawn.
    `container_name`, `image` and the compose project and service are the container engine's own,
    not the cgroup path's.
    """

    unit: str = ""
    manager: Manager = ""
    container_kind: str = ""
    container_id: str = ""
    pod: str = ""
    container_name: str = ""
    image: str = ""
    compose_project: str = ""
    compose_service: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: object) -> Deployment:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "deployment")
        manager = doc.text("manager", 16)
        known: dict[str, Manager] = {"system": "system", "user": "user", "container": "container"}
        doc.require(not manager or manager in known, "an unknown service manager")
        return cls(
            doc.text("unit"),
            known.get(manager, ""),
            doc.text("container_kind", 16),
            doc.text("container_id"),
            doc.text("pod"),
            doc.text("container_name"),
            doc.text("image"),
            doc.text("compose_project"),
            doc.text("compose_service"),
        )


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A process's cgroup paths by hierarchy ("" is cgroup v2) and the limits in force there.

    `cpus` and `mems` are the effective cpuset, empty where there is none to be read.
    `quota_cpus` is the tightest cpu.max on the way to the root, in CPUs; `memory_max_bytes` the
    tightest memory.max; None without a limit.
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    mems: tuple[int, ...] = ()
    quota_cpus: float | None = None
    memory_max_bytes: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "paths": dict(self.paths),
            "cpus": format_cpulist(self.cpus),
            "mems": format_cpulist(self.mems),
            "quota_cpus": self.quota_cpus,
            "memory_max_bytes": self.memory_max_bytes,
        }

    @classmethod
    def from_json(cls, value: object) -> Cgroup:
        """Check and take the JSON form; raises TraceError."""
        doc = document(value, "cgroup")
        return cls(
            doc.text_map("paths", CGROUP_COUNT),
            doc.cpulist("cpus"),
            doc.cpulist("mems", NODE_LIMIT),
            doc.optional_number("quota_cpus", 1e9),
            doc.optional_integer("memory_max_bytes"),
        )


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc showed it when it was found.

    `start_ns` is ns after boot, in steps of a clock tick: with `tgid` it tells a process from a
    later one of the same number. `policy` is the memory policy of its first thread, as numa_maps
    writes it ("default", "bind:0", "interleave:0-1"), "" if unknown. `mems_allowed` may name
    nodes that do not exist, and is empty for a kernel without cpusets. `environment` has only
    variables that configure the server. `version` is the server's, as it names it ("0.24.0",
    "b10488"), "" if unknown; `listens` the TCP ports on which it takes connections. `relation` is
    "" for a process that is followed; "starter" for one above it; "client" for one that uses it.
    """

    tgid: int
    ppid: int
    comm: str
    argv: tuple[str, ...] = ()
    exe: str = ""
    cwd: str = ""
    uid: int = 0
    start_ns: int = 0
    n_threads: int = 1
    cpus_allowed: tuple[int, ...] = ()
    mems_allowed: tuple[int, ...] = ()
    policy: str = ""
    cgroup: Cgroup = field(default_factory=Cgroup)
    deployment: Deployment = field(default_factory=Deployment)
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    listens: tuple[int, ...] = ()
    relation: Relation = ""

    def to_json(self) -> dict[str, object]:
        """Return the value of a `process` row."""
        plain = ("tgid", "ppid", "comm", "exe", "cwd", "uid", "start_ns", "n_threads", "policy")
        return {name: getattr(self, name) for name in (*plain, "version", "relation")} | {
            "listens": list(self.listens),
            "argv": list(self.argv),
            "cpus_allowed": format_cpulist(self.cpus_allowed),
            "mems_allowed": format_cpulist(self.mems_allowed),
            "cgroup": self.cgroup.to_json(),
            "deployment": self.deployment.to_json(),
            "environment": dict(self.environment),
        }

    @classmethod
    def from_json(cls, value: object) -> Process:
        """Check and take the value of a `process` row; raises TraceError."""
        doc = document(value, "process")
        return cls(
            tgid=doc.integer("tgid", PID_LIMIT),
            ppid=doc.integer("ppid", PID_LIMIT, default=0),
            comm=doc.text("comm", COMM_LIMIT),
            argv=doc.texts("argv", ARGV_COUNT, 2 * ARGV_BYTES),  # a secret left out may be longer
            exe=doc.text("exe"),
            cwd=doc.text("cwd"),
            uid=doc.integer("uid", (1 << 32) - 1, default=0),
            start_ns=doc.integer("start_ns", default=0),
            n_threads=doc.integer("n_threads", PID_LIMIT, default=1),
            cpus_allowed=doc.cpulist("cpus_allowed"),
            mems_allowed=doc.cpulist("mems_allowed", NODE_LIMIT),
            policy=doc.text("policy"),
            cgroup=Cgroup.from_json(doc.child("cgroup")),
            deployment=Deployment.from_json(doc.child("deployment")),
            environment=doc.text_map("environment", ENVIRON_COUNT, ENVIRON_VALUE_LIMIT),
            version=doc.text("version", VERSION_LIMIT),
            listens=doc.integers("listens", PORT_COUNT, PORT_LIMIT),
            relation=_relation(doc),
        )


def _relation(doc: Document) -> Relation:
    known: dict[str, Relation] = {"": "", "starter": "starter", "client": "client"}
    text = doc.text("relation", 16)
    doc.require(text in known, "an unknown relation to the followed processes")
    return known[text]


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as /proc showed it; `policy` as in Process."""

    tid: int
    comm: str
    cpus_allowed: tuple[int, ...] = ()
    mems_allowed: tuple[int, ...] = ()
    policy: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the value of a `thread` row."""
        return {
            "tid": self.tid,
            "comm": self.comm,
            "cpus_allowed": format_cpulist(self.cpus_allowed),
            "mems_allowed": format_cpulist(self.mems_allowed),
            "policy": self.policy,
        }

    @classmethod
    def from_json(cls, value: object) -> Thread:
        """Check and take the value of a `thread` row; raises TraceError."""
        doc = document(value, "thread")
        return cls(
            doc.integer("tid", PID_LIMIT),
            doc.text("comm", COMM_LIMIT),
            doc.cpulist("cpus_allowed"),
            doc.cpulist("mems_allowed", NODE_LIMIT),
            doc.text("policy"),
        )


SERVERS = ("llama-server", "ollama_llama_server")
_MODEL_OPTIONS = ("--model", "-m", "-hf", "-hfr", "--hf-repo", "-mu", "--model-url")
_MODEL_VARIABLES = ("LLAMA_ARG_MODEL", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_MODEL_URL")
_OTHERS_SHOWN = 5
LOGIN_UNITS = re.compile(
    r"(ssh|sshd|getty|serial-getty|console-getty|cron|crond|cronie|atd|user|screen|tmux|at-spi"
    r"|code-server|jupyter|docker|containerd|gnome-terminal-server|init|dbus|display-manager"
    r"|gdm|gdm3|sddm|lightdm|systemd-logind)(@.*)?\.service"
)
"""Units whose processes a person or another program started: an edit of the unit is no fix."""
_KINDS: dict[str, DeploymentKind] = {
    "docker": "docker",
    "podman": "podman",
    "kubepods": "kubernetes",
    "lxc": "lxc",
}
_SESSION = ".session"
"""End of the cgroup path that elogind gives a login."""


def inference_server(
    processes: Sequence[Process], gguf_by_tgid: Mapping[int, int]
) -> tuple[int | None, str]:
    """Return the process that serves the model, or None, and the reason in one sentence.

    `gguf_by_tgid` has the bytes of GGUF files that a process maps, 0 for one that has such a file
    open and not mapped. A server is llama-server (Ollama since 0.30, and llama.cpp itself),
    ollama_llama_server (Ollama to 0.5.7) or a process run as `… runner` (Ollama 0.5.8 to 0.24),
    and it must name a model or have a GGUF file; without such a one, whatever has a GGUF file.
    Of several it is the one that maps the most. The reason quotes names as they are: escape it.
    """
    followed = [each for each in processes if each.relation != "client"]
    servers = [each for each in followed if _is_server(each) and _has_model(each, gguf_by_tgid)]
    found = servers or [each for each in followed if each.tgid in gguf_by_tgid]
    if not found:
        return None, (
            f"none of {len(processes)} processes is a llama.cpp server with a model, "
            "and none has a GGUF file mapped or open"
        )
    found.sort(key=lambda each: (-gguf_by_tgid.get(each.tgid, -1), each.tgid))
    chosen = found[0]
    reason = f"{_role(chosen)} {_evidence(chosen, gguf_by_tgid)}"
    return chosen.tgid, reason + _others(found[1:], gguf_by_tgid)


def deployment_of(process: Process) -> DeploymentKind:
    """Return how the process is run. Of a server below `ollama serve`, ask about that one.

    `systemd`: its own unit, of the system or of a user. `cgroup`: a cgroup that neither systemd
    nor a container engine names, so that somebody made it. `container`: of no kind that is told
    apart here. `hand`: a person's session, and nothing keeps its settings.
    """
    deployment = process.deployment
    if deployment.pod:
        return "kubernetes"
    if deployment.container_kind or deployment.manager == "container":
        return _KINDS.get(deployment.container_kind, "container")
    unit = deployment.unit
    if unit.endswith(".service") and LOGIN_UNITS.fullmatch(unit) is None:
        return "systemd"
    path = process.cgroup.paths.get("", "/").rstrip("/")
    made = path and not unit and not path.endswith(_SESSION)
    return "cgroup" if made else "hand"


def ollama_serve(process: Process, processes: Sequence[Process]) -> Process | None:
    """Return the `ollama serve` that the process is, or is below; None without one."""
    by_tgid = {each.tgid: each for each in processes}
    seen: set[int] = set()
    current: Process | None = process
    while current is not None and current.tgid not in seen:
        if "ollama" in _basenames(current) and current.argv[1:2] in (("serve",), ("start",)):
            return current
        seen.add(current.tgid)  # a trace may claim that two processes are each other's parent
        current = by_tgid.get(current.ppid)
    return None


def _basenames(process: Process) -> set[str]:
    # A server run through a wrapper is known only by its argv[0], one run by an interpreter only
    # by the name that it gave itself.
    named = (process.exe.removesuffix(" (deleted)"), *process.argv[:1], process.comm)
    return {name.rpartition("/")[2] for name in named}


def _is_server(process: Process) -> bool:
    return not _basenames(process).isdisjoint(SERVERS) or process.argv[1:2] == ("runner",)


def _has_model(process: Process, gguf_by_tgid: Mapping[int, int]) -> bool:
    options = {argument.partition("=")[0] for argument in process.argv[1:]}
    named = not options.isdisjoint(_MODEL_OPTIONS)
    return (
        named
        or process.tgid in gguf_by_tgid
        or any(name in process.environment for name in _MODEL_VARIABLES)
    )


def _role(process: Process) -> str:
    for name in SERVERS:
        if name in _basenames(process):
            return f"{name} (pid {process.tgid})"
    if process.argv[1:2] == ("runner",):
        return f"{process.comm} runner (pid {process.tgid})"
    return f"{process.comm} (pid {process.tgid})"


def _evidence(process: Process, gguf_by_tgid: Mapping[int, int]) -> str:
    mapped = gguf_by_tgid.get(process.tgid)
    if mapped:
        return f"maps {mapped / (1 << 20):,.0f} MiB of GGUF files"
    return "has a GGUF file open" if mapped == 0 else "is started with a model"


def _others(found: Sequence[Process], gguf_by_tgid: Mapping[int, int]) -> str:
    if not found:
        return ""
    shown = [f"{_role(each)} {_evidence(each, gguf_by_tgid)}" for each in found[:_OTHERS_SHOWN]]
    rest = len(found) - len(shown)
    return "; others: " + ", ".join(shown) + (f" and {rest} more" if rest else "")
