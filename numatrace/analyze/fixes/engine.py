"""Commands for a container engine with docker's command line: docker itself, and podman.

CPUs and memory nodes can be changed in place. Variables and the command line cannot: for these
the container is made again from what `inspect` says of it, and the old one is kept for the undo.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from numatrace.analyze.commandline import is_llama_cpp
from numatrace.analyze.fixes import common, ollama
from numatrace.analyze.fixes.quoting import RefusedError, shell, shell_command
from numatrace.analyze.fixes.settings import changes, family
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.fixes.settings import Changes
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

Engine = Literal["docker", "podman"]

KINDS = frozenset({"bind", "interleave", "distribute", "threads", "cpuset"})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""What docker and podman allow as the name of a container; an id is one of these, too."""
BEFORE = "-before-numatrace"
PORTS = (
    "{{range $port, $hosts := .HostConfig.PortBindings}}{{range $hosts}}"
    "-p {{if .HostIp}}{{.HostIp}}:{{end}}{{.HostPort}}:{{$port}} {{end}}{{end}}"
)
DEVICES = "{{range .HostConfig.Devices}}--device {{.PathOnHost}}:{{.PathInContainer}} {{end}}"
CAPABILITIES = "{{range .HostConfig.CapAdd}}--cap-add {{.}} {{end}}"
RESTART = "{{.HostConfig.RestartPolicy.Name}}"
OPTIONS = (
    "{{if .HostConfig.RestartPolicy.Name}}--restart {{.HostConfig.RestartPolicy.Name}} {{end}}"
    "{{if .Config.User}}--user {{.Config.User}} {{end}}"
    "{{if .Config.WorkingDir}}--workdir {{.Config.WorkingDir}} {{end}}"
    "{{if .HostConfig.CpusetCpus}}--cpuset-cpus {{.HostConfig.CpusetCpus}} {{end}}"
    "{{if .HostConfig.CpusetMems}}--cpuset-mems {{.HostConfig.CpusetMems}} {{end}}"
    "{{if .HostConfig.Memory}}--memory {{.HostConfig.Memory}} {{end}}"
    "--network {{.HostConfig.NetworkMode}} --shm-size {{.HostConfig.ShmSize}} "
    f"{PORTS}{DEVICES}{CAPABILITIES}"
)
"""Go template for `inspect`: options of `run` whose values hold neither spaces nor quotes."""
ENVIRONMENT = "{{range .Config.Env}}{{println .}}{{end}}"
NUMACTL_IMAGE = """\
FROM %s
USER root
RUN apt-get update && apt-get install -y --no-install-recommends numactl
"""


def render(situation: Situation, plan: Plan, passed: tuple[str, ...], engine: Engine) -> Fix:
    """Return the plan as commands for the engine. Raises RefusedError where none can be exact."""
    if plan.kind == "per-node":
        raise RefusedError("one instance per node needs a second container, with its own port")
    common.require(plan, KINDS, engine)
    common.check_evictable(plan)
    found = changes(situation, plan)
    again = _made_again(situation, plan, found)
    name = name_of(situation)
    client = f"{engine} exec {name} ollama"
    if again:
        _check_again(situation)
    place = _again(situation, plan, found, engine) if again else _in_place(situation, plan, engine)
    undo = _undo_again(engine, name) if again else _undo_in_place(situation, engine, name)
    return Fix(
        id=f"{plan.kind}/{engine}",
        deployment=engine,
        title=plan.title,
        steps=(*ollama.parameter_steps(situation, found.parameters, client), *place),
        verify=common.verify_steps(
            situation, common.pid_by_name(situation.server), needs_root=True
        ),
        undo=(*ollama.parameter_undo(situation, found.parameters, client), *undo),
        notes=(*found.notes, *_notes(engine, plan, again=again), *common.remarks(situation, plan)),
        lint=passed,
        plan=plan.id,
    )


def name_of(situation: Situation) -> str:
    """Return the container's name, else its id; raises RefusedError for an odd one."""
    deployment = situation.root.deployment
    name = deployment.container_name or deployment.container_id
    if not NAME.fullmatch(name):
        raise RefusedError("the name of its container cannot be written into a command")
    return name


def cpuset_options(plan: Plan) -> str:
    """Return the options of `run` and `update` for the plan's CPUs and memory nodes."""
    cpus, nodes = format_cpulist(plan.cpus), format_cpulist(plan.nodes)
    return f"--cpuset-cpus={cpus} --cpuset-mems={nodes}"


def evict_steps(plan: Plan, engine: Engine, name: str) -> list[Step]:
    """Return the commands that drop the models' page cache, from beside the stopped container.

    The path is one inside of the container: its image and its volumes are seen the same way.
    """
    image = f'"$({engine} inspect --format {shell("{{.Image}}")} {name})"'
    return [
        Step(
            f"{engine} run --rm --volumes-from {name} --entrypoint dd {image}"
            f" if={shell(path)} iflag=nocache count=0",
            "Drop the model's pages from the page cache: they outlive the container. (The image"
            " needs dd of the GNU coreutils.)",
        )
        for path in plan.evict
    ]


def _made_again(situation: Situation, plan: Plan, found: Changes) -> bool:
    """Whether something has to change that an existing container keeps for good."""
    changed = tuple(found.argv) != situation.root.argv or bool(found.environment)
    return changed or plan.kind == "interleave"


def _check_again(situation: Situation) -> None:
    common.check_argv(situation.root)
    if not situation.root.deployment.container_name:
        # The new one could not have the old one's id, by which the undo would find it.
        raise RefusedError("the container has to be made again, and its name is not in the trace")
    if situation.gpu:
        raise RefusedError(
            "the container has to be made again with other settings, and how it was given its GPU"
            " is not in the trace"
        )
    known = is_llama_cpp(situation.root.argv) or family(situation) != "other"
    if not known and not situation.root.argv[0].startswith("/"):
        raise RefusedError("what the container starts is not known exactly")


def _in_place(situation: Situation, plan: Plan, engine: Engine) -> tuple[Step, ...]:
    name = name_of(situation)
    update = Step(
        f"{engine} update {cpuset_options(plan)} {name}",
        "Change the container's CPUs and memory nodes; it keeps them when it is restarted.",
    )
    if plan.kind == "threads":
        return (Step(f"{engine} restart {name}", "Restart it, so that the model is loaded anew."),)
    if not plan.evict:
        return (update, Step(f"{engine} restart {name}", "Load the model anew, in its new place."))
    return (
        Step(f"{engine} stop {name}", "Stop it: pages in use cannot be dropped."),
        *evict_steps(plan, engine, name),
        update,
        Step(f"{engine} start {name}", "Start it again."),
    )


def _again(situation: Situation, plan: Plan, found: Changes, engine: Engine) -> tuple[Step, ...]:
    name = name_of(situation)
    old = name + BEFORE
    first = f"{engine} inspect --format {shell('{{.HostConfig.AutoRemove}}')} {name}"
    steps = [
        Step(
            f'test "$({first})" = false && {engine} stop {name} && {engine} rename {name} {old}',
            "Stop the container and keep it under another name (not if it would remove itself).",
        ),
        *evict_steps(plan, engine, old),
    ]
    if plan.kind == "interleave":
        steps.insert(0, _image_step(engine, name))
    image = (
        f"{name.lower()}-numactl"
        if plan.kind == "interleave"
        else f'"$({engine} inspect --format {shell("{{.Image}}")} {old})"'
    )
    run = _run_command(situation, plan, found, engine, image)
    steps.append(Step(run, "Make it again with the same image, volumes, ports and variables."))
    if engine == "docker":
        steps.append(
            Step(f"docker update --restart no {old}", "Keep the old one from starting by itself.")
        )
    return tuple(steps)


def _image_step(engine: Engine, name: str) -> Step:
    image = f'"$({engine} inspect --format {shell("{{.Config.Image}}")} {name})"'
    return Step(
        f"printf {shell(NUMACTL_IMAGE)} {image} | {engine} build -t {name.lower()}-numactl -",
        "An image like the container's with numactl in it (for one that is based on Debian or"
        " Ubuntu).",
    )


def _run_command(
    situation: Situation, plan: Plan, found: Changes, engine: Engine, image: str
) -> str:
    name = name_of(situation)
    old = name + BEFORE
    cpuset = "" if plan.kind == "threads" else f" {cpuset_options(plan)}"
    quota = situation.root.cgroup.quota_cpus
    cpuset += f" --cpus={quota:.2f}" if quota else ""
    words = list(found.argv)
    if plan.kind == "interleave":
        words = ["numactl", f"--interleave={common.nodelist(plan)}", *words]
        cpuset += " --cap-add SYS_NICE"
    variables = "".join(
        f" -e {shell(f'{key}={value}')}" for key, value in found.environment.items()
    )
    return (
        f"{engine} inspect --format {shell(ENVIRONMENT)} {old} |"
        f" {engine} run -d --name {name} --volumes-from {old} --env-file /dev/stdin"
        f" $({engine} inspect --format {shell(OPTIONS)} {old}){cpuset}{variables}"
        f" --entrypoint {shell(words[0])} {image} {shell_command(words[1:])}"
    ).rstrip()


def undo_update(situation: Situation, engine: Engine) -> tuple[Step, ...]:
    """Return the step that gives the container the CPUs and nodes that it had."""
    options = (
        f"--cpuset-cpus={common.cpuset_cpus(situation)}"
        f" --cpuset-mems={common.cpuset_nodes(situation)}"
    )
    command = f"{engine} update {options} {name_of(situation)}"
    return (Step(command, "Give it the CPUs and nodes that it had."),)


def _undo_in_place(situation: Situation, engine: Engine, name: str) -> tuple[Step, ...]:
    restart = Step(f"{engine} restart {name}", "Load the model anew.")
    return (*undo_update(situation, engine), restart)


def _undo_again(engine: Engine, name: str) -> tuple[Step, ...]:
    restart = f'docker update --restart "$(docker inspect --format {shell(RESTART)} {name})"'
    policy = Step(f"{restart} {name}{BEFORE}", "Give the old one its restart policy back.")
    return (
        *((policy,) if engine == "docker" else ()),
        Step(f"{engine} rm -f {name}", "Remove the new container; volumes stay."),
        Step(f"{engine} rename {name}{BEFORE} {name}", "Give the old one its name back."),
        Step(f"{engine} start {name}", "Start it as it was."),
    )


def _notes(engine: Engine, plan: Plan, *, again: bool) -> list[str]:
    notes = []
    if engine == "docker":
        notes.append("docker needs root, or membership of the group docker.")
    else:
        notes.append(
            "Run this as the user whose container it is. podman update is there since 4.3; without"
            " root, podman needs the cpuset controller delegated to the user."
        )
    if again:
        notes.append(
            "Variables and the command line are part of a container: it is made again with its"
            " image, volumes, variables, ports, network, devices, capabilities, CPUs, memory limit"
            " and restart policy."
            " Anything else of it (labels, limits, further networks) has to be added to run."
        )
    if plan.kind == "interleave":
        notes.append(
            "A memory policy needs the capability SYS_NICE in a container. Without it, the"
            " variable LLAMA_ARG_NUMA=distribute spreads what is not repacked."
        )
    return notes
