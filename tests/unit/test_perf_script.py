"""Lines of `perf script`, whole and hostile, and the events of `perf evlist -v`."""

from __future__ import annotations

import tracemalloc
from itertools import islice, repeat

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from numatrace.record.pmu import evlist, perf_script, perf_totals
from numatrace.record.pmu.perf_script import MAX_EVENTS, MAX_LINE, MAX_TEXT, Samples, ScriptReader

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ALL = ("pid", "tid", "cpu", "time", "period", "event", "addr", "data_src", "weight", "ip")
PHYSICAL = (*ALL, "phys_addr")
PROCESS = tuple(name for name in ALL if name != "cpu")
NARROW = ("pid", "tid", "cpu", "time", "period", "event", "ip")
TEXT_6_1 = "|OP LOAD|LVL Remote Remote RAM (1 hop) or RAM hit|SNP None, Miss|TLB L1 or L2 hit|LCK"
TEXT_6_12 = "|OP LOAD|LVL Remote RAM hit|SNP Fwd|TLB L1 or L2 hit|LCK No|BLK  N/A"
U64 = st.integers(0, 2**64 - 1)
LINE = st.fixed_dictionaries(
    {
        "pid": st.integers(-1, 2**31 - 1),
        "tid": st.integers(-(2**31), 2**31 - 1),
        "cpu": st.integers(0, 8191),
        "t_ns": st.integers(0, 10**19 - 1),
        "period": st.integers(0, 10**19 - 1),
        "event": st.sampled_from(["cpu/mem-loads,ldlat=30/P", "ibs_op//", "a:b=1: c:", "memory"]),
        "addr": U64,
        "data_src": U64,
        "text": st.sampled_from([TEXT_6_1, TEXT_6_12, "|OP N/A|LVL N/A or N/A", "|OP LOAD|LVL 7 "]),
        "weight": st.integers(0, 10**16 - 1),
        "ip": U64,
        "phys_addr": U64,
    }
)


def printed(row: dict, fields=ALL, width=0) -> bytes:
    """The line as process_event() of tools/perf/builtin-script.c puts it together."""
    parts = [f"{row['pid']:5d}/{row['tid']:<5d} "]
    if "cpu" in fields:
        parts.append(f"[{row['cpu']:03d}] ")
    seconds, ns = divmod(row["t_ns"], 10**9)
    parts.append(f"{seconds:5d}.{ns:09d}: {row['period']:10d} {row['event']}: ")
    if "addr" in fields:
        parts.append(f"{row['addr']:16x} ")
    if "data_src" in fields:
        parts.append(f"{row['data_src']:16x} {row['text']:<{width}} ")
    if "weight" in fields:
        parts.append(f"{row['weight']:16d} ")
    parts.append(f"{row['ip']:16x}")
    if "phys_addr" in fields:
        parts.append(f"{row['phys_addr']:16x}")
    return "".join(parts).encode() + b"\n"


def read(data: bytes, fields=ALL, piece=MAX_TEXT) -> tuple[ScriptReader, dict[str, list]]:
    """The reader after `data` came in pieces, and the columns of its chunks put together."""
    reader = ScriptReader(fields)
    chunks = []
    for start in range(0, len(data), piece):
        chunks += reader.feed(data[start : start + piece])
    chunks += reader.close()
    assert reader.totals.check()
    assert reader.totals.samples == sum(len(chunk.pid) for chunk in chunks)
    columns = {
        name: [value for chunk in chunks for value in getattr(chunk, name).tolist()]
        for name in Samples._fields
    }
    return reader, columns


@unhurried
@given(st.lists(LINE, max_size=20), st.sampled_from([ALL, PHYSICAL, PROCESS, NARROW]), st.data())
def test_what_was_printed_is_what_is_read(rows, fields, data):
    width = data.draw(st.integers(0, 100))
    text = b"".join(printed(row, fields, width) for row in rows)
    piece = data.draw(st.integers(1, 400))
    reader, columns = read(text, fields, piece)
    assert reader.totals.samples == reader.totals.lines == len(rows)
    for name in ("pid", "tid", "t_ns", "period", "ip"):
        assert columns[name] == [row[name] for row in rows]
    for name in ("addr", "data_src", "weight", "phys_addr"):
        assert columns[name] == [row[name] if name in fields else 0 for row in rows]
    assert columns["cpu"] == [row["cpu"] if "cpu" in fields else -1 for row in rows]
    assert [reader.events[code] for code in columns["event"]] == [row["event"] for row in rows]


def test_physical_address_that_follows_without_a_space():
    row = {"pid": 7, "tid": 8, "cpu": 9, "t_ns": 1, "period": 1, "event": "e", "text": TEXT_6_12}
    row |= {"addr": 1, "data_src": 2, "weight": 123, "phys_addr": 0x8000000012345678}
    for ip in (0x12345, 0xFFFFFFFF81234567):
        line = printed(row | {"ip": ip}, PHYSICAL)
        assert b"%x8000000012345678\n" % ip in line
        _, columns = read(line, PHYSICAL)
        assert (columns["weight"], columns["ip"]) == ([123], [ip])
        assert columns["phys_addr"] == [0x8000000012345678]


def test_columns_have_the_types_of_the_trace():
    (chunk,) = ScriptReader(NARROW).feed(b"1/2 [3] 4.000000005: 6 e: ffff\n")
    kinds = {name: getattr(chunk, name).dtype for name in Samples._fields}
    s32 = {"pid", "tid", "cpu", "event"}
    assert kinds == {n: np.dtype(np.int32 if n in s32 else np.uint64) for n in kinds}
    assert chunk.t_ns[0] == 4_000_000_005


GOOD = b"10/11 [002] 30.000000040: 50 ev: 60 70 |OP LOAD|LVL L3 hit 80 90\n"


@pytest.mark.parametrize(
    "line",
    [
        b"2147483648/1 [002] 30.000000040: 50 ev: 60 70 |OP LOAD 80 90",
        b"1/-2147483649 [002] 30.000000040: 50 ev: 60 70 |OP LOAD 80 90",
        b"1/1 [2147483648] 30.000000040: 50 ev: 60 70 |OP LOAD 80 90",
        b"99999999999/1 [002] 30.000000040: 50 ev: 60 70 |OP LOAD 80 90",
        b"1/1 [002] 30.000000040: 50 ev: 12345678901234567 70 |OP LOAD 80 90",
        b"1/1 [002] 30.000000040: 50 ev: 60 70 |OP LOAD 80 12345678901234567",
        b"1/1 [002] 30.000000040: 50 ev: 60 70 |OP LOAD 80000000000000000000 90",
        b"1/1 [002] 30.000000040: 50000000000000000000 ev: 60 70 |OP LOAD 80 90",
        b"1/1 [002] 30000000000.000000040: 50 ev: 60 70 |OP LOAD 80 90",
        b"1/1 [002] 30.0000040: 50 ev: 60 70 |OP LOAD 80 90",
        b"1/1 [002] 30.000000040: 50 ev: 60 70 |OP LOAD 80",
        b"1/1 [002] 30.000000040: 50 : 60 70 |OP LOAD 80 90",
        b"1/1 [002] 30.000000040: 50 ev: 60 70 80 90",
        b"1/1 [002] 30.000000040: 50 ev: 60 -70 |OP LOAD 80 90",
        b"\xff\xfe\x00\x1b[2J",
        b"1/1 [002] 30.000000040: 50 ev" + b"x" * MAX_LINE + b": 60 70 |OP LOAD 80 90",
        b"x" * (3 * MAX_TEXT),
    ],
    ids=lambda line: line[:64].decode("ascii", "replace"),
)
def test_a_malformed_line_costs_itself_only(line):
    reader, columns = read(GOOD + line + b"\n" + GOOD)
    assert (reader.totals.lines, reader.totals.malformed) == (3, 1)
    assert columns["weight"] == [80, 80]
    assert columns["ip"] == [0x90, 0x90]


def test_text_within_the_line_is_not_read():
    forged = GOOD.replace(b"|LVL L3 hit", b"|LVL 1 2 3 |OP LOAD 4 5")
    _, columns = read(forged)
    assert (columns["data_src"], columns["weight"], columns["ip"]) == ([0x70], [80], [0x90])


def test_output_that_ends_within_a_line_is_told():
    reader, columns = read(GOOD + GOOD[:-1])
    assert columns["pid"] == [10]
    assert (reader.totals.cut, reader.totals.malformed, reader.totals.lines) == (1, 1, 2)
    assert read(GOOD)[0].totals.cut == 0


def test_lost_and_throttled_are_counted_apart():
    head = b"10/11 [002] 30.000000040: "
    reader, columns = read(
        head + b"PERF_RECORD_LOST lost 21\n" + GOOD + head + b"PERF_RECORD_THROTTLE\n"
        b"3 4 0x31310 [0x28]: PERF_RECORD_LOST_SAMPLES: id:289: lost samples :4\n"
        b"3 4 0x31310 [0x28]: PERF_RECORD_LOST: id:7: lost:5\n"
        b"2 27 0x31310 [0x40]: PERF_RECORD_UNTHROTTLE\n" + head + b"PERF_RECORD_COMM: a b:1/1\n\n"
    )
    totals = reader.totals
    assert (totals.lost, totals.lost_events) == (3, 30)
    assert (totals.throttled, totals.unthrottled, totals.others) == (1, 1, 2)
    assert (totals.samples, totals.malformed) == (1, 0)
    assert columns["pid"] == [10]


def test_only_so_many_event_names_are_kept():
    names = [b"event%d" % number for number in range(MAX_EVENTS + 5)]
    reader, columns = read(b"".join(GOOD.replace(b"ev:", name + b":") for name in names))
    assert len(reader.events) == MAX_EVENTS
    assert reader.totals.malformed == 5
    assert columns["event"] == list(range(MAX_EVENTS))


@unhurried
@given(st.lists(st.one_of(st.binary(max_size=300), LINE.map(printed)), max_size=12), st.data())
def test_any_bytes_in_any_pieces_give_the_same(parts, data):
    text = b"".join(parts)
    reader, columns = read(text)
    again, same = read(text, piece=data.draw(st.integers(1, 500)))
    assert columns == same
    assert (reader.totals, reader.events) == (again.totals, again.events)


@unhurried
@given(LINE, st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_a_mutated_line_never_takes_its_neighbours_along(row, at, bytes_in):
    line = printed(row, PHYSICAL)[:-1]
    mutated = (line[:at] + bytes_in + line[at + 1 :]).replace(b"\n", b"?")
    whole = printed(row, PHYSICAL)
    reader, columns = read(whole + mutated + b"\n" + whole, PHYSICAL)
    assert reader.totals.lines == 3
    assert columns["addr"][0] == columns["addr"][-1] == row["addr"]
    assert len(columns["addr"]) in (2, 3)


@pytest.mark.parametrize("piece", [b"x" * MAX_TEXT, GOOD * 1000, b"\n" * 9000, b"\0\xff" * 99])
def test_output_without_end_is_read_in_bounded_memory(piece):
    reader, chunks = perf_script.parse(islice(repeat(piece), 40), ALL)
    tracemalloc.start()
    try:
        largest = max((len(chunk.pid) for chunk in chunks), default=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest <= MAX_TEXT // 40
    assert peak < 32 << 20
    assert reader.totals.check()


def test_lines_made_to_be_slow_are_bounded():
    # Measured as 13 ms a line; the expression alone would take minutes for a megabyte of it.
    hard = b"1/1 1.000000000: 1 " + b"a: 1 1 |OP " * 150_000
    reader, _ = read(hard + b"\n" + GOOD)
    assert (reader.totals.malformed, reader.totals.samples) == (1, 1)


def test_fields_follow_the_recording():
    least = {"IP", "TID", "TIME"}
    memory = least | {"ADDR", "CPU", "DATA_SRC"}
    assert perf_script.fields_for(memory | {"WEIGHT_STRUCT", "PHYS_ADDR", "ID"}) == PHYSICAL
    assert perf_script.fields_for(memory | {"WEIGHT"}) == ALL
    assert perf_script.fields_for(least | {"CPU"}) == NARROW
    assert perf_script.fields_for({"IP", "TID"}) is None
    arguments = perf_script.script_arguments(("pid", "ip"))
    assert arguments == ("--ns", "-F", "pid,ip", "--show-lost-events")


# Wordings of perf 6.1 and 6.12; the latter says names of types and configurations in brackets.
EVLIST = b"""cpu/mem-loads,ldlat=30/P: type: 4, size: 128, config: 0x1cd, { sample_period, \
sample_freq }: 2003, sample_type: IP|TID|TIME|ADDR|CPU|DATA_SRC|WEIGHT_STRUCT, precise_ip: 3
ibs_op//: type: 11 (ibs_op), size: 136, config: 0x80000 (cnt_ctl), { sample_period, \
sample_freq }: 4000, sample_type: IP|TID|TIME|CPU|ADDR|PHYS_ADDR, freq: 1, read_format: ID|LOST
a: b: size: 1x: size: 96, sample_type: IP|TID, disabled: 1
dummy:u: type: 1, size: 136, config: 0x9, { sample_period, sample_freq }: 1, sample_type: IP|TID
bad event header size
"""


def test_evlist_of_two_versions():
    loads, ibs, odd, dummy = evlist.parse(EVLIST)
    assert (loads.name, loads.type, loads.config) == ("cpu/mem-loads,ldlat=30/P", 4, 0x1CD)
    assert (loads.period, loads.by_frequency) == (2003, False)
    assert loads.sample_type >= {"ADDR", "DATA_SRC", "WEIGHT_STRUCT"}
    assert (ibs.name, ibs.type, ibs.config) == ("ibs_op//", 11, 0x80000)
    assert (ibs.period, ibs.by_frequency) == (4000, True)
    assert (odd.name, odd.type) == ("a: b: size: 1x", 0)
    assert dummy.name == "dummy:u"
    assert evlist.common_sample_type([loads, ibs, dummy]) == {"IP", "TID", "TIME", "ADDR", "CPU"}
    assert evlist.common_sample_type([loads, ibs, odd]) == {"IP", "TID"}
    assert evlist.common_sample_type([dummy]) == evlist.common_sample_type([]) == frozenset()


def test_arm_spe_is_read_with_the_fields_of_its_decoded_events():
    line = b"arm_spe_0/ts_enable=1/: type: 8, size: 136, sample_type: IP|TID|TIME|CPU, freq: 1\n"
    (event,) = evlist.parse(line)
    assert perf_script.fields_for(evlist.common_sample_type([event])) == PHYSICAL


@example(b"1\x00", 55)  # a number that begins with 0
@given(st.binary(max_size=400), st.integers(0, len(EVLIST)))
def test_evlist_of_any_bytes(noise, at):
    events = evlist.parse(EVLIST[:at] + noise + EVLIST[at:])
    assert all(isinstance(event.name, str) and event.config < 2**64 for event in events)


STATS = b"""
Aggregated stats:
           TOTAL events:       1000
        THROTTLE events:         68  ( 6.8%)
            LOST events:          3
          SAMPLE events:        900  (90.0%)
    LOST_SAMPLES events:          2  ( 0.2%)
cpu/mem-loads, x/P stats:
          SAMPLE events:        900
    LOST_SAMPLES events:      74942
"""


def test_totals_of_a_recording():
    totals = perf_totals.parse(STATS)
    assert (totals.throttled, totals.lost_records) == (68, 3)
    assert totals.samples == {"cpu/mem-loads, x/P": 900}
    assert totals.lost_samples == {"cpu/mem-loads, x/P": 74942}
    assert totals.records["SAMPLE"] == 900


@given(st.binary(max_size=400))
def test_totals_of_any_bytes(noise):
    totals = perf_totals.parse(STATS + noise)
    assert totals.records["THROTTLE"] >= 68
