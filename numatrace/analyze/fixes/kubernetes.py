"""The fix for a pod: the kubelet's settings of the node, and the pod's resources, as files.

The kubelet gives a container CPUs and memory of one NUMA node only if its CPU, memory and topology
managers are told to, and then only to a Guaranteed pod with whole CPUs. All of these are
settings of the cluster: the files are written here, and applying them is left to its keepers.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from numatrace.analyze.fixes import common
from numatrace.analyze.fixes.quoting import RefusedError
from numatrace.analyze.fixes.settings import by_variables, changes
from numatrace.analyze.plans.room import need_bytes
from numatrace.model.cpulist import format_cpulist
from numatrace.model.findings import Fix, Step

if TYPE_CHECKING:
    from numatrace.analyze.fixes.settings import Changes
    from numatrace.analyze.plans.plan import Plan
    from numatrace.analyze.situation import Situation

DEPLOYMENT = "kubernetes"
KINDS = frozenset({"bind", "cpuset", "threads", "distribute"})
UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")
MIB = 1 << 20
KUBE_RESERVED_MIB, SYSTEM_RESERVED_MIB, EVICTION_MIB = 512, 512, 100
"""Their sum has to be what is reserved on the nodes, or the kubelet does not start. The last is
the kubelet's own default, the first two are usual sizes."""
SPARE = 1.1
"""Memory limit of the pod over what the server takes today."""
KUBELET_FILE, POD_FILE = "numatrace-kubelet.yaml", "numatrace-pod.yaml"
STATE = "/var/lib/kubelet/{cpu,memory}_manager_state"


def render(situation: Situation, plan: Plan, passed: tuple[str, ...]) -> Fix:
    """Return the plan as two files and how to apply them. Raises RefusedError where it cannot."""
    if plan.kind == "interleave":
        raise RefusedError("Kubernetes has no memory policies, only a choice of nodes")
    common.require(plan, KINDS, "Kubernetes")
    uid = situation.root.deployment.pod
    if not UID.fullmatch(uid):
        raise RefusedError("the pod's id is not in the trace")
    found = changes(situation, plan)
    if found.parameters:
        raise RefusedError("its thread count is a parameter of the model: ollama create in the pod")
    placed = plan.kind in ("bind", "cpuset")
    return Fix(
        id=f"{plan.kind}/kubernetes",
        deployment=DEPLOYMENT,
        title=plan.title,
        steps=(
            _find_step(uid),
            *((_file_step(KUBELET_FILE, kubelet(situation, plan), KUBELET_WHY),) if placed else ()),
            _file_step(POD_FILE, pod(situation, plan, found), POD_WHY, expand=True),
        ),
        verify=(
            Step(
                'kubectl -n "$namespace" exec "$pod" -c "$container" --'
                " cat /sys/fs/cgroup/cpuset.cpus.effective /sys/fs/cgroup/cpuset.mems.effective",
                "CPUs and memory nodes of the new container; take its pod's name first.",
            ),
            *common.verify_steps(situation, common.pid_by_name(situation.server), needs_root=True)[
                -2:
            ],
        ),
        undo=(Step(f"rm -f {KUBELET_FILE} {POD_FILE}", "Nothing else was changed by the steps."),),
        notes=(*found.notes, *_notes(placed=placed)),
        lint=passed,
        plan=plan.id,
    )


KUBELET_WHY = "What the kubelet of this machine has to be told; nothing is applied yet."
POD_WHY = "What the pod's template has to say; nothing is applied yet."


def kubelet(situation: Situation, plan: Plan) -> str:
    """Return the part of the kubelet's configuration that matters here, as YAML.

    CPUs and memory are reserved for the system off the plan's node, where there are others.
    """
    others = [
        node for node in situation.topology.nodes if node.node not in plan.nodes and node.cpus
    ]
    free = [cpu for node in others for cpu in node.cpus] or list(plan.cpus)
    core = next((core for core in situation.topology.cores if free[0] in core), (free[0],))
    memory = [node.node for node in others if node.node in situation.topology.nodes_with_memory]
    keeper = memory[0] if memory else plan.nodes[0]
    total = KUBE_RESERVED_MIB + SYSTEM_RESERVED_MIB + EVICTION_MIB
    return "\n".join(
        [
            "apiVersion: kubelet.config.k8s.io/v1beta1",
            "kind: KubeletConfiguration",
            "cpuManagerPolicy: static",
            f'reservedSystemCPUs: "{format_cpulist(core)}"',
            "memoryManagerPolicy: Static",
            "topologyManagerPolicy: single-numa-node",
            "topologyManagerScope: container",
            "kubeReserved:",
            f"  memory: {KUBE_RESERVED_MIB}Mi",
            "systemReserved:",
            f"  memory: {SYSTEM_RESERVED_MIB}Mi",
            "evictionHard:",
            f"  memory.available: {EVICTION_MIB}Mi",
            "reservedMemory:",
            f"  - numaNode: {keeper}",
            "    limits:",
            f"      memory: {total}Mi",
            "",
        ]
    )


def pod(situation: Situation, plan: Plan, found: Changes) -> str:
    """Return a patch of the pod's template: Guaranteed, with whole CPUs, and its variables."""
    variables = by_variables(situation, found)
    lines = [
        "spec:",
        "  template:",
        "    spec:",
        "      containers:",
        '        - name: "$container"',
    ]
    if plan.kind in ("bind", "cpuset"):
        size = -(-round(need_bytes(situation) * SPARE) // MIB)
        amount = [f"cpu: {json.dumps(str(len(plan.cpus)))}", f"memory: {size}Mi"]
        lines.append("          resources:")
        for part in ("requests", "limits"):
            lines += [f"            {part}:", *(f"              {each}" for each in amount)]
    if variables is None:
        raise RefusedError("one of its settings is in the pod's args: change it there first")
    environment = found.environment | variables
    if environment:
        lines.append("          env:")
        for name, value in environment.items():
            lines += [f"            - name: {name}", f"              value: {json.dumps(value)}"]
    return "\n".join([*lines, ""])


def _find_step(uid: str) -> Step:
    query = (
        f'{{range .items[?(@.metadata.uid=="{uid}")]}}{{.metadata.namespace}} {{.metadata.name}}'
        " {.spec.containers[0].name}{end}"
    )
    return Step(
        f"read -r namespace pod container <<END\n$(kubectl get pods -A -o jsonpath='{query}')\nEND",
        "Find the pod by its id; kept as $namespace, $pod and $container in this shell. Of several"
        " containers the first is taken.",
    )


def _file_step(name: str, text: str, why: str, *, expand: bool = False) -> Step:
    end = "END" if expand else "'END'"
    return Step(f"tee {name} <<{end}\n{text}END", why)


def _notes(*, placed: bool) -> list[str]:
    owner = (
        f"Apply {POD_FILE} to what owns the pod, for instance: kubectl -n NAMESPACE patch"
        f" deployment NAME --patch-file {POD_FILE}. The pod is made again by that."
    )
    if not placed:
        return [owner]
    return [
        f"To apply {KUBELET_FILE}: drain the node, merge it into the kubelet's configuration"
        " (mostly /var/lib/kubelet/config.yaml), stop the kubelet, remove"
        f" {STATE}, start it, uncordon the node.",
        "reservedMemory has to be the sum of kubeReserved, systemReserved and the hard eviction"
        " threshold: where yours differ, change it, too.",
        owner,
        "Whole CPUs and requests equal to limits, for CPU and memory, in every container of the"
        " pod: without that it is not Guaranteed, and the managers leave it alone. Sidecars and"
        " init containers count.",
        "The kubelet chooses the node by itself: one that has the CPUs and the memory free.",
    ]
