"""The live model: the rows of a recording summed up over the last interval and the last seconds.

Fed with the rows that the trace gets, in any order within an interval; knows no machine and no
terminal. Its memory is bounded whatever comes.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numatrace.analyze.samples.intervals import LEAST_SAMPLES, Weighed
from numatrace.watch import samples
from numatrace.watch.followed import Followed
from numatrace.watch.rows import rows
from numatrace.watch.snapshot import ThreadLine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numatrace.watch.slots import ThreadKey
    from numatrace.watch.snapshot import Remote

WINDOW_S = 10.0
"""What remote shares rest on: an interval has too few samples."""
MAX_INTERVALS = 64
"""Of a window: with shorter ones it is shorter."""
MAX_THREADS = 2048
"""Threads and slots that are kept apart in an interval; further ones count as OTHERS."""
OTHERS = (0, 0)
HARDWARE, OPERAND = "hardware", "operand"
AT_ONCE = ("move", "loss")
"""Kinds that do not ask who is who."""
NODE_LIMIT = 1 << 10


@dataclass(slots=True)
class Sums:
    """What a thread did in an interval."""

    node_ns: Counter[int] = field(default_factory=Counter)
    moves: int = 0
    faults: int = 0
    weighed: dict[str, Weighed] = field(default_factory=dict)
    """Its samples, by HARDWARE or OPERAND."""

    @property
    def oncpu_ns(self) -> int:
        """Time on all nodes."""
        return self.node_ns.total()


@dataclass(slots=True)
class Interval:
    """What all did between two moments."""

    elapsed_s: float = 0.0
    threads: dict[ThreadKey, Sums] = field(default_factory=dict)
    samples: Counter[str] = field(default_factory=Counter)
    """Samples by source, whether their nodes are known or not."""
    lost: int = 0
    others: set[ThreadKey] = field(default_factory=set)
    """Threads that count as OTHERS, as far as they are counted."""

    @property
    def node_ns(self) -> Counter[int]:
        """Time of all threads, by node."""
        whole: Counter[int] = Counter()
        for sums in self.threads.values():
            whole.update(sums.node_ns)
        return whole

    def of(self, key: ThreadKey) -> Sums:
        """Return the sums of a thread to add to."""
        found = self.threads.get(key)
        if found is None:
            if len(self.threads) >= MAX_THREADS:
                if len(self.others) < MAX_THREADS:
                    self.others.add(key)
                key = OTHERS
            found = self.threads.setdefault(key, Sums())
        return found


class Rolling:
    """Takes rows; `close` ends an interval, then the properties tell of it."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self.window_s = window_s
        self.followed = Followed()
        self.lost: Counter[str] = Counter()
        """Events counted and not kept since the beginning, by family."""
        self.last = Interval()
        """The interval that was closed last."""
        self._open = Interval()
        self._closed: deque[Interval] = deque(maxlen=MAX_INTERVALS)
        self._hardware = False
        self._moved: Counter[ThreadKey] = Counter()
        self._weighed: dict[ThreadKey, Weighed] = {}
        self._take = {
            "oncpu": self._oncpu,
            "fault_count": self._faults,
            "move": self._moves,
            "access": self._access,
            "loss": self._loss,
        }

    def take(self, kind: str, columns: Mapping[str, Any], n: int) -> None:
        """Take rows of one kind as the writer gets them."""
        self.followed.take(kind, columns, n)
        handler = self._take.get(kind)
        if handler is not None:
            if kind not in AT_ONCE:
                self._settle()
            handler(columns, n)

    def close(self, elapsed_s: float) -> None:
        """End the interval, which took so long."""
        self._settle()
        self.last, self._open = self._open, Interval()
        self.last.elapsed_s = max(elapsed_s, 1e-9)
        self._closed.append(self.last)
        while len(self._closed) > 1 and self.covered_s - self._closed[0].elapsed_s >= self.window_s:
            self._closed.popleft()
        self._sum_up()

    @property
    def covered_s(self) -> float:
        """How long the intervals took that remote shares rest on."""
        return sum(interval.elapsed_s for interval in self._closed)

    @property
    def samples_s(self) -> float:
        """Samples per second, of the source: they come in batches, so in the window."""
        count = sum(interval.samples[self.source] for interval in self._closed)
        return count / max(self.covered_s, 1e-9)

    @property
    def source(self) -> str:
        """Return the name of the samples' source; empty without samples."""
        names = {name for interval in self._closed for name in interval.samples}
        chosen = sorted(name for name in names if samples.is_hardware(name) == self._hardware)
        return chosen[0] if chosen else ""

    def remote(self, *, one_node: bool) -> Remote:
        """Return the remote share of all threads."""
        return samples.remote(sum(self._weighed.values(), Weighed()), one_node=one_node)

    def lines(self, *, one_node: bool) -> Iterator[ThreadLine]:
        """Yield a line of each thread that ran or was sampled lately, in no order."""
        for key in dict.fromkeys(key for interval in self._closed for key in interval.threads):
            weighed = self._weighed.get(key, Weighed())
            yield self._line(key, samples.remote(weighed, one_node=one_node))

    def _line(self, key: ThreadKey, remote: Remote) -> ThreadLine:
        sums = self.last.threads.get(key) or Sums()
        whole, seconds = sums.oncpu_ns, self.last.elapsed_s
        return ThreadLine(
            tgid=key[0],
            tid=key[1],
            slot=self.followed.slots.number(key),
            name=self.followed.name(key),
            cpus=whole / 1e9 / seconds,
            node_share={node: ns / whole for node, ns in sorted(sums.node_ns.items()) if ns},
            remote=remote,
            moves_s=sums.moves / seconds,
            faults_s=sums.faults / seconds,
        )

    def _sum_up(self) -> None:
        """Sum up the samples in the window: the CPU's own, if they are enough to go by."""
        found: dict[str, dict[ThreadKey, Weighed]] = {name: {} for name in (HARDWARE, OPERAND)}
        for interval in self._closed:
            for key, sums in interval.threads.items():
                for name, part in sums.weighed.items():
                    found[name][key] = found[name].get(key, Weighed()) + part
        own = sum(found[HARDWARE].values(), Weighed())
        self._hardware = own.samples >= LEAST_SAMPLES
        self._weighed = found[HARDWARE if self._hardware else OPERAND]

    def _of(self, tgid: int, tid: int) -> Sums:
        return self._open.of(self.followed.slots.key((tgid, tid)))

    def _oncpu(self, columns: Mapping[str, Any], n: int) -> None:
        for tgid, tid, node, ns in rows(columns, n, "tgid", "tid", "node", "oncpu_ns"):
            if 0 <= node < NODE_LIMIT:
                self._of(tgid, tid).node_ns[node] += ns

    def _faults(self, columns: Mapping[str, Any], n: int) -> None:
        for tgid, tid, count in rows(columns, n, "tgid", "tid", "count"):
            self._of(tgid, tid).faults += count

    def _moves(self, columns: Mapping[str, Any], n: int) -> None:
        """Moves wait: the births of their threads come after them."""
        self._moved.update(rows(columns, n, "tgid", "tid"))
        if len(self._moved) >= MAX_THREADS:
            self._settle()

    def _settle(self) -> None:
        self.followed.settle()
        moved, self._moved = self._moved, Counter()
        for (tgid, tid), moves in moved.items():
            self._of(tgid, tid).moves += moves

    def _access(self, columns: Mapping[str, Any], n: int) -> None:
        source = str(columns.get("name"))
        self._open.samples[source] += n
        name = HARDWARE if samples.is_hardware(source) else OPERAND
        for (tgid, tid), found in samples.by_thread(columns, n):
            weighed = self._of(tgid, tid).weighed
            weighed[name] = weighed.get(name, Weighed()) + found

    def _loss(self, columns: Mapping[str, Any], n: int) -> None:
        for name, count in rows(columns, n, "name", "count"):
            self.lost[name] += count
            self._open.lost += count
