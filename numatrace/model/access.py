"""What a row of kind `access` says in its `name`, `detail` and `access` columns."""

from __future__ import annotations

from typing import Final

OPERAND: Final = "operand"
"""Source: the registers of a thread at a tick of its CPU's clock, see record/operands."""
HARDWARE_SOURCES: Final = ("pebs", "ibs", "spe")
"""Sources: load latency events (Intel), instruction-based sampling (AMD), SPE (Arm)."""

WRITE: Final = 1
FETCH: Final = 2
KERNEL: Final = 4
"""Bits of the `access` column."""

HOW: Final = {
    "operand": "the instruction's own memory operand",
    "neighbour": "what the CPU waited on: the access just before, or one near in its loop",
    "vector": "the base of a gather or scatter, whose lanes lie around it",
    "segment": "thread-local, and where the thread's block begins is not known",
    "none": "no memory operand, and no load near it",
    "unreadable": "the code at the instruction pointer could not be read or decoded",
    "spin": "waiting for another thread, in a loop that polls a word of memory",
    "kernel fault": "in the kernel, for a page fault",
    "kernel reclaim": "in the kernel, freeing memory for itself",
    "kernel copy": "in the kernel, reading or writing a file or socket",
    "kernel wait": "in the kernel, to wait or to wake others",
    "kernel map": "in the kernel, changing mappings or memory policy",
    "kernel interrupt": "in the kernel, for an interrupt",
    "kernel": "in the kernel, for another system call or an unknown reason",
}
"""How an operand sample got its address, or where its time went where it has none."""

DATA_CLASSES: Final = {
    "local DRAM": "memory of the CPU's own node",
    "remote DRAM": "memory of another node",
    "local cache": "a cache of the CPU's own node",
    "remote cache": "a cache of another node",
    "local CXL": "CXL memory near the CPU",
    "remote CXL": "CXL memory behind another node",
    "local PMEM": "persistent memory near the CPU",
    "remote PMEM": "persistent memory behind another node",
    "line buffer": "a line already on its way, origin unknown",
    "uncached": "device or uncached memory",
    "unknown": "the hardware does not say",
}
"""Where a hardware sample's data came from, from perf_mem_data_src."""
