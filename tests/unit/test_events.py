"""The event table and what is derived from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numatrace.model.events import COLUMN, COLUMNS, EVENTS, FAMILIES, RINGS
from numatrace.model.records import SIZES, ring_fields, ring_record_bytes
from numatrace.trace.schema import arrow_schema, ring_dtype

ROOT = Path(__file__).resolve().parents[2]


def test_every_kind_uses_known_columns_and_families() -> None:
    for event in EVENTS:
        assert set(event.columns) <= COLUMN.keys(), event.kind
        assert "t_ns" in event.columns, event.kind
        assert event.family in FAMILIES
    assert len({event.kind for event in EVENTS}) == len(EVENTS)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_no_column_is_without_a_kind() -> None:
    used = {name for event in EVENTS for name in event.columns}
    assert used | {"kind"} == COLUMN.keys()


@pytest.mark.parametrize("ring", RINGS)
def test_record_layout_has_no_hidden_padding(ring: str) -> None:
    """The oracle is the C compiler's rule: natural alignment, size a multiple of the largest."""
    offset = 0
    for field in ring_fields(ring):
        assert field.offset == offset
        assert field.offset % SIZES[field.type] == 0
        offset += SIZES[field.type] * field.length
    assert offset == ring_record_bytes(ring) == ring_dtype(ring).itemsize
    assert offset % 8 == 0


@pytest.mark.parametrize("ring", RINGS)
def test_numpy_and_c_agree(ring: str, tmp_path: Path) -> None:
    """gcc compiles the header with its assertions and fills a record; numpy reads it back."""
    fields = [f for f in ring_fields(ring) if f.name != "pad"]
    last = {f.name: f"{f.name}[{f.length - 1}]" if f.length > 1 else f.name for f in fields}
    sets = "\n".join(f"  r.{last[f.name]} = {i + 1};" for i, f in enumerate(fields))
    source = tmp_path / "t.c"
    source.write_text(
        "#include <linux/types.h>\n#include <stdio.h>\n"
        f'#include "{ROOT}/bpf/events.h"\n'
        f"int main(void) {{ struct {ring}_record r = {{0}};\n{sets}\n"
        "  fwrite(&r, sizeof r, 1, stdout); return 0; }\n"
    )
    program = tmp_path / "t"
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", program, source], check=True)
    raw = subprocess.run([program], check=True, capture_output=True).stdout
    record = np.frombuffer(raw, ring_dtype(ring))[0]
    read = [record[f.name][-1] if f.length > 1 else record[f.name] for f in fields]
    assert [int(value) for value in read] == list(range(1, len(fields) + 1))


def test_unknown_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="no ring named"):
        ring_fields("nothing")


def test_arrow_fields_carry_unit_and_meaning() -> None:
    for field, column in zip(arrow_schema(), COLUMNS, strict=True):
        assert field.name == column.name
        assert field.metadata[b"unit"].decode() == column.unit
        assert field.metadata[b"doc"].decode() == column.doc


def test_generated_files_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "gen-events", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
