"""Traces of machines that are not here, made of one that was recorded: S18 and S19.

What they need is in the hardware: a hole in the numbers of the nodes, a GPU. Everything else of the
trace stays as it was recorded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import compute, ipc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Document = dict[str, Any]

HOLE = {0: 0, 1: 2}
"""Nodes 0 and 1 become 0 and 2."""
NODE_COLUMNS = ("node", "from_node", "mem_node")
GPU = {"address": "0000:41:00.0", "kind": "gpu", "driver": "nvidia", "node": 0}
GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm")


def with_hole(trace: Path, target: Path) -> None:
    """S18: the second node is number 2."""
    _rewrite(trace, target, _renumbered)


def with_gpu(trace: Path, target: Path) -> None:
    """S19: the server maps a GPU's device files, and the machine has that GPU on node 0."""
    _rewrite(trace, target, _with_gpu)


def _rewrite(trace: Path, target: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    with ipc.open_file(trace) as reader:
        table = change(reader.read_all())
    options = ipc.IpcWriteOptions(compression="zstd")
    with ipc.new_file(target, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())


def _renumbered(table: pa.Table) -> pa.Table:
    for name in NODE_COLUMNS:
        old = table[name]
        new = compute.if_else(compute.equal(old, 1), pa.scalar(HOLE[1], old.type), old)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), new)
    return _documents(table, _renumbered_document)


def _documents(table: pa.Table, change: Callable[[str, str, Document], Document]) -> pa.Table:
    """Change every JSON document of the rows `system`, `process` and `thread`."""
    kinds = table["kind"].cast("string").to_pylist()
    names, values = table["name"].to_pylist(), table["value"].to_pylist()
    for place, kind in enumerate(kinds):
        if kind in ("system", "process", "thread"):
            value = change(kind, names[place] or "", json.loads(values[place]))
            values[place] = json.dumps(value)
    place = table.schema.get_field_index("value")
    return table.set_column(place, table.schema.field("value"), pa.array(values, pa.string()))


def _renumbered_document(kind: str, name: str, value: Document) -> Document:
    if kind == "system":
        return _SYSTEM.get(name, dict)(value)
    value["mems_allowed"] = "0,2"
    if "cgroup" in value:
        value["cgroup"]["mems"] = "0,2"
    return value


def _topology(value: Document) -> Document:
    for node in value["nodes"]:
        node["node"] = HOLE[node["node"]]
    value["distances"] = {
        str(HOLE[int(one)]): _keys(others) for one, others in value["distances"].items()
    }
    return value


def _memory(value: Document) -> Document:
    return value | {name: _keys(value[name]) for name in ("nodes", "numastat")}


def _keys(numbered: Document) -> Document:
    return {str(HOLE[int(node)]): each for node, each in numbered.items()}


_SYSTEM = {"topology": _topology, "memory": _memory}


def _with_gpu(table: pa.Table) -> pa.Table:
    def change(kind: str, name: str, value: Document) -> Document:
        return {"devices": [GPU]} if (kind, name) == ("system", "devices") else value

    table = _documents(table, change)
    maps = compute.equal(table["kind"].cast("string"), "map")
    first = table.filter(maps).slice(0, 1)
    rows = []
    for number, path in enumerate(GPU_FILES):
        row = first
        changes = {"path": path, "detail": "rw-s", "addr": (0x7E00 + number) << 32, "offset": 0}
        for name, value in (changes | {"bytes": 1 << 16, "inode": 900 + number}).items():
            field = row.schema.field(name)
            column = pa.array([value], field.type)
            row = row.set_column(row.schema.get_field_index(name), field, column)
        rows.append(row)
    return pa.concat_tables([table, *rows])
