"""Samples wait their turn where decoding is slow, and none goes missing meanwhile."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from numatrace.record.sampling import sampler as module
from numatrace.record.sampling.sampler import AccessSampler
from numatrace.trace.schema import ring_dtype


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> AccessSampler:
    """A sampler that learns slowly, and keeps the times that it wrote."""
    probes = SimpleNamespace(plan=SimpleNamespace(machine="x86_64", access=False))
    made = AccessSampler(probes, SimpleNamespace(), lambda *_: None, 5_000_000, 8.0)  # type: ignore[arg-type]
    made.written = []  # type: ignore[attr-defined]

    def write(records: np.ndarray) -> None:
        made.written += records["t_ns"].tolist()  # type: ignore[attr-defined]

    monkeypatch.setattr(made, "_learn", lambda records: time.sleep(1e-4 * len(records)))
    monkeypatch.setattr(made, "_write", write)
    return made


def records(first: int, count: int) -> dict[str, np.ndarray]:
    made = np.zeros(count, ring_dtype("access"))
    made["t_ns"] = np.arange(first, first + count)
    return {"access": made}


def test_a_slow_resolver_holds_up_no_look_and_loses_nothing(slow: AccessSampler) -> None:
    taken = 0
    for _ in range(5):
        slow.look(records(taken, 3_000))
        taken += 3_000
        assert slow.samples < taken, "the rest waits"
    slow.tick()
    assert slow.written == list(range(slow.samples)), "the oldest first"
    slow.finish()
    assert slow.samples == taken
    assert slow.written == list(range(taken))


def test_what_waits_is_bounded(slow: AccessSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2_500)
    slow.look(records(0, 3_000))
    assert slow.samples == 3_000, "too many wait: they are resolved, however long it takes"


def test_few_samples_wait_a_while_and_many_do_not(slow: AccessSampler) -> None:
    slow._since -= 100
    now_ns = time.monotonic_ns()
    slow.look(records(now_ns, 10))
    slow.tick()
    assert (slow.taken, slow.samples) == (10, 0), "few, and young"
    slow.look(records(now_ns, module.FEW))
    slow.tick()
    assert slow.samples > 0, "many"


def test_few_samples_do_not_wait_for_ever(slow: AccessSampler) -> None:
    slow._since -= 100
    slow.look(records(time.monotonic_ns() - int(module.REST_S * 1e9), 10))
    slow.tick()
    assert slow.samples == 10


def test_a_process_that_ends_has_its_samples_resolved_at_once(slow: AccessSampler) -> None:
    slow.look(records(time.monotonic_ns(), 10))
    slow.forget(5)
    assert slow.samples == 10


def test_nor_long_in_a_recording_that_just_began(slow: AccessSampler) -> None:
    slow._since -= 3
    slow.look(records(time.monotonic_ns() - 1_600_000_000, 10))
    slow.tick()
    assert slow.samples == 10, "1.6 s is more than half of 3 s"


class Helper:
    """Stands in for the process that decodes: says how far it has come."""

    works = True
    done = 0

    def ready(self, waiting: np.ndarray) -> int:
        return min(self.done, len(waiting))


@pytest.fixture
def helped(slow: AccessSampler, monkeypatch: pytest.MonkeyPatch) -> AccessSampler:
    """The same with a helper: it is `_helper`."""
    helper = Helper()
    monkeypatch.setattr(slow, "_helper", helper)
    monkeypatch.setattr(slow, "_resolver", lambda: helper)
    slow._since -= 100
    return slow


def test_young_samples_wait_for_the_helper(helped: AccessSampler) -> None:
    helped.look(records(time.monotonic_ns(), 2 * module.FEW))
    helped.tick()
    assert helped.samples == 0
    helped._helper.done = 100  # type: ignore[union-attr]
    helped.tick()
    assert helped.samples == 100


def test_old_samples_do_not(helped: AccessSampler) -> None:
    helped.look(records(time.monotonic_ns() - int(1.1 * helped.patience_s * 1e9), 20))
    helped.tick()
    assert helped.samples == 20


def test_nor_do_many(helped: AccessSampler) -> None:
    helped.look(records(time.monotonic_ns(), module.MANY))
    assert helped.samples == 0
    helped.look(records(time.monotonic_ns(), 1))
    helped.tick()
    assert helped.samples > 0


def test_nor_do_any_for_one_that_has_ended(helped: AccessSampler) -> None:
    helped._helper.works = False  # type: ignore[union-attr]
    helped.look(records(time.monotonic_ns(), 2 * module.FEW))
    helped.tick()
    assert helped.samples > 0


def test_nor_at_the_end(helped: AccessSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helped, "_end_helper", lambda: None)
    helped.look(records(time.monotonic_ns(), 20))
    helped.finish()
    assert helped.samples == 20
