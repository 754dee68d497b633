"""Real recordings and outputs of others: the readers against perf's own counts and words."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from numatrace.model.errors import NumatraceError
from numatrace.record.pmu import evlist, perf_errors, perf_script, perf_totals
from numatrace.record.pmu.data_source import CLASSES, classify
from numatrace.record.pmu.perf_stat import StatReader
from tests.unit.test_perf_data_source import INTEL, SKYLAKE, TABLES

CAPTURES = Path(__file__).resolve().parents[3] / "shared/captures"
MEMORY = ("perf.data.weight_struct", "numatop-fork-4node.perf.data")
"""Recordings whose samples have a data source."""
READABLE = (
    *MEMORY,
    "perf.data.hw_and_sw-3.4",
    "perf.data.hybrid_topology",
    "perf.data.lost_samples-4.4",
    "perf.data.numatopology-3.2",
    "perf.data.piped.header_features_aligned-6.12",
    "perf.data.throttle-3.8",
)
DUMP = """
import json, sys
NAMES = "ip pid tid cpu time period addr datasrc weight".split()
def process_event(fields):
    sample = {name: fields["sample"][name] for name in NAMES}
    sys.stdout.write(json.dumps([fields["ev_name"], sample]) + chr(10))
"""


def capture(name: str) -> Path:
    path = CAPTURES / name
    if not path.is_file():
        pytest.skip(f"no captures here: {name} is kept outside of this repository")
    return path


def perf(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = shutil.which("perf")
    if command is None:
        pytest.skip("perf is not installed")
    return subprocess.run([command, *arguments], capture_output=True, timeout=60, check=False)


def usable_perf() -> None:
    if perf("version").returncode != 0:
        pytest.skip("perf does not run here")


def read(path: Path):
    """Our view of a recording: the reader, and all samples as one."""
    usable_perf()
    events = evlist.parse(perf("evlist", "-f", "-v", "-i", str(path)).stdout)
    fields = perf_script.fields_for(evlist.common_sample_type(events))
    assert fields is not None
    run = perf("script", "-f", "-i", str(path), *perf_script.script_arguments(fields))
    reader, chunks = perf_script.parse([run.stdout], fields)
    kept = list(chunks)
    assert reader.totals.check()
    assert not perf_errors.failed(run.returncode, run.stderr, reader.totals.samples)
    joined = [np.concatenate(columns) for columns in zip(*kept, strict=True)]
    return reader, perf_script.Samples(*joined), fields


@pytest.mark.parametrize("name", READABLE)
def test_as_many_samples_of_each_event_as_perf_report_counts(name):
    path = capture(f"perf-data/{name}")
    reader, samples, _ = read(path)
    stats = perf_totals.parse(perf("report", "-f", "--stats", "-i", str(path)).stdout)
    codes = Counter(samples.event.tolist())
    # In pipe mode perf 6.1 names an event before it has read all that its name is made of.
    names = {name.removesuffix("H"): count for name, count in stats.samples.items()}
    assert {reader.events[code].removesuffix("H"): n for code, n in codes.items()} == names
    assert reader.totals.samples == stats.records["SAMPLE"] == len(samples.ip) > 0
    assert (reader.totals.malformed, reader.totals.cut) == (0, 0)


@pytest.mark.parametrize("name", READABLE)
def test_every_sample_as_perf_hands_it_to_a_script(name, tmp_path):
    path = capture(f"perf-data/{name}")
    reader, samples, fields = read(path)
    script = tmp_path / "dump.py"
    script.write_text(DUMP)
    run = perf("script", "-f", "-i", str(path), "-s", str(script))
    if run.returncode != 0:
        pytest.skip("this perf has no Python in it")
    expected = [json.loads(line) for line in run.stdout.splitlines()]
    assert [reader.events[code] for code in samples.event] == [event for event, _ in expected]
    pairs = {"ip": "ip", "pid": "pid", "tid": "tid", "t_ns": "time", "period": "period"}
    pairs |= {"addr": "addr", "data_src": "datasrc", "weight": "weight", "cpu": "cpu"}
    for ours, theirs in pairs.items():
        if theirs in (*fields, "ip", "datasrc") and (ours != "data_src" or ours in fields):
            column = getattr(samples, ours).tolist()
            assert column == [sample[theirs] for _, sample in expected], ours
    if "cpu" not in fields:
        assert set(samples.cpu.tolist()) == {-1}


def test_throttling_and_losses_are_perfs_own_numbers():
    for name, record in (("throttle-3.8", "THROTTLE"), ("lost_samples-4.4", "LOST_SAMPLES")):
        path = capture(f"perf-data/perf.data.{name}")
        usable_perf()
        stats = perf_totals.parse(perf("report", "-f", "--stats", "-i", str(path)).stdout)
        dump = perf("script", "-f", "-i", str(path), "-D").stdout
        records = re.findall(rb": PERF_RECORD_%s\b" % record.encode(), dump)
        assert stats.records[record] == len(records) > 0
        lost = [int(n) for n in re.findall(rb"lost samples :(\d+)", dump)]
        assert sum(stats.lost_samples.values()) == sum(lost)


@pytest.mark.parametrize("name", MEMORY)
def test_classes_as_perf_mem_report_words_them(name):
    path = capture(f"perf-data/{name}")
    _, samples, _ = read(path)
    classes = Counter(CLASSES[cls] for cls in classify(samples.data_src).cls)
    assert classes == reported(path)


def reported(path: Path) -> Counter[str]:
    """Samples of each class by the rows of `perf mem report -s mem`."""
    text = perf("mem", "report", "-f", "-i", str(path), "-s", "mem", "--stdio").stdout.decode()
    rows = re.findall(r"^ +[\d.]+% +(\d+)  (\S.*?) *$", text, re.MULTILINE)
    found: Counter[str] = Counter()
    for count, wording in rows:
        found[worded(wording)] += int(count)
    return found


def worded(text: str) -> str:
    """The class that perf's wording of a level stands for; 6.1 words it twice, "L3 or L3 hit"."""
    if text.endswith("miss") or text.startswith("N/A"):
        return "unknown"
    for name, cls in (("LFB", "line buffer"), ("I/O", "uncached"), ("Uncached", "uncached")):
        if name in text:
            return cls
    kinds = {"RAM": "DRAM", "PMEM": "PMEM", "CXL": "CXL", "cache": "cache", "Cache": "cache"}
    kinds |= {"L1": "cache", "L2": "cache", "L3": "cache", "L4": "cache"}
    kind = next(kind for word, kind in kinds.items() if word in text)
    return f"remote {kind}" if "Remote" in text else f"local {kind}"


def test_intels_tables_as_perf_words_them(tmp_path):
    """The words of a real recording, exchanged for those of the kernel's tables."""
    path = capture("perf-data/perf.data.weight_struct")
    _, samples, _ = read(path)
    data = path.read_bytes()
    places = sorted(
        match.start()
        for value in set(samples.data_src.tolist())
        for match in re.finditer(re.escape(value.to_bytes(8, "little")), data)
    )
    assert len(places) == len(samples.ip)
    table = [*INTEL.values(), *SKYLAKE.values(), *TABLES["Crestmont"].values()]
    for start in range(0, len(table), len(places)):
        rows = table[start : start + len(places)]
        rows += [table[0]] * (len(places) - len(rows))
        patched = bytearray(data)
        for place, (value, _, _) in zip(places, rows, strict=True):
            patched[place : place + 8] = value.to_bytes(8, "little")
        copy = tmp_path / f"from-{start}"
        copy.write_bytes(patched)
        _, seen, _ = read(copy)
        assert sorted(seen.data_src.tolist()) == sorted(row[0] for row in rows)
        ours = [CLASSES[cls] for cls in classify(seen.data_src).cls]
        assert sorted(ours) == sorted(row[1] for row in rows)
        # `perf mem report` would lump together what differs in the newer name space only.
        lines = perf("script", "-f", "-i", str(copy), "-F", "data_src").stdout.decode()
        levels = re.findall(r"\|LVL (.*?)\|", lines)
        assert ours == [worded(level) for level in levels]


def test_data_sources_quoted_with_their_wording():
    """Lines of the mailing list: Intel, AMD and Arm, 2022 to 2025."""
    text = capture("perf-script/perf-script-lines.txt").read_text()
    quoted = re.findall(r" ([0-9a-f]+) \|OP (\w+)[^|]*\|LVL ([^|]*?)\|(?:SNP (\w+))?", text)
    assert len(quoted) >= 12
    words = classify(np.array([int(value, 16) for value, *_ in quoted], dtype=np.uint64))
    for index, (_, operation, level, snoop) in enumerate(quoted):
        assert words.op[index] == {"LOAD": 2, "STORE": 4}[operation]
        assert CLASSES[words.cls[index]] == worded(level)
        assert words.hitm[index] == (snoop == "HitM")


def test_damaged_and_foreign_files_are_errors_that_say_what_to_do(tmp_path):
    usable_perf()
    damaged = capture("perf-data/perf.data.piped.corrupted.zero_size_sample-3.2")
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"PERFILE7" + bytes(range(256)) * 40)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    missing = tmp_path / "missing"
    for path, todo in (
        (damaged, "cut or damaged"),
        (foreign, "same version"),
        (empty, "cut or damaged"),
        (missing, ""),
    ):
        run = perf("script", "-f", "-i", str(path), "-F", "pid")
        assert perf_errors.failed(run.returncode, run.stderr, samples=0)
        error = perf_errors.explain("reading samples", run.returncode, run.stderr)
        assert isinstance(error, NumatraceError)
        assert todo in error.todo
        assert error.why.startswith("perf: ")


def test_a_field_that_a_recording_lacks_is_an_error_that_names_it():
    path = capture("perf-data/numatop-fork-4node.perf.data")
    usable_perf()
    run = perf("script", "-f", "-i", str(path), "-F", "pid,cpu,ip")
    error = perf_errors.explain("reading samples", run.returncode, run.stderr)
    assert "CPU attribute" in error.why
    assert "evlist" in error.todo


@pytest.mark.parametrize(("name", "separator"), [("lkp-1", " "), ("lkp-2", ","), ("lkp-3", ",")])
def test_counters_of_real_servers(name, separator):
    path = capture(f"perf-stat/{name}.txt")
    reader = StatReader(separator)
    counts = reader.feed(path.read_bytes())
    reader.close()
    expected: dict[tuple[float, str], tuple[float, float]] = {}
    for line in path.read_text().splitlines():
        parts = line.strip().split(separator)
        if re.fullmatch(r"\d+\.\d+", parts[0]):
            expected[float(parts[0]), parts[3]] = (float(parts[1]), float(parts[5]) / 100)
    ours = {(c.t_s, c.event): (c.value, c.running_share) for c in counts}
    assert ours == expected
    assert len(counts) == len(ours) > 20
    assert reader.totals.malformed == 0
    totals = Counter()
    for count in counts:
        totals[count.event] += count.value
    loads, misses = totals["node-loads"], totals["node-load-misses"]
    # The two are disjoint on this machine: other node's reads are not part of node-loads.
    assert (misses > loads) == (name == "lkp-3")


def test_a_live_perf_stat_by_threads():
    """Runs on any machine: a software event of this process."""
    usable_perf()
    command = ("-e", "task-clock", "sleep", "0.15")
    run = perf("stat", "-j", "-I", "100", "--per-thread", "-p", str(os.getpid()), *command)
    if run.returncode != 0:
        pytest.skip(f"perf stat does not run here: {perf_errors.said(run.stderr)}")
    reader = StatReader()
    counts = reader.feed(run.stderr)
    reader.close()
    assert len(counts) >= 1
    assert {count.event for count in counts} == {"task-clock"}
    assert all(count.kind == "thread" and count.tid > 0 for count in counts)
    assert reader.totals.malformed == 0
