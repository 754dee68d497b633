"""perf_mem_data_src words as the kernel's drivers make them, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.model.access import DATA_CLASSES
from numatrace.record.pmu.data_source import CLASSES, LOAD, STORE, classify

# include/uapi/linux/perf_event.h: the shifts and values, once more and apart from the module.
SHIFT = {
    "OP": 0,
    "LVL": 5,
    "SNOOP": 19,
    "LOCK": 24,
    "TLB": 26,
    "LVLNUM": 33,
    "REMOTE": 37,
    "SNOOPX": 38,
    "BLK": 40,
    "HOPS": 43,
}
OP = {"NA": 1, "LOAD": 2, "STORE": 4, "PFETCH": 8, "EXEC": 16}
LVL = {
    "NA": 1,
    "HIT": 2,
    "MISS": 4,
    "L1": 8,
    "LFB": 0x10,
    "L2": 0x20,
    "L3": 0x40,
    "LOC_RAM": 0x80,
    "REM_RAM1": 0x100,
    "REM_RAM2": 0x200,
    "REM_CCE1": 0x400,
    "REM_CCE2": 0x800,
    "IO": 0x1000,
    "UNC": 0x2000,
}
NUM = {
    "L1": 1,
    "L2": 2,
    "L3": 3,
    "L4": 4,
    "L2_MHB": 5,
    "MSC": 6,
    "UNC": 8,
    "CXL": 9,
    "IO": 10,
    "ANY_CACHE": 11,
    "LFB": 12,
    "RAM": 13,
    "PMEM": 14,
    "NA": 15,
}
SNOOP = {"NA": 1, "NONE": 2, "HIT": 4, "MISS": 8, "HITM": 16}


def word(op="LOAD", lvl="", num="", snoop="", *, rem=False, hops=0, snoopx=0) -> int:
    """What PERF_MEM_S() of these makes; several names of one field are joined by `|`."""

    def field(names: str, values: dict[str, int], shift: str) -> int:
        return sum(values[name] for name in names.split("|") if name) << SHIFT[shift]

    return (
        field(op, OP, "OP")
        | field(lvl, LVL, "LVL")
        | field(num, NUM, "LVLNUM")
        | field(snoop, SNOOP, "SNOOP")
        | rem << SHIFT["REMOTE"]
        | hops << SHIFT["HOPS"]
        | snoopx << SHIFT["SNOOPX"]
    )


FWD, PEER = 1, 2

# arch/x86/events/intel/ds.c, pebs_data_source[], by the data source of the PEBS record.
INTEL = {
    0x0: (word(lvl="MISS", num="L3", snoop="NA"), "unknown", False),
    0x1: (word(lvl="HIT|L1", num="L1", snoop="NONE"), "local cache", False),
    0x2: (word(lvl="HIT|LFB", num="LFB", snoop="NONE"), "line buffer", False),
    0x3: (word(lvl="HIT|L2", num="L2", snoop="NONE"), "local cache", False),
    0x4: (word(lvl="HIT|L3", num="L3", snoop="NONE"), "local cache", False),
    0x5: (word(lvl="HIT|L3", num="L3", snoop="MISS"), "local cache", False),
    0x6: (word(lvl="HIT|L3", num="L3", snoop="HIT"), "local cache", False),
    0x7: (word(lvl="HIT|L3", num="L3", snoop="HITM"), "local cache", True),
    0x8: (word(lvl="HIT|REM_CCE1", num="L3", snoop="HIT", rem=True), "remote cache", False),
    0x9: (word(lvl="HIT|REM_CCE1", num="L3", snoop="HITM", rem=True), "remote cache", True),
    0xA: (word(lvl="HIT|LOC_RAM", num="RAM", snoop="HIT"), "local DRAM", False),
    0xB: (word(lvl="HIT|REM_RAM1", num="L3", snoop="HIT", rem=True), "remote DRAM", False),
    0xC: (word(lvl="HIT|LOC_RAM", num="RAM", snoop="NONE|MISS"), "local DRAM", False),
    0xD: (word(lvl="HIT|REM_RAM1", num="RAM", snoop="NONE|MISS", rem=True), "remote DRAM", False),
    0xE: (word(lvl="HIT|IO", num="NA", snoop="NONE"), "uncached", False),
    0xF: (word(lvl="HIT|UNC", num="NA", snoop="NONE"), "uncached", False),
}
# ds.c, __intel_pmu_pebs_data_source_skl(): client processors have L4 where servers have PMEM.
SKYLAKE = {
    0x8: (word(lvl="HIT", num="PMEM", snoop="HIT"), "local PMEM", False),
    0x9: (word(lvl="HIT", num="PMEM", snoop="HIT", rem=True), "remote PMEM", False),
    0xB: (word(lvl="HIT", num="RAM", snoop="NONE", rem=True), "remote DRAM", False),
    0xC: (word(lvl="HIT", num="ANY_CACHE", rem=True, snoopx=FWD), "remote cache", False),
    0xD: (word(lvl="HIT", num="ANY_CACHE", snoop="HITM", rem=True), "remote cache", True),
    0x18: (word(lvl="HIT", num="L4", snoop="HIT"), "local cache", False),
}
# ds.c, __intel_pmu_pebs_data_source_cmt(): Crestmont, in Sierra Forest.
CRESTMONT = {
    0x7: (word(lvl="HIT|L3", num="L3", snoopx=FWD), "local cache", False),
    0x8: (word(lvl="HIT|L3", num="L3", snoop="HITM"), "local cache", True),
    0xA: (word(lvl="HIT|LOC_RAM", num="RAM", snoop="NONE"), "local DRAM", False),
    0xB: (word(lvl="HIT", num="RAM", snoop="NONE", rem=True), "remote DRAM", False),
    0xC: (word(lvl="HIT", num="RAM", rem=True, snoopx=FWD), "remote DRAM", False),
    0xD: (word(lvl="HIT", num="RAM", snoop="HITM", rem=True), "remote DRAM", True),
}
# ds.c, precise_store_data(): stores before Skylake tell L1 hit or miss only.
STORES = {
    "hit": (word("STORE", lvl="L1|HIT", snoop="NA"), "local cache", False),
    "miss": (word("STORE", lvl="L1|MISS", snoop="NA"), "unknown", False),
}
# arch/x86/events/amd/ibs.c, perf_ibs_get_mem_lvl(), g_data_src[]: before Zen 4. HOPS(0) there is
# the name PERF_MEM_HOPS_0, whose value is 1.
AMD = {
    "uncached": (word(lvl="HIT|UNC", num="UNC"), "uncached", False),
    "L1": (word(lvl="HIT|L1", num="L1"), "local cache", False),
    "L2": (word(lvl="HIT|L2", num="L2"), "local cache", False),
    "near": (word(lvl="HIT|L3|REM_CCE1", num="ANY_CACHE", hops=1), "local cache", False),
    "near, dirty": (
        word(lvl="HIT|L3|REM_CCE1", num="ANY_CACHE", hops=1, snoop="HITM"),
        "local cache",
        True,
    ),
    "DRAM": (word(lvl="HIT|LOC_RAM", num="RAM"), "local DRAM", False),
    "DRAM, other node": (
        word(lvl="HIT|REM_RAM1", num="RAM", rem=True, hops=2),
        "remote DRAM",
        False,
    ),
    "far": (word(lvl="HIT|REM_CCE2", num="ANY_CACHE", rem=True, hops=2), "remote cache", False),
    "IO": (word(lvl="HIT|IO", num="IO"), "uncached", False),
    "MAB": (word(lvl="HIT|LFB", num="LFB"), "line buffer", False),
    "store beyond L2": (word("STORE", lvl="NA", num="NA"), "unknown", False),
    "store in L1": (word("STORE", lvl="HIT|L1", num="L1"), "local cache", False),
}
# ibs.c, g_zen4_data_src[]: REMOTE with HOPS_0 is another core complex of the same node.
ZEN4 = {
    "L3": (word(lvl="HIT|L3", num="L3"), "local cache", False),
    "near": (word(lvl="HIT|REM_CCE1", num="ANY_CACHE", rem=True, hops=1), "local cache", False),
    "far": (word(lvl="HIT|REM_CCE2", num="ANY_CACHE", rem=True, hops=2), "remote cache", False),
    "PMEM": (word(num="PMEM"), "local PMEM", False),
    "PMEM, other node": (word(num="PMEM", rem=True, hops=2), "remote PMEM", False),
    "CXL": (word(num="CXL"), "local CXL", False),
    "CXL, other node": (word(num="CXL", rem=True, hops=2), "remote CXL", False),
}
# tools/perf/util/arm-spe.c: arm_spe__synth_data_source_neoverse() and .._generic().
ARM = {
    "L1": (word(lvl="L1|HIT", num="L1", snoop="NONE"), "local cache", False),
    "peer core": (word(lvl="L2|HIT", num="L2", snoopx=PEER), "local cache", False),
    "peer cluster": (word(lvl="L3|HIT", num="L3", snoopx=PEER), "local cache", False),
    "system cache": (word(lvl="L3|HIT", num="L3", snoop="HIT"), "local cache", False),
    "DRAM": (word(lvl="LOC_RAM|HIT", num="RAM", snoop="NONE"), "local DRAM", False),
    "remote": (word(lvl="REM_CCE1", num="ANY_CACHE", rem=True, snoopx=PEER), "remote cache", False),
    "generic LLC hit": (word(lvl="L3|HIT"), "local cache", False),
    "generic LLC hit, remote": (word(lvl="L3|HIT", rem=True), "remote cache", False),
    "generic LLC miss": (word(lvl="L3|MISS"), "unknown", False),
    "generic L1 miss": (word(lvl="L1|MISS"), "unknown", False),
    "store": (word("STORE", lvl="NA", num="NA", snoop="NA"), "unknown", False),
}
TABLES = {
    "Intel": INTEL,
    "Skylake": SKYLAKE,
    "Crestmont": CRESTMONT,
    "stores": STORES,
    "AMD": AMD,
    "Zen 4": ZEN4,
    "Arm": ARM,
}
CASES = [
    pytest.param(*row, id=f"{table} {key}")
    for table, rows in TABLES.items()
    for key, row in rows.items()
]


def one(value: int):
    return [column[0] for column in classify(np.array([value], dtype=np.uint64))]


@pytest.mark.parametrize(("value", "expected", "dirty"), CASES)
def test_words_of_the_kernels_tables(value, expected, dirty):
    op, cls, remote, hitm, known = one(value)
    assert CLASSES[cls] == expected
    assert remote == expected.startswith("remote")
    assert hitm == dirty
    assert known == (expected != "unknown")
    assert op == (STORE if value & 4 else LOAD)


def test_arm_knows_a_remote_source_whose_kind_it_does_not_know():
    # Debian's perf 6.1 and 6.12 set the level to "not available" for another socket's data.
    op, cls, remote, _, known = one(word(lvl="NA", num="NA", rem=True, snoopx=PEER))
    assert (op, CLASSES[cls], remote, known) == (LOAD, "unknown", True, False)


@pytest.mark.parametrize("op", ["NA", "PFETCH", "EXEC", ""])
def test_what_neither_loads_nor_stores_is_not_known(op):
    value = word(op, lvl="HIT|REM_RAM1", num="RAM", snoop="HITM", rem=True)
    _, cls, remote, hitm, known = one(value)
    assert (CLASSES[cls], remote, hitm, known) == ("unknown", False, False, False)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_any_words_and_their_high_bits_do_not_matter(words):
    values = np.array(words, dtype=np.uint64)
    whole = classify(values)
    low = classify(values & np.uint64((1 << 46) - 1))
    for column, same in zip(whole, low, strict=True):
        assert len(column) == len(words)
        assert np.array_equal(column, same)
    assert all(cls < len(CLASSES) for cls in whole.cls)
    named_remote = np.array([CLASSES[cls].startswith("remote") for cls in whole.cls], dtype=bool)
    assert not (named_remote & ~whole.remote).any()
    named_local = np.array([CLASSES[cls].startswith("local") for cls in whole.cls], dtype=bool)
    assert not (named_local & whole.remote).any()


@given(st.lists(st.sampled_from([row[0] for t in TABLES.values() for row in t.values()])))
def test_each_element_by_itself(words):
    together = classify(np.array(words, dtype=np.uint64))
    for index, value in enumerate(words):
        assert [column[index] for column in together] == one(value)


def test_classes_are_those_of_the_trace():
    assert tuple(DATA_CLASSES) == CLASSES
