"""A server's fix from the first recording to the second, however the server is run."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scenarios.trial import URL, analyzed, fix_script  # noqa: E402 (found on the path just set)
from scenarios.workload import asking, numatrace, record  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 8.0
PATIENCE_S = 240


def wait_for(what: Callable[[], bool], log: Path) -> None:
    """Wait for it; when it takes too long, fail with the end of a log."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
        time.sleep(0.2)


def diagnosed(pid: int, cause: str, deployment: str, folder: Path) -> Path:
    """Record a server under load; returns the script against its first cause, which is given."""
    before = folder / "before.arrow"
    record(pid, before, SECONDS, load=partial(asking, URL))
    report = analyzed(before)
    assert [finding["cause"] for finding in report["findings"]][:1] == [cause], report["verdict"]
    fix = report["findings"][0]["fixes"][0]
    assert fix["deployment"] == deployment, fix
    return fix_script(before, folder / "fix.sh")


def shown_healthy(pid: int, folder: Path) -> None:
    """Record it again: it is healthy, and as the first report predicted."""
    before, after = folder / "before.arrow", folder / "after.arrow"
    record(pid, after, SECONDS, load=partial(asking, URL))
    healthy = analyzed(after)
    assert healthy["verdict"]["kind"] == "healthy", healthy["verdict"]
    compared = numatrace("compare", str(before), str(after), "--json")
    assert json.loads(compared.stdout)["outcome"] == "as-predicted", compared.stdout
