"""The tables of CPUs: what ships holds together, and what does not is refused."""

from __future__ import annotations

import re

import pytest

from numatrace.model.access import HARDWARE_SOURCES
from numatrace.record.pmu.cpu import Cpu
from numatrace.record.pmu.fields import TableError
from numatrace.record.pmu.tables import PLACES, Row, load, reference, select

ROWS = load()
INTEL = {
    # Model numbers from arch/x86/include/asm/intel-family.h, and what the row's samples are.
    "Skylake-SP": (85, 4),
    "Cascade Lake-SP, Cooper Lake": (85, 7),
    "Ice Lake-SP, Ice Lake-D": (106, 6),
    "Sapphire Rapids, Emerald Rapids": (143, 8),
    "Granite Rapids": (173, 1),
    "Sierra Forest": (175, 3),
    "Haswell-EP, Broadwell-EP": (79, 1),
}
ZEN = {(23, 1): "Zen, Zen+", (23, 0x31): "Zen 2", (25, 1): "Zen 3", (25, 0x11): "Zen 4"}
ZEN |= {(25, 0x61): "Zen 4", (25, 0xA0): "Zen 4", (25, 0x21): "Zen 3", (26, 2): "Zen 5"}
ARM = {0xD0C: "Neoverse N1", 0xD40: "Neoverse V1", 0xD49: "Neoverse N2", 0xD4F: "Neoverse V2"}


def row_of(cpu: Cpu) -> Row:
    row = select(cpu, ROWS)
    assert row is not None, str(cpu)
    return row


def events(row: Row) -> list[str]:
    choices = row.sampling.choices if row.sampling else ()
    return [event for option in choices for event in option.events]


@pytest.mark.parametrize("name", INTEL)
def test_intel_servers_have_load_latency_and_counts(name: str) -> None:
    model, stepping = INTEL[name]
    row = row_of(Cpu("GenuineIntel", 6, model, stepping))
    assert row.name == name
    assert row.sampling is not None
    assert row.sampling.samples == "pebs"
    assert "cpu/mem-loads,ldlat={ldlat}/P" in events(row)
    assert {each.events[0].place for each in row.counts} == {"local"}


@pytest.mark.parametrize("model", [143, 207])
def test_the_auxiliary_event_leads_where_the_kernel_wants_it(model: int) -> None:
    first = events(row_of(Cpu("GenuineIntel", 6, model, 1)))[0]
    assert first == "{cpu/mem-loads-aux/,cpu/mem-loads,ldlat={ldlat}/}:P"


@pytest.mark.parametrize("name", sorted(set(INTEL) - {"Sapphire Rapids, Emerald Rapids"}))
def test_and_nowhere_else(name: str) -> None:
    model, stepping = INTEL[name]
    assert "aux" not in " ".join(events(row_of(Cpu("GenuineIntel", 6, model, stepping))))


@pytest.mark.parametrize(("family", "model"), ZEN)
def test_zen_has_ibs_and_fills(family: int, model: int) -> None:
    row = row_of(Cpu("AuthenticAMD", family, model, 1))
    assert row.name == ZEN[family, model]
    assert row.sampling is not None
    assert row.sampling.samples == "ibs"
    codes = {count.event for each in row.counts for count in each.events}
    assert {"cpu/event=0x43,umask=0x08/", "cpu/event=0x43,umask=0x40/"} <= codes
    # The filters exist from Zen 4 on, and are taken only where sysfs has them.
    filtered = [option for option in row.sampling.choices if "l3missonly" in option.events[0]]
    assert bool(filtered) == (row.name in ("Zen 4", "Zen 5"))
    assert all("format/l3missonly" in option.needs for option in filtered)


@pytest.mark.parametrize("part", ARM)
def test_neoverse_has_spe(part: int) -> None:
    row = row_of(Cpu(parts=((0x41, part),)))
    assert row.name == ARM[part]
    assert row.sampling is not None
    assert row.sampling.samples == "spe"
    assert row.sampling.period  # the PMU refuses a frequency


@pytest.mark.parametrize(
    "cpu",
    [
        Cpu("GenuineIntel", 15, 6, 8),
        Cpu("GenuineIntel", 6, 0xFF, 0),
        Cpu("AuthenticAMD", 27, 1, 0),
        Cpu("CentaurHauls", 6, 85, 4),
        Cpu(parts=((0x41, 0xD46), (0x41, 0xD4D))),
        # All kinds of core must be of the row: an N1 beside something else is not an N1.
        Cpu(parts=((0x41, 0xD0C), (0x41, 0xD46))),
        Cpu(name="POWER7"),
    ],
    ids=str,
)
def test_other_cpus_have_no_row(cpu: Cpu) -> None:
    assert select(cpu, ROWS) is None


def test_no_cpu_has_two_rows() -> None:
    cpus = [
        Cpu(row.vendor, row.family, model, stepping)
        for row in ROWS
        for model in row.models
        for stepping in (row.steppings or range(16))
    ]
    cpus += [Cpu(parts=(part,)) for row in ROWS for part in row.parts]
    for cpu in cpus:
        assert sum(row.matches(cpu) for row in ROWS) == 1, str(cpu)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_says_what_it_counts_and_where_that_is_written(row: Row) -> None:
    if row.sampling is not None:
        assert row.sampling.samples in HARDWARE_SOURCES
        assert row.sampling.population
        assert row.sampling.source
    for counts in row.counts:
        assert counts.source
        assert all(count.population and count.place in PLACES for count in counts.events)
        # Two offcore-response events at most: there are two registers for them.
        assert sum("offcore_rsp" in count.event for count in counts.events) in (0, 2)
        assert len(counts.events) <= row.counters


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_generic_events_are_the_last_resort_and_carry_their_formula(row: Row) -> None:
    generic = [each for each in row.counts if each.events[-1].event.startswith("node-load")]
    assert not generic or list(row.counts) == generic
    assert all(each.formula == "remote / total" for each in generic)


def test_offcore_masks_are_disjoint_and_together_all_of_dram() -> None:
    """Of the union that perf's lists call DRAM (0x73C...): supplier bits 26 to 29."""
    masks = {}
    for row in ROWS:
        for count in (count for each in row.counts for count in each.events):
            match = re.search(r"offcore_rsp=(0x[0-9a-f]+)", count.event)
            if match and count.name.startswith("OCR.READS_TO_CORE"):
                masks[row.name, count.place] = int(match[1], 16)
    suppliers = {key: mask >> 26 & 0xF for key, mask in masks.items()}
    assert masks
    for name, _ in masks:
        local, remote = suppliers[name, "local"], suppliers[name, "remote"]
        assert (local & remote, local | remote) == (0, 0xF), name
        assert masks[name, "local"] & 0xFFFF == masks[name, "remote"] & 0xFFFF


def test_the_reference_has_a_line_for_every_row() -> None:
    lines = reference()
    assert [line["name"] for line in lines] == [row.name for row in ROWS]
    assert all(line["match"] and (line["source"] or not line["counts"]) for line in lines)
    skylake = next(line for line in lines if line["name"] == "Skylake-SP")
    assert skylake["match"] == "GenuineIntel family 6 model 85 stepping 0-4"
    assert "remote share = remote / (local + remote)" in skylake["counts"]


GOOD = """
[sampling.a]
samples = "ibs"
pmu = "ibs_op"
population = "p"
source = "s"
choices = [{ needs = [], events = ["ibs_op//"] }]
[counts.b]
id = "reads"
population = "p"
source = "s"
remote = { name = "n", event = "e" }
[[cpu]]
name = "c"
vendor = "v"
family = 1
models = [1, [3, 5]]
counters = 4
sampling = "a"
counts = ["b"]
"""


def test_a_table_of_ones_own() -> None:
    (row,) = load({"x.toml": GOOD})
    assert row.models == {1, 3, 4, 5}
    assert [count.counter for count in row.counts[0].events] == ["reads.remote"]
    assert row.counts[0].formula == ""  # of remote accesses alone no share can be made


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("family = 1", 'family = "1"', "family must be of type int"),
        ("family = 1", "family = -1", "family must be from"),
        ("family = 1", "family = true", "family must be from"),
        ("family = 1", "", "family is missing"),
        ("family = 1", "family = 1\nfamilies = 2", "unknown families"),
        ("models = [1, [3, 5]]", "models = []", "models is empty"),
        ("models = [1, [3, 5]]", "models = [[5, 3]]", "which is no number"),
        ("models = [1, [3, 5]]", "models = [[1, 2, 3]]", "which is no number"),
        ("models = [1, [3, 5]]", 'models = ["1"]', "which is no number"),
        ('samples = "ibs"', 'samples = "pebble"', "samples must be one of"),
        ('events = ["ibs_op//"]', "events = []", "events is empty"),
        ('events = ["ibs_op//"]', "events = [1]", "events must be a list of texts"),
        ('counts = ["b"]', 'counts = ["d"]', "counts names ['d']"),
        ('counts = ["b"]', "counts = []", "no row names b"),
        ('sampling = "a"', 'sampling = "z"', "'z', which is not in the file"),
        ("remote = {", "local = {", "remote must be there"),
        ('population = "p"', 'population = "a\\nb"', "population must be one line"),
        ('source = "s"', 'source = ""', "source must be one line"),
        ("[sampling.a]", "[sampling", "x.toml"),
    ],
)
def test_what_has_not_the_form_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    with pytest.raises(TableError, match=re.escape(complaint)):
        load({"x.toml": GOOD.replace(old, new, 1)})
