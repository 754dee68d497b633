"""The live view on two nodes: where threads of known place run, what they read, where memory is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from known.known import Workload, build  # noqa: E402 (found once its folder is on the path)

from numatrace.record.machine import sysfs  # noqa: E402

NODES = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(NODES < 2, reason=f"needs two NUMA nodes, has {NODES}"),
]

KIB = 16384
MOST_INTERVALS = 30


@pytest.mark.long
def test_threads_nodes_memory_and_remote_share(tmp_path: Path) -> None:
    """One thread reads its own node's memory, one the other's, one runs on both nodes in turn."""
    online = sysfs.online_cpus()
    cpu = [sysfs.node_cpus(node, online)[-1] for node in (0, 1)]
    command = [build(tmp_path), "--buffer", f"a:{KIB}:0", "--buffer", f"b:{KIB}:1"]
    command += ["--thread", f"{cpu[0]}/stream:a=100", "--thread", f"{cpu[1]}/random:a=100"]
    command += ["--thread", f"{cpu[0]}~{cpu[1]}/nothing=100", "--hop-ms", "20"]
    watch = [sys.executable, "-m", "numatrace", "watch", "--json", "--interval", "2"]
    watch += ["--max-overhead", "30"]  # an emulated recorder is slow: else samples are few
    with Workload(command) as workload:
        tids = {slot.number: slot.tids[0] for slot in workload.mark().slots}
        process = subprocess.Popen(
            [*watch, "-n", str(MOST_INTERVALS), "-p", str(workload.pid)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in process.stdout:
            last = json.loads(line)
            lines = {thread["tid"]: thread for thread in last["threads"]}
            shares = [lines.get(tids[slot], {}).get("remote", {}).get("share") for slot in (0, 1)]
            if None not in shares and last["nodes"][0]["bytes"]:
                break
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert shares == [pytest.approx(0.0, abs=0.05), pytest.approx(1.0, abs=0.05)], last
    assert lines[tids[0]]["node_share"] == {"0": pytest.approx(1.0, abs=0.02)}
    assert lines[tids[1]]["node_share"] == {"1": pytest.approx(1.0, abs=0.02)}
    assert lines[tids[2]]["node_share"]["0"] == pytest.approx(0.5, abs=0.2)
    assert lines[tids[2]]["moves_s"] > 1
    assert [node["node"] for node in last["nodes"]] == list(range(NODES))
    for node in last["nodes"][:2]:
        assert KIB << 10 <= node["bytes"] < (KIB << 10) + (24 << 20)
    assert sum(node["share"] for node in last["nodes"]) == pytest.approx(1.0)
