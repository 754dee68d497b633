"""Build and run the workload of known truth (known.c), and take what it says of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Path(__file__).with_name("known.c")
END_S = 30.0


def build(folder: Path, name: str = "known") -> Path:
    """Compile the workload; returns the program. Raises CalledProcessError with gcc's words."""
    program = folder / name
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
    subprocess.run(["gcc", *flags, "-o", str(program), str(SOURCE)], check=True)
    return program


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of memory: where it is, and how many of its pages lie on each node."""

    name: str
    addr: int
    bytes: int
    node_pages: dict[int, int]

    def remote_from(self, node: int) -> float:
        """The share of its pages that lie on other nodes than this one."""
        return 1 - self.node_pages.get(node, 0) / max(1, sum(self.node_pages.values()))


@dataclass(frozen=True, slots=True)
class Item:
    """One pattern of one thread on one buffer, or from one to another.

    Time and steps are by the node of the CPU. `reads` and `writes` count instructions' accesses, of
    `access_bytes` each, where `exact`; else bytes.
    """

    pattern: str
    source: str
    target: str
    exact: bool
    access_bytes: int
    reads: int
    writes: int
    time_ns: Counter[int]
    steps: Counter[int]

    @property
    def key(self) -> str:
        """The buffers whose addresses its samples may have; "" where it uses no memory."""
        return "+".join(dict.fromkeys(name for name in (self.source, self.target) if name))

    def since(self, before: Item) -> Item:
        """What was added since a mark before."""
        return replace(
            self,
            reads=self.reads - before.reads,
            writes=self.writes - before.writes,
            time_ns=self.time_ns - before.time_ns,
            steps=self.steps - before.steps,
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """One thread, or one place in a pool whose threads are made anew all the time."""

    number: int
    tids: tuple[int, ...]
    items: tuple[Item, ...]

    def time_ns(self) -> Counter[str]:
        """CPU time by the items' keys."""
        total: Counter[str] = Counter()
        for item in self.items:
            total[item.key] += item.time_ns.total()
        return total

    def node_ns(self) -> Counter[int]:
        """CPU time by node."""
        return sum((item.time_ns for item in self.items), Counter())

    def work(self, item: Item, node: int) -> float:
        """What part of the thread's work on a node an item was.

        By steps, where all of the thread's are alike: an emulated CPU that its machine keeps from
        running goes on counting time. Else by time.
        """
        alike = len({each.pattern for each in self.items}) == 1
        amounts = [each.steps if alike else each.time_ns for each in self.items]
        mine = item.steps if alike else item.time_ns
        return mine[node] / max(1, sum(each[node] for each in amounts))


@dataclass(frozen=True, slots=True)
class Truth:
    """What the threads did up to a moment (CLOCK_MONOTONIC), or between two moments."""

    t_ns: int
    slots: tuple[Slot, ...]
    began_ns: int = 0

    def since(self, before: Truth) -> Truth:
        """What was added since a mark before; thread ids are those of all times."""
        slots = [
            Slot(now.number, now.tids, tuple(map(Item.since, now.items, then.items)))
            for now, then in zip(self.slots, before.slots, strict=True)
        ]
        return Truth(self.t_ns, tuple(slots), before.t_ns)


@dataclass
class Workload:
    """The running workload: a context that ends it."""

    command: Sequence[str | Path]
    environment: dict[str, str] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)

    def __enter__(self) -> Workload:
        """Start it, and wait until its memory is in place."""
        self.process = subprocess.Popen(
            [str(word) for word in self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
        )
        self.pid = self.process.pid
        self.buffers = {each["name"]: buffer(each) for each in self._line("ready")["buffers"]}
        return self

    def __exit__(self, *_: object) -> None:
        """End it, whether it was stopped or not."""
        self.process.kill()
        self.process.communicate(timeout=END_S)

    def go(self) -> None:
        """Begin, where --wait was given."""
        self._say("go")

    def mark(self) -> Truth:
        """What was done so far."""
        self._say("mark")
        return truth(self._line("mark"))

    def pause(self) -> None:
        """Have it wait where it is: its memory stays, its threads take no more CPU time."""
        self.process.send_signal(signal.SIGSTOP)

    def stop(self) -> Truth:
        """End it; what was done all in all."""
        self._say("stop")
        return truth(self._line("end"))

    def _say(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def _line(self, event: str) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the workload ended with status {self.process.wait(END_S)}")
        found: dict[str, Any] = json.loads(line)
        if found["event"] != event:
            raise RuntimeError(f"the workload said {found['event']}, not {event}")
        return found


def buffer(each: dict[str, Any]) -> Buffer:
    """A buffer as the workload prints it."""
    pages = {int(node): count for node, count in each["node_pages"].items()}
    return Buffer(each["name"], each["addr"], each["bytes"], pages)


def truth(said: dict[str, Any]) -> Truth:
    """A line of the workload that says what was done."""
    slots = [
        Slot(each["slot"], tuple(each["tids"]), tuple(map(_item, each["items"])))
        for each in said["slots"]
    ]
    return Truth(said["t_ns"], tuple(slots))


def _item(each: dict[str, Any]) -> Item:
    return Item(
        pattern=each["pattern"],
        source=each["from"],
        target=each["to"],
        exact=each["exact"],
        access_bytes=each["access_bytes"],
        reads=each["reads"],
        writes=each["writes"],
        time_ns=_by_node(each["time_ns"]),
        steps=_by_node(each["steps"]),
    )


def _by_node(amounts: dict[str, int]) -> Counter[int]:
    return Counter({int(node): amount for node, amount in amounts.items()})
