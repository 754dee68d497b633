"""What the samples of a trace amount to: which source counts, its cells, and the time lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numatrace.analyze.memory.buffer_layout import REPACKED
from numatrace.analyze.memory.classes import PRIVATE, WEIGHTS
from numatrace.analyze.samples.access import WORKING
from numatrace.analyze.samples.cellview import cell_view
from numatrace.analyze.samples.intervals import LEAST_FOR_VERDICT, LEAST_SAMPLES, Weighed
from numatrace.analyze.samples.ratios import Ratios
from numatrace.model.measured import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numatrace.analyze.load import Loaded
    from numatrace.analyze.memory.regions import Region, Regions
    from numatrace.analyze.rows import Numbers
    from numatrace.analyze.samples.cellview import CellView
    from numatrace.model.measured import Rung

Trio = tuple[int, "Figure | None", int]
"""Time in accesses [ns], their remote share, and the time lost [ns], as report types have them."""
NOT_READ: Trio = (0, None, 0)


@dataclass(slots=True)
class Measure:
    """The cells of the source that the report rests on.

    With the rung `placement` there are too few samples for any share: none is given.
    """

    rung: Rung
    hardware: bool
    cells: CellView
    ratios: Ratios
    pool_effect: float | None
    """Design effect of shares of all of the server's threads; see blocks.py."""
    thread_effect: float | None
    slot_tgids: Numbers
    """Process of every thread slot, by its number."""
    one_node: bool
    """Whether the machine has one node: then nothing can be remote."""
    weights: Numbers
    """Which places hold what counts as weights."""
    unnamed: bool
    """Whether private memory without a name is among them."""
    phase: int | None = None
    """The one phase that all cells are of, by index; None for any."""

    @property
    def working(self) -> Numbers:
        """Which cells are outside of loading; all of them where only one phase was asked for."""
        if self.phase is not None:
            return np.ones(len(self.cells), bool)
        return WORKING[self.cells.phase]

    def share(
        self,
        weighed: Weighed | None,
        *,
        thread: bool = False,
        least: int = LEAST_SAMPLES,
        effect: float | None = None,
    ) -> Figure | None:
        """Return the remote share of a group of samples: of one thread, or of all.

        `effect` is their design effect where it is not that of the recording as a whole.
        """
        if weighed is None or self.rung == "placement":
            return None
        effect = effect or (self.thread_effect if thread else self.pool_effect)
        if self.one_node:
            return None if not weighed.weight else Figure(0.0, "share", self.rung)
        return weighed.share(self.rung, effect or 1.0, least)

    def trio(self, weighed: Weighed | None, *, thread: bool = False) -> Trio:
        """Return what a table says of a group of samples."""
        if weighed is None:
            return NOT_READ
        share = self.share(weighed, thread=thread)
        return weighed.time_ns, share, round(weighed.lost_ns)

    def of_weights(self, tgid: int, phases: tuple[int, ...]) -> Weighed:
        """Return a process's reads of weights in some phases, by index."""
        cells = self.cells
        mine = self.slot_tgids[cells.slot] == tgid
        mine &= self.weights[cells.place] & np.isin(cells.phase, phases)
        return cells.total(mine)

    def for_verdict(self, tgid: int, phases: tuple[int, ...]) -> Figure | None:
        """Return the remote share of a process's reads of weights if a verdict may rest on it."""
        return self.share(self.of_weights(tgid, phases), least=LEAST_FOR_VERDICT)


def measure(loaded: Loaded, regions: Regions, tgid: int | None) -> Measure:
    """Return what was measured; `tgid` is the server's."""
    access, topology = loaded.access, loaded.documents.topology
    sources = {hardware: cell_view(access, hardware=hardware) for hardware in (True, False)}
    enough = {
        hardware: int(cells.samples[cells.known].sum()) >= LEAST_SAMPLES
        for hardware, cells in sources.items()
    }
    hardware = enough[True] or (len(sources[True]) > 0 and not len(sources[False]))
    cells = sources[hardware]
    if hardware:
        _share_out(loaded, cells, sources[False])
    slot_tgids = np.array([key[0] for key in access.slots.keys], np.int64)
    mine = np.flatnonzero(slot_tgids == tgid)
    rung: Rung = "hardware sample" if hardware else "operand sample"
    weights, unnamed = _weights(loaded, regions, tgid, cells)
    result = Measure(
        rung=rung if enough[hardware] else "placement",
        hardware=hardware,
        cells=cells,
        ratios=Ratios(topology, sources[True], loaded.documents.links),
        pool_effect=access.blocks[hardware].of_all(mine),
        thread_effect=access.blocks[hardware].of_threads(mine),
        slot_tgids=slot_tgids,
        one_node=topology is not None and not topology.has_numa,
        weights=weights,
        unnamed=unnamed,
    )
    _lose(result)
    return result


def _weights(
    loaded: Loaded, regions: Regions, tgid: int | None, cells: CellView
) -> tuple[Numbers, bool]:
    """Return which places hold weights, and whether some of them are large private memory.

    That counts as weights where the server reads it for longer than all weights with a name: in
    decoding every weight is read for every token, the KV cache and buffers are far less. Never
    beside a mapped model all of whose weights are of types that llama.cpp reads where they lie.
    """
    places = loaded.locator.places
    mine = np.array([place.tgid == tgid for place in places], bool)
    named = np.array([place.cls in WEIGHTS for place in places], bool)
    private = mine & np.array([place.cls == PRIVATE for place in places], bool)
    alone = np.array([regions.by_place[number].alone for number in range(len(places))], bool)

    def read_ns(chosen: Numbers) -> float:
        return float(cells.time_ns[WORKING[cells.phase] & chosen[cells.place]].sum())

    large = private & alone
    if not large.any() and not (named & mine).any():
        large = private
    unnamed = read_ns(large) > read_ns(named & mine) and _may_be_copied(loaded, regions.of(tgid))
    return (named | large if unnamed else named), unnamed


def _may_be_copied(loaded: Loaded, mine: Sequence[Region]) -> bool:
    """Whether the process may hold weights that are not in a file that it maps and has in memory.

    Asked of its regions, not of what samples hit: none may have hit the file.
    """
    weights = [region for region in mine if region.key.cls == "weights"]
    mapped = {
        region.key.path
        for region in weights
        if any(size for piece in region.pieces for size in piece.node_bytes.values())
    }
    types = {each.type for each in loaded.documents.tensors.values() if each.path in mapped}
    return not types or not types.isdisjoint(REPACKED)


def _share_out(loaded: Loaded, hardware: CellView, operand: CellView) -> None:
    """Give hardware samples time: each thread's, by how long its samples waited.

    A thread's time is that of its operand samples' accesses, or else its time on CPU, which is
    more than it waited.
    """
    slots = loaded.access.slots.keys
    waited = np.where(hardware.cycles > 0, hardware.cycles, hardware.weight)
    total = np.bincount(hardware.slot, waited, len(slots))
    reading = np.bincount(operand.slot, operand.time_ns, len(slots))
    oncpu = [
        loaded.residency.threads[key].total_ns if key in loaded.residency.threads else 0
        for key in slots
    ]
    has = np.where(reading > 0, reading, np.array(oncpu, np.float64))
    per_cycle = np.divide(has, total, out=np.zeros(len(slots)), where=total > 0)
    hardware.time_ns = waited * per_cycle[hardware.slot]


def _lose(measure: Measure) -> None:
    """Work out the time lost in every cell: its time x (1 - 1/λ) where it is remote.

    A remote access takes λ times a local one, so 1 - 1/λ of its time would not be spent locally.
    """
    cells = measure.cells
    remote = np.flatnonzero(cells.known & cells.remote)
    pairs, which = np.unique(
        np.stack([cells.cpu[remote], cells.mem[remote]], axis=1), axis=0, return_inverse=True
    )
    ratios = [measure.ratios.of(cpu, mem).ratio for cpu, mem in pairs.tolist()]
    part = 1.0 - 1.0 / np.array(ratios, np.float64)
    cells.lost_ns[remote] = cells.time_ns[remote] * part[which.reshape(-1)]
