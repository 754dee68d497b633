"""Servers are asked for their version: real ones, slow ones, and ones that lie."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numatrace.model.process import Process
from numatrace.record.machine import versions
from numatrace.record.machine.documents import Documents
from numatrace.record.machine.listens import Listen
from numatrace.record.machine.surroundings import Surroundings
from numatrace.record.machine.versions import (
    Versions,
    addresses,
    build_number,
    get,
    ollama_version,
    question_for,
    version_of_path,
)
from tests.unit.process_rows import Rows

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


@contextmanager
def http(answer, *, hold: bool = False):
    """A server that takes connections, reads what comes and sends what `answer` gives."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        asked: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096))
                    try:
                        for piece in answer():
                            connection.sendall(piece)
                        if hold:
                            time.sleep(2)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)


def answer(body: bytes, status: bytes = b"200 OK"):
    return lambda: [b"HTTP/1.1 " + status + b"\r\nServer: x\r\n\r\n" + body]


def asked_version(process: Process, port: int) -> str | None:
    asker = Versions()
    asker.ask(process, (Listen(port, ip_address("127.0.0.1")),))
    return asker.answers(5.0).get(process.tgid)


SERVE = Process(5, 1, "ollama", ("/usr/bin/ollama", "serve"), exe="/usr/bin/ollama")
LLAMA = Process(6, 5, "llama-server", ("/x/llama-server", "--model", "m"), exe="/x/llama-server")


def test_ollama_and_llama_cpp_are_asked_for_their_versions():
    with http(answer(b'{"version":"0.24.0"}')) as (port, asked):
        assert asked_version(SERVE, port) == "0.24.0"
    assert asked[0].startswith(b"GET /api/version HTTP/1.0\r\nHost: localhost\r\n")
    with http(answer(b'{"chat_template":"x","build_info":"b10488-ec98e2002"}')) as (port, asked):
        assert asked_version(LLAMA, port) == "b10488"
    assert asked[0].startswith(b"GET /props HTTP/1.0\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"version": 3}',
        b'{"version": "latest"}',
        b'{"version": "0.24.0; rm -rf /"}',
        b'{"version": "' + b"9" * 100_000 + b'.1.1"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_garbage_is_no_version(body):
    with http(answer(body)) as (port, _):
        assert asked_version(SERVE, port) is None


def test_a_refusal_is_no_version():
    with http(answer(b'{"version":"0.24.0"}', b"401 Unauthorized")) as (port, _):
        assert asked_version(SERVE, port) is None


def endless():
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b" " * 65536


def slow():
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    for byte in b'{"version":"0.24.0"}' * 10:
        time.sleep(0.1)
        yield bytes([byte])


@pytest.mark.parametrize(("says", "hold"), [(endless, False), (slow, False), (lambda: [], True)])
def test_a_server_that_never_ends_is_left(says, hold):
    with http(says, hold=hold) as (port, _):
        began = time.monotonic()
        assert get("127.0.0.1", port, "/props") == b""
        assert time.monotonic() - began < 1.5


def test_asking_does_not_wait():
    with http(lambda: [], hold=True) as (port, _):
        asker = Versions()
        began = time.monotonic()
        for _ in range(10):
            asker.ask(SERVE, (Listen(port, ip_address("127.0.0.1")),))
            assert asker.answers() == {}
        assert time.monotonic() - began < 0.2
        assert asker.answers(0.2) == {}
        assert 0.2 <= time.monotonic() - began < 0.5


def test_a_server_that_loads_is_asked_again_but_not_for_ever():
    bodies = [b"loading", b"loading", b'{"version":"0.5.7"}']
    with http(lambda: [b"HTTP/1.1 200 OK\r\n\r\n" + bodies.pop(0)]) as (port, asked):
        asker, listens, found = Versions(), (Listen(port, ip_address("127.0.0.1")),), {}
        for _ in range(8):
            asker.ask(SERVE, listens)
            found |= asker.answers(5.0)
    assert found == {5: "0.5.7"}
    assert len(asked) == 3


def test_only_known_servers_are_asked():
    assert question_for(Process(1, 0, "nginx", ("nginx",))) is None
    assert question_for(Process(1, 0, "ollama", ("ollama", "run", "x"))) is None
    assert question_for(Process(1, 0, "ollama", ("ollama", "runner"))) is None


def test_only_addresses_of_this_machine_are_asked():
    def at(*hosts: str) -> list[str]:
        return [host for host, _ in addresses([Listen(1, ip_address(host)) for host in hosts])]

    assert at("127.0.0.1", "127.0.0.53", "::1") == ["127.0.0.1", "127.0.0.53", "::1"]
    assert at("0.0.0.0") == ["127.0.0.1"]
    assert at("::") == ["127.0.0.1", "::1"]
    assert at("10.0.0.1", "fe80::1") == []
    assert (
        len(addresses([Listen(n, ip_address("::1")) for n in range(100)])) == versions.PORTS_ASKED
    )


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/nix/store/abc-ollama-0.5.7/bin/ollama", "0.5.7"),
        ("/opt/homebrew/Cellar/ollama/0.12.0/bin/ollama", "0.12.0"),
        ("/srv/llama-b6123/build/bin/llama-server", "b6123"),
        ("/srv/b10488/llama-server", "b10488"),
        ("/home/linuxbrew/.linuxbrew/Cellar/llama.cpp/5200/bin/llama-server", "b5200"),
        ("/usr/local/lib/ollama/llama-server", ""),
        ("/usr/bin/ollama", ""),
        ("/srv/abc1234/llama-server", ""),
    ],
)
def test_a_path_may_name_the_version(path, version):
    assert version_of_path(path) == version


@unhurried
@given(st.text(max_size=100))
def test_versions_are_short_and_plain(text):
    for parse in (ollama_version, build_number, version_of_path):
        assert parse(text) == "" or (parse(text).isascii() and len(parse(text)) <= 64)


@pytest.mark.parametrize("text", ["b0-unknown", "b1-abc", "b1", "10488", "b10488-; x", "b-1"])
def test_a_build_without_a_number_is_unknown(text):
    assert build_number(text) == ""


def test_ollamas_own_runner_has_the_version_of_the_server_above():
    rows = Rows()
    documents = Documents(rows)
    runner = Process(6, 5, "ollama", ("/usr/bin/ollama", "runner", "--model", "x"))
    documents.processes |= {5: SERVE, 6: runner}
    surroundings = Surroundings(documents)
    surroundings.versions._asked[5] = versions._Asked(1, True)
    surroundings.versions._found.put((5, "0.24.0"))
    surroundings.tick([])
    assert {pid: each.version for pid, each in documents.processes.items()} == {
        5: "0.24.0",
        6: "0.24.0",
    }
