"""Rows of `perf stat -j` and `-x`, from several versions and with names made to deceive."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.record.pmu.perf_stat import MAX_ROW, Count, StatReader

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(data: bytes, separator=None, piece=1 << 20) -> tuple[StatReader, list[Count]]:
    reader = StatReader(separator)
    counts = []
    for start in range(0, len(data), piece):
        counts += reader.feed(data[start : start + piece])
    reader.close()
    assert reader.totals.counts == len(counts)
    return reader, counts


def row(whose=b"", value=b"1000.000000", rest=b"", event=b"node-loads", runtime=b"800") -> bytes:
    """A row of perf 6.1, see print_counter_value_json() in tools/perf/util/stat-display.c."""
    return (
        b'{"interval" : 1.500000000, ' + whose + b'"counter-value" : "' + value + b'", '
        b'"unit" : "", "event" : "' + event + b'", "event-runtime" : ' + runtime + b", "
        b'"pcnt-running" : 66.00, "metric-value" : 0.250000, "metric-unit" : "M/sec"'
        + rest
        + b"}\n"
    )


def thread(name: bytes, tid=4242, **more: bytes) -> bytes:
    return row(b'"thread" : "' + name + b"-%d" % tid + b'", ', **more)


def test_a_row():
    (count,) = read(row())[1]
    assert count == Count(
        t_s=1.5,
        kind="all",
        where="",
        tid=-1,
        number=-1,
        event="node-loads",
        value=1000.0,
        reason="",
        unit="",
        running_share=0.66,
        metric=0.25,
        metric_unit="M/sec",
        running_ns=800,
    )


@pytest.mark.parametrize("reason", ["not counted", "not supported"])
def test_what_was_not_counted_has_a_reason_and_never_ran(reason):
    (count,) = read(row(value=b"<%s>" % reason.encode(), runtime=b"0"))[1]
    assert (count.value, count.reason, count.running_share) == (None, reason, 0.0)


@pytest.mark.parametrize(
    ("whose", "expected"),
    [
        (b'"node" : "N3", "aggregate-number" : 16, ', ("node", "N3", 3)),
        (b'"node" : "N3", "counters" : 16, ', ("node", "N3", 3)),
        (b'"socket" : "S1", "aggregate-number" : 16, ', ("socket", "S1", 1)),
        (b'"die" : "S1-D0", "aggregate-number" : 16, ', ("die", "S1-D0", -1)),
        (b'"core" : "S1-D0-C7", "counters" : 2, ', ("core", "S1-D0-C7", -1)),
        (b'"cpu" : "12", ', ("cpu", "12", 12)),
    ],
)
def test_whose_count_it_is(whose, expected):
    (count,) = read(row(whose))[1]
    assert (count.kind, count.where, count.number) == expected
    assert (count.tid, count.value) == (-1, 1000.0)


def test_other_versions():
    threshold = (
        b'{"counter-value" : "7.000000", "unit" : "", "event" : "cpu/event=0x43,umask=0x8/",'
    )
    threshold += b' "event-runtime" : 5, "pcnt-running" : 100.00, "metric-value" : "12.500000", '
    threshold += b'"metric-unit" : "%  remote", "metric-threshold" : "good"}\n'
    no_unit = b'{"counter-value" : "7.000000", "event" : "e", "variance" : 1.00, '
    no_unit += b'"event-runtime" : 5, "pcnt-running" : 100.00, "metric-value" : nan, '
    no_unit += b'"metric-unit" : "(null)"}\n'
    reordered = b'{"event": "e", "counter-value": "8.0", "node": "N1", "interval": 2.5, '
    reordered += b'"event-runtime": 4, "pcnt-running": 50.0}\n'
    reader, (first, second, third) = read(threshold + no_unit + reordered)
    assert (first.event, first.value, first.t_s) == ("cpu/event=0x43,umask=0x8/", 7.0, 0.0)
    assert (first.metric, first.metric_unit) == (12.5, "%  remote")
    assert (second.event, second.value, second.metric) == ("e", 7.0, None)
    assert (third.t_s, third.kind, third.number, third.value) == (2.5, "node", 1, 8.0)
    assert third.running_share == 0.5
    assert reader.totals.malformed == 0


NAMES = st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name)
HOSTILE = [
    b'a"b\\c-1 x',
    b'x", "node":"0',
    b'q", "thread":"',
    b'\n{"interval" : ',
    b"}\n{\n}\n\n",
    b"\xff\xfe\n-7",
    b"x;1;;cycles;1;1",
    b"\n9;;cs;1;1;",
    b"1.5;1;;e;1;1.00",
    b"S0;2",
    b"CPU1",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("separator", [None, ";", "|"])
def test_names_made_to_deceive(name, separator):
    check_name(name, separator)


@unhurried
@given(NAMES, st.sampled_from([None, ";", "|"]))
def test_any_name(name, separator):
    check_name(name, separator)


def check_name(name: bytes, separator: str | None) -> None:
    """The thread's own row and its neighbours' come out, and nothing else does."""
    if separator is None:
        rows = thread(b"left", 1) + thread(name) + thread(b"right", 3)
    else:
        form = b"     1.500000000;%s-%d;1000;;node-loads;800;66.00;0.250;M/sec\n"
        each = ((b"left", 1), (name, 4242), (b"right", 3))
        rows = b"".join(form.replace(b";", separator.encode()) % pair for pair in each)
    reader, counts = read(rows, separator)
    assert [count.tid for count in counts] == [1, 4242, 3]
    assert {(c.kind, c.t_s, c.event, c.value) for c in counts} == {
        ("thread", 1.5, "node-loads", 1000.0)
    }
    assert counts[1].where == name.decode("utf-8", "replace")
    assert (reader.totals.malformed, reader.totals.others) == (0, 0)


def test_a_row_cut_in_the_middle_costs_itself_only():
    whole = thread(b"left", 1)
    for cut in range(1, len(whole) - 1):
        reader, counts = read(whole[:cut] + b"\n" + whole)
        assert [(count.tid, count.value) for count in counts] == [(1, 1000.0)]
        # What is left of the row may end before anything shows that it was one.
        assert reader.totals.malformed == 1


def test_rows_that_are_no_counts():
    others = b"# started on Mon\n\nperf version 6.1\n/usr/bin/perf stat -x , -e {a,b}\n"
    others += b'{"interval" : 1.000000000, "metric-value" : "0.5", "metric-unit" : "x"}\n'
    reader, counts = read(others + row())
    assert (len(counts), reader.totals.others, reader.totals.malformed) == (1, 5, 0)
    # In rows with separators, a second metric of an event stands on a row without a value.
    reader, counts = read(b"     1.000000000;;;;;;0.5;x\n 1.000000000;5;;e;7;100.00;;\n", ";")
    assert (len(counts), reader.totals.others, reader.totals.malformed) == (1, 1, 0)


def test_an_endless_line_is_skipped_and_counted_once():
    reader, counts = read(b"{" + b"x" * (50 * MAX_ROW) + b"\n" + row(), piece=777)
    assert (len(counts), reader.totals.malformed) == (1, 1)


def test_a_thread_id_out_of_range_is_malformed():
    reader, counts = read(thread(b"a", 2**31) + thread(b"a", 2**31 - 1))
    assert [count.tid for count in counts] == [2**31 - 1]
    assert reader.totals.malformed == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"     0.200295401;N0;2;401.07;msec;task-clock;401071140;100.00;2.005;CPUs utilized",
            "N0",
        ),
        (b"0.200295401;S1-D0-C3;2;84;;page-faults;401075748;33.00;209.4;/sec", "S1-D0-C3"),
        (b"0.200330212;CPU1;201.60;msec;task-clock;200600447;100.00;1.003;CPUs utilized", "CPU1"),
        (b"84;;page-faults;401075748;100.00;209.438;/sec", ""),
        (b"<not counted>;msec;task-clock;0;100.00;;", ""),
        (b"1.5;<not supported>;;cycles;0;100.00;;", ""),
        (b"84;page-faults;401075748;100.00", ""),
    ],
)
def test_rows_with_separators(line, expected):
    reader, (count,) = read(line + b"\n", ";")
    assert count.where == expected
    assert count.event in ("task-clock", "page-faults", "cycles")
    assert count.unit == ("msec" if count.event == "task-clock" else "")
    assert (count.value is None) == (b"<" in line)
    assert reader.totals.malformed == 0


def test_commas_in_an_events_name():
    (count,) = read(b"1.0,7,,cpu/event=0x43,umask=0x08/,800,66.00,,\n", ",")[1]
    assert (count.event, count.value, count.running_share) == (
        "cpu/event=0x43,umask=0x08/",
        7.0,
        0.66,
    )


@unhurried
@given(
    st.lists(st.one_of(st.binary(max_size=200), NAMES.map(thread), st.just(row())), max_size=10),
    st.sampled_from([None, ";", ",", " "]),
    st.integers(1, 300),
)
def test_any_bytes_in_any_pieces_give_the_same(parts, separator, piece):
    text = b"".join(parts)
    reader, counts = read(text, separator)
    again, same = read(text, separator, piece)
    assert counts == same
    assert reader.totals == again.totals
    for count in counts:
        assert 0.0 <= count.running_share <= 1.0
        assert (count.value is None) == bool(count.reason)
