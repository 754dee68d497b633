"""The access that a sampled instruction's time goes to: its own, or a neighbour's in its loop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from numatrace.record.operands.instruction import NONE, Flow, Instruction, Memory
from numatrace.record.operands.linear import Linear, forward, undo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numatrace.record.operands.window import Window

STEPS: Final = 160
"""Instructions that are walked over, in either direction. Unrolled loops of ggml over quantized
weights take 130, all loads among the first twenty."""

SPIN_STEPS: Final = 32
"""Instructions of a loop that waits."""

ORIGINS: Final = 8
"""Instructions before an access in which its address is looked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """An access, and its address in the registers at the sampled instruction."""

    memory: Memory
    address: Linear
    own: bool


class Step(NamedTuple):
    """An instruction of a path, and where it lies."""

    ip: int
    instruction: Instruction

    @property
    def access(self) -> Memory | None:
        """See Instruction.access."""
        return self.instruction.access


T = TypeVar("T")


class Path(Generic[T]):
    """Steps of a walk, each taken only when somebody asks for it: most questions end after few."""

    def __init__(self, steps: Iterator[T]) -> None:
        self._steps = steps
        self._taken: list[T] = []

    def __iter__(self) -> Iterator[T]:
        place = 0
        while self._reaches(place):
            yield self._taken[place]
            place += 1

    def upto(self, end: int) -> list[T]:
        """The first `end` steps, or fewer where the walk ends before."""
        self._reaches(end - 1)
        return self._taken[:end]

    def _reaches(self, place: int) -> bool:
        while len(self._taken) <= place:
            taken = list(islice(self._steps, 1))
            if not taken:
                return False
            self._taken += taken
        return True


def find(window: Window, ip: int, after_slow: bool, stack: int) -> Found | None:
    """The access that a sample at `ip` waits on; None if there is none in its loop or block.

    With `after_slow`, samples fall on the instruction behind the one that was waited for, so that
    the access of the instruction before comes first. `stack`: slot of the stack pointer.
    """
    sampled = window.decode(ip)
    if sampled is None:
        return None
    before = next(path_before(window, ip), None) if after_slow else None
    if before is not None and not sampled.repeats and before.access is not None:
        found = _waited_for(window, ip, before)
        if found is not None:
            return found
    return exact(window, ip) or Neighbours(window, ip, stack).find()


def exact(window: Window, ip: int) -> Found | None:
    """The access of the instruction at `ip` itself, as for a fault, which is precise."""
    sampled = window.decode(ip)
    own = None if sampled is None else sampled.access
    return None if own is None else Found(own, own.address(ip), True)


class Neighbours:
    """Accesses around an instruction that has none itself."""

    def __init__(self, window: Window, ip: int, stack: int) -> None:
        self.window = window
        self.ip = ip
        self.stack = stack
        self.before = Path(path_before(window, ip))
        self.after = Path(path_after(window, ip))
        self.behind: dict[int, Found | None] = {}

    def find(self) -> Found | None:
        """What the registers of the instruction come from, else what is nearest.

        The stack, constants beside the code and thread-local data come last: they are as good as
        always cached. In a loop without loads it is the nearest store.
        """
        sampled = self.window.decode(self.ip)
        sources = Path(iter(()) if sampled is None else _sources(sampled, self.before))
        for far_only in (True, False):
            found = (
                self._first(sources, far_only, reads=True)
                or self._first(enumerate(self.before), far_only, reads=True)
                or self._ahead(far_only, reads=True)
            )
            if found is not None:
                return found
        stored = self._first(enumerate(self.before), far_only=True, reads=False)
        return stored or self._ahead(far_only=True, reads=False)

    def _first(
        self, steps: Iterable[tuple[int, Step]], far_only: bool, reads: bool
    ) -> Found | None:
        """The first of the steps behind that is wanted and whose address is still there."""
        for place, step in steps:
            if self._wanted(step, far_only, reads):
                found = self._behind(place)
                if found is not None:
                    return found
        return None

    def _wanted(self, step: Step, far_only: bool, reads: bool) -> bool:
        access = step.access
        if access is None or access.reads < reads:
            return False
        if not far_only:
            return True
        constant = access.base == NONE and access.index == NONE
        return not constant and access.base != self.stack and access.segment == ""

    def _behind(self, place: int) -> Found | None:
        if place not in self.behind:
            self.behind[place] = _behind(self.before.upto(place + ORIGINS), place)
        return self.behind[place]

    def _ahead(self, far_only: bool, reads: bool) -> Found | None:
        """The first access of the instructions to come whose address is known by now."""
        for place, step in enumerate(self.after):
            if self._wanted(step, far_only, reads):
                found = _ahead(self.after.upto(place + 1), place)
                if found is not None:
                    return found
        return None


def _sources(sampled: Instruction, before: Path[Step]) -> Iterator[tuple[int, Step]]:
    """Steps of `before` that wrote, directly or not, what the instruction reads; nearest first."""
    wanted = sampled.reads
    for place, step in enumerate(before):
        instruction = step.instruction
        if instruction.writes & wanted:
            yield place, step
            wanted = (wanted - instruction.writes) | instruction.reads


def _behind(before: list[Step], place: int) -> Found | None:
    """The access of an instruction that was executed, in the registers of now.

    Where a register of the address is gone, as in `lea rax, [rbx+8]; mov rax, [rax]`, what it was
    made of may still be there: so it is told in registers of ever earlier instructions.
    """
    access = before[place].access
    address = None if access is None else access.address(before[place].ip)
    for earlier in range(place, min(place + ORIGINS, len(before))):
        if access is None or address is None:
            return None
        ways = _undone(address, before[: earlier + 1])
        if ways:
            return Found(access, ways[0], False)
        if earlier + 1 < len(before):
            maker = before[earlier + 1].instruction
            address = forward(address, maker.moves, maker.writes)
    return None


def _undone(address: Linear, passed: list[Step]) -> tuple[Linear, ...]:
    """An address in the registers before the last of the steps, in those after the first."""
    ways: tuple[Linear, ...] = (address,)
    slots = address.slots
    for _, instruction in reversed(passed):
        if instruction.leaves(slots):
            continue
        ways = undo(ways, instruction.moves, instruction.writes)
        if not ways:
            break
        slots = frozenset().union(*(way.slots for way in ways))
    return ways


def _ahead(after: list[Step], place: int) -> Found | None:
    """The access of an instruction to come, in the registers of now."""
    access = after[place].access
    if access is None:
        return None
    address: Linear | None = access.address(after[place].ip)
    for _, instruction in reversed(after[:place]):
        if address is None:
            return None
        address = forward(address, instruction.moves, instruction.writes)
    return None if address is None else Found(access, address, False)


def _waited_for(window: Window, ip: int, step: Step) -> Found | None:
    """The access of the instruction just before."""
    found = _behind([step], 0)
    if found is None:
        found = _behind(Path(path_before(window, ip)).upto(ORIGINS), 0)
    return found or _next_time(window, ip, step)


def _next_time(window: Window, ip: int, lost: Step) -> Found | None:
    """Where an instruction whose address is lost will go the next time around its loop.

    So it is with `mov rax, [rax]`: the next element of a list stands for the one before.
    """
    after = Path(path_after(window, ip))
    place = next((place for place, step in enumerate(after) if step.ip == lost.ip), None)
    return None if place is None else _ahead(after.upto(place + 1), place)


def spins(window: Window, ip: int) -> bool:
    """Whether the instruction lies in a loop that only waits, as `pause` in it says.

    Barriers of ggml and of OpenMP are such loops: the time goes to a thread that is still at work.
    """
    steps = Path(path_after(window, ip)).upto(SPIN_STEPS)
    if not steps or not any(step.instruction.relaxes for step in steps):
        return False
    return _following(*steps[-1]) == ip


def path_before(window: Window, ip: int) -> Iterator[Step]:
    """What was executed before `ip`, the last first; ends where that is not certain.

    At a loop's head it goes on at the loop's tail: that is where control comes from, but once.
    """
    at, looped = ip, False
    for _ in range(STEPS):
        tail = None if looped else window.loop_tail(at)
        if tail is None and window.sources(at):
            hop = _around(window, at)
            if hop is None:
                return
            yield hop
            at = hop.ip
            continue
        before = window.previous(at) if tail is None else tail
        looped = looped or tail is not None
        instruction = None if before is None else window.decode(before)
        if before is None or instruction is None or not _leads_to(before, instruction, at):
            return
        yield Step(before, instruction)
        at = before
        if at == ip:
            return


def _around(window: Window, address: int) -> Step | None:
    """Code that is jumped over or not, before `address`: one step, of which only the loss is known.

    None where the code can be entered otherwise than at its first jump.
    """
    sources = window.sources(address)
    ip = first = min(sources)
    reads: set[int] = set()
    writes: set[int] = set()
    while ip < address:
        instruction = window.decode(ip)
        if instruction is None or instruction.flow is Flow.CALL:
            return None
        if ip > first and not all(first <= source < address for source in window.sources(ip)):
            return None
        reads |= instruction.reads
        writes |= instruction.writes
        ip += instruction.length
    if ip != address or not all(source < address for source in sources):
        return None
    return Step(first, Instruction(address - first, (), frozenset(reads), frozenset(writes)))


def _leads_to(ip: int, instruction: Instruction, address: int) -> bool:
    """Whether control may have come from here to the address without leaving the function."""
    flow = instruction.flow
    if flow in (Flow.NEXT, Flow.BRANCH) and ip + instruction.length == address:
        return True
    target = instruction.target
    return flow in (Flow.BRANCH, Flow.JUMP) and target is not None and ip + target == address


def path_after(window: Window, ip: int) -> Iterator[Step]:
    """What is executed from `ip` on, if loops are taken up again and other branches are not."""
    at = ip
    for _ in range(STEPS):
        instruction = window.decode(at)
        if instruction is None:
            return
        yield Step(at, instruction)
        following = _following(at, instruction)
        if following is None or following == ip:
            return
        at = following


def _following(ip: int, instruction: Instruction) -> int | None:
    flow, target = instruction.flow, instruction.target
    if flow in (Flow.CALL, Flow.END):
        return None
    if target is not None and (flow is Flow.JUMP or (flow is Flow.BRANCH and target <= 0)):
        return ip + target
    return ip + instruction.length
