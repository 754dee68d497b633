"""Two reports of one server on one machine, for the tests of `compare`."""

from __future__ import annotations

import dataclasses
from typing import Any

from numatrace.model.findings import Finding, PlanView, Verdict
from numatrace.model.measured import AccessView, Figure, PhaseView, TimeView
from numatrace.model.report import Provenance, Report
from numatrace.model.views import (
    LayerView,
    MachineView,
    NodeView,
    ProcessView,
    ServerView,
    TensorView,
    ThreadView,
)

GIB = 1 << 30
MIB = 1 << 20
SECOND = 10**9
SERVER = 4711
MODEL = "/srv/models/llama-3-8b.gguf"
NOBODY = TimeView("", 0, 0)


def share(value: float, low: float, high: float, source: Any = "operand sample") -> Figure:
    return Figure(value, "share", source, low, high)


def expected(value: float) -> Figure:
    return Figure(value, "share", "model")


def node(number: int, cpus: str = "0-3", free: int = 6 * GIB, **more: Any) -> NodeView:
    view = NodeView(number, cpus, 4, 16 * GIB, free, 2 * GIB, {0: 10, 1: 21})
    return dataclasses.replace(view, **more)


def thread(tid: int, ns: dict[int, int], **more: Any) -> ThreadView:
    view = ThreadView(SERVER, tid, "llama-server", "compute", 1, ns, 3, 0, 12, "0-7")
    return dataclasses.replace(view, **more)


def access(rung: Any = "operand sample") -> AccessView:
    return AccessView(
        rung, "", "operand", 5000, 0, 5 * SECOND, NOBODY, (), NOBODY, (), NOBODY, None,
        False, None, None, 30, False, (), (),
    )  # fmt: skip


def finding(cause: str) -> Finding:
    return Finding(cause, "a cause", "It is so.", SERVER, (), "high")


def plan(remote: float | None, node_bytes: dict[int, int], **more: Any) -> PlanView:
    predicted = expected(remote) if remote is not None else None
    view = PlanView("bind:0", "everything on node 0", True, predicted, node_bytes, None)
    return dataclasses.replace(view, **more)


def server(remote: Figure | None, weights: dict[int, int], **more: Any) -> ServerView:
    times = {0: 10 * SECOND, 1: 10 * SECOND}
    view = ServerView(SERVER, weights, 0, times, remote, expected(0.5), 2000)
    return dataclasses.replace(view, **more)


def report(
    remote: Figure | None,
    weights: dict[int, int],
    causes: tuple[str, ...] = (),
    kind: Any = None,
    **more: Any,
) -> Report:
    """A server with one model of 8 layers, and 4 compute threads on nodes 0 and 1."""
    total = sum(weights.values()) or 1
    per_layer = {n: size * GIB // total // 8 for n, size in weights.items()}
    kind = kind or ("fix" if causes else "healthy")
    process = ProcessView(
        SERVER, 1, "llama-server", ("llama-server", "-m", MODEL), True, None, None, "default",
        "0-7", "0-1", {}, {},
    )  # fmt: skip
    made = Report(
        verdict=Verdict(kind, f"It is {kind}."),
        findings=tuple(map(finding, causes)),
        machine=MachineView("6.12.9", (node(0), node(1, "4-7")), 0),
        processes=(process,),
        threads=tuple(
            thread(SERVER + n, {0: 5 * SECOND - n, 1: 5 * SECOND}, remote_share=remote)
            for n in range(4)
        ),
        regions=(),
        layers=tuple(LayerView(SERVER, MODEL, n, 9, GIB // 8, per_layer, 0) for n in range(8)),
        tensors=tuple(
            TensorView(SERVER, MODEL, f"blk.{n}.ffn_up.weight", n, "Q8_0", GIB // 8, per_layer, 0)
            for n in range(8)
        ),
        shares=(),
        losses=(),
        provenance=Provenance(3, 1000, 10 * SECOND, "time", (), (), ()),
        access=access(),
        phases=(
            PhaseView("load", SECOND, SECOND, 10, SECOND, share(0.9, 0.8, 0.95), 7 * SECOND),
            PhaseView("decode", 9 * SECOND, 40 * SECOND, 4000, 20 * SECOND, remote, 4 * SECOND),
        ),
        server=server(remote, weights),
    )
    return dataclasses.replace(made, **more)


def imbalanced(**more: Any) -> Report:
    """All weights on node 0, threads on both; its fix is to bind it to node 0."""
    plans = (plan(None, {}, id="interleave:0-1", chosen=False), plan(0.0, {0: GIB}))
    return report(share(0.48, 0.46, 0.5), {0: GIB}, ("C1",), **{"plans": plans, **more})


def bound(**more: Any) -> Report:
    """The same, bound to node 0."""
    times = {0: 40 * SECOND}
    remote = share(0.01, 0.005, 0.02)
    threads = tuple(thread(900 + n, {0: 10 * SECOND}, moves=0) for n in range(2))
    fixed = server(remote, {0: GIB}, compute_ns=times)
    return report(remote, {0: GIB}, **{"threads": threads, "server": fixed, **more})
