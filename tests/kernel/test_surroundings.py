"""A recording's surroundings as a user gets them: links measured, a client beside the server."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from numatrace.analyze.load import load
from numatrace.record.machine.gpus import read_devices
from numatrace.trace.reader import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numatrace.analyze.documents import Documents

    from .conftest import Record

pytestmark = pytest.mark.kernel

# Answers like llama.cpp's server, is started as one, and holds what connects.
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"build_info": "b10488-ec98e2002"}' if self.path == "/props" else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
CLIENT = (
    "import socket; s = socket.create_connection(('127.0.0.1', {})); print(flush=True); input()"
)
# set_mempolicy(MPOL_INTERLEAVE, node 0), then the program: what numactl --interleave=0 does.
WRAPPER = """
import ctypes, os, platform, sys
number = 238 if platform.machine() == "x86_64" else 237
mask = ctypes.c_ulong(1)
if ctypes.CDLL(None).syscall(number, 3, ctypes.byref(mask), 64):
    sys.exit(1)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def started(*command: str, executable: str | None = None) -> Iterator[tuple[int, str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, executable=executable, stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


def loaded(path: Path) -> Documents:
    """The documents as analysis reads them."""
    with Trace.open(path) as trace:
        return load(list(trace.batches())).documents


def test_links_are_measured_before_the_recording(record: Record, tmp_path: Path) -> None:
    with started(sys.executable, "-c", "print(flush=True); input()") as (pid, _):
        process = record("-p", str(pid), "-d", "1", "--measure-links")
        _, said = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert said.index("measuring CPUs of node") < said.index("measured ") < said.index("recording")
    found = loaded(tmp_path / "trace.arrow")
    links, topology = found.links, found.topology
    assert links is not None
    assert topology is not None
    assert links.latency_ns, links.skipped
    for cpu_node in topology.nodes_with_cpus:
        for node in topology.nodes_with_memory:
            if f"{cpu_node}>{node}" not in links.skipped:
                assert 1 < (links.latency(cpu_node, node) or 0) < 100_000
                assert 1e8 < (links.bandwidth(cpu_node, node) or 0) < 1e13
    assert 0 < links.took_s < 25


def test_a_client_its_server_and_what_they_run_under(record: Record, tmp_path: Path) -> None:
    """A policy that is set around the client is the client's alone, and the trace shows it."""
    path = tmp_path / "trace.arrow"
    serve = ("llama-server", "-S", "-c", SERVER, "--model", "x.gguf")
    with started(*serve, executable=sys.executable) as (server, port):
        process = record("-p", str(server), "-d", "8")
        time.sleep(1)
        client_code = CLIENT.format(port)
        with started(sys.executable, "-c", WRAPPER, sys.executable, "-c", client_code) as (
            client,
            _,
        ):
            told, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"process {server}: llama-server" in " ".join(told.split())
    found = loaded(path)
    own, other = found.processes[server], found.processes[client]
    assert (own.relation, own.version, own.listens) == ("", "b10488", (int(port),))
    assert own.policy == "default"
    assert (other.relation, other.policy) == ("client", "interleave:0")
    assert other.argv[-1] == client_code
    assert other.cpus_allowed
    threads = {tgid for tgid, _tid in found.threads}
    assert client not in threads  # it is described, and not followed


def test_the_machines_devices_and_counters_are_in_the_trace(record: Record, tmp_path: Path) -> None:
    with started(sys.executable, "-c", "print(flush=True); input()") as (pid, _):
        process = record("-p", str(pid), "-d", "1")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    found = loaded(tmp_path / "trace.arrow")
    assert found.devices == read_devices()
    assert found.links is None
    assert found.memory is not None
    assert found.first_memory is not None
    with Path("/proc/vmstat").open() as file:
        names = {line.split()[0] for line in file}
    wanted = {"pswpin", "pswpout", "pgscan_direct", "pgmigrate_success", "numa_hit"} & names
    assert wanted <= found.memory.vmstat.keys()
    for name, count in found.first_memory.vmstat.items():
        assert found.memory.vmstat[name] >= count
