"""Roles of threads, told by what they did: no name is given to the code under test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.analyze.threads.roles import RoleEvidence, role
from numatrace.model.access import HOW

MS, SECOND = 1_000_000, 1_000_000_000
NOTHING: dict[str, int] = {}

WORKER = RoleEvidence(
    oncpu_ns=10 * SECOND, busiest_ns=10 * SECOND,
    phase_ns={"prompt": 3 * SECOND, "decode": 7 * SECOND},
    weight_read_ns={"prompt": SECOND, "decode": 4 * SECOND},
    read_ns={"prompt": 2 * SECOND, "decode": 6 * SECOND},
    kernel_ns={"kernel interrupt": 30 * MS}, faults=400,
)  # fmt: skip
LOADER = RoleEvidence(
    oncpu_ns=8 * SECOND, busiest_ns=10 * SECOND, phase_ns={"load": 8 * SECOND},
    weight_read_ns={"load": SECOND}, read_ns={"load": 3 * SECOND},
    kernel_ns={"kernel fault": 2 * SECOND, "kernel copy": 3 * SECOND}, faults=1_000_000,
)  # fmt: skip
TALKER = RoleEvidence(
    oncpu_ns=40 * MS, busiest_ns=10 * SECOND, phase_ns={"decode": 30 * MS, "idle": 10 * MS},
    weight_read_ns=NOTHING, read_ns={"decode": 8 * MS},
    kernel_ns={"kernel wait": 14 * MS, "kernel copy": 10 * MS}, faults=30,
)  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(WORKER, "compute", id="a worker"),
        pytest.param(LOADER, "loader", id="a thread that filled memory and went"),
        pytest.param(TALKER, "http", id="a thread that reads and writes sockets"),
        pytest.param(
            replace(WORKER, phase_ns={**WORKER.phase_ns, "load": 60 * SECOND},
                    oncpu_ns=70 * SECOND, busiest_ns=70 * SECOND, faults=1_000_000),
            "compute", id="the thread that loads and then computes",
        ),
        pytest.param(
            replace(WORKER, busiest_ns=200 * SECOND),
            "compute", id="a worker beside one that loaded for long: it reads weights",
        ),
        pytest.param(
            replace(WORKER, weight_read_ns=NOTHING, read_ns=NOTHING, kernel_ns=NOTHING),
            "compute", id="a worker without samples",
        ),
        pytest.param(
            replace(WORKER, weight_read_ns=NOTHING, busiest_ns=200 * SECOND,
                    busiest_work_ns=10 * SECOND),
            "compute", id="no samples, a long load, but the busiest at work is known",
        ),
        pytest.param(
            replace(LOADER, kernel_ns=NOTHING), "loader", id="a loader by its faults alone"
        ),
        pytest.param(
            replace(LOADER, kernel_ns=NOTHING, faults=3), "other", id="filled nothing"
        ),
        pytest.param(
            replace(LOADER, oncpu_ns=4 * MS, phase_ns={"load": 4 * MS}, kernel_ns=NOTHING,
                    faults=300),
            "other", id="too little to have loaded anything",
        ),
        pytest.param(
            replace(TALKER, kernel_ns={"kernel wait": MS}), "other", id="one wake-up is no talk"
        ),
        pytest.param(
            replace(TALKER, kernel_ns=NOTHING), "other", id="little time, and none in the kernel"
        ),
        pytest.param(
            RoleEvidence(0, 0, NOTHING, NOTHING, NOTHING, NOTHING, 0), "other", id="nothing at all"
        ),
        pytest.param(
            RoleEvidence(0, 10 * SECOND, NOTHING, NOTHING, NOTHING, NOTHING, 0), "other",
            id="never on a CPU",
        ),
    ],
)  # fmt: skip
def test_a_role_is_what_a_thread_did(evidence: RoleEvidence, expected: str) -> None:
    assert role(evidence) == expected


times = st.integers(0, 1 << 62)
phases = st.dictionaries(st.sampled_from(["load", "prompt", "decode", "compute", "idle"]), times)


@given(times, times, phases, phases, phases, st.dictionaries(st.sampled_from(list(HOW)), times),
       times, st.none() | times)  # fmt: skip
def test_any_evidence_has_a_role(
    oncpu_ns: int, busiest_ns: int, phase_ns: dict[str, int], weights: dict[str, int],
    reads: dict[str, int], kernel_ns: dict[str, int], faults: int, work_ns: int | None,
) -> None:  # fmt: skip
    evidence = RoleEvidence(
        oncpu_ns, busiest_ns, phase_ns, weights, reads, kernel_ns, faults, work_ns
    )
    found = role(evidence)
    assert found in ("compute", "loader", "http", "other")
    if not any(phase_ns.get(name) for name in ("prompt", "decode", "compute")):
        assert found != "compute", "who never worked on a request computed nothing"
