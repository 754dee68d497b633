"""Plans made by another process: the same as here, never waited for, and nothing lost without."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from numatrace.record.operands import Operands
from numatrace.record.operands import helper as module
from numatrace.record.operands.helper import Helper
from numatrace.record.operands.plan import ROW
from numatrace.record.operands.plans import FORGET, KEY, keys_of, packed
from numatrace.record.operands.resolve import planner_for
from numatrace.record.operands.worker import serve
from tests.unit.operands_cpu import CODE_AT, Answer, operands_of, reader, record, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numatrace.record.operands.resolve import Array

NOBODY = 1 << 29
"""No process has this number: all that is known of its code are the samples' own bytes."""

CODE = b"".join(
    bytes.fromhex(each).ljust(16, b"\x90")
    for each in ("488b03", "488b06", "488907", "c5fc1000", "48034c8808", "f3a4", "0f0b")
)
REGS = [0x10_0000_0000 * (slot + 1) for slot in range(16)]
PATIENCE_S = 60


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper("x86_64")
    yield made
    made.close()


def samples(tgid: int = NOBODY) -> list[Array]:
    return [
        record(CODE_AT + at, REGS, CODE[at : at + 16], tgid=tgid) for at in range(0, len(CODE), 16)
    ]


def keys(records: list[Array]) -> Array:
    together = np.concatenate(records)
    return keys_of(together, np.zeros(len(together), bool))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def all_answers(helper: Helper, count: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}

    def take() -> bool:
        made, rows = helper.answers()
        found.update(zip(packed(made), packed(rows), strict=True))
        return len(found) >= count

    until(take)
    return found


def test_its_plans_are_those_made_here(helper: Helper) -> None:
    wanted = keys(samples())
    helper.ask(wanted)
    rows = planner_for("x86_64", lambda *_: b"").make(wanted)
    assert all_answers(helper, len(wanted)) == dict(zip(packed(wanted), packed(rows), strict=True))


def test_samples_are_ready_once_it_answered_and_not_decoded_here(helper: Helper) -> None:
    operands = Operands("x86_64", lambda *_: b"", helper)
    records = np.concatenate(samples())
    assert operands.ready(records) == 0
    until(lambda: operands.ready(records) == len(records))
    found = resolve(operands, records)
    assert operands._planner is None, "nothing was left to decode"
    assert found == resolve(Operands("x86_64", lambda *_: b""), records)
    assert found[0] == Answer(REGS[3], True, 0, "operand")


def test_what_it_does_not_know_is_decoded_here(helper: Helper) -> None:
    operands = Operands("x86_64", reader(CODE), helper)
    assert resolve(operands, *samples()) == resolve(operands_of(CODE), *samples())


def test_samples_before_the_first_new_one_are_ready(helper: Helper) -> None:
    operands = Operands("x86_64", lambda *_: b"", helper)
    one, two, three = samples()[:3]
    resolve(operands, one, three)
    helper.close()
    assert operands.ready(np.concatenate([one, two, three])) == 1


def test_it_takes_only_time_that_nobody_wants(helper: Helper) -> None:
    assert helper._process is not None
    pid = helper._process.pid
    helper.ask(keys(samples()))
    all_answers(helper, len(samples()))
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    assert 0 < helper.cpu_s == pytest.approx(sum(psutil.Process(pid).cpu_times()[:2]), abs=0.5)


def test_no_more_is_asked_at_a_time_than_a_pipe_takes(helper: Helper) -> None:
    many = np.zeros(3 * module.MOST, KEY)
    many["ip"], many["tgid"] = np.arange(len(many)) + CODE_AT, NOBODY
    helper.ask(many)
    assert len(helper._asked) == module.MOST
    assert module.PIECE * KEY.itemsize <= 4096, "PIPE_BUF on Linux: written whole or not at all"
    helper.ask(many)
    assert len(helper._asked) <= module.MOST
    found: set[bytes] = set()

    def ask_on() -> bool:
        found.update(packed(helper.answers()[0]))
        helper.ask(many[len(found) :])
        return len(found) == len(many)

    until(ask_on)


def test_a_process_that_is_forgotten_is_not_answered_for(helper: Helper) -> None:
    helper.ask(keys(samples(tgid=NOBODY)))
    helper.ask(keys(samples(tgid=NOBODY + 1)))
    helper.forget(NOBODY)
    others = keys(samples(tgid=NOBODY + 1))
    assert set(all_answers(helper, len(others))) == set(packed(others))
    until(lambda: not len(helper.answers()[0]) and not helper._asked)


def test_it_is_not_told_of_processes_that_it_does_not_know(helper: Helper) -> None:
    for tgid in range(1, 10_000):
        helper.forget(tgid)
    assert helper.works, "no pipe was filled"
    assert not helper._asked


def test_a_worker_forgets_a_process_and_answers_in_order() -> None:
    asked = keys(samples())
    note = asked[:1].copy()
    note["fault"] = FORGET
    output = io.BytesIO()
    planner = planner_for("x86_64", lambda *_: b"")
    serve(io.BytesIO(asked.tobytes() + note.tobytes() + b"cut off"), output, planner)
    assert len(output.getvalue()) == (len(asked) + 1) * ROW.itemsize
    assert not planner._windows
    assert not planner._texts._known


def test_one_that_ends_is_done_without(helper: Helper) -> None:
    assert helper._process is not None
    os.kill(helper._process.pid, signal.SIGKILL)
    until(lambda: not (helper.answers(), helper.works)[1])
    helper.ask(keys(samples()))
    helper.forget(NOBODY)
    assert (len(helper.answers()[0]), helper.cpu_s) == (0, 0.0)
    operands = Operands("x86_64", reader(CODE), helper)
    assert operands.ready(np.concatenate(samples())) == 0
    assert resolve(operands, *samples()) == resolve(operands_of(CODE), *samples())


def test_one_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.workers, "command", lambda *_: ["/no/such/program"])
    helper = Helper("x86_64")
    assert not helper.works
    helper.ask(keys(samples()))
    assert len(helper.answers()[0]) == 0


def test_it_ends_with_whoever_started_it() -> None:
    code = (
        "import os; from numatrace.record.operands.helper import Helper; "
        "made = Helper('x86_64'); made.ask(__import__('numpy').zeros(1, 'V32')); "
        "\nwhile not made._read: made._receive()"
        "\nprint(made._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=PATIENCE_S)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
