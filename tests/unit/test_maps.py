"""Memory maps: what the kernel writes is what is read, whatever the paths are."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numatrace.model.errors import CapabilityError
from numatrace.record.memory import maps
from numatrace.record.memory.maps import Mapping, diff_maps, parse_maps, read_maps

UNHURRIED = settings(deadline=None)
PAGES = st.integers(0, (1 << 35) - 2)
PATHS = st.one_of(
    st.just(b""),
    st.sampled_from([b"[heap]", b"[anon:name]", b"/memfd:x (deleted)", b"/a b  c/d (deleted)"]),
    st.binary(min_size=1, max_size=60).map(lambda raw: b"/" + raw.replace(b"\n", b"\\012")),
)


@st.composite
def mapping_lines(draw: st.DrawFn) -> tuple[Mapping, bytes]:
    """A mapping, and its line as fs/proc/task_mmu.c writes it (show_vma_header_prefix)."""
    start = draw(PAGES) * 4096
    end = start + draw(st.integers(1, 1 << 20)) * 4096
    offset = draw(PAGES) * 4096
    major, minor = draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1))
    inode, path = draw(st.integers(0, (1 << 64) - 1)), draw(PATHS)
    perms = "".join(draw(st.sampled_from(pair)) for pair in ("r-", "w-", "x-", "ps"))
    line = f"{start:08x}-{end:08x} {perms} {offset:08x} {major:02x}:{minor:02x} {inode} ".encode()
    if path:
        line = line.ljust(73) + path
    text = path.decode("utf-8", "backslashreplace")
    return Mapping(start, end, perms, offset, os.makedev(major, minor), inode, text), line


@UNHURRIED
@given(st.lists(mapping_lines(), max_size=8))
def test_what_the_kernel_writes_is_read_back(mappings: list[tuple[Mapping, bytes]]) -> None:
    data = b"".join(line + b"\n" for _, line in mappings)
    read = parse_maps(data)
    # A path that begins with white space after the padding cannot be told from padding; none does.
    assert list(read) == [mapping for mapping, _ in mappings]


@UNHURRIED
@given(st.binary(max_size=300))
def test_no_text_is_too_strange(data: bytes) -> None:
    for mapping in parse_maps(data):
        assert mapping.start < mapping.end
        mapping.path.encode("utf-8")


@UNHURRIED
@given(st.data())
def test_diff_leads_from_one_snapshot_to_the_next(data: st.DataObject) -> None:
    one = st.builds(
        Mapping, *map(st.just, (4096, 8192, "r--p", 0, 1)), st.integers(0, 9), st.just("")
    )
    previous = data.draw(st.lists(one, unique=True))
    current = data.draw(st.lists(one, unique=True))
    added, removed = diff_maps(previous, current)
    assert (set(previous) - set(removed)) | set(added) == set(current)
    assert set(removed) <= set(previous)
    assert not set(added) & set(previous)
    assert added == [mapping for mapping in current if mapping in set(added)]


def test_a_mapping_that_grew_is_in_both() -> None:
    small = Mapping(4096, 8192, "rw-p", 0, 0, 0, "[heap]")
    large = small._replace(end=12288)
    assert diff_maps([small], [large]) == ([large], [small])


@pytest.mark.parametrize(
    "name", [b"line\nbreak", b"\xff\xfe", b"gr\xc3\xbcn x", b"tab\tand\x1b[31m"]
)
def test_a_mapped_file_of_this_process(tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "w+b") as file:  # noqa: PTH123 - the name is no text
        file.truncate(65536)
        with mmap.mmap(file.fileno(), 16384, prot=mmap.PROT_READ, offset=8192):
            status = os.fstat(file.fileno())
            mappings = read_maps(os.getpid())
    assert mappings is not None
    mine = [each for each in mappings if (each.dev, each.inode) == (status.st_dev, status.st_ino)]
    assert [(each.bytes, each.offset, each.perms) for each in mine] == [(16384, 8192, "r--s")]
    shown = path.replace(b"\n", b"\\012").decode("utf-8", "backslashreplace")
    assert mine[0].path == shown
    ends = [each.end for each in mappings]
    assert all(end <= each.start for end, each in zip(ends, mappings[1:], strict=False))


def test_a_process_that_is_gone_has_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while f") Z {os.getpid()}" not in Path(f"/proc/{child.pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert read_maps(child.pid) is None  # a zombie
    child.wait()
    assert read_maps(child.pid) is None


def test_a_root_path_and_what_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "proc" / "7"
    folder.mkdir(parents=True)
    (folder / "maps").write_text("1000-2000 rw-p 00000000 00:00 0 \n2000-3000 r--p 0")
    assert read_maps(7, tmp_path) == (Mapping(4096, 8192, "rw-p", 0, 0, 0, ""),)
    monkeypatch.setattr(maps, "MAX_MAPS_BYTES", 40)
    assert read_maps(7, tmp_path) == (Mapping(4096, 8192, "rw-p", 0, 0, 0, ""),)
    assert read_maps(8, tmp_path) is None

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(maps, "_read_all", refuse)
    with pytest.raises(CapabilityError, match=r"process 7: .*Permission denied"):
        read_maps(7, tmp_path)


def test_ten_thousand_mappings_are_quick() -> None:
    lines = [
        b"%x-%x r--p 00000000 fe:00 %d                    /usr/lib/x86_64-linux-gnu/lib%d.so\n"
        % (at << 16, (at << 16) + 4096, at, at)
        for at in range(1, 10_001)
    ]
    first = parse_maps(b"".join(lines))
    started = time.process_time()
    again = parse_maps(b"".join(lines[:-1]))
    added, removed = diff_maps(first, again)
    assert time.process_time() - started < 0.25  # some 5 ms; 40 ms where all lines are new
    assert (len(first), added, removed) == (10_000, [], [first[-1]])
