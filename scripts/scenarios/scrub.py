"""Take this machine's own names out of a trace before it becomes a fixture."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pyarrow as pa
from pyarrow import compute, ipc

from scenarios.workload import ROOT

COMMAND_LINE = r'"cmdline": "(?:[^"\\]|\\.)*"'
"""The kernel's command line in the document `kernel`: it may tell of the machine's owner."""


def neutral_names(folder: Path) -> list[tuple[str, str]]:
    """Path prefixes of this machine and what stands for them, longest first."""
    names = {
        str(ROOT): "/srv/numatrace",
        sys.prefix: "/srv/venv",
        sys.base_prefix: "/usr/local",
        str(Path(sys.executable).resolve().parents[1]): "/usr/local",
        str(folder): "/srv/traces",
        str(Path.home()): "/home/user",
    }
    known = {old: new for old, new in names.items() if old not in ("/", "/usr")}
    return sorted(known.items(), key=lambda pair: -len(pair[0]))


def scrub(trace: Path, target: Path) -> None:
    """Write a copy of a trace with neutral names. Raises RuntimeError if one is left."""
    replacements = neutral_names(trace.parent)
    with ipc.open_file(trace) as reader:
        batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
        schema = reader.schema
    with ipc.new_file(target, schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        for batch in batches:
            columns = [_clean(column, replacements) for column in batch.columns]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _clean(column: pa.Array, replacements: list[tuple[str, str]]) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    for old, new in replacements:
        pattern = re.escape(old) + r"\b"
        column = compute.replace_substring_regex(column, pattern=pattern, replacement=new)
    return compute.replace_substring_regex(
        column, pattern=COMMAND_LINE, replacement='"cmdline": "(left out)"'
    )
