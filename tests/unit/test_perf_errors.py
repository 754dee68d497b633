"""What perf says on its way out, as errors with something to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numatrace.model.errors import CapabilityError, NumatraceError
from numatrace.record.pmu.perf_errors import MAX_SAID, explain, failed, lost_chunks, said


@pytest.mark.parametrize(
    ("stderr", "lacking", "word"),
    [
        (
            "Error:\nAccess to performance monitoring and observability operations is limited.\n"
            "perf_event_paranoid setting is 4:\n",
            True,
            "CAP_PERFMON",
        ),
        ("Error:\nNo permission to enable ibs_op// event.\n", True, "CAP_PERFMON"),
        ("Permission error mapping pages.\nConsider increasing it\n", True, "mlock_kb"),
        ("event syntax error: 'ibs_op//'\n   \\___ Cannot find PMU `ibs_op'.\n", True, "perf list"),
        ("event syntax error: 'nope'\n    \\___ parser error\n", True, "perf list"),
        ("Error:\nThe instructions:ppp event is not supported.\n", True, "perf list"),
        ("failed: memory events not supported\n", True, "perf list"),
        ("cycles: PMU Hardware doesn't support sampling/overflow-interrupts.", True, "perf list"),
        ("The PMU counters are busy/taken by another profiler.\n", True, "nmi_watchdog"),
        ("incompatible file format (rerun with -v to learn more)\n", False, "same version"),
        ("0x1a0 [0x20]: failed to process type: 83 [Bad address]\n", False, "same version"),
        ("bad event header size\n", False, "record again"),
        ("zero-sized data (a.data), nothing to do!\n", False, "record again"),
        (
            "Samples for 'e' event do not have CPU attribute set. Cannot print 'cpu' field.\n",
            False,
            "--sample-cpu",
        ),
        ("Couldn't create thread/CPU maps: No such process\n", False, "still runs"),
        ("failed to create 'ready' pipe: Too many open files\n", True, "ulimit -n"),
        ("failed to open a.data: Permission denied\n", False, "owner"),
        ("File a.data not owned by current user or root (use -f to override)\n", False, "owner"),
        ("failed to write perf data, error: No space left on device\n", False, "free space"),
    ],
)
def test_causes(stderr, lacking, word):
    error = explain("sampling", 255, stderr.encode())
    assert isinstance(error, CapabilityError) == lacking
    assert word in error.todo
    assert error.why.startswith("perf: ")
    assert stderr.removeprefix("Error:\n").splitlines()[0].strip() in error.why
    assert error.exit_code == 1


def test_noise_is_left_out():
    noise = (
        "[ perf record: Woken up 1 times to write data ]\n"
        "No kallsyms or vmlinux with build-id 00ff was found\n"
        "WARNING: Kernel address maps (/proc/{kallsyms,modules}) are restricted,\n"
        "check /proc/sys/kernel/kptr_restrict and /proc/sys/kernel/perf_event_paranoid.\n"
    )
    assert said(noise.encode()) == ""
    assert said(noise.encode() + b"bad event header size\n") == "bad event header size"
    error = explain("reading samples", 9, noise.encode())
    assert "exited with 9" in error.why
    assert "CAP_PERFMON" not in error.todo
    assert "ended" in explain("reading samples", None, b"").why


def test_no_samples_and_a_complaint_is_a_failure_even_with_success():
    complaint = b"0x1a0 [0x20]: failed to process type: 83 [Bad address]\n"
    assert failed(0, complaint, samples=0)
    assert not failed(0, complaint, samples=5)
    assert not failed(0, b"No kallsyms or vmlinux with build-id 00ff was found\n", samples=0)
    assert not failed(0, b"", samples=0)
    assert failed(255, b"", samples=5)


def test_lost_chunks():
    assert lost_chunks(b"x\nProcessed 4950897 events and lost 516 chunks!\n\nCheck IO\n") == 516
    assert lost_chunks(b"nothing of the kind") == 0


@given(st.binary(max_size=2000))
def test_any_words_are_printable_and_bounded(noise):
    error = explain("sampling", 1, b"event syntax error: '" + noise)
    assert isinstance(error, NumatraceError)
    assert error.why.isprintable()
    assert len(error.why) <= MAX_SAID + len("perf: ")
