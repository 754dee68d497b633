"""The text report: what it says, that it fits 79 columns, and that no name can break it."""

from __future__ import annotations

import dataclasses
import re
import typing
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from numatrace.model.findings import (
    DocumentCheck,
    Evidence,
    Finding,
    Fix,
    PlanView,
    RuledOut,
    Step,
    Verdict,
)
from numatrace.model.report import Figure, Provenance, Report
from numatrace.model.units import format_bytes, format_ns, format_share
from numatrace.model.views import (
    LayerView,
    LossView,
    MachineView,
    NodeView,
    ProcessView,
    RegionView,
    ShareView,
    TensorView,
    ThreadView,
)
from numatrace.render import RENDERERS, RenderOptions
from tests.unit.anything import Anything
from tests.unit.text_tables import cells

GIB = 1 << 30
MIB = 1 << 20
SERVER, PARENT = 4711, 1200
MODEL = "/srv/models/llama-3-8b.gguf"
PRIVATE = "anonymous weights, KV cache or compute buffers (private)"
START = f"numactl --cpunodebind=0 --membind=0 /opt/llama/bin/llama-server --model {MODEL} -t 4"
DROP_IN = "tee /etc/systemd/system/l.service.d/n.conf <<'END'\n[Service]\n  NUMAMask=0\nEND"

NOTHING = Report(
    verdict=Verdict("withheld", "The trace holds no process that could be judged."),
    findings=(),
    machine=MachineView("", (), None),
    processes=(),
    threads=(),
    regions=(),
    layers=(),
    tensors=(),
    shares=(),
    losses=(),
    provenance=Provenance(1, 0, 0, "", (), (), ()),
)

HOSTILE = (
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "two\nlines\r\x0b\x0c\x85\u2028\u2029end",
    "\u202egpj.exe\u202c\u2066x\u2069",
    "[bold]b[/bold] [/] [link=x]y[/link] \\[",
    "漢字かな交じり文" * 12,
    "/" + "d" * 3999,
    "e" + "\u0301" * 500,
    "👩‍👩‍👧 ❤️ 🇩🇪" * 9,
    "\ud800\x00\x7f",
    "%s {0} $(reboot) `id`",
    "",
    " " * 90,
)


def node(number: int, cpus: str = "0-3", others: dict[int, int] | None = None) -> NodeView:
    return NodeView(number, cpus, 4, 16 * GIB, 6 * GIB, 2 * GIB, {number: 10} | (others or {}))


def thread(tid: int, ns: dict[int, int], **more: Any) -> ThreadView:
    view = ThreadView(SERVER, tid, "llama-server", "compute", 1, ns, 3, 0, 1200, "0-7")
    return dataclasses.replace(view, **more)


def region(label: str, cls: Any, node_bytes: dict[int, int], **more: Any) -> RegionView:
    size = sum(node_bytes.values()) + MIB
    view = RegionView(SERVER, label, cls, "", 1, size, node_bytes, MIB, 0, True, "placement", 0, 7)
    return dataclasses.replace(view, **more)


def layer(number: int | None, node_bytes: dict[int, int], absent: int = 0) -> LayerView:
    size = sum(node_bytes.values()) + absent
    return LayerView(SERVER, MODEL, number, 9, size, node_bytes, absent)


def server(**more: Any) -> ProcessView:
    argv = ("/opt/llama/bin/llama-server", "--model", MODEL)
    times, sizes = {0: 20 * 10**9, 1: 19 * 10**9}, {0: 8 * GIB, 1: 700 * MIB}
    view = ProcessView(
        SERVER, PARENT, "llama-server", argv, True, None, None, "bind:0", "0-7", "0-1", times, sizes
    )
    return dataclasses.replace(view, **more)


def a_fix(**more: Any) -> Fix:
    fix = Fix(
        id="bind/by-hand",
        deployment="by hand",
        title="run the server and keep its memory on node 0",
        steps=(Step("kill 4711", "Stop the server."), Step(START, "Start it on node 0.")),
        verify=(Step("numastat -p 1", "See its memory.", needs_root=True),),
        undo=(Step("kill 1", "Stop it again."),),
        notes=("Answers under way are cut off.",),
        lint=("node 0 has CPUs 0-3",),
        plan="bind:0",
    )
    return dataclasses.replace(fix, **more)


def imbalance() -> Report:
    """All weights on node 0, threads on both."""
    weights = {0: int(7.7 * GIB), 1: 184 * MIB}
    evidence = (
        Evidence(
            "98 % of the weights is there.", (Figure(0.98, "share", "placement", 0.97, 0.99),)
        ),
        Evidence("Threads used 39 s.", (Figure(39e9, "ns", "counter"),)),
        Evidence("The server's memory policy is bind:0."),
    )
    sentence = "98 % of the weights is on node 0, but half of the threads' time is on node 1."
    finding = Finding(
        "C1", "allocation imbalance", sentence, SERVER, evidence, "high", (a_fix(),), ("A note.",),
        Figure(12e9, "ns", "model"),
        DocumentCheck(
            1, "imbalanced allocation", "numastat -m", ("node     0    1", "free   9 GB  1 GB")
        ),
        "weights on both nodes.",
    )  # fmt: skip
    names = ("llama-3-8b.gguf", "private memory at 0x7f2c40000000")
    threads = [thread(SERVER + n, {0: 5 * 10**9, 1: 4 * 10**9 + n * 10**8}) for n in range(4)]
    threads += [thread(4720 + n, {0: 9 * 10**6}, role="", moves=0) for n in range(9)]
    return dataclasses.replace(
        NOTHING,
        verdict=Verdict("fix", sentence, evidence),
        findings=(finding,),
        machine=MachineView("6.12.9", (node(0, "0-3", {1: 21}), node(1, "4-7", {0: 21})), 0),
        processes=(server(), server(tgid=PARENT, ptgid=1, name="bash", is_server=False)),
        threads=tuple(threads),
        regions=(
            region(names[0], "weights", weights, path=MODEL, error_bytes=20 * MIB, census=False),
            region(names[1], PRIVATE, {0: 520 * MIB, 1: 504 * MIB}, faults=18_345, changes=2),
            region("heap", "heap", {0: 39 * MIB}),
            region("code", "code", {1: 3 * MIB}, tgid=PARENT),
        ),
        layers=(*(layer(n, {0: 98 * MIB, 1: 2 * MIB}) for n in range(32)), layer(None, {0: GIB})),
        tensors=tuple(
            TensorView(SERVER, MODEL, f"blk.{n}.ffn_up.weight", n, "Q8_0", (n + 1) * MIB, {0: n}, 0)
            for n in range(32)
        ),
        shares=tuple(
            ShareView(SERVER, SERVER + n, name, Figure(0.48, "share", "model", 0.46, 0.5))
            for n in range(4)
            for name in names
        ),
        losses=(LossView("fault", 21_805, 21_000, 700, 105), LossView("sched", 1890, 1890, 0, 0)),
        provenance=Provenance(
            1, 25_540, 10_020_000_000, "time", (), ("balance: no such tracepoint",),
            ("placement", "counter", "event", "model"),
        ),
        notes=("llama-server (pid 4711) maps 8,192 MiB of GGUF files",),
        ruled_out=(
            RuledOut("C2", "CPU affinity", True, "threads may run everywhere."),
            RuledOut("C4", "scheduler", False, "threads share CPUs."),
        ),
        plans=some_plans(),
        corrections=("numactl around the client changes nothing.",),
    )  # fmt: skip


def some_plans() -> tuple[PlanView, ...]:
    none, half = Figure(0.0, "share", "model"), Figure(0.5, "share", "model", 0.45, 0.55)
    faster = Figure(1.5, "times", "model", 1.24, 1.76)
    return (
        PlanView("bind:0", "bind it", True, none, {0: 8 * GIB}, faster, ("all is well",)),
        PlanView("interleave:0-1", "spread it", False, half, {}, faster, (), "not faster, " * 9),
        PlanView("threads:2", "x", False, None, {}, None, (), "", ("4 threads for 2 CPUs",)),
        PlanView(
            "live:0", "move it", False, none, {}, Figure(1.1, "times", "model"), (), "not now"
        ),
    )


def text(report: Report, **options: Any) -> str:
    return RENDERERS["text"](report, RenderOptions(**options))


def row(shown: str, *start: str) -> list[str]:
    """The cells of the one table row that begins with these."""
    found = [cells(line) for line in shown.split("\n")]
    rows = [each for each in found if tuple(each[: len(start)]) == start]
    assert len(rows) == 1, (start, rows)
    return rows[0]


def section(shown: str, title: str) -> str:
    """What is below a heading, up to the next one."""
    parts = re.split(r"^(?=[A-Z][A-Z:,' -]+$)", shown, flags=re.MULTILINE)
    found = [part for part in parts if part.startswith(title)]
    assert len(found) == 1, title
    return found[0]


def commands(report: Report) -> list[str]:
    fixes = [fix for finding in report.findings for fix in finding.fixes]
    return [step.command for fix in fixes for step in (*fix.steps, *fix.verify, *fix.undo)]


# --- what it says


@pytest.mark.parametrize("kind", ["fix", "healthy", "one-node", "withheld"])
@pytest.mark.parametrize("full", [True, False])
def test_begins_with_the_verdict(kind: Any, full: bool) -> None:
    answer = Verdict(kind, f"It is {kind}.", (Evidence("Because of this."),))
    base = imbalance() if full else NOTHING
    shown = text(dataclasses.replace(base, verdict=answer))
    label = {"fix": "Problem: ", "withheld": "No verdict: "}.get(kind, "")
    assert shown.startswith(f"{label}It is {kind}.\n\n")
    assert "\n\n  - Because of this.\n\n" in shown
    assert shown.index("A node is a part of the machine") < shown.index("THE MACHINE")
    assert "remote" in shown


def test_sections_come_in_the_order_in_which_they_are_needed() -> None:
    shown = text(imbalance(), tensors=True)
    titles = re.findall(r"^[A-Z][A-Z:,' -]+$", shown, re.MULTILINE)
    assert titles == [
        "WHAT WAS FOUND", "WHAT TO DO",
        "THREADS: WHERE THEY RAN", "LAYERS OF THE MODEL", "MEMORY: WHERE IT LIES",
        "TENSORS OF THE MODEL", "EXPECTED REMOTE READS OF THE COMPUTE THREADS",
        "THE MACHINE", "PROCESSES",
        "WHAT ELSE WAS WEIGHED", "WHAT THE USUAL GUIDES LOOK AT", "WHAT GUIDES GET WRONG HERE",
        "CAUSES RULED OUT", "REMARKS", "WHERE THE NUMBERS COME FROM",
    ]  # fmt: skip


def test_empty_lists_make_no_sections() -> None:
    shown = text(NOTHING, tensors=True)
    titles = re.findall(r"^[A-Z][A-Z:,' -]+$", shown, re.MULTILINE)
    assert titles == ["THE MACHINE", "WHERE THE NUMBERS COME FROM"]
    assert "node  CPUs" not in shown
    assert "recorded  attributed" not in shown


def test_finding_has_name_process_confidence_and_sourced_evidence() -> None:
    report = imbalance()
    found = section(text(report), "WHAT WAS FOUND")
    assert "C1, allocation imbalance, in llama-server (pid 4711); confidence: high" in found
    assert "- 98 % of the weights is there. [placement]\n" in found
    assert "- Threads used 39 s. [counter]\n" in found
    assert "- The server's memory policy is bind:0.\n" in found
    assert "- Note: A note." in found
    # The verdict's sentence and evidence are the finding's: said once.
    assert " ".join(text(report).split()).count(report.verdict.sentence) == 1
    assert text(report).count("98 % of the weights is there.") == 1


def test_a_finding_has_the_guides_check_and_what_would_refute_it() -> None:
    found = section(text(imbalance()), "WHAT WAS FOUND")
    assert "confidence: high; lost:\n  12 s of CPU time\n" in found
    assert "What would refute it: weights on both nodes." in found
    check = section(text(imbalance()), "WHAT THE USUAL GUIDES LOOK AT")
    assert " ".join(check.split()).endswith(
        "C1 is cause 1 there, imbalanced allocation. Their check, numastat -m, from the"
        " trace: node 0 1 free 9 GB 1 GB"
    )
    assert "\n    node     0    1\n    free   9 GB  1 GB\n" in check  # columns stay columns


def test_the_fix_is_weighed_against_the_others() -> None:
    shown = section(text(imbalance()), "WHAT ELSE WAS WEIGHED")
    said = " ".join(shown.split())
    assert "(bind:0) is predicted to leave 0 % of the reads of weights remote" in said
    assert "at 1.2–1.8 times today's speed. That assumes: all is well." in said
    assert row(shown, "plan") == ["plan", "remote", "speed", "why not"]
    assert row(shown, "interleave:0-1")[1:3] == ["50 %", "1.2–1.8"]
    assert row(shown, "threads:2") == ["threads:2", "?", "?", "4 threads for 2 CPUs"]
    assert row(shown, "live:0") == ["live:0", "0 %", "1.1", "not now"]
    start = shown.index("why not") - shown.rindex("\n", 0, shown.index("why not"))
    rest = shown[shown.index("interleave:0-1") :].split("\n")[1]
    assert len(rest) - len(rest.lstrip()) == start - 1  # the reason runs on below its column
    assert "and 2 more plans" in section(text(imbalance(), top=1), "WHAT ELSE")


def test_a_plan_that_was_refused_is_told_from_the_one_that_is_carried_out() -> None:
    report = imbalance()
    other = dataclasses.replace(report.findings[0], fixes=(a_fix(plan="interleave:0-1"),))
    shown = section(text(dataclasses.replace(report, findings=(other,))), "WHAT ELSE")
    assert "The fix (interleave:0-1) is predicted" in " ".join(shown.split())
    assert row(shown, "bind:0")[-1].startswith("refused for the way")
    none = dataclasses.replace(report.findings[0], fixes=())
    shown = section(text(dataclasses.replace(report, findings=(none,))), "WHAT ELSE")
    assert "predicted" not in shown
    assert row(shown, "bind:0")


def test_a_reason_is_said_once() -> None:
    plans = tuple(
        PlanView(f"live:{n}", "bind it", False, None, {}, None, (), why)
        for n, why in enumerate(("too small", "too small", "too far", "too small"))
    )
    shown = section(text(dataclasses.replace(imbalance(), plans=plans)), "WHAT ELSE WAS WEIGHED")
    said = [row(shown, f"live:{n}")[-1] for n in range(4)]
    assert said == ["too small", "the same", "too far", "too small"]


def test_plans_without_a_chosen_one_and_causes_without_judgement() -> None:
    report = imbalance()
    shown = text(
        dataclasses.replace(report, plans=report.plans[1:], ruled_out=report.ruled_out[1:])
    )
    assert "predicted" not in section(shown, "WHAT ELSE WAS WEIGHED")
    causes = section(shown, "CAUSES RULED OUT")
    assert "Not to be told from this trace:\n  - C4, scheduler: threads share CPUs." in causes
    both = section(text(report), "CAUSES RULED OUT")
    assert both.index("- C2, CPU affinity: threads may") < both.index("Not to be told")


def test_corrections_are_said_once() -> None:
    shown = section(text(imbalance()), "WHAT GUIDES")
    assert "  - numactl around the client changes nothing.\n" in shown


def test_a_step_that_stays_asks_for_a_terminal() -> None:
    report = imbalance()
    step = Step("llama-server", "Start it.", stays=True)
    finding = dataclasses.replace(report.findings[0], fixes=(a_fix(steps=(step,)),))
    shown = text(dataclasses.replace(report, findings=(finding,)))
    assert "1. Start it. It runs on: give it a terminal of its own.\n      llama-server\n" in shown


def test_what_is_checked_alike_is_said_once() -> None:
    report = imbalance()
    finding = dataclasses.replace(report.findings[0], fixes=(a_fix(), a_fix(id="live/hand")))
    shown = text(dataclasses.replace(report, findings=(finding,)))
    assert shown.count("Checked against the trace:") == 1


def test_a_finding_with_a_sentence_of_its_own_says_it() -> None:
    report = imbalance()
    other = dataclasses.replace(report.findings[0], sentence="Quite another thing.")
    found = section(text(dataclasses.replace(report, findings=(other,))), "WHAT WAS FOUND")
    assert "    Quite another thing.\n" in found


def test_fix_tells_all_that_it_knows() -> None:
    todo = section(text(imbalance()), "WHAT TO DO")
    order = [
        "Against C1: run the server and keep its memory on node 0", "(started: by hand",
        "Answers under way are cut off.", "1. Stop the server.", "kill 4711", "2. Start it on node",
        START, "[root] marks", "To see that it worked:", "1. [root] See its memory.",
        "numastat -p 1", "To undo it:", "1. Stop it again.", "kill 1\n", "node 0 has CPUs 0-3",
    ]  # fmt: skip
    places = [todo.index(each) for each in order]
    assert places == sorted(places)


def test_a_finding_without_fixes_and_one_with_two() -> None:
    report = imbalance()
    two = (a_fix(), a_fix(id="interleave/systemd", title="spread it"))
    findings = [dataclasses.replace(report.findings[0], fixes=fixes) for fixes in ((), two)]
    todo = section(text(dataclasses.replace(report, findings=tuple(findings))), "WHAT TO DO")
    assert "C1: numatrace has no commands for this" in todo
    assert "Or against C1: spread it (started: by hand; interleave/systemd)" in todo


def test_commands_can_be_pasted_as_they_are() -> None:
    long = "echo " + "word " * 2000 + "'end'"
    steps = tuple(Step(command, "Why.") for command in (START, long, DROP_IN, "a  b\\\\c"))
    report = imbalance()
    finding = dataclasses.replace(report.findings[0], fixes=(a_fix(steps=steps),))
    lines = text(dataclasses.replace(report, findings=(finding,))).split("\n")
    for command in (START, long, "a  b\\\\c"):
        assert [line.lstrip(" ") for line in lines].count(command) == 1
    start = lines.index(DROP_IN.split("\n")[0])  # an indent would change what it writes
    assert lines[start : start + 4] == DROP_IN.split("\n")
    assert lines[start - 1].endswith("Why. One command of 4 lines:")


def test_a_command_that_cannot_be_shown_says_so() -> None:
    report = imbalance()
    bad = a_fix(steps=(Step("rm 'a\x1b[2Jb\u202e'", "Why."),))
    finding = dataclasses.replace(report.findings[0], fixes=(bad,))
    shown = text(dataclasses.replace(report, findings=(finding,)))
    assert "rm 'a\ufffd[2Jb\ufffd'\n      Not to be pasted" in shown
    assert "Not to be pasted" not in text(imbalance())


def test_numbers_are_those_of_the_report() -> None:
    report = imbalance()
    shown = text(report, top=10)
    threads = section(shown, "THREADS")
    for view in report.threads[:10]:
        total = sum(view.oncpu_ns.values())
        shares = [format_share(view.oncpu_ns.get(n, 0) / total) for n in (0, 1)]
        role = [view.role] if view.role else []
        counts = [str(view.moves), f"{view.faults:,}"]
        assert row(threads, str(view.tid)) == [
            str(view.tid), *role, format_ns(total), *shares, *counts,
        ]  # fmt: skip
    memory = section(shown, "MEMORY")
    for view, label in zip(
        report.regions[:3],
        ("weights: llama-3-8b.gguf", report.regions[1].label, "heap"),
        strict=True,
    ):
        present = sum(view.node_bytes.values())
        shares = [format_share(view.node_bytes.get(n, 0) / present) for n in (0, 1)]
        sizes = [format_bytes(view.bytes), format_bytes(present)]
        assert row(memory, label) == [label, *sizes, *shares, f"{view.faults:,}"]
    account = section(shown, "WHERE")
    for loss in report.losses:
        counts = row(account, loss.family)[1:]
        numbers = [int(re.sub(r" \(.*|,", "", count)) for count in counts]
        assert numbers == [loss.recorded, loss.attributed, loss.unattributed, loss.lost]
        assert numbers[0] == sum(numbers[1:])
    assert row(account, "fault")[-1] == "105 (0.5 %)"


def test_what_is_left_out_is_counted() -> None:
    report = imbalance()
    for top in (1, 3, 10, 13, 50):
        threads = section(text(report, top=top), "THREADS")
        left = max(0, len(report.threads) - top)
        said = re.search(r"and (\d+) more threads? with (.+) of CPU time", threads)
        assert (int(said[1]) if said else 0) == left
        if said:
            rest = sum(sum(each.oncpu_ns.values()) for each in report.threads[top:])
            assert said[2] == format_ns(rest)
        assert len(re.findall(r"^ +47\d\d  ", threads, re.MULTILINE)) == len(report.threads) - left


def test_server_comes_first_and_is_told_from_the_others() -> None:
    report = imbalance()
    processes = tuple(reversed(report.processes))
    regions = tuple(reversed(report.regions))
    shown = text(dataclasses.replace(report, processes=processes, regions=regions))
    assert "llama-server (pid 4711, child of 1200) serves the model" in shown
    assert row(section(shown, "PROCESSES"), "1200", "bash")
    memory = section(shown, "MEMORY")
    assert memory.index("of llama-server (pid 4711):") < memory.index("of other processes:")
    assert row(memory, "1200", "code")


def test_one_process_needs_no_titles() -> None:
    report = dataclasses.replace(imbalance(), processes=(server(),))
    report = dataclasses.replace(report, regions=report.regions[:3])
    assert "of llama-server" not in text(report)


def test_layers_that_lie_alike_are_one_line() -> None:
    halves = [layer(n, {int(n >= 16): 100 * MIB}) for n in range(32)]
    others = [layer(33, {0: MIB}), layer(None, {0: MIB})]
    shown = text(dataclasses.replace(imbalance(), layers=(*halves, *others)))
    layers = section(shown, "LAYERS")
    assert row(layers, "blk.0-15") == ["blk.0-15", "144", "1.6 GiB", "100 %", "0 %"]
    assert row(layers, "blk.16-31") == ["blk.16-31", "144", "1.6 GiB", "0 %", "100 %"]
    assert row(layers, "blk.33")
    assert row(layers, "in no layer")


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=40))
def test_ranges_of_layers_lose_nothing_and_hide_no_difference(sizes: list[tuple[int, int]]) -> None:
    from numatrace.render.ranges import ALIKE, ranges

    views = [layer(n, {0: a, 1: b}, absent=n % 3) for n, (a, b) in enumerate(sizes)]
    found = ranges(views)
    assert [each.layers for each in found if each.layers < 1] == []
    assert sum(each.bytes for each in found) == sum(view.bytes for view in views)
    assert sum(each.tensors for each in found) == 9 * len(views)
    assert sum(each.absent_bytes for each in found) == sum(view.absent_bytes for view in views)
    for each in found:
        for view in views[each.first : (each.last or 0) + 1]:
            total = view.bytes
            own = each.bytes
            for number in (0, 1) if total else ():
                share = each.node_bytes.get(number, 0) / own
                assert abs(view.node_bytes.get(number, 0) / total - share) <= 2 * ALIKE


def test_tensors_are_listed_when_asked_for() -> None:
    report = imbalance()
    assert "blk.31.ffn_up.weight" not in text(report, top=50)
    assert text(report, tensors=True).count(".ffn_up.weight") == 32
    few = section(text(report, tensors=True, top=2), "TENSORS")
    assert re.findall(r"blk\.(\d+)\.ffn", few) == ["30", "31"]
    assert "and 30 smaller tensors" in few


def test_expected_shares_are_called_computed_and_have_their_intervals() -> None:
    shares = section(text(imbalance()), "EXPECTED")
    assert "Computed, not measured" in shares
    assert "  A  llama-3-8b.gguf\n  B  private memory at 0x7f2c40000000\n" in shares
    for tid in range(SERVER, SERVER + 4):
        assert row(shares, str(tid))[2:] == ["48 % (46-50)", "48 % (46-50)"]


def test_regions_of_one_name_keep_their_own_shares() -> None:
    shares = tuple(ShareView(SERVER, 1, "same", Figure(v, "share", "model")) for v in (0.1, 0.9))
    shown = section(text(dataclasses.replace(imbalance(), shares=shares)), "EXPECTED")
    assert row(shown, "1")[-2:] == ["10 %", "90 %"]


def test_origins_name_sources_intervals_and_what_is_missing() -> None:
    shown = " ".join(section(text(imbalance()), "WHERE").split())
    for source in ("placement:", "counter:", "event:", "model: computed"):
        assert f"- {source}" in shown
    assert "llama-3-8b.gguf ± 20 MiB" in shown
    assert "Not recorded: - balance: no such tracepoint" in shown
    assert "A recording of 10 s (ended: its time was up); 25,540 rows of trace version 1." in shown


def test_a_damaged_trace_is_said_at_the_top_and_at_the_end() -> None:
    report = imbalance()
    cut = dataclasses.replace(report.provenance, problems=("the file ends early",), ended="")
    shown = text(dataclasses.replace(report, provenance=cut))
    assert shown.index("damaged or incomplete") < shown.index("WHAT WAS FOUND")
    assert "- the file ends early" in section(shown, "WHERE")
    assert "its end is missing" in shown
    assert "damaged" not in text(report).lower()


def test_one_node_says_that_nothing_is_remote_and_still_shows_the_map() -> None:
    report = dataclasses.replace(
        imbalance(), machine=MachineView("6.1", (node(0),), 1), findings=()
    )
    shown = text(report)
    assert "with one node there is none" in " ".join(shown.split())
    assert "distance" not in section(shown, "THE MACHINE").lower()
    assert row(section(shown, "MEMORY"), "heap")
    assert row(section(shown, "THREADS"), "4711")


@pytest.mark.parametrize("count", [2, 3, 4, 8, 64, 330])
def test_any_number_of_nodes_fits(count: int) -> None:
    numbers = [3 * n for n in range(count)]  # numbers of nodes may have holes
    nodes = tuple(node(n, f"{n}", {m: 11 + (m ^ n) % 200 for m in numbers}) for n in numbers)
    each = dict.fromkeys(numbers, 10**9) | {numbers[-1]: 2 * 10**9}
    balanced = thread(4711, each, balance_moves=12, moves=123_456, faults=9_999_999)
    report = dataclasses.replace(
        imbalance(),
        machine=MachineView("6.1", nodes, 1),
        threads=(balanced, dataclasses.replace(balanced, tgid=PARENT, tid=4_000_000)),
        regions=(region("r" * 40, "weights", each, path="/m"), region("x", "file", {0: 1})),
    )
    shown = text(report)
    assert_fits(shown, report)
    threads = section(shown, "THREADS")
    assert "123,456 (12)" in threads
    assert "9,999,999" in threads
    if count > 3:
        assert f"{numbers[-1]}: {format_share(2 / (count + 1))}"[:7] in threads


def test_distances_are_grouped() -> None:
    far = node(0, "0", {1: 12, 2: 12, 3: 12, 4: 32, 6: 32})
    report = dataclasses.replace(imbalance(), machine=MachineView("", (far, node(1, "")), None))
    machine = section(text(report), "THE MACHINE")
    assert row(machine, "0")[-1] == "12 to 1-3, 32 to 4,6"
    assert row(machine, "1", "none")  # a node without CPUs


def test_worker_slots_and_other_masks_are_named() -> None:
    slot = thread(4711, {0: 10**9}, role="slot", members=120)
    pinned = thread(4712, {0: 10**9}, allowed_cpus="0")
    shown = text(dataclasses.replace(imbalance(), threads=(slot, pinned)))
    assert row(section(shown, "THREADS"), "4711", "slot x120")
    assert "- Thread 4712: allowed on CPUs 0\n" in shown


# --- how it looks


def assert_fits(shown: str, report: Report, width: int = 79) -> None:
    """Every line fits, unless it is one of the report's commands."""
    rows = {safe(part) for command in commands(report) for part in command.split("\n")}
    for line in shown.split("\n"):
        assert cell_len(line) <= width or line in rows or line.removeprefix("      ") in rows, line


def safe(command: str) -> str:
    """A command as it is shown: what is not to be sent to a terminal is replaced."""
    return "".join(c if c.isprintable() else "\ufffd" for c in command)


def assert_harmless(shown: str) -> None:
    bad = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    assert not bad


@pytest.mark.parametrize("width", [80, 100, 120])
def test_lines_stay_below_the_width(width: int) -> None:
    report = imbalance()
    assert_fits(text(report, width=width, tensors=True), report, width - 1)


def test_colour_changes_nothing_but_the_colour() -> None:
    plain, coloured = text(imbalance()), text(imbalance(), colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert coloured.count("\x1b[0m") * 2 == coloured.count("\x1b[") > 20
    assert_harmless(plain)


def test_same_report_same_bytes() -> None:
    for options in ({}, {"tensors": True, "colour": True, "top": 3}):
        assert text(imbalance(), **options) == text(imbalance(), **options)


def hostile_report(name: str) -> Report:
    """The report with every string replaced."""

    def replaced(item: Any) -> Any:
        if dataclasses.is_dataclass(item):
            kept = ("kind", "cls", "source", "sources", "confidence", "unit")
            return type(item)(**{
                part.name: getattr(item, part.name)
                if part.name in kept
                else replaced(getattr(item, part.name))
                for part in dataclasses.fields(item)
            })  # fmt: skip
        if isinstance(item, tuple):
            return tuple(map(replaced, item))
        return name if isinstance(item, str) else item

    return typing.cast("Report", replaced(imbalance()))


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_break_nothing(name: str) -> None:
    report = hostile_report(name)
    for options in ({"tensors": True}, {"width": 120, "top": 1}):
        shown = text(report, **options)
        assert_fits(shown, report, options.get("width", 80) - 1)
        assert_harmless(shown)
        assert shown.count("\n") < 20_000


def test_markup_and_wide_names_are_shown_as_they_are() -> None:
    assert "[bold]b[/bold]" in text(hostile_report(HOSTILE[3]))
    assert "漢字" in text(hostile_report(HOSTILE[4]))


def test_file_name_at_the_end_of_a_long_path_stays() -> None:
    path = "/srv/" + "deep/" * 700 + "model-00001-of-00002.gguf"
    views = tuple(dataclasses.replace(view, path=path) for view in imbalance().layers)
    layers = section(text(dataclasses.replace(imbalance(), layers=views)), "LAYERS")
    assert "model-00001-of-00002.gguf\n" in layers


CHARS = st.one_of(st.characters(), st.characters(categories=["Cc", "Cf", "Cs", "Mn", "Lo", "So"]))
TEXTS = st.one_of(st.text(CHARS, max_size=30), st.text(CHARS, min_size=90, max_size=200))
AMOUNTS = st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1))


ANYTHING = Anything(
    {int: AMOUNTS, str: TEXTS, bool: st.booleans(), float: st.floats(0, 1)}, AMOUNTS, nodes=5
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING.of(Report), st.integers(1, 3), st.sampled_from([80, 97]))
def test_any_report_is_shown_within_its_columns(report: Report, top: int, width: int) -> None:
    shown = text(report, width=width, top=top, tensors=True)
    assert_fits(shown, report, width - 1)
    assert_harmless(shown)
