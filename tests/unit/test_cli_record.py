"""The words of `numatrace record`, without a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from numatrace.cli.main import run
from numatrace.cli.record import all_pids, record
from numatrace.cli.record_text import status_text, summary_text
from numatrace.model.errors import UsageError
from numatrace.record.summary import Overhead, Sampling, Status, Summary

STATUS = Status(12.5, {"fault": 1200, "oncpu": 40, "place": 300}, 1300, {"fault": 7}, 3 << 20)


def a_summary(server: str = "process 7: llama-server", notes: tuple[str, ...] = ()) -> Summary:
    return Summary(STATUS, "time", "/x/t.arrow", 0.7, 0.25, 190 << 20, 0.5, 0.6, server, notes)


def test_summary_says_file_events_losses_cost_and_next_command() -> None:
    text = summary_text(a_summary(), Path("my trace.arrow"))
    assert "wrote my trace.arrow: 3.0 MiB, 12.5 s (the time given with -d is up)" in text
    assert "fault 1,200, sched 40, place 300" in text
    assert "fault 7; record again with a larger --ring-pages" in text
    assert "0.7 s of CPU to start, then 2.0 % of one CPU; 190 MiB at most" in text
    assert text.endswith("next: numatrace analyze 'my trace.arrow'")


def test_summary_says_how_accesses_were_sampled_and_what_it_cost() -> None:
    """0.0145 CPUs of 1.9 in use are 0.76 %; by parts 0.0095, 0.002 and 0.003."""
    overhead = Overhead(1.9, 0.0095, 0.002, 0.003, 364.2, 0.26)
    sampling = Sampling("operand", 5_023_000, 2, 4_552, 0, 0.01)
    summary = replace(a_summary(), overhead=overhead, sampling=sampling)
    text = " ".join(summary_text(summary, Path("t.arrow")).split())
    assert "4,552 accesses, 364 a second; at the end every 5.0 ms of each of 2 CPUs" in text
    assert "(for at most 1 %)" in text
    assert "0.76 % of the 1.9 CPUs in use: recorder 0.50, probes 0.11, clock ticks 0.16" in text
    assert "0.3 s of CPU once" in text
    fixed = replace(summary, sampling=replace(sampling, budget=None))
    assert "(fixed)" in summary_text(fixed, Path("t.arrow"))
    assert "sampling" not in summary_text(a_summary(), Path("t.arrow"))


def test_an_idle_servers_overhead_is_told_of_one_cpu() -> None:
    overhead = Overhead(0.2, 0.005, 0.001, 0.0, 3.0, 0.0)
    text = summary_text(replace(a_summary(), overhead=overhead), Path("t.arrow"))
    assert "0.60 % of one CPU" in text


def test_hostile_names_stay_on_their_lines() -> None:
    hostile = "x\x1b[31m\n\r\u202e" + "very long words " * 40
    text = summary_text(a_summary(hostile, (hostile,)), Path("t.arrow"))
    assert max(map(len, text.splitlines())) < 80
    assert not {c for c in text if not c.isprintable()} - {"\n"}


def test_status_line_is_narrow_even_for_a_long_recording() -> None:
    status = Status(9e5, {"fault": 10**12}, 10**12, {"fault": 10**11}, 1 << 45)
    assert len(status_text(status)) < 80
    assert "1,200" not in status_text(status)


@pytest.mark.parametrize(
    ("pids", "loose", "command", "found"),
    [
        ((12,), ("34", "56"), [], (12, 34, 56)),
        ((12, 12), ("12",), [], (12,)),
        ((), ("7",), [], (7,)),
        ((), (), ["sleep", "9"], ()),
    ],
)
def test_pids_come_as_options_and_left_over(
    pids: tuple[int, ...], loose: tuple[str, ...], command: list[str], found: tuple[int, ...]
) -> None:
    assert all_pids(pids, loose, command) == found


@pytest.mark.parametrize(
    ("pids", "loose", "command"),
    [
        ((), (), []),
        ((1,), ("x",), []),
        ((1,), ("-5",), []),
        ((1,), (), ["true"]),
        ((), ("9" * 30,), []),
    ],
)
def test_what_is_neither_pids_nor_a_command_is_refused(
    pids: tuple[int, ...], loose: tuple[str, ...], command: list[str]
) -> None:
    with pytest.raises(UsageError):
        all_pids(pids, loose, command)


def test_help_ends_with_examples() -> None:
    output = CliRunner().invoke(record, ["--help"]).output
    assert "\b" not in output
    assert output.index("Examples:") > output.index("Options:")
    assert "-- llama-server" in output


def test_a_wrong_call_has_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["record", "-p", "0"]) == 2
    assert run(["record"]) == 2
    assert "do:  numatrace record -p PID" in capsys.readouterr().err
