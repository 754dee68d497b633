"""Bandwidth counters of resctrl, from a tree as the kernel lays it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from numatrace.record.pmu.resctrl import Resctrl, domain_nodes
from numatrace.trace.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESCTRL = "sys/fs/resctrl"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[TraceWriter]:
    writer = TraceWriter.create(tmp_path / "trace.arrow")
    yield writer
    writer.abandon()


def rows(writer: TraceWriter, folder: Path) -> list[tuple[object, ...]]:
    writer.close()
    table = pa.ipc.open_file(folder / "trace.arrow").read_all()
    columns = ("kind", "node", "name", "count")
    return [tuple(row[name] for name in columns) for row in table.to_pylist()]


def machine(root: Path) -> Path:
    """Two nodes of two CPUs, and cache 1 of the second."""
    system = root / "sys/devices/system"
    for node, cpus in ((0, "0-1"), (1, "2-3")):
        (system / f"node/node{node}").mkdir(parents=True)
        (system / f"node/node{node}/cpulist").write_text(cpus)
        for cpu in (2 * node, 2 * node + 1):
            cache = system / f"cpu/cpu{cpu}/cache/index3"
            cache.mkdir(parents=True)
            (cache / "id").write_text(f"{node}\n")
            (cache / "shared_cpu_list").write_text(cpus + "\n")
    (system / "cpu/online").write_text("0-3\n")
    return root


def counts(root: Path, group: str, domain: str, local: str, total: str) -> None:
    folder = root / RESCTRL / group / f"mon_data/mon_L3_{domain}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mbm_local_bytes").write_text(local + "\n")
    (folder / "mbm_total_bytes").write_text(total + "\n")
    (folder / "llc_occupancy").write_text("4096\n")


def test_growth_of_every_domain_over_all_groups(tmp_path: Path, writer: TraceWriter) -> None:
    root = machine(tmp_path)
    counts(root, "", "00", "1000", "5000")
    counts(root, "", "01", "10", "20")
    counts(root, "llm", "00", "100", "200")
    counts(root, "info", "00", "7", "7")  # not a group
    resctrl = Resctrl(writer, root)
    resctrl.start()
    counts(root, "", "00", "1500", "7000")
    counts(root, "llm", "00", "350", "800")
    resctrl.read()
    resctrl.read()
    assert rows(writer, tmp_path) == [
        ("counter", 0, "mbm_local_bytes", 750),
        ("counter", 0, "mbm_total_bytes", 2600),
        ("counter", 1, "mbm_local_bytes", 0),
        ("counter", 1, "mbm_total_bytes", 0),
        ("counter", 0, "mbm_local_bytes", 0),
        ("counter", 0, "mbm_total_bytes", 0),
        ("counter", 1, "mbm_local_bytes", 0),
        ("counter", 1, "mbm_total_bytes", 0),
    ]


def test_unavailable_new_and_reset_counters_have_no_growth(
    tmp_path: Path, writer: TraceWriter
) -> None:
    root = machine(tmp_path)
    counts(root, "", "00", "Unavailable", "900")
    resctrl = Resctrl(writer, root)
    resctrl.start()
    counts(root, "", "00", "500", "100")  # the first read of one, and the other began anew
    resctrl.read()
    counts(root, "", "00", "700", "Error")
    counts(root, "new", "00", "9999", "9999")
    resctrl.read()
    assert rows(writer, tmp_path) == [
        ("counter", 0, "mbm_local_bytes", 0),
        ("counter", 0, "mbm_local_bytes", 200),
        ("counter", 0, "mbm_total_bytes", 0),
    ]


def test_without_resctrl_there_are_no_rows(tmp_path: Path, writer: TraceWriter) -> None:
    resctrl = Resctrl(writer, machine(tmp_path))
    resctrl.start()
    resctrl.read()
    assert rows(writer, tmp_path) == []


def test_a_cache_of_two_nodes_is_of_none(tmp_path: Path) -> None:
    root = machine(tmp_path)
    cache = root / "sys/devices/system/cpu/cpu0/cache/index3"
    (cache / "shared_cpu_list").write_text("0-3")
    assert domain_nodes(root) == {0: None, 1: 1}
