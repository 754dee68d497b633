"""Try one situation out: record it, run the fix that numatrace prints, record again, compare."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenarios.outcomes import Done, failed
from scenarios.setups import running
from scenarios.table import answering, set_up
from scenarios.workload import asking, numatrace, record, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scenarios.table import Scenario

PORT = 18080
URL = f"http://127.0.0.1:{PORT}"
READY_TIMEOUT_S = 240.0
FIX_TIMEOUT_S = 300.0


@dataclass(slots=True)
class Trial:
    """What came of it."""

    id: str
    what: str
    verdict: str = ""
    causes: tuple[str, ...] = ()
    plan: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list)
    """The prediction's figures against those of the second recording, as `compare` has them."""
    outcome: str = ""
    """Of `compare`."""
    missed: list[str] = field(default_factory=list)
    """Everything that is not as it must be; empty: all well."""
    seconds: float = 0.0


def attempt(scenario: Scenario, model: Path, folder: Path, seconds: float) -> Trial:
    """Try a situation; traces, reports and the script are left in the folder."""
    began = time.monotonic()
    trial = Trial(scenario.id, scenario.what)
    try:
        with set_up(scenario, model) as ready:
            _attempt(ready, model, folder, seconds, trial)
    except (RuntimeError, OSError, subprocess.SubprocessError, LookupError) as error:
        trial.missed.append(f"{type(error).__name__}: {error}"[-2000:])
    trial.seconds = round(time.monotonic() - began, 1)
    return trial


def _attempt(scenario: Scenario, model: Path, folder: Path, seconds: float, trial: Trial) -> None:
    before, after = folder / f"{scenario.id}.arrow", folder / f"{scenario.id}-after.arrow"
    logs = Path(tempfile.mkdtemp(prefix="numatrace-logs-"))
    if scenario.load is not answering:
        with scenario.load(scenario, model, logs / "before.log") as other:
            other.record(before, seconds, *scenario.record_options)
        _judge(scenario, analyzed(before), trial)
        return
    scenario = replace(scenario, options=(*scenario.options, "--port", str(PORT)))
    with serving(scenario.served(model), logs / "before.log") as server:
        client = partial(asking, URL, scenario.client)
        record(server.pid, before, seconds, *scenario.record_options, load=client)
        report = analyzed(before)
        _judge(scenario, report, trial)
        if not any(finding["fixes"] for finding in report["findings"]):
            return
        script = fix_script(before, folder / f"{scenario.id}-fix.sh")
        programs = [str(model.parent / scenario.programs)] if scenario.programs else []
        with fixed(script, server.process, logs / "after.log", programs):
            record(serving_now(), after, seconds, *scenario.record_options, load=client)
            _compare(scenario, before, after, script, trial)


def analyzed(trace: Path) -> dict[str, Any]:
    """The report of a trace."""
    done = numatrace("analyze", str(trace), "--json")
    if done.returncode:
        raise RuntimeError(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    trace.with_suffix(".json").write_text(done.stdout)
    return report


def _judge(scenario: Scenario, report: dict[str, Any], trial: Trial) -> None:
    """Whether it says what it has to say of the situation."""
    trial.verdict = report["verdict"]["kind"]
    trial.causes = tuple(finding["cause"] for finding in report["findings"])
    chosen = [plan["id"] for plan in report["plans"] if plan["chosen"]]
    trial.plan = chosen[0] if chosen else ""
    if trial.verdict != scenario.verdict:
        trial.missed.append(f"verdict {trial.verdict}: {report['verdict']['sentence']}")
    first, *others = trial.causes or ("",)
    if first not in (scenario.cause or ("",)):
        trial.missed.append(f"first cause {first or 'none'}")
    more = set(others) - set(scenario.also) - set(scenario.cause)
    if more:
        trial.missed.append(f"causes that are not there: {', '.join(sorted(more))}")
    if scenario.cause and not any(finding["fixes"] for finding in report["findings"]):
        trial.missed.append("no fix")


def fix_script(trace: Path, script: Path) -> Path:
    """Have the fix of a trace's report written as a script."""
    done = numatrace("analyze", str(trace), "--fix-script", str(script), "--force")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return script


@contextlib.contextmanager
def fixed(
    script: Path, old: subprocess.Popen[bytes], log: Path, programs: Sequence[str] = ()
) -> Iterator[None]:
    """Run the fix; the server that it starts lives until the block ends.

    `programs`: folders to look for programs in, before the others.
    """
    path = os.pathsep.join([*programs, os.environ["PATH"]])
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", str(script)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=log.parent, env=os.environ | {"PATH": path},
        )  # fmt: skip
    try:
        _wait(shell, old, log)
        yield
    finally:
        for pid in (*running("ollama\0serve"), *running(str(PORT))):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(OSError):
            os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(60)


def _wait(shell: subprocess.Popen[bytes], old: subprocess.Popen[bytes], log: Path) -> None:
    """Until the script is done, or has become the server, and a server answers."""
    deadline = time.monotonic() + FIX_TIMEOUT_S
    while time.monotonic() < deadline:
        old.poll()  # our child: until we ask, it stays a zombie that the script waits for
        status = shell.poll()
        if status:
            raise RuntimeError(f"the fix ended with {status}:\n{log.read_text(errors='replace')}")
        if (status == 0 or old.returncode is not None) and answers():
            return
        time.sleep(0.2)
    raise RuntimeError(f"no server answers after the fix:\n{log.read_text(errors='replace')}")


def answers() -> bool:
    """Whether the server at URL is ready."""
    try:
        with urllib.request.urlopen(f"{URL}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serving_now() -> int:
    """The process that serves now."""
    for pid in [*running("llama-server"), *running("ollama\0runner")]:
        if Path(f"/proc/{pid}/comm").read_text().strip() in ("llama-server", "ollama"):
            return pid
    raise RuntimeError("no server runs")


def _compare(scenario: Scenario, before: Path, after: Path, script: Path, trial: Trial) -> None:
    done = numatrace("compare", str(before), str(after), "--json")
    if not done.stdout:
        raise RuntimeError(done.stderr)
    comparison = json.loads(done.stdout)
    after.with_name(f"{scenario.id}-compare.json").write_text(done.stdout)
    trial.outcome = comparison["outcome"]
    prediction = comparison["prediction"]
    trial.checks = prediction["checks"] if prediction else []
    trial.missed += [
        f"predicted {check['name']} {check['predicted']:.1%}, seen {check['seen']}"
        for check in trial.checks
        if check["kept"] is False
    ]
    first = json.loads(before.with_suffix(".json").read_text())
    judged = Done(first, analyzed(after), comparison, script.read_text())
    trial.missed += failed(scenario.id, judged)
