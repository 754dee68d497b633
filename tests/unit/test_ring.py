"""The ring reader against a ring laid out in memory as the kernel does it."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.record.bpf.ring import BUSY, DISCARD, Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = np.dtype([("value", "<u8"), ("pad", "<u8")])
STRIDE = 8 + RECORD.itemsize
PAGE = mmap.PAGESIZE


class KernelSide:
    """Writes records as kernel/bpf/ringbuf.c does, into a file that stands for the map."""

    def __init__(self) -> None:
        # The kernel maps the data twice in a row; a file cannot, so a record is written to both.
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 4 * PAGE)
        self.memory = mmap.mmap(self.fd, 4 * PAGE)
        self.positions = np.frombuffer(self.memory, "<u8")
        self.position = 0

    @property
    def consumed(self) -> int:
        return int(self.positions[0])

    def put(self, value: int, flags: int = 0) -> bool:
        if self.position + STRIDE - self.consumed > PAGE:
            return False
        record = np.array([(value, 0)], RECORD).tobytes()
        raw = np.array([RECORD.itemsize | flags, 0], "<u4").tobytes() + record
        for i, byte in enumerate(raw):
            at = (self.position + i) % PAGE
            self.memory[2 * PAGE + at] = self.memory[3 * PAGE + at] = byte
        self.position += STRIDE
        self.positions[PAGE // 8] = self.position
        return True

    def finish_first_busy(self) -> None:
        at = self.consumed % PAGE
        for base in (2 * PAGE, 3 * PAGE):
            self.memory[base + at + 3] &= 0x7F


@pytest.fixture
def sides() -> Iterator[tuple[KernelSide, Ring]]:
    kernel = KernelSide()
    ring = Ring(kernel.fd, 1, RECORD)
    yield kernel, ring
    ring.close()
    os.close(kernel.fd)


def test_busy_records_wait_and_discarded_ones_are_skipped(sides: tuple[KernelSide, Ring]) -> None:
    kernel, ring = sides
    kernel.put(1)
    kernel.put(2, DISCARD)
    kernel.put(3, BUSY)
    kernel.put(4)
    assert ring.drain()["value"].tolist() == [1]
    assert ring.drain()["value"].tolist() == []
    kernel.finish_first_busy()
    assert ring.drain()["value"].tolist() == [3, 4]
    assert ring.used_bytes() == 0


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.integers(0, 250), min_size=1, max_size=12))
def test_every_record_once_and_in_order_across_wraps(steps: list[int]) -> None:
    kernel = KernelSide()
    ring = Ring(kernel.fd, 1, RECORD)
    sent, got, value = [], [], 0
    for burst in steps:
        for _ in range(burst):
            if kernel.put(value):
                sent.append(value)
            value += 1
        got += ring.drain()["value"].tolist()
    assert got == sent
    ring.close()
    os.close(kernel.fd)
