"""Every thread's role, from its CPU time, its samples and its faults."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.samples.access import ELSEWHERE
from numatrace.analyze.samples.columns import KERNEL_REASONS, REASONS, TIME_NS
from numatrace.analyze.threads.roles import RoleEvidence, role

if TYPE_CHECKING:
    from numatrace.analyze.load import Loaded
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.measure import Measure
    from numatrace.analyze.threads.residency import ThreadKey
    from numatrace.model.views import Role

Times = dict["ThreadKey", Counter[str]]


def roles(loaded: Loaded, measured: Measure) -> dict[ThreadKey, Role]:
    """Return the role of every thread and worker slot."""
    threads = loaded.residency.threads
    busiest: Counter[int] = Counter()
    for each in threads.values():
        busiest[each.tgid] = max(busiest[each.tgid], each.total_ns)
    every = np.ones(len(measured.cells), bool)
    read = _reads(loaded, measured, every)
    weights = _reads(loaded, measured, measured.weights[measured.cells.place])
    kernel = _kernel(loaded)
    nothing: Counter[str] = Counter()
    return {
        key: role(
            RoleEvidence(
                oncpu_ns=each.total_ns,
                busiest_ns=busiest[each.tgid],
                phase_ns=each.phase_ns,
                weight_read_ns=weights.get(key, nothing),
                read_ns=read.get(key, nothing),
                kernel_ns=kernel.get(key, nothing),
                faults=max(each.faults, each.sampled_faults),
            )
        )
        for key, each in threads.items()
    }


def _reads(loaded: Loaded, measured: Measure, chosen: Numbers) -> Times:
    """Return the time of the chosen cells by thread and phase."""
    cells, names = measured.cells, loaded.phases.names
    sums = cells.sums(cells.slot * len(names) + cells.phase, chosen)
    found: Times = defaultdict(Counter)
    for key, each in sums.items():
        slot, phase = divmod(key, len(names))
        found[loaded.access.slots.keys[slot]][names[phase]] += each.time_ns
    return found


def _kernel(loaded: Loaded) -> Times:
    """Return the sampled time in the kernel by thread and kind."""
    cells = loaded.access.elsewhere
    slots = ELSEWHERE.field(cells.keys, "slot").tolist()
    reasons = ELSEWHERE.field(cells.keys, "reason").tolist()
    found: Times = defaultdict(Counter)
    for slot, reason, time_ns in zip(
        slots, reasons, cells.integers[:, TIME_NS].tolist(), strict=True
    ):
        if REASONS[reason] in KERNEL_REASONS:
            found[loaded.access.slots.keys[slot]][REASONS[reason]] += time_ns
    return found
