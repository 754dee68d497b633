"""`numatrace watch` as a user sees it: driven in tmux, and as lines for scripts."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from numatrace.record.bpf.stimulus import Stimulus
from numatrace.record.options import Options
from numatrace.record.tensors.gguf_table import Candidate, GgufFinder
from numatrace.trace.reader import Trace
from numatrace.watch.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "numatrace"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PS1": "$ "}
PATIENCE_S = 30.0
NEVER_READ = Candidate("never.gguf", ())

FAULTS_S = 1000
BUSY = """
import ctypes, mmap, sys, threading, time

def called(name):
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)

def fault():
    called(b"[red]fa\\x1b[31m\\n")
    pages = 50
    due = time.monotonic()
    while True:
        memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(15)
        for page in range(pages):
            memory[page * 4096] = 1
        memory.close()
        due += pages / float(sys.argv[1])
        time.sleep(max(0, due - time.monotonic()))

def burn():
    called(b"burner")
    data = bytearray(8 << 20)
    while True:
        data.count(7)
        time.sleep(0.002)

for body in (fault, burn):
    threading.Thread(target=body, daemon=True).start()
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def busy() -> Iterator[subprocess.Popen[str]]:
    """A process with a thread that faults at a known rate, and one that reads memory."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(FAULTS_S)], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


class Tmux:
    """A terminal of some size with a shell in it."""

    def __init__(self, folder: Path, width: int = 80, height: int = 24) -> None:
        self.sockets = tempfile.TemporaryDirectory(prefix="nt")
        self.tmux = ["tmux", "-u", "-f", "/dev/null", "-S", f"{self.sockets.name}/s"]
        size = ["-x", str(width), "-y", str(height)]
        command = [*self.tmux, "new-session", "-d", *size, "bash --norc --noprofile"]
        subprocess.run(command, check=True, cwd=folder, env=ENVIRONMENT)

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.tmux, *arguments], check=True, capture_output=True, text=True, env=ENVIRONMENT
        )
        return done.stdout

    def close(self) -> None:
        subprocess.run([*self.tmux, "kill-server"], check=False, capture_output=True)
        self.sockets.cleanup()

    def type(self, line: str) -> None:
        self.call("send-keys", "-l", line)
        self.call("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self.call("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self.call("resize-window", "-x", str(width), "-y", str(height))

    @property
    def text(self) -> str:
        return self.call("capture-pane", "-p")

    @property
    def state(self) -> str:
        """Whether the alternate screen is shown, the cursor is, and where the latter is."""
        return self.call("display-message", "-p", "#{alternate_on} #{cursor_flag}").strip()

    def until(self, what: str | Callable[[str], object]) -> str:
        """Wait for a text, or for what a function of the screen finds; returns the screen.

        It has to be there twice: a picture may have been half drawn.
        """
        deadline = time.monotonic() + PATIENCE_S
        times = 0
        while True:
            text = self.text
            times = times + 1 if (what in text if isinstance(what, str) else what(text)) else 0
            if times == 2:
                return text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)

    def watch(self, *arguments: object, setting: str = "") -> None:
        """Start watching, and wait for the first figures."""
        self.type("stty -g > before")
        command = shlex.join([*PROGRAM, "watch", *map(str, arguments)])
        self.type(f"{setting} {command}; echo status=$?")
        self.until("CPU TIME")

    def ended(self, folder: Path, status: int = 0) -> str:
        """Wait for the end; the terminal must be as it was. Returns what stands there."""
        text = self.until(lambda text: re.search(r"^status=\d+$", text, re.MULTILINE))
        assert f"status={status}" in text.splitlines(), text
        self.type("stty -g > after")
        self.until(lambda _: (folder / "after").exists() and (folder / "after").read_bytes())
        assert (folder / "after").read_bytes() == (folder / "before").read_bytes()
        assert self.state == "0 1"
        return text


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    terminal = Tmux(tmp_path)
    yield terminal
    terminal.close()


def filled(height: int, text: str) -> bool:
    """Whether the display takes all of the terminal's lines."""
    lines = text.splitlines()
    return len(lines) == height and lines[-1].startswith("q quit") and "burner" in text


def pid_below(tmux: Tmux) -> int:
    """The program that runs in the shell."""
    shell = tmux.call("display-message", "-p", "#{pane_pid}").strip()
    children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
    return int(children[0])


def test_the_display_shows_who_runs_where(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    tmux.watch("-p", busy.pid)
    assert tmux.state == "1 0"
    text = tmux.until(lambda text: "burner" in text and "[red]fa" in text)
    lines = text.splitlines()
    assert re.match(
        rf"numatrace watch \S+ {busy.pid} +0:0\d +every 1 s +1 node, \d+ CPUs?", lines[0]
    )
    assert "remote 0 %" in tmux.until("remote 0 %")
    assert "lost 0" in text
    assert "overhead" in text
    assert re.search(r"^ +0 █+ 100 % ", text, re.MULTILINE)
    [burner] = [line for line in lines if " burner " in line]
    assert re.search(r" 0{8,} 100 % ", burner)
    [faulter] = [line for line in lines if "[red]fa" in line]
    assert "\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}" in faulter
    tmux.press("q")
    tmux.ended(tmp_path)


def test_every_size_from_60_by_20_on_and_any_change_of_it(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    tmux.watch("-p", busy.pid)
    for width, height in [(60, 20), (200, 50), (80, 24)]:
        tmux.resize(width, height)
        columns = width >= 80, width >= 100
        text = tmux.until(
            lambda text, columns=columns, height=height: (
                filled(height, text) and ("SAMPLES" in text, "PID" in text) == columns
            )
        )
        assert max(map(len, text.splitlines())) <= width
    for width, height in [(50, 30), (90, 12), (5, 3)]:
        tmux.resize(width, height)
        said = "too small: "[: width - 1]
        tmux.until(lambda text, said=said: "CPU TIME" not in text and said in text)
    tmux.resize(80, 24)
    tmux.until("burner")
    tmux.press("q")
    tmux.ended(tmp_path)


def test_keys(tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]) -> None:
    tmux.watch("-p", busy.pid)
    tmux.until("burner")

    def first(text: str) -> str:
        lines = text.splitlines()
        return lines[next(n for n, line in enumerate(lines) if "FAULTS/S" in line) + 1]

    assert " burner " in first(tmux.text)
    tmux.press("s", "s", "Right")  # remote, moves, faults
    tmux.until(lambda text: "[red]fa" in first(text))
    tmux.press("Left", "Left", "Left")
    tmux.until(lambda text: " burner " in first(text))
    tmux.press("p")
    tmux.until("PAUSED")
    time.sleep(0.5)  # the picture is whole
    held = tmux.text
    time.sleep(2.5)
    assert tmux.text == held
    tmux.press("Space")
    tmux.until(lambda text: "PAUSED" not in text and text != held)
    tmux.press("h")
    assert "begin or end writing a trace" in tmux.until("h goes back")
    tmux.press("Escape")
    tmux.until("CPU TIME")
    tmux.press("q")
    tmux.ended(tmp_path)


def test_the_environment_has_a_say_in_colours_and_screens(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    colours = re.compile(r"\x1b\[(?:\d+;)*3[0-8]")
    tmux.watch("-p", busy.pid)
    tmux.until("burner")
    assert colours.search(tmux.call("capture-pane", "-p", "-e"))
    tmux.press("q")
    tmux.ended(tmp_path)
    tmux.press("C-l")
    tmux.watch("-p", busy.pid, setting="NO_COLOR=1 COLUMNS=40")
    text = tmux.until("burner")
    assert tmux.state == "1 0"
    assert max(map(len, text.splitlines())) > 60
    assert not colours.search(tmux.call("capture-pane", "-p", "-e"))
    tmux.press("q")
    tmux.ended(tmp_path)
    tmux.press("C-l")
    tmux.watch("-p", busy.pid, setting="TERM=dumb")
    assert tmux.state == "0 1"
    assert all(len(line) <= 80 for line in tmux.until("burner").splitlines())
    os.kill(pid_below(tmux), signal.SIGTERM)
    tmux.ended(tmp_path)


def analyzed(trace: Path) -> dict:
    done = subprocess.run(
        [*PROGRAM, "analyze", "--json", str(trace)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_r_writes_a_trace_like_any_other(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    """Twice; the second one is completed by quitting, under another name."""
    tmux.watch("-p", busy.pid)
    tmux.press("r")
    tmux.until(lambda text: re.search(r"writing trace\.arrow [\d.]+ \w+ 0:03 ", text))
    tmux.press("r")
    tmux.until("next: numatrace analyze")
    tmux.until(lambda text: "writing" not in text)
    tmux.press("r")
    tmux.until(lambda text: re.search(r"writing trace-2\.arrow [\d.]+ \w+ 0:02 ", text))
    tmux.press("q")
    said = tmux.ended(tmp_path)
    for name, least_s in (("trace.arrow", 3), ("trace-2.arrow", 2)):
        assert f"wrote {name}; next: numatrace analyze {name}" in said
        report = analyzed(tmp_path / name)
        assert not report["provenance"]["problems"]
        assert report["provenance"]["ended"] == "interrupted"
        seconds = report["provenance"]["duration_ns"] / 1e9
        assert least_s <= seconds < least_s + 15
        threads = {thread["comm"]: thread for thread in report["threads"]}
        faulter = threads["[red]fa\x1b[31m\n"]
        assert faulter["faults"] / seconds == pytest.approx(FAULTS_S, rel=0.5)
        assert threads["burner"]["oncpu_ns"]["0"] > 0
        assert {row["lost"] for row in report["losses"]} == {0}
        assert report["machine"]["nodes"][0]["node"] == 0
        assert any(region["bytes"] > 8 << 20 for region in report["regions"])


@pytest.mark.parametrize("how", ["C-c", "SIGTERM", "SIGTERM while it writes"])
def test_it_ends_with_the_terminal_as_it_was(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str], how: str
) -> None:
    tmux.watch("-p", busy.pid)
    if "writes" in how:
        tmux.press("r")
        tmux.until("writing trace.arrow ")
    if how == "C-c":
        tmux.press("C-c")
    else:
        os.kill(pid_below(tmux), signal.SIGTERM)
    tmux.ended(tmp_path)
    if "writes" in how:
        assert not analyzed(tmp_path / "trace.arrow")["provenance"]["problems"]


def test_a_terminal_that_goes_leaves_a_complete_trace(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    tmux.watch("-p", busy.pid)
    tmux.press("r")
    tmux.until("writing trace.arrow ")
    pid = pid_below(tmux)
    tmux.close()
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    provenance = analyzed(tmp_path / "trace.arrow")["provenance"]
    assert (provenance["ended"], provenance["problems"]) == ("interrupted", [])


def test_the_end_of_the_target_ends_it_and_the_last_figures_stay(
    tmux: Tmux, tmp_path: Path
) -> None:
    stimulus = Stimulus()
    tmux.watch("-p", stimulus.pid)
    stimulus.close()
    text = tmux.ended(tmp_path)
    assert re.search(rf"process {stimulus.pid} \(\S+\) ended after 0:\d\d; the last figures:", text)
    assert "CPU TIME" in text


def test_an_error_leaves_the_terminal_as_it_was(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    code = (
        "import numatrace.watch.screen as s, numatrace.cli.main as m\n"
        "s.threads = lambda *_: 1 / 0\n"
        f"m.main(['watch', '-p', '{busy.pid}'])"
    )
    (tmp_path / "broken.py").write_text(code)
    tmux.type("stty -g > before")
    tmux.type(f"{sys.executable} broken.py; echo status=$?")
    assert "ZeroDivisionError" in tmux.ended(tmp_path, status=1)


def test_a_full_disk_ends_the_trace_and_not_the_watching(
    tmux: Tmux, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", disk], check=True)
    try:
        tmux.watch("-p", busy.pid, "-o", disk / "t.arrow")
        tmux.press("r")
        tmux.until("No space left")
        tmux.press("x")
        tmux.until(lambda text: "writing" not in text and "burner" in text)
        tmux.press("q")
        tmux.ended(tmp_path)
    finally:
        subprocess.run(["umount", disk], check=True)


class Told:
    """Takes note of what sessions tell."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def tick(self) -> None:
        self.heard.append("tick")

    def gap_begins(self) -> None:
        self.heard.append("(")

    def gap_ends(self) -> None:
        self.heard.append(")")

    def say(self, text: str) -> None:
        self.heard.append(text)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_traces_one_after_the_other_leave_nothing_behind(tmp_path: Path) -> None:
    """Rows go on, every trace is complete, and nothing stays open."""
    told, kinds, opened = Told(), Counter(), []
    with Stimulus() as stimulus:
        options = Options(tmp_path / "t.arrow", interval_s=0.2)
        sessions = Sessions(
            options, [stimulus.pid], lambda kind, _, n: kinds.update({kind: n}), told
        )

        def wait(seconds: float) -> None:
            time.sleep(seconds)
            ticks, switches = told.heard.count("tick"), told.heard.count(")")
            if ticks < 3 * (len(opened) + 1) or switches < len(opened):
                return
            opened.append(descriptors())
            stimulus.touch(100)
            if len(opened) > 6:
                sessions.stop("enough")
            else:
                sessions.toggle()

        sessions.begin()
        sessions.run(wait)
        sessions.end()
    assert sessions.ended == "enough"
    assert [summary.reason for summary in sessions.written] == ["interrupted"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t-2.arrow", "t-3.arrow", "t.arrow"]
    for path in tmp_path.iterdir():
        with Trace.open(path) as trace:
            found = Counter(kind for batch in trace.batches() for kind in batch["kind"].to_pylist())
            assert not trace.problems
        assert found["end"] == 1
        assert found["process"] >= 1
        assert min(found["map"], found["place"], found["fault_count"]) > 0
    assert kinds["end"] == 3
    assert kinds["fault_count"] > 0
    assert told.heard.count("(") == told.heard.count(")") == 6
    assert max(opened[1::2]) - min(opened[1::2]) <= 3, opened
    assert max(opened[2::2]) - min(opened[2::2]) <= 3, opened


def test_a_second_r_ends_the_wait_for_tensor_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GgufFinder, "poll", lambda _: [])
    """A trace whose tables never come is not ended by the first r."""
    told, said, looks, waited = Told(), [], [], []

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        if sessions.written:
            sessions.stop("enough")
        elif sessions.traced is None:
            if not said:
                said.append(sessions.toggle())
        else:
            looks.append(seconds)
            if len(looks) == 1:
                sessions.session.memory.finder._waiting.append(NEVER_READ)
            elif len(looks) == 5 or (len(said) == 2 and sessions._loading.ready):
                if len(said) == 2:
                    time.sleep(0.5)
                    waited.append(not sessions._can_switch())
                said.append(sessions.toggle())

    with Stimulus() as stimulus:
        options = Options(tmp_path / "t.arrow", interval_s=0.2)
        sessions = Sessions(options, [stimulus.pid], lambda *_: None, told)
        sessions.begin()
        began = time.monotonic()
        sessions.run(wait)
        sessions.end()
    assert time.monotonic() - began < 40
    assert waited == [True]
    assert [text.partition(" ")[0] for text in said] == ["beginning", "reading", "the"]
    assert len(sessions.written) == 1


def lines_of(tmp_path: Path, *arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [*PROGRAM, "watch", *map(str, arguments)],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + (done.stderr if status else "")


def minor_faults(pid: int) -> int:
    """The kernel's own count, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


def test_figures_for_scripts_are_right(tmp_path: Path, busy: subprocess.Popen[str]) -> None:
    """Faults against the kernel's own counter of the thread, memory against its VmRSS."""
    process = subprocess.Popen(
        [*PROGRAM, "watch", "-p", str(busy.pid), "--json", "-n", "5"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found, counted = [], []
    for line in process.stdout:
        counted.append(minor_faults(busy.pid))
        found.append(json.loads(line))
    process.communicate()
    assert (process.returncode, len(found)) == (0, 5)
    faults = sum(each["faults_s"] * each["interval_s"] for each in found[2:])
    assert faults == pytest.approx(counted[-1] - counted[1], rel=0.15)
    last = found[-1]
    assert (last["pid"], last["processes"], last["threads_alive"]) == (busy.pid, 1, 3)
    [node] = last["nodes"]
    assert (node["node"], node["share"]) == (0, 1.0)
    rss = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{busy.pid}/status").read_text())[1]) * 1024
    assert node["bytes"] == pytest.approx(rss, rel=0.2)
    assert last["remote"]["share"] == 0.0
    by_name = {thread["name"]: thread for thread in last["threads"]}
    burner = by_name["burner"]
    assert burner["node_share"] == {"0": 1.0}
    assert burner["faults_s"] == 0
    assert 0 < burner["cpus"] <= 1.05
    assert sum(thread["cpus"] for thread in last["threads"]) == pytest.approx(last["cpus"])


READER = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file:
    model = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("ready", flush=True)
while True:
    sum(model[page] for page in range(0, len(model), 4096))
    time.sleep(0.01)
"""


def test_a_mapped_model_is_told_apart(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    make = [sys.executable, str(ROOT / "scripts/make-model"), str(model), "--size-mb", "24"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-c", READER, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        reader.stdout.readline()
        found = None
        with subprocess.Popen(
            [*PROGRAM, "watch", "-p", str(reader.pid), "--json", "-n", "20"],
            env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            for line in process.stdout:
                [node] = json.loads(line)["nodes"]
                if (found := node["model_bytes"]) is not None:
                    break
            process.terminate()
        reader.kill()
    pages = -(-model.stat().st_size // 4096) * 4096
    assert found == pytest.approx(pages, rel=0.01)
    assert node["bytes"] > found


def test_without_a_terminal_it_prints_lines(tmp_path: Path, busy: subprocess.Popen[str]) -> None:
    text = lines_of(tmp_path, busy.pid, "--once")
    assert text.count("numatrace watch") == 1
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    process = subprocess.Popen(
        [*PROGRAM, "watch", "-p", str(busy.pid), "--interval", "0.5"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    shown = [line for _ in range(12) if (line := process.stdout.readline())]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert any("CPU TIME" in line for line in shown)
    assert not list(tmp_path.iterdir())


def test_wrong_calls_say_what_to_do(tmp_path: Path) -> None:
    assert "pidof llama-server" in lines_of(tmp_path, status=2)
    assert "no process with this pid" in lines_of(tmp_path, "-p", 2**22 - 1, status=2)
    assert "not a process id" in lines_of(tmp_path, "-p", 1, "x", status=2)
