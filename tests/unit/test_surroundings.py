"""Which ports processes listen on and who is connected to them: trees, and sockets of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.process import PORT_COUNT, Process, inference_server
from numatrace.record.machine import clients
from numatrace.record.machine.clients import MAX_CLIENTS, Clients, is_ollama_run
from numatrace.record.machine.documents import Documents
from numatrace.record.machine.listens import Listen, Network, listening, networks, port_numbers
from numatrace.record.machine.surroundings import Surroundings
from tests.unit.process_rows import Rows

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
ME = os.getpid()


@contextmanager
def running(code: str, *wrapper: str):
    """A Python process that runs `code`, prints a line, and waits."""
    command = [*wrapper, sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def listener(host: str = "127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        server.listen()
        yield server.getsockname()[1]


# --- which ports


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_ports_are_those_that_psutil_sees(host):
    with listener(host) as port:
        found = listening([ME], networks([ME]))[ME]
        assert Listen(port, ip_address(host)) in found
        oracle = {
            each.laddr.port
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }
        assert port_numbers(found) == tuple(sorted(oracle))


def test_a_connected_socket_is_no_listener():
    with listener() as port, socket.create_connection(("127.0.0.1", port)) as client:
        own = os.fstat(client.fileno()).st_ino
        network = Network(ME)
        assert own not in network.listeners
        assert own in network.connected({port})
        assert own not in network.connected({client.getsockname()[1]})
        assert network.connected(()) == set()


REST = "00000000:00000000 00:00000000 00000000  1000        0"
HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n"
)


def socket_tree(root: Path, pid: int, tables: dict[str, str], inodes: list[int]) -> Path:
    folder = root / str(pid)
    for name in ("net", "fd", "ns"):
        (folder / name).mkdir(parents=True)
    for name, text in tables.items():
        (folder / "net" / name).write_text(text)
    for number, inode in enumerate(inodes):
        (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (folder / "fd" / "900").symlink_to("/dev/null")
    (folder / "ns/net").symlink_to("net:[4026531840]")
    return root


def row(n: int, local: str, remote: str, state: int, inode: int) -> str:
    return f"{n:4}: {local} {remote} {state:02X} {REST} {inode} 1 0000000000000000 100 0 0 10 0\n"


@pytest.mark.skipif(sys.byteorder == "big", reason="the tables are of a little-endian machine")
def test_tables_of_a_captured_machine(tmp_path):
    loopback6 = "00000000000000000000000001000000"
    mapped = "0000000000000000FFFF00000100007F"
    tcp = HEAD + row(0, "0100007F:2CAA", "00000000:0000", 0x0A, 11)
    tcp += row(1, "0100007F:1F90", "00000000:0000", 0x0A, 99)  # another's
    tcp += row(2, "0100007F:8000", "0100007F:2CAA", 0x01, 21)
    tcp += row(3, "0100007F:2CAA", "0100007F:8000", 0x01, 22)  # the server's end
    tcp += row(4, "0100007F:8001", "0100007F:2CAA", 0x06, 0)  # over
    tcp += row(5, "0A00000A:8002", "0B00000A:2CAA", 0x01, 23)  # to another machine
    tcp += row(6, "0A00000A:8003", "0A00000A:2CAA", 0x01, 24)  # to this one's own address
    tcp6 = HEAD + row(0, f"{'0' * 32}:1F91", f"{'0' * 32}:0000", 0x0A, 12)
    tcp6 += row(1, f"{loopback6}:8004", f"{loopback6}:1F91", 0x01, 25)
    tcp6 += row(2, f"{mapped}:8005", f"{mapped}:2CAA", 0x01, 26)
    socket_tree(tmp_path, 7, {"tcp": tcp, "tcp6": tcp6}, [11, 12, 22])
    found = listening([7, 8], networks([7, 8], tmp_path), tmp_path)
    assert found == {7: (Listen(8081, ip_address("::")), Listen(11434, ip_address("127.0.0.1")))}
    network = Network(7, tmp_path)
    assert network.connected({11434, 8081}) == {21, 24, 25, 26}


def test_a_huge_table_is_read_in_part_and_in_time(tmp_path):
    tcp = HEAD + row(0, "0100007F:2CAA", "00000000:0000", 0x0A, 11)
    tcp += "".join(
        row(n, f"0100007F:{n % 65536:04X}", "0100007F:2CAA", 1, n + 100) for n in range(200_000)
    )
    socket_tree(tmp_path, 7, {"tcp": tcp}, [11])
    began = time.process_time()
    network = Network(7, tmp_path)
    assert listening([7], networks([7], tmp_path), tmp_path)[7][0].port == 11434
    assert 20_000 < len(network.connected({11434})) < 40_000
    assert time.process_time() - began < 3


@unhurried
@given(st.binary(max_size=300))
def test_damaged_tables_say_nothing(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("proc")
    socket_tree(root, 7, {}, [1])
    (root / "7/net/tcp").write_bytes(data)
    network = Network(7, root)
    assert network.listeners == {}
    assert network.connected({1}) == set()


def test_no_more_ports_than_a_row_takes():
    many = [Listen(port, ip_address("127.0.0.1")) for port in range(1, 3 * PORT_COUNT)]
    process = Process(1, 0, "x", listens=port_numbers(many))
    assert Process.from_json(process.to_json()).listens == tuple(range(1, PORT_COUNT + 1))


# --- clients


def look(finder: Clients, listens: dict, known=(), **more) -> list[int]:
    return finder.look(listens, networks(listens), known, 5.0, **more)


def test_a_client_is_found_once_and_others_are_not():
    with listener() as port:
        server = {ME: (Listen(port, ip_address("127.0.0.1")),)}
        connect = f"import socket; s = socket.create_connection(('127.0.0.1', {port}))"
        with running(connect) as client, running("") as _other:
            finder = Clients()
            assert look(finder, server, [ME]) == [client]
            assert look(finder, server, [ME]) == []
            with running(connect) as second:
                assert look(finder, server, [ME]) == [second]
            assert look(Clients(), server, [ME, client]) == []


def test_no_more_clients_than_are_described(tmp_path):
    count = 3 * MAX_CLIENTS
    ends = [row(n, f"0100007F:{n:04X}", "0100007F:2CAA", 1, 1000 + n) for n in range(1, count)]
    tcp = row(0, "0100007F:2CAA", "00000000:0000", 0x0A, 11) + "".join(ends)
    socket_tree(tmp_path, 7, {"tcp": tcp}, [11])
    for n in range(1, count):
        socket_tree(tmp_path, 100 + n, {}, [1000 + n])
    server = {7: (Listen(11434, ip_address("127.0.0.1")),)}
    finder = Clients(tmp_path)
    spaces = networks([7], tmp_path)
    found = finder.look(server, spaces, [7], seconds=5.0)
    assert len(found) == MAX_CLIENTS
    assert found[0] == 100 + count - 1  # the youngest first
    assert finder.look(server, spaces, [7], seconds=5.0) == []


def test_looking_for_nobody_becomes_rare(tmp_path, monkeypatch):
    tcp = row(0, "0100007F:2CAA", "00000000:0000", 0x0A, 11)
    socket_tree(tmp_path, 7, {"tcp": tcp}, [11])
    finder, looks, now = Clients(tmp_path), [], [0.0]
    monkeypatch.setattr(clients.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clients, "socket_inodes", lambda *_: looks.append(now[0]) or set())
    server = {7: (Listen(11434, ip_address("127.0.0.1")),)}
    for second in range(0, 600, 5):
        now[0] = float(second)
        connection = row(1, "0100007F:8000", "0100007F:2CAA", 1, 5000 + second)  # always a new one
        (tmp_path / "7/net/tcp").write_text(tcp + connection)
        finder.look(server, networks([7], tmp_path), [7])
    times = sorted(set(looks))
    assert times[:4] == [0.0, 5.0, 15.0, 35.0]
    assert 8 <= len(times) <= 16


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        (b"ollama\0run\0llama3\0", True),
        (b"/usr/local/bin/ollama\0run\0llama3\0", True),
        (b"ollama\0serve\0", False),
        (b"/usr/bin/ollama\0runner\0--model\0x\0", False),
        (b"ollama\0", False),
        (b"run\0ollama\0run\0", False),
        (b"", False),
    ],
)
def test_who_runs_ollama_run(line, is_one):
    assert is_ollama_run(line) is is_one


def test_ollama_run_is_a_client_though_it_is_not_connected(tmp_path):
    def process(pid: int, line: bytes) -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        (tmp_path / str(pid) / "cmdline").write_bytes(line)

    process(5, b"ollama\0run\0a\0")
    process(6, b"bash\0")
    finder = Clients(tmp_path)
    assert finder.look({}, {}, []) == []
    assert finder.look({}, {}, [], ollama=True) == [5]
    process(6, b"ollama\0run\0b\0")  # an exec soon after the fork
    process(7, b"ollama\0run\0c\0")
    assert finder.look({}, {}, [], ollama=True) == [7, 6]


# --- all around, live


def test_a_client_under_numactl_has_its_own_policy_in_the_trace():
    numactl = Path("/usr/bin/numactl")
    if not numactl.exists():
        pytest.skip("no numactl")
    rows = Rows()
    documents = Documents(rows)
    with listener() as port:
        connect = f"import socket; s = socket.create_connection(('127.0.0.1', {port}))"
        with running(connect, str(numactl), "--interleave=0", "--physcpubind=0") as client:
            documents.processes[ME] = Process(ME, 0, "server")
            surroundings = Surroundings(documents)
            surroundings.tick([ME])
            surroundings.tick([ME])
            surroundings.finish([ME])
    server = next(each for each in rows.processes() if each.tgid == ME)
    assert port in server.listens
    assert server.relation == ""
    [found] = [each for each in rows.processes() if each.relation == "client"]
    assert found.tgid == client
    assert found.policy == "interleave:0"
    assert found.cpus_allowed == (0,)
    assert found.argv[0] == sys.executable
    assert client not in documents.processes


def test_a_client_is_never_taken_for_the_server():
    argv = ("llama-server", "--model", "x.gguf")
    both = [Process(1, 0, "a", argv, relation="client"), Process(2, 0, "b", argv)]
    assert inference_server(both, {1: 5})[0] == 2
    assert inference_server(both[:1], {1: 5})[0] is None


def test_what_was_learned_stays_when_a_process_is_described_anew():
    rows = Rows()
    documents = Documents(rows)
    documents.write_process(ME)
    documents.learn(ME, version="b10488", listens=(80,))
    documents.learn(ME, version="b10488", listens=(80,))
    documents.learn(ME, listens=())
    described = [each for each in rows.processes() if each.tgid == ME]
    assert [(each.version, each.listens) for each in described] == [("", ()), ("b10488", (80,))]
    assert documents.write_process(ME).version == "b10488"
    documents.learn(1 << 22, version="1.0.0")  # a process that nobody knows


def test_a_look_has_one_bound_however_many_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where each process takes a while: the rings are not emptied meanwhile."""
    now, looked = [0.0], []

    def slow(pid: int, proc: Path, deadline: float) -> set[int]:
        looked.append(pid)
        now[0] = min(now[0] + 0.3, max(now[0], deadline))
        return set()

    monkeypatch.setattr(clients, "socket_inodes", slow)
    monkeypatch.setattr(clients.time, "monotonic", lambda: now[0])
    finder = Clients()
    assert list(finder._connected({1}, range(1, 500), range(500, 1000), 0.025)) == []
    assert now[0] <= clients.LONGEST_S
    now[0] = 0.0
    looked.clear()
    assert list(finder._connected({1}, [], range(500, 1000), 0.025)) == []
    assert 1 <= len(looked) <= clients.LEAST
