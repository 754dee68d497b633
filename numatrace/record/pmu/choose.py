"""Which source memory accesses come from on this machine, and why not from a better one.

From the most exact to the least: the CPU's own samples through perf (hardware), operand samples
(operand), and placement times CPU time (residency), for which nothing but the other families of
rows is needed.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from numatrace.model.text import printable
from numatrace.record.machine.files import read_integer, read_names
from numatrace.record.machine.sysfs import ROOT
from numatrace.record.pmu import process
from numatrace.record.pmu.cpu import identify
from numatrace.record.pmu.evlist import common_sample_type
from numatrace.record.pmu.evlist import parse as parse_evlist
from numatrace.record.pmu.perf_script import fields_for
from numatrace.record.pmu.plan import CountPlan, SamplePlan, record_arguments
from numatrace.record.pmu.tables import Count, Counts, Option, Row, Sampling, load, select

if TYPE_CHECKING:
    from collections.abc import Iterator

Rung = Literal["hardware", "operand", "residency"]
RUNGS: Final = {
    "hardware": "memory accesses sampled by the CPU",
    "operand": "memory accesses found in the registers of threads at ticks of the CPUs' clocks",
    "residency": "where pages lie, times where threads run; no access was sampled",
}

DEVICES = "sys/bus/event_source/devices"
MAX_RATE = "proc/sys/kernel/perf_event_max_sample_rate"
PROBE_S = 5.0
"""Time for one try of an event, which takes 0.1 s as a rule."""
PROBES_S = 15.0
"""Time for all tries."""
REFUSALS = 2
"""Refusals that are quoted."""
LDLAT = 30
"""Least latency of a sampled load, in cycles: perf mem's own default. DRAM takes 200 and more."""
HZ = 199
"""Samples per second and thread: no multiple of a tick, so that nothing beats with it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. `why`: for each better rung, in words, why it is not taken.

    `row` names the CPU's line in the tables, "" without one. `perf` is the path of the program,
    `version` what it calls itself. `count` is independent of the rung.
    """

    rung: Rung
    why: tuple[str, ...]
    cpu: str
    row: str = ""
    perf: str = ""
    version: str = ""
    sample: SamplePlan | None = None
    count: CountPlan | None = None
    count_why: tuple[str, ...] = ()
    """Why counters were left out."""

    @property
    def sentence(self) -> str:
        """The rung and the reasons, for the trace and the report."""
        reasons = "; ".join(self.why)
        return f"{RUNGS[self.rung]} ({reasons})" if reasons else RUNGS[self.rung]


@dataclass(slots=True)
class Chooser:
    """Looks at one machine. `perf` None: whichever is on the PATH; "": none."""

    root: Path = ROOT
    perf: str | None = None
    hz: int = HZ
    ldlat: int = LDLAT
    seconds: float = PROBES_S
    version: str = ""
    _until: float = 0.0

    def choose(self, operand_reason: str = "", wanted: Rung = "hardware") -> Choice:
        """Choose the best rung not above `wanted`.

        `operand_reason`: why operand samples cannot be had, "" where they can.
        """
        self._until = process.deadline(self.seconds)
        cpu = identify(self.root)
        row = select(cpu, load())
        found = self._perf(str(cpu), row)
        sample, why = None, "samples of the CPU were not asked for"
        count: CountPlan | None = None
        count_why: tuple[str, ...] = (found,)
        if wanted == "hardware":
            sample, why = (None, found) if found else self._sample(row)
        if row is not None and not found:
            count, count_why = self._count(row, sampling=sample is not None)
        rung, reasons = _rung(sample is not None, why, operand_reason, wanted)
        return Choice(
            rung=rung,
            why=reasons,
            cpu=str(cpu),
            row=row.name if row else "",
            perf=self.perf or "",
            version=self.version,
            sample=sample,
            count=count,
            count_why=count_why,
        )

    def _perf(self, cpu: str, row: Row | None) -> str:
        """Find perf and see that it runs. Returns why not, or "". What is cheap comes first."""
        if row is None:
            return f"no table for this CPU: {cpu}"
        if not self._has_pmu(row):
            return self._no_pmu(row)
        if self.perf is None:
            self.perf = process.find_perf() or ""
        if not self.perf:
            return "perf is not installed"
        ran = process.run([self.perf, "--version"], PROBE_S)
        self.version = printable(ran.output.decode("utf-8", "replace").strip(), 80)
        return f"perf does not run here: {ran.complaint}" if ran.status != 0 else ""

    def _has_pmu(self, row: Row) -> bool:
        wanted = {row.sampling.pmu} if row.sampling else set()
        wanted |= {"cpu"} if row.counts and not row.parts else set()
        return any((self.root / DEVICES / name).is_dir() for name in wanted) or bool(
            row.parts and row.counts and self._arm_pmu()
        )

    def _no_pmu(self, row: Row) -> str:
        pmu = row.sampling.pmu if row.sampling else "cpu"
        return f"no PMU: /{DEVICES} has no {pmu}"

    def _arm_pmu(self) -> str:
        """Name of the CPUs' own PMU; Arm has one for each kind of core."""
        names = sorted(read_names(self.root / DEVICES))
        return next((name for name in names if name.startswith(("armv8_", "armv9_"))), "")

    # --- samples

    def _sample(self, row: Row | None) -> tuple[SamplePlan | None, str]:
        """Find the first way to sample that perf accepts, or say why there is none."""
        sampling = row.sampling if row else None
        if sampling is None:
            return None, f"{row.name if row else 'this CPU'} has no memory samples in the tables"
        folder = self.root / DEVICES / sampling.pmu
        if not folder.is_dir():
            return None, f"no PMU: /{DEVICES} has no {sampling.pmu}"
        options = [
            option
            for option in sampling.choices
            if all((folder / need).exists() for need in option.needs)
        ]
        if not options:
            missing = [need for need in sampling.choices[-1].needs if not (folder / need).exists()]
            return None, f"no PMU: /{DEVICES}/{sampling.pmu} has no {' and no '.join(missing)}"
        refusals = []
        for plan in self._plans(sampling, options):
            tried, complaint = self._try(plan)
            if tried is not None:
                return tried, ""
            refusals.append(complaint)
            if time.monotonic() > self._until:
                break
        told = "; ".join(list(dict.fromkeys(refusals))[:REFUSALS])
        events = self._filled(" with ".join(options[0].events))
        return None, f"perf refused {events}: {told}"

    def _plans(self, sampling: Sampling, options: list[Option]) -> Iterator[SamplePlan]:
        limit = read_integer(self.root / MAX_RATE) or self.hz
        for option in options:
            plan = SamplePlan(
                samples=sampling.samples,
                events=tuple(self._filled(event) for event in option.events),
                population=self._filled(sampling.population),
                hz=0 if sampling.period else min(self.hz, limit),
                period=sampling.period,
            )
            yield plan
            yield replace(plan, system_wide=True)

    def _filled(self, text: str) -> str:
        return text.replace("{ldlat}", str(self.ldlat))

    def _try(self, plan: SamplePlan) -> tuple[SamplePlan | None, str]:
        """Record a short program; returns the plan with what its samples hold, or the refusal."""
        with tempfile.TemporaryDirectory(prefix="numatrace-") as folder:
            data = str(Path(folder) / "perf.data")
            ran = self._record(plan, data)
            if ran.status != 0 and plan.modern and b"unknown option" in ran.errors:
                plan = replace(plan, modern=False)
                ran = self._record(plan, data)
            if ran.status != 0:
                return None, ran.complaint
            told = process.run([self.perf or "", "evlist", "-v", "-i", data], self._left())
        fields = fields_for(common_sample_type(parse_evlist(told.output)))
        if fields is None or "data_src" not in fields:
            return None, "its samples have no data source"
        return replace(plan, fields=fields), ""

    def _record(self, plan: SamplePlan, data: str) -> process.Ran:
        control = os.pipe()
        try:
            given = [f"--control=fd:{control[0]}"] if plan.modern else []
            wide = ["-a"] if plan.system_wide else []
            command = [self.perf or "", *record_arguments(plan, data), *given, *wide, "--", "true"]
            return process.run(command, self._left(), control[:1])
        finally:
            os.close(control[0])
            os.close(control[1])

    def _left(self) -> float:
        return max(0.1, min(PROBE_S, self._until - time.monotonic()))

    # --- counters

    def _count(self, row: Row, *, sampling: bool) -> tuple[CountPlan | None, tuple[str, ...]]:
        """Take the sets of counters that fit beside the samples and that perf accepts."""
        # IBS and SPE have hardware of their own; load latency takes one general counter.
        free = row.counters - (sampling and row.sampling is not None and row.sampling.pmu == "cpu")
        taken: list[Counts] = []
        why = []
        for counts in row.counts:
            counts = self._resolved(counts)
            if len(counts.events) > free:
                why.append(f"{counts.name}: no counter is left for it")
                continue
            refusal = self._refused(counts.events)
            if refusal:
                why.append(f"{counts.name}: {refusal}")
                continue
            taken.append(counts)
            free -= len(counts.events)
        return (CountPlan(tuple(taken)) if taken else None), tuple(why)

    def _resolved(self, counts: Counts) -> Counts:
        pmu = self._arm_pmu()
        events = tuple(
            replace(each, event=each.event.replace("{pmu}", pmu)) for each in counts.events
        )
        return replace(counts, events=events)

    def _refused(self, events: tuple[Count, ...]) -> str:
        """Try each event alone: perf refuses a whole list for one that it does not know."""
        for count in events:
            if time.monotonic() > self._until:
                return "the time to try events was up"
            command = [self.perf or "", "stat", "-x;", "-e", count.argument, "--", "true"]
            ran = process.run(command, self._left())
            if ran.status != 0:
                return f"perf refused {count.event}: {ran.complaint}"
            if b"<not supported>" in ran.errors:
                return f"{count.event} is not supported here"
        return ""


def choose_source(
    operand_reason: str = "", wanted: Rung = "hardware", hz: int = HZ, root: Path = ROOT
) -> Choice:
    """Choose the source of memory accesses on this machine; takes at most PROBES_S."""
    return Chooser(root, hz=hz).choose(operand_reason, wanted)


def _rung(sampled: bool, hardware: str, operand: str, wanted: Rung) -> tuple[Rung, tuple[str, ...]]:
    if sampled:
        return "hardware", ()
    if wanted != "residency" and not operand:
        return "operand", (hardware,)
    return "residency", (hardware, operand or "operand samples were not asked for")
