"""A server that does what it is told when: the rows that a recording of it would hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from numatrace.analyze.phases.phases import Survey
from numatrace.analyze.rows import split
from numatrace.model.access import KERNEL, OPERAND, WRITE
from numatrace.model.events import COLUMNS, EVENT
from numatrace.trace.schema import ARROW_TYPES, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numatrace.analyze.phases.phases import Phases

MS, SECOND = 1_000_000, 1_000_000_000
MIB, GIB = 1 << 20, 1 << 30
PID = 100
BEGAN = 50 * SECOND
WEIGHTS_AT, SCRATCH_AT, STACK_AT = 0x7000_0000_0000, 0x6000_0000_0000, 0x5000_0000_0000
BARRIER_AT = 0x4000_0000_0000
INODE, LIBRARY_INODE = 7, 8
LIBRARY_AT = 0x3000_0000_0000
MODEL = "/models/m.gguf"
CODE = {"gemm": 0x10_000, "gemv": 0x20_000, "attention": 0x30_000, "wait": 0x40_000,
        "load": 0x50_000, "request": 0x60_000, "copy": 0x70_000}  # fmt: skip

Plan = list[tuple[str, float]]
"""What the server does one after the other, and for how many seconds."""


@dataclass
class Server:
    """How it computes. Fields are what the tests vary."""

    threads: int = 8
    period_ns: int = 5 * MS
    """Between two ticks of the clocks, which all tick at once."""
    prompt_pass_s: float = 2.0
    token_pass_s: float = 0.0517
    weight_bytes: int = 4 * GIB
    layers: int = 32
    is_mapped: bool = True
    """Whether the weights are a mapped file, rather than private memory without a name."""
    same_code: bool = False
    """Whether prompts and tokens are computed by the same code."""
    prompt_reads: float = 0.4
    """Share of a prompt's samples in weights."""
    token_reads: float = 0.6
    is_born: bool = True
    """Whether the recording began before the server."""
    seed: int = 0

    def batches(self, plan: Plan) -> list[pa.RecordBatch]:
        """The rows of a recording of all this, in batches of a second."""
        rows = self._samples(plan)
        found = [batch("map", self._maps()), batch("tensor", [self._tensor()])]
        if self.is_born:
            found.append(batch("exec", [{"t_ns": BEGAN, "tgid": PID, "tid": PID}]))
        seconds = rows["t_ns"] // SECOND
        for second in np.unique(seconds):
            mine = seconds == second
            found.append(columns("access", {name: each[mine] for name, each in rows.items()}))
        return found

    def _maps(self) -> list[dict[str, object]]:
        library = (LIBRARY_AT, 16 * MIB, LIBRARY_INODE, "/lib/server.so", "r-xp")
        model = (WEIGHTS_AT, self.weight_bytes, INODE, MODEL, "r--s")
        private = (SCRATCH_AT, GIB, 0, "", "rw-p")
        return [
            {"t_ns": BEGAN, "tgid": PID, "addr": addr, "bytes": size, "offset": 0, "inode": inode,
             "path": path, "detail": perms}
            for addr, size, inode, path, perms in (library, private, *[model][: self.is_mapped])
        ]  # fmt: skip

    def _tensor(self) -> dict[str, object]:
        return {"t_ns": BEGAN, "path": MODEL, "inode": INODE, "name": "blk.0.ffn_up.weight",
                "offset": 0, "bytes": self.weight_bytes, "detail": "Q4_K",
                "value": "[1]"}  # fmt: skip

    def _samples(self, plan: Plan) -> dict[str, np.ndarray]:
        random = np.random.default_rng(self.seed)
        parts, now = [], BEGAN
        for what, seconds in plan:
            end = now + round(seconds * SECOND)
            first = -(-now // self.period_ns) * self.period_ns
            ticks = np.arange(first, end, self.period_ns, dtype=np.int64)
            if what != "idle" and len(ticks):
                parts.append(getattr(self, f"_{what}")(ticks, ticks - now, random))
            now = end
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        count = len(found["t_ns"])
        found["t_ns"] = found["t_ns"] + random.integers(0, self.period_ns // 50, count)
        order = np.argsort(found["t_ns"], kind="stable")
        return {name: values[order] for name, values in found.items()}

    def _load(self, ticks: np.ndarray, since: np.ndarray, random: np.random.Generator) -> dict:
        """One thread reads a file into memory: faults and copies, and some code of its own."""
        what = random.choice(
            ["kernel fault", "kernel copy", "operand"], len(ticks), p=[0.3, 0.3, 0.4]
        )
        kernel = what != "operand"
        addr = np.where(kernel, 0, WEIGHTS_AT + random.integers(0, self.weight_bytes, len(ticks)))
        access = np.where(kernel, KERNEL, WRITE)
        return self._rows(ticks, np.full(len(ticks), PID), code("load", random, len(ticks)), addr,
                          access, what)  # fmt: skip

    def _request(self, ticks: np.ndarray, since: np.ndarray, random: np.random.Generator) -> dict:
        """One thread takes a request apart."""
        addr = STACK_AT + random.integers(0, MIB, len(ticks))
        zero = np.zeros(len(ticks), np.int64)
        return self._rows(ticks, np.full(len(ticks), PID), code("request", random, len(ticks)),
                          addr, zero, np.full(len(ticks), "operand"))  # fmt: skip

    def _prompt(self, ticks: np.ndarray, since: np.ndarray, random: np.random.Generator) -> dict:
        return self._compute(ticks, since, random, self.prompt_pass_s, "gemm", self.prompt_reads)

    def _decode(self, ticks: np.ndarray, since: np.ndarray, random: np.random.Generator) -> dict:
        name = "gemm" if self.same_code else "gemv"
        return self._compute(ticks, since, random, self.token_pass_s, name, self.token_reads)

    def _long(self, ticks: np.ndarray, since: np.ndarray, random: np.random.Generator) -> dict:
        """Decoding into a context that grows: attention takes more and more of each token."""
        parts = []
        for number, part in enumerate(np.array_split(np.arange(len(ticks)), 8)):
            slower = 1 + number / 4
            args = self.token_pass_s * slower, "gemv", self.token_reads / slower
            parts.append(self._compute(ticks[part], since[part], random, *args))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _compute(
        self, ticks: np.ndarray, since: np.ndarray, random: np.random.Generator,
        pass_s: float, name: str, reads: float,
    ) -> dict:  # fmt: skip
        """All threads at the same place of the weights; other memory, and waiting, besides."""
        tick = np.repeat(ticks, self.threads)
        count = len(tick)
        passed = np.repeat(since / (pass_s * SECOND), self.threads) % 1.0
        tensors = 7 * self.layers
        spot = (np.floor(passed * tensors) + random.random(count)) / tensors
        weights = WEIGHTS_AT + (spot * self.weight_bytes).astype(np.int64)
        # A prompt's activations are large; a token's fit in a few pages.
        scratch = 64 * MIB if pass_s == self.prompt_pass_s else 64 << 10
        other = SCRATCH_AT + random.integers(0, scratch, count)
        what = random.choice(3, count, p=[reads, 0.9 * (1 - reads), 0.1 * (1 - reads)])
        addr = np.choose(what, [weights, other, np.full(count, BARRIER_AT)])
        access = np.where((what == 1) & (random.random(count) < 0.3), WRITE, 0)
        names = (name, "attention", "wait")
        codes = np.choose(what, [code(each, random, count) for each in names])
        tid = PID + np.tile(np.arange(self.threads), len(ticks))
        return self._rows(tick, tid, codes, addr, access, np.full(count, "operand"))

    def _rows(
        self, t_ns: np.ndarray, tid: np.ndarray, ip: np.ndarray, addr: np.ndarray,
        access: np.ndarray, detail: np.ndarray,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        return {"t_ns": t_ns, "tid": tid, "ip": ip, "addr": addr, "access": access,
                "detail": detail.astype(object),
                "time_ns": np.full(len(t_ns), self.period_ns)}  # fmt: skip


def code(name: str, random: np.random.Generator, count: int) -> np.ndarray:
    """Instructions of a function: some more often than others."""
    spots = np.minimum(random.geometric(0.15, count), 40)
    return LIBRARY_AT + CODE[name] + 16 * spots.astype(np.int64)


def columns(kind: str, values: dict[str, np.ndarray], tgid: int = PID) -> pa.RecordBatch:
    """Access rows as a batch."""
    count = len(values["t_ns"])
    given: dict[str, object] = {
        **values, "tgid": np.full(count, tgid),
        "cpu": values["tid"] % 64, "node": values["tid"] % 2,
        "name": np.full(count, OPERAND, object),
        "addr": pa.array(values["addr"], pa.uint64(), mask=values["addr"] == 0),
    }  # fmt: skip
    return _batch(kind, given, count)


def batch(kind: str, rows: Iterable[dict[str, object]]) -> pa.RecordBatch:
    """Any rows of one kind as a batch."""
    kept = list(rows)
    names = {name for row in kept for name in row}
    return _batch(kind, {name: [row.get(name) for row in kept] for name in names}, len(kept))


def _batch(kind: str, given: dict[str, object], count: int) -> pa.RecordBatch:
    arrays = []
    for column in COLUMNS:
        type_ = ARROW_TYPES[column.type]
        if column.name == "kind":
            codes = pa.array(np.full(count, EVENT[kind].code, np.int32))
            arrays.append(pa.DictionaryArray.from_arrays(codes, list(EVENT)))
        elif column.name not in given:
            arrays.append(pa.nulls(count, type_))
        elif isinstance(given[column.name], pa.Array):
            arrays.append(given[column.name])
        else:
            arrays.append(pa.array(given[column.name], type_))
    return pa.record_batch(arrays, schema=arrow_schema())


def phases_of(batches: Iterable[pa.RecordBatch]) -> Phases:
    """What the survey of these batches finds."""
    survey = Survey()
    for each in batches:
        survey.take(split(each))
    return survey.finish()


def shares(phases: Phases, plan: Plan) -> dict[tuple[str, str], float]:
    """How much of the time of each thing in the plan got which phase."""
    found: dict[tuple[str, str], float] = {}
    total: dict[str, float] = {}
    now = BEGAN
    for what, seconds in plan:
        end = now + round(seconds * SECOND)
        times = np.linspace(now, end, 2000, endpoint=False).astype(np.uint64)
        # Behind the last sample there is nothing: what ends the plan is not judged there.
        times = times[times <= np.uint64(phases.spans[-1].end_ns)]
        now = end
        if not len(times):
            continue
        counts = np.bincount(phases.at(times), minlength=len(phases.names))
        total[what] = total.get(what, 0.0) + seconds
        for name, count in zip(phases.names, counts.tolist(), strict=True):
            key = what, name
            found[key] = found.get(key, 0.0) + seconds * count / len(times)
    return {(what, name): took / total[what] for (what, name), took in found.items()}
