"""Make a long recording of a busy server: a short real one gives the machine, the rest is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numatrace.model.access import KERNEL, WRITE
from numatrace.trace.reader import Trace
from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SEED = Path(__file__).resolve().parents[2] / "fixtures" / "S1" / "trace.arrow"
GIB, SECOND_NS = 1 << 30, 1_000_000_000
THREADS, CPUS, NODES = 32, 32, 2
HZ = 199
"""Samples a second of each CPU: the most that a recording begins with."""
LAYERS, WIDTH, HIDDEN, WORDS = 36, 4096, 11008, 32000
INODE, MODEL = 99, "/models/made-8b-f16.gguf"
WEIGHTS_AT, CACHE_AT, COMPUTE_AT, BARRIER = 0x7000_0000_0000, 0x6000_0000_0000, 0x5000_0000_0000, 64
CACHE_BYTES, COMPUTE_BYTES = GIB, GIB // 4
REQUEST = (("prompt", 16), ("decode", 40), ("idle", 4))
"""A request takes so many seconds in each phase; then comes the next."""
PASS_S = {"prompt": 4.7, "decode": 0.093}
WHAT = ("operand", "neighbour", "cache", "compute", "spin", "none", "kernel fault", "kernel wait")
SHARES = (0.50, 0.22, 0.07, 0.06, 0.09, 0.03, 0.01, 0.02)
"""What the samples hit: the first two weights, the next ones other memory, or nothing."""
DETAILS = np.array(["operand", "neighbour", "operand", "operand", *WHAT[4:]], object)
PLACES_EVERY_S = 30
FAULTS = 20
"""At each look."""
LOOKS = 5
"""A recorder looks at its ring buffers so often a second, and writes what it found as one batch."""


class LongTrace:
    """Writes a trace second by second, as a recorder does."""

    def __init__(self, path: Path) -> None:
        self._dice = np.random.default_rng(1)
        self._writer = TraceWriter.create(path, force=True)
        self._tensors = _tensors()
        self._sizes = np.array([row["bytes"] for row in self._tensors], np.int64)
        self._offsets = np.array([row["offset"] for row in self._tensors], np.int64)
        self._cumulated = np.cumsum(self._sizes)
        self._node_of_cpu = np.arange(CPUS) * NODES // CPUS
        self._cpus = np.arange(THREADS) % CPUS
        self._attach()

    def _attach(self) -> None:
        """Documents and mappings of the seed, and a larger model on a larger machine."""
        rows = _seed()
        self._began = int(rows["end"][0]["t_ns"])
        self._tgid = int(rows["process"][0]["tgid"])
        self._end = rows.pop("end")
        self._code = next(each for each in rows["map"] if each["path"].endswith("xllamacpp.abi3.so")
                          and "x" in each["detail"])  # fmt: skip
        for kind in ("system", "process", "map"):
            self._writer.add_rows(kind, rows[kind])
        tids = np.arange(THREADS) + self._tgid + 1
        self._writer.add_rows("thread", [self._thread(tid) for tid in tids.tolist()])
        self._tids = tids
        self._writer.add_rows("tensor", [{"t_ns": self._began, **row} for row in self._tensors])
        size = int(self._offsets[-1] + self._sizes[-1])
        self._map(self._began, WEIGHTS_AT, size, inode=INODE, path=MODEL, detail="r--s")
        self._map(self._began, CACHE_AT, CACHE_BYTES)
        self._map(self._began, COMPUTE_AT, COMPUTE_BYTES)
        self._places(self._began)
        self._writer.flush()

    def _thread(self, tid: int) -> dict[str, object]:
        document = {"tid": tid, "comm": "llama-server", "cpus_allowed": f"0-{CPUS - 1}"}
        row = {"t_ns": self._began, "tgid": self._tgid, "tid": tid, "name": "llama-server"}
        return {**row, "value": json.dumps(document)}

    def write(self, megabytes: float) -> tuple[int, int]:
        """Write until the file has that size; return its rows and how many seconds it spans."""
        second = 0
        while self._writer.bytes_written < megabytes * 1e6:
            self._second(second)
            self._writer.flush()
            second += 1
        self._writer.add_rows("end", [{**self._end[0], "t_ns": self._at(second)}])
        self._writer.close()
        return sum(self._writer.rows.values()), second

    def _second(self, second: int) -> None:
        phase = _phase(second)
        now = self._at(second + 1)
        for look in range(LOOKS):
            since = self._at(second) + look * SECOND_NS // LOOKS
            if phase != "idle":
                self._access(since, phase)
            self._moves(since, 1 if phase == "idle" else 8)
            self._faults(since)
        self._oncpu(now, idle=phase == "idle")
        if second % 7 == 0:
            addr = 0x4000_0000_0000 + second % 64 * GIB
            self._map(self._at(second), addr, 1 << 26)
            columns = {"t_ns": now - 1, "tgid": self._tgid, "addr": addr, "bytes": 1 << 26}
            self._writer.add_columns("unmap", columns, 1)
        if second % PLACES_EVERY_S == 0:
            self._places(now)

    def _access(self, since_ns: int, phase: str) -> None:
        ticks = HZ // LOOKS
        count = ticks * THREADS
        which = np.tile(np.arange(THREADS), ticks)
        # The clocks of all CPUs tick together, give or take what an interrupt takes.
        late = self._dice.gamma(2.0, 4000.0, count).astype(np.int64)
        times = since_ns + np.repeat(np.arange(ticks), THREADS) * (SECOND_NS // HZ) + late
        order = np.argsort(times, kind="stable")
        which, times = which[order], times[order]
        what = self._dice.choice(len(WHAT), count, p=SHARES)
        addr = self._addresses(times, which, what, phase)
        known = what <= WHAT.index("spin")
        access = np.where(what == WHAT.index("compute"), self._dice.integers(0, 2, count), 0)
        access = access * WRITE + (what >= WHAT.index("kernel fault")) * KERNEL
        weights = what < WHAT.index("cache")
        mem_node = np.where(weights, addr >> np.uint64(21) & np.uint64(1), 0).astype(np.int32)
        hot = self._dice.geometric(0.12, count) % 64 * 37 + (4000 if phase == "prompt" else 0)
        cpus = self._cpus[which]
        self._writer.add_columns(
            "access",
            {
                "t_ns": times,
                "tgid": self._tgid,
                "tid": self._tids[which],
                "cpu": cpus,
                "node": self._node_of_cpu[cpus],
                "mem_node": np.ma.MaskedArray(mem_node, ~known),
                "addr": np.ma.MaskedArray(addr, ~known),
                "ip": self._code["addr"] + what * 65536 + hot,
                "access": access,
                "time_ns": SECOND_NS // HZ,
                "name": "operand",
                "detail": DETAILS[what],
            },
            count,
        )

    def _addresses(self, times: Array, which: Array, what: Array, phase: str) -> Array:
        """Each pass goes through the weights in order, each thread through its rows of them."""
        done = times / 1e9 / PASS_S[phase] % 1
        tensor = np.searchsorted(self._cumulated, done * self._cumulated[-1], side="right")
        tensor = np.minimum(tensor, len(self._sizes) - 1)
        row = (which + self._dice.random(len(which))) / THREADS
        addr = WEIGHTS_AT + self._offsets[tensor] + (row * self._sizes[tensor]).astype(np.int64)
        random = self._dice.random(len(which))
        for name, start, size in (
            ("cache", CACHE_AT, CACHE_BYTES),
            ("compute", COMPUTE_AT, COMPUTE_BYTES),
            ("spin", COMPUTE_AT, BARRIER),
        ):
            elsewhere = start + (random * size).astype(np.int64)
            addr = np.where(what == WHAT.index(name), elsewhere, addr)
        return (addr // 32 * 32).astype(np.uint64)

    def _moves(self, since_ns: int, count: int) -> None:
        which = self._dice.integers(0, THREADS, count)
        away = (self._cpus[which] + CPUS // NODES) % CPUS
        self._writer.add_columns(
            "move",
            {
                "t_ns": self._times(since_ns, count),
                "tgid": self._tgid,
                "tid": self._tids[which],
                "cpu": away,
                "node": self._node_of_cpu[away],
                "from_node": self._node_of_cpu[self._cpus[which]],
            },
            count,
        )
        self._cpus[which] = away

    def _oncpu(self, now_ns: int, *, idle: bool) -> None:
        count = NODES * THREADS
        self._writer.add_columns(
            "oncpu",
            {
                "t_ns": now_ns,
                "tgid": self._tgid,
                "tid": np.repeat(self._tids, NODES),
                "node": np.tile(np.arange(NODES), THREADS),
                "oncpu_ns": self._dice.integers(0, SECOND_NS // (100 if idle else NODES), count),
            },
            count,
        )

    def _faults(self, since_ns: int) -> None:
        which = self._dice.integers(0, THREADS, FAULTS)
        cpus = self._cpus[which]
        addr = COMPUTE_AT + self._dice.integers(0, COMPUTE_BYTES, FAULTS)
        columns = {"t_ns": self._times(since_ns, FAULTS), "tgid": self._tgid, "cpu": cpus}
        columns |= {"tid": self._tids[which], "node": self._node_of_cpu[cpus], "addr": addr}
        columns |= {"ip": self._code["addr"], "weight": 4, "access": WRITE}
        self._writer.add_columns("fault", columns, FAULTS)

    def _times(self, since_ns: int, count: int) -> Array:
        return since_ns + np.sort(self._dice.integers(0, SECOND_NS // LOOKS, count))

    def _places(self, t_ns: int) -> None:
        """A snapshot of every tensor and mapping, half of each on each node."""
        pieces = [(WEIGHTS_AT + row["offset"], row["bytes"], row["name"]) for row in self._tensors]
        pieces += [(CACHE_AT, CACHE_BYTES, ""), (COMPUTE_AT, COMPUTE_BYTES, "")]
        self._writer.add_rows(
            "place",
            [
                {"t_ns": t_ns, "tgid": self._tgid, "addr": addr, "bytes": size, "mem_node": node,
                 "node_bytes": size // NODES, "pages": 64, "sampled_pages": 128,
                 "piece_pages": max(128, size // 4096), "name": name,
                 "inode": INODE if name else 0, "path": MODEL if name else "",
                 "offset": addr - WEIGHTS_AT if name else 0}
                for addr, size, name in pieces
                for node in range(NODES)
            ],
        )  # fmt: skip

    def _map(self, t_ns: int, addr: int, size: int, **file: object) -> None:
        where = {"t_ns": t_ns, "tgid": self._tgid, "addr": addr, "bytes": size}
        private = {"offset": 0, "inode": 0, "path": "", "detail": "rw-p"}
        self._writer.add_columns("map", {**where, **private, **file}, 1)

    def _at(self, second: int) -> int:
        return self._began + second * SECOND_NS


def _phase(second: int) -> str:
    second %= sum(took for _, took in REQUEST)
    for name, took in REQUEST:
        if second < took:
            return name
        second -= took
    raise AssertionError


def _seed() -> dict[str, list[dict[str, Any]]]:
    """The documents and mappings of the seed, on as many CPUs as are wanted; its model left out."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with Trace.open(SEED) as trace:
        for batch in trace.batches():
            for row in batch.to_pylist():
                kept = {name: value for name, value in row.items() if value is not None}
                rows.setdefault(kept.pop("kind"), []).append({"path": "", **kept})
    rows["map"] = [row for row in rows["map"] if not row["path"].endswith(".gguf")]
    for row in (*rows["system"], *rows["process"], *rows["end"]):
        row.pop("path")
        row["value"] = _widened(row["value"])
    return rows


def _widened(text: str) -> str:
    document = json.loads(text)
    each = CPUS // NODES
    if "cores" in document:
        document["cores"] = [str(cpu) for cpu in range(CPUS)]
        document["online_cpus"] = f"0-{CPUS - 1}"
        for node in document["nodes"]:
            node["cpus"] = f"{node['node'] * each}-{(node['node'] + 1) * each - 1}"
            node["memory"] = {name: 32 * size for name, size in node["memory"].items()}
    if "--threads" in document.get("argv", ()):  # the server: clients are described, too
        argv = document["argv"]
        argv[argv.index("--threads") + 1] = str(THREADS)
        argv[argv.index("--model") + 1] = MODEL
        document["n_threads"] = THREADS + 1
        document["policy"] = "default"
        document["cpus_allowed"] = document["cgroup"]["cpus"] = f"0-{CPUS - 1}"
    return json.dumps(document)


def _tensors() -> list[dict[str, Any]]:
    """The table of an F16 model with 327 tensors."""
    square, wide = (WIDTH, WIDTH), (WIDTH, HIDDEN)
    shapes = {"token_embd.weight": (WIDTH, WORDS)}
    for layer in range(LAYERS):
        named = {"attn_norm": (WIDTH,), "attn_q": square, "attn_k": square, "attn_v": square,
                 "attn_output": square, "ffn_norm": (WIDTH,), "ffn_gate": wide, "ffn_up": wide,
                 "ffn_down": wide[::-1]}  # fmt: skip
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in named.items()}
    shapes |= {"output_norm.weight": (WIDTH,), "output.weight": (WIDTH, WORDS)}
    rows, offset = [], 1 << 16
    for name, shape in shapes.items():
        is_matrix = len(shape) > 1
        size = int(np.prod(shape)) * (2 if is_matrix else 4)
        rows.append({"path": MODEL, "inode": INODE, "name": name, "offset": offset, "bytes": size,
                     "detail": "F16" if is_matrix else "F32",
                     "value": json.dumps(list(shape))})  # fmt: skip
        offset += size
    return rows
