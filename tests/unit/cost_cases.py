"""Effects of placement that others measured and published: what the cost model is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.plans.cost import (
    LATENCY,
    LINK,
    OVERSUBSCRIBED,
    Machine,
    Range,
    State,
    speedup,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_CORES = 16
"""Cores per node where it does not matter how many exactly."""
MARKED = 1.2
"""A gain or loss by more than this factor must not be predicted the other way."""
SKYLAKE_LINK = Range(2.4, 2.9)
"""Around 90.9 against 34.4 GB/s, as Intel's MLC measured (cncf/cnf-testbed issue 129)."""
EPYC_LINK = Range(1.0, 1.5)
"""Sockets with four links: 512 GB/s of link for 460.8 GB/s of memory (Lenovo LP1852)."""


@dataclass(frozen=True, slots=True)
class Case:
    """A published measurement: tokens per second after against before, and what the model says.

    `told` is whether the source says where the weights lay; otherwise it is the usual state of
    the setting that it names. `predicted` is None where the model has nothing to say.
    """

    source: str
    what: str
    reported: float
    predicted: Range | None
    told: bool = True

    @property
    def inside(self) -> bool:
        """Whether the reported figure is within the predicted range."""
        return self.predicted is not None and self.predicted.low <= self.reported <= (
            self.predicted.high
        )

    @property
    def wrong_way(self) -> bool:
        """Whether a marked gain is predicted to be a loss, or the reverse; by the middle."""
        if self.predicted is None or 1 / MARKED <= self.reported <= MARKED:
            return False
        return (self.reported > 1) != (self.predicted.middle > 1)


def machine(nodes: int = 2, link: Range = LINK, latency: Range = LATENCY) -> Machine:
    """Return a machine of equal nodes that are equally far from one another."""
    ones, near = np.ones(nodes), np.eye(nodes)
    delays = [near + (1 - near) * each for each in latency]
    links = [near + (1 - near) * each for each in link]
    return Machine(
        tuple(range(nodes)),
        ones * NODE_CORES,
        (ones, ones),
        (delays[0], delays[1]),
        (links[0], links[1]),
    )


def _even(nodes: int) -> dict[int, float]:
    return dict.fromkeys(range(nodes), 1 / nodes)


def one_node(nodes: int = 2) -> State:
    """Return threads on all nodes, and all weights on the first."""
    return State(_even(nodes), {0: 1.0}, nodes * NODE_CORES)


def spread(nodes: int = 2) -> State:
    """Return threads and weights spread evenly, every thread reading from everywhere."""
    return State(_even(nodes), _even(nodes), nodes * NODE_CORES)


def near(nodes: int = 2, instances: int = 1) -> State:
    """Return threads that read their own node only, on all nodes."""
    return State(_even(nodes), _even(nodes), nodes * NODE_CORES, 1.0, instances)


def bound() -> State:
    """Return threads and weights on the first node."""
    return State({0: 1.0}, {0: 1.0}, NODE_CORES)


def _placed(before: State, after: State, nodes: int = 2, link: Range = LINK) -> Range:
    return speedup(machine(nodes, link), before, after)


def cases() -> Iterator[Case]:
    """Return all published measurements that were found, also those that the model cannot say."""
    to_near, even_to_near = _placed(one_node(), near()), _placed(spread(), near())
    even = _placed(one_node(), spread())
    yield Case(
        "llama.cpp PR 1556: 2 Xeon E5-2690, 7B",
        "weights of one node → first touch by pinned threads",
        174.84 / 99.25,
        to_near,
    )
    yield Case(
        "llama.cpp PR 1556: 2 Xeon E5-2698B, 65B",
        "one node → its weights, and threads on both",
        1114 / 1296,
        _placed(bound(), one_node()),
    )
    yield Case(
        "llama.cpp PR 5377: 2 Xeon E5-2698B, 13B",
        "interleaved → an instance per node, together",
        1.65,
        _placed(spread(), near(instances=2)),
    )
    yield Case(
        "llama.cpp PR 5377: 2 Xeon E5-2698B, 13B",
        "interleaved → one instance, bound",
        5.93 / 7.12,
        _placed(spread(), bound()),
    )
    yield Case(
        "llama.cpp 11744: 2 EPYC 9175F, 70B F16",
        "cache of one node → first touch, `--numa distribute`",
        4.31 / 2.4,
        _placed(one_node(), near(), link=EPYC_LINK),
        told=False,
    )
    yield Case(
        "llama.cpp 13850: Threadripper 1950X",
        "cache of one node → dropped, `--numa distribute` (“almost × 2”)",
        1.9,
        to_near,
        told=False,
    )
    for model, reported in (("8B", 26.92 / 19.39), ("32B", 7.38 / 4.99)):
        yield Case(
            f"llama.cpp PR 18698: 2 Xeon 4514Y, {model} Q4_K",
            "repacked by one thread → by the threads that read it",
            reported,
            to_near,
        )
    yield Case(
        "llama.cpp PR 16000: 2 Xeon 6238R, 32B Q6_K",
        "one copy, interleaved → a copy per node",
        2.80 / 1.91,
        _placed(spread(), near(), link=SKYLAKE_LINK),
        told=False,
    )
    yield Case(
        "llama.cpp PR 14969: 2 Xeon 4216",
        "one copy, interleaved → a copy per node",
        1.0,
        _placed(spread(), near(), link=SKYLAKE_LINK),
        told=False,
    )
    for model, reported in (("31B Q4_0", 7.89 / 4.93), ("mixture of experts", 18.14 / 10.29)):
        yield Case(
            f"llama.cpp PR 27986: 2 sockets, {model}",
            "interleaved → a copy per node",
            reported,
            even_to_near,
        )
    yield Case(
        "llama.cpp PR 27986: 2 sockets, 31B Q4_0",
        "`--numa distribute`, warmed up → a copy per node",
        7.6 / 7.55,
        _placed(near(), near()),
    )
    yield Case(
        "llama.cpp PR 27986: 2 sockets, 31B Q4_0",
        "`--numa distribute`, cache of one node → interleaved",
        4.93 / 3.70,
        even,
        told=False,
    )
    yield Case(
        "llama.cpp PR 27986: 2 sockets, mixture of experts",
        "`--numa distribute`, cache of one node → interleaved",
        10.29 / 11.55,
        even,
        told=False,
    )
    yield Case(
        "llamafile 765: 2 Xeon 5218",
        "no setting → bound to one node",
        2.0,
        _placed(one_node(), bound(), link=SKYLAKE_LINK),
        told=False,
    )
    yield Case(
        "ik_llama.cpp 396: 2 Xeon 8480+ and a GPU",
        "`--numa distribute`, cache of one node → bound to it",
        40 / 27,
        _placed(one_node(), bound()),
        told=False,
    )
    yield Case(
        "ik_llama.cpp 396: 2 Xeon 8480+ and a GPU",
        "`--numa isolate`: twice as many threads as cores → bound",
        4.0,
        OVERSUBSCRIBED,
        told=False,
    )
    yield Case(
        "ktransformers 769: 2 Xeon 4310",
        "one copy, interleaved → a copy per node",
        7.4 / 5.2,
        even_to_near,
        told=False,
    )
    yield Case(
        "llama.cpp 11765: 2 EPYC, 671B",
        "cache of one node → firmware interleaves (NPS0)",
        1.5,
        _placed(one_node(), spread(), link=EPYC_LINK),
        told=False,
    )
    yield Case(
        "ik_llama.cpp PR 2396: EPYC and a GPU",
        "`--numa distribute` → a copy per node",
        35.0 / 32.1,
        _placed(spread(), near(), link=EPYC_LINK),
        told=False,
    )
    yield Case(
        "ik_llama.cpp PR 2396: EPYC and a GPU",
        "firmware interleaves (NPS0) → a copy per node",
        35.0 / 35.2,
        _placed(spread(), near(), link=EPYC_LINK),
    )
    yield Case(
        "ik_llama.cpp PR 2396: 2 Broadwell",
        "one copy, interleaved → a copy per node",
        1.151,
        even_to_near,
        told=False,
    )
    for issue, reported in ((82, 1.07), (313, 8.66 / 7.66), (384, 1.188)):
        yield Case(
            f"colibri {issue}: 2 Xeon 4510",
            "first touch by one thread → interleaved",
            reported,
            even,
            told=False,
        )
    yield Case(
        "colibri: 4 sockets",
        "first touch by one thread → interleaved",
        1.4,
        _placed(one_node(4), spread(4), 4),
        told=False,
    )
    yield Case(
        "colibri 313: 4 sockets and 2 A100",
        "all memory interleaved, the GPUs' buffers too",
        0.22 / 2.32,
        None,
    )
    yield Case(
        "llama.cpp PR 14232: Neoverse N2",
        "cache of one node → pages moved to the threads",
        1.55,
        to_near,
        told=False,
    )
    yield Case(
        "llama.cpp PR 16882: 24 to 96 threads",
        "rows cut up differently, placement as it was",
        1.016,
        _placed(spread(), spread()),
    )
    yield Case(
        "ollama 17916: EPYC 7543P",
        "8 threads on 4 CPUs → 4 threads",
        12.07 / 0.27,
        OVERSUBSCRIBED,
    )
    yield Case(
        "gamozolabs: 4 Xeon 6252N and a GPU",
        "six changes of code, placement among them",
        25.07 / 3.26,
        _placed(one_node(4), near(4), 4),
        told=False,
    )
    yield Case(
        "ik_llama.cpp PR 278: 1 node",
        "huge pages, placement as it was",
        1.12,
        speedup(machine(1), near(1), near(1)),
    )
    yield Case("ollama 8074: Windows, 4 sockets", "36 → 37 threads", 0.03 / 87.35, None)
