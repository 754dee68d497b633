"""Widths, wrapping and tables: against an independent table of widths, and by their properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from numatrace.render.layout import paragraph, wrap
from numatrace.render.options import RenderOptions
from numatrace.render.split import count_cell, in_words
from numatrace.render.tables import Column, table
from numatrace.render.width import clean, clip, clip_middle, columns, pad

ANY = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs", "Cc", "Cf"]), max_size=120)
WORDS = st.lists(st.text(st.characters(categories=["L", "N", "P"]), max_size=60)).map(" ".join)


@settings(deadline=None)
@given(ANY)
def test_width_is_never_less_than_a_terminals(text: str) -> None:
    assert columns(clean(text)) >= cell_len(clean(text))


def test_width_of_every_character_is_never_less() -> None:
    shown = (char for char in map(chr, range(0x110000)) if clean(char) == char)
    assert [char for char in shown if columns(char) < cell_len(char)] == []


@settings(deadline=None)
@given(
    st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0x2FF) | st.sampled_from("漢字かなㄱ가")
    )
)
def test_width_of_usual_letters_is_exact(text: str) -> None:
    assert columns(clean(text)) == cell_len(clean(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", 3), ("日本", 4), ("e\u0301", 1), ("ｱ", 1), ("Ａ", 2), ("🇩🇪", 4), ("❤\ufe0f", 2)],
)
def test_known_widths(text: str, expected: int) -> None:
    assert columns(text) == expected


@settings(deadline=None)
@given(ANY, st.integers(1, 40))
def test_clipped_text_fits_and_keeps_its_ends(text: str, width: int) -> None:
    text = clean(text).replace("…", "")
    for shown in (clip(text, width), clip_middle(text, width)):
        assert columns(shown) <= width
        assert len(shown) <= 4 * width + 2
        start, _, end = shown.partition("…") if shown != text else (shown, "", "")
        assert text.startswith(start)
        assert text.endswith(end)
    assert columns(text) > width or len(text) > 4 * width or clip(text, width) == text


@settings(deadline=None)
@given(ANY, st.integers(2, 40))
def test_wrapped_text_fits_and_loses_nothing_but_spaces(text: str, width: int) -> None:
    rows = wrap(text, width)
    assert all(columns(row) <= width for row in rows)
    assert "".join("".join(rows).split()) == "".join(clean(text).split())


@settings(deadline=None)
@given(WORDS)
def test_words_that_fit_stay_whole(text: str) -> None:
    for word in clean(text).split():
        assert columns(word) > 60 or any(word in row for row in wrap(text, 60))


def test_numbers_stay_with_their_units() -> None:
    for width in range(8, 30):
        rows = wrap("there are 98 % and 7.7 GiB and 120 ms on node 1", width)
        assert not any(row.split(" ")[0] in ("%", "GiB", "ms") for row in rows)
        assert not any(row.endswith("node") for row in rows)


def test_a_paragraph_hangs_below_its_start() -> None:
    rows = paragraph("word " * 40, RenderOptions(), "  12. ")
    assert rows[0].startswith("  12. word")
    assert len(rows) > 2
    assert all(row.startswith("      word") for row in rows[1:])


def test_a_table_lines_up_also_with_wide_names() -> None:
    rows = [["日本語", "1"], ["a", "1,000"], ["e\u0301", "20"]]
    lines = table([Column("name", right=False), Column("n")], rows, RenderOptions())
    assert {columns(line) for line in lines} == {2 + 6 + 2 + 5}
    assert [line.split()[-1] for line in lines] == ["n", "1", "1,000", "20"]
    assert table([Column("name")], [], RenderOptions()) == []


def test_a_table_takes_space_from_names_not_from_numbers() -> None:
    heads = [Column("name", right=False, least=10), *[Column(f"n{i}") for i in range(5)]]
    lines = table(heads, [["x" * 300, *["1,234,567"] * 5]], RenderOptions())
    assert lines[1].count("1,234,567") == 5
    assert columns(lines[1]) == 79


@settings(deadline=None)
@given(st.integers(0, 2**70))
def test_counts_are_exact_until_they_are_long(count: int) -> None:
    shown = count_cell(count)
    assert len(shown) <= 9
    if count < 10_000_000:
        assert int(shown.replace(",", "")) == count
    else:
        number, letter = shown.split()
        power = 6 + 3 * "MGTPE".index(letter)
        assert abs(float(number) - count / 10**power) <= 0.05 + 1e-9 * float(number)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 50), st.integers(0, 1000), max_size=20))
def test_shares_in_words_begin_with_the_largest(amounts: dict[int, int]) -> None:
    shown = in_words(amounts)
    if not sum(amounts.values()):
        assert shown == ""
        return
    most = max(amounts.values())
    first = min(node for node, amount in amounts.items() if amount == most)
    assert shown.split(", ")[0].endswith(f" on node {first}")
    nonzero = sum(1 for amount in amounts.values() if amount)
    assert len(shown.split(", ")) == min(nonzero, 8) + (nonzero > 8)


def test_pad_counts_columns() -> None:
    assert pad("日", 4) == "日  "
    assert pad("日", 4, right=True) == "  日"
