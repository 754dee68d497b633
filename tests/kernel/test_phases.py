"""Phases of a llama.cpp server, held against the times that it and its client report."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from numatrace.analyze.phases.phases import Phases, Survey
from numatrace.analyze.rows import split
from numatrace.trace.reader import Trace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.workload import (  # noqa: E402 (found only once its folder is on the path)
    READY,
    end,
    server_command,
    wait_for_url,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

MS = 1_000_000
EDGE_NS = 40 * MS
"""What is so near to a change in truth is not judged: the client hears of it late."""
HZ = "499"


@dataclass(slots=True)
class Truth:
    """When what happened, CLOCK_MONOTONIC."""

    load: tuple[int, int] = (0, 0)
    prompts: list[tuple[int, int]] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)
    requests: list[tuple[int, int]] = field(default_factory=list)
    """From sending to the last byte."""

    def at(self, t_ns: np.ndarray) -> np.ndarray:
        """What was true at each time; "" where that is not certain."""
        found = np.full(len(t_ns), "idle", object)
        inside(found, t_ns, [self.load], "load")
        inside(found, t_ns, self.requests, "")
        inside(found, t_ns, self.answers, "decode")
        # A batch that has a prompt in it is a prompt's, whatever token is decoded with it.
        inside(found, t_ns, self.prompts, "prompt")
        edges = [each for span in (*self.spans, self.load) for each in span]
        inside(found, t_ns, [(each - EDGE_NS, each + EDGE_NS) for each in edges], "")
        return found

    @property
    def spans(self) -> list[tuple[int, int]]:
        return [*self.prompts, *self.answers, *self.requests]


def inside(found: np.ndarray, t_ns: np.ndarray, spans: list[tuple[int, int]], name: str) -> None:
    for start, last in spans:
        found[(t_ns >= start) & (t_ns <= last)] = name


def ask(url: str, words: int, tokens: int, truth: Truth) -> None:
    """Send one request, and note when the server worked on what.

    With every token the server says how long ago it began with the first. The client hears of each
    more or less late, so the earliest beginning that follows is nearest to the true one.
    """
    letters = random.Random(f"{words} {tokens}")
    prompt = " ".join("".join(letters.choices("abcdefghij", k=4)) for _ in range(words))
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True,
            "cache_prompt": False, "stream": True, "timings_per_token": True}  # fmt: skip
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)
    with contextlib.closing(connection):
        sent = time.monotonic_ns()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/completion", json.dumps(body), headers)
        began, timings, now = [], {}, sent
        for line in connection.getresponse():
            now = time.monotonic_ns()
            if line.startswith(b"data: ") and b'"timings"' in line:
                timings = json.loads(line[6:])["timings"]
                began.append(now - round(timings["predicted_ms"] * MS))
    first = min(began)
    truth.prompts.append((first - round(timings["prompt_ms"] * MS), first))
    truth.answers.append((first, first + round(timings["predicted_ms"] * MS)))
    truth.requests.append((sent, now))


def together(*calls: threading.Thread) -> None:
    for call in calls:
        call.start()
    for call in calls:
        call.join()


@contextlib.contextmanager
def recorded(folder: Path, model: Path, truth: Truth, *options: str) -> Iterator[str]:
    """Record a server from before its start for as long as the block runs; gives its address."""
    command = [sys.executable, "-m", "numatrace", "record", "-F", HZ, "-o", str(folder / "trace")]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--", *server_command(model, "--threads", "2", *options)],
            stdout=output, stderr=output, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
    try:
        # Other work on this machine would make every token wait for its CPU.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text("-15")
        while not READY.search(log.read_bytes()):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        truth.load = (0, time.monotonic_ns())
        url = wait_for_url(process, log)
        time.sleep(0.8)
        yield url
        time.sleep(0.8)
        process.terminate()
        process.wait(30)
        assert process.returncode == 0, log.read_text()
    finally:
        end(process)


def make_model(folder: Path, type_: str) -> Path:
    path = folder / "model.gguf"
    command = [sys.executable, str(ROOT / "scripts/make-model"), str(path), "--type", type_]
    subprocess.run([*command, "--size-mb", "60"], check=True, stdout=subprocess.DEVNULL)
    return path


def survey(path: Path) -> Phases:
    found = Survey()
    with Trace.open(path) as trace:
        for batch in trace.batches():
            found.take(split(batch))
    return found.finish()


def table(phases: Phases, truth: Truth) -> dict[str, dict[str, float]]:
    """Share of the time of each true phase that got each phase, and "seconds" of it."""
    first, last = phases.spans[0].start_ns, phases.spans[-1].end_ns
    t_ns = np.arange(first, last, MS)
    true = truth.at(t_ns)
    said = np.array(Phases.names, object)[phases.at(t_ns.astype(np.uint64))]
    found = {}
    for phase in ("load", "prompt", "decode", "idle"):
        mine = said[true == phase]
        found[phase] = (
            {name: float((mine == name).mean()) for name in Phases.names} if len(mine) else {}
        )
        found[phase]["seconds"] = len(mine) / 1000
    return found


def wrong_share(found: dict[str, dict[str, float]]) -> float:
    """Share of all time that got a phase which it was not; `compute` claims nothing."""
    total = sum(row["seconds"] for row in found.values())
    wrong = sum(
        row["seconds"] * row.get(name, 0.0)
        for phase, row in found.items()
        for name in Phases.names
        if name not in (phase, "compute")
    )
    return wrong / total


def test_phases_of_single_requests(tmp_path: Path) -> None:
    """A mapped model: load, three requests of which two follow each other, and rest."""
    truth = Truth()
    with recorded(tmp_path, make_model(tmp_path, "F16"), truth) as url:
        ask(url, 100, 200, truth)
        time.sleep(0.8)
        ask(url, 60, 150, truth)
        ask(url, 120, 200, truth)
    found = table(survey(tmp_path / "trace"), truth)
    assert wrong_share(found) <= 0.05, found
    assert found["idle"]["idle"] >= 0.9, found
    assert found["load"]["load"] >= 0.3, found
    assert found["load"]["prompt"] + found["load"]["decode"] <= 0.1, found
    assert found["prompt"]["prompt"] >= 0.7, found
    assert found["decode"]["decode"] >= 0.7, found


def test_phases_of_requests_at_the_same_time(tmp_path: Path) -> None:
    """A model whose weights stay as they are, two slots: a prompt interrupts another's decoding."""
    truth = Truth()
    with recorded(
        tmp_path, make_model(tmp_path, "Q8_0"), truth, "--no-repack", "--parallel", "2"
    ) as url:
        later = threading.Timer(0.7, ask, (url, 50, 100, truth))
        together(threading.Thread(target=ask, args=(url, 50, 150, truth)), later)
        time.sleep(0.8)
        ask(url, 80, 150, truth)
    found = table(survey(tmp_path / "trace"), truth)
    assert wrong_share(found) <= 0.05, found
    assert found["idle"]["idle"] >= 0.9, found
    assert found["prompt"]["prompt"] >= 0.7, found
    assert found["decode"]["decode"] >= 0.7, found
