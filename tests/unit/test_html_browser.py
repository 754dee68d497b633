"""The HTML page in a browser: it renders, sorts, searches, copies, and runs nothing of the trace.

Needs Chromium and its driver (Debian: chromium, chromium-driver). Without them these tests are
skipped, unless NUMATRACE_BROWSER=required is set, as scripts/test does where it installs them.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from numatrace.model.report import Report
from numatrace.model.units import format_bytes, format_count, format_ns, format_share
from numatrace.render import RENDERERS, RenderOptions
from tests.unit.anything import Anything
from tests.unit.html_cases import HOSTILE, NAMES, hostile, huge, recorded
from tests.unit.test_html import data_of
from tests.unit.test_render_json import report_of as small_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

PHONE, DESK = (390, 844), (1280, 900)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECTIONS = {"answer", "machine", "heat", "timeline", "tensors", "tables", "causes", "origins"}

ANYTHING = Anything(
    {
        int: st.integers(-(1 << 64), 1 << 64),
        str: st.text(st.characters()) | st.sampled_from(HOSTILE),
        bool: st.booleans(),
        float: st.floats(-1e12, 1e12),
    },
    st.integers(0, 1 << 64),
)


def missing(what: str) -> None:
    """Skip, or fail where a browser must be there."""
    if os.environ.get("NUMATRACE_BROWSER") == "required":
        pytest.fail(f"no {what} on this machine")
    pytest.skip(f"no {what} on this machine")


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        missing("Chromium with chromedriver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing("selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for each in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{each}")
    options.add_argument("--force-prefers-reduced-motion")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        opened.set_script_timeout(20)
        yield opened
    finally:
        opened.quit()


class Page:
    """A report in the browser."""

    def __init__(self, chrome: Chrome, folder: Path) -> None:
        self.chrome = chrome
        self._folder = folder

    def open(self, report: Report, size: tuple[int, int] = DESK, scheme: str = "light") -> str:
        """Show a report; return the page's text."""
        page = RENDERERS["html"](report, RenderOptions())
        place = self._folder / "report.html"
        place.write_text(page, "utf-8")
        self.tell("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
        self.tell("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                  deviceScaleFactor=1, mobile=size == PHONE)  # fmt: skip
        self.chrome.get(place.as_uri())
        return page

    def tell(self, command: str, **parameters: Any) -> Any:
        return self.chrome.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script of the test's; the policy does not bind what the driver runs."""
        return self.chrome.execute_script(script, *arguments)

    def text(self, where: str) -> str:
        found: str = self.run("return document.querySelector(arguments[0]).textContent", where)
        return plain(found)

    def texts(self, where: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return [plain(each) for each in self.run(script, where)]

    def count(self, where: str) -> int:
        found: int = self.run("return document.querySelectorAll(arguments[0]).length", where)
        return found

    def overflow(self) -> int:
        """Pixels that the page is wider than what shows."""
        root = "document.documentElement"
        found: int = self.run(f"return {root}.scrollWidth - {root}.clientWidth")
        return found

    def click(self, where: str) -> None:
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", where)
        self.chrome.find_element("css selector", where).click()

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.chrome, duration=0).send_keys(*keys).perform()

    def column(self, table: str, number: int) -> list[str]:
        return self.texts(f"#{table} tbody tr > :nth-child({number})")

    def said(self) -> list[str]:
        """What the console holds since the last look, without the browser's own remarks."""
        return [each["message"] for each in self.chrome.get_log("browser")]


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


@pytest.fixture
def page(chrome: Chrome, tmp_path: Path) -> Iterator[Page]:
    shown = Page(chrome, tmp_path)
    shown.said()
    yield shown
    assert shown.said() == []


@pytest.fixture(scope="module")
def report() -> Report:
    return recorded("S1")


def head(page: Page, table: str, name: str) -> tuple[int, str]:
    """Number of a column and where its button is."""
    names = page.texts(f"#{table} thead .sort")
    number = names.index(name) + 1
    return number, f"#{table} thead th:nth-child({number}) .sort"


# --- it renders


@pytest.mark.parametrize("name", NAMES)
def test_every_fixture_renders(page: Page, name: str) -> None:
    report = recorded(name)
    page.open(report)
    assert set(page.run("return [...document.querySelectorAll('section')].map((e) => e.id)")) >= (
        SECTIONS
    )
    assert page.text("#sentence") == report.verdict.sentence
    assert page.count("svg g rect.card") == len(report.machine.nodes)
    for finding in report.findings:
        for evidence in finding.evidence:
            assert evidence.text in page.text("#causes")
    for each in report.ruled_out:
        assert each.why in page.text("#causes")
    for plan in report.plans:
        assert plan.id in page.text("#plans")
        assert plan.why_not in page.text("#plans")
    assert page.overflow() <= 0


@pytest.mark.parametrize("name", ["S1", "S10", "S12"])
def test_a_phone_need_not_scroll_sideways(page: Page, name: str) -> None:
    page.open(recorded(name), PHONE)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.overflow() <= 0


def test_the_least_report_renders(page: Page) -> None:
    page.open(small_report("nothing is known"))
    assert page.text("#sentence") == "nothing is known"
    assert "does not say what machine" in page.text("#machine")


@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],  # to shrink one takes minutes
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(ANYTHING.of(Report))
def test_any_report_renders(page: Page, report: Report) -> None:
    page.open(report)
    said = page.said()
    assert not said, "\n".join(said)
    assert page.count("#origins") == 1


def test_light_and_dark_follow_the_system_and_the_button(page: Page, report: Report) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    page.open(report)
    light = page.run(ground)
    page.open(report, scheme="dark")
    dark = page.run(ground)
    assert light != dark
    page.click("#theme")
    assert page.run(ground) == light
    assert page.text("#theme") == "Dark"
    page.click("#theme")
    assert page.run(ground) == dark


def test_on_paper_nothing_is_folded_and_all_is_light(page: Page, report: Report) -> None:
    page.open(report, scheme="dark")
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.count("details:not([open])") == 0
    assert page.run("return getComputedStyle(document.documentElement).colorScheme") == "light"
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.count("details[open]") == 0
    assert len(page.tell("Page.printToPDF")["data"]) > 20_000


# --- tables


def test_a_click_sorts_and_another_one_turns_it(page: Page, report: Report) -> None:
    page.open(report)
    number, button = head(page, "tensor-table", "size")
    page.click("#tensor-table .below button")  # all rows
    sizes = [each.bytes for each in report.tensors]
    page.click(button)
    assert page.column("tensor-table", number) == [format_bytes(s) for s in sorted(sizes)[::-1]]
    page.click(button)
    assert page.column("tensor-table", number) == [format_bytes(s) for s in sorted(sizes)]
    assert page.run("return arguments[0].parentNode.ariaSort",
                    page.chrome.find_element("css selector", button)) == "ascending"  # fmt: skip


def test_what_is_unknown_sorts_last_either_way(page: Page, report: Report) -> None:
    page.open(report)
    page.click("#tensor-table .below button")
    number, button = head(page, "tensor-table", "layer")
    for _ in range(2):
        page.click(button)
        column = page.column("tensor-table", number)
        unknown = sum(each.layer is None for each in report.tensors)
        assert column[-unknown:] == ["–"] * unknown
        assert "–" not in column[:-unknown]


def test_search_finds_all_words_and_says_how_many(page: Page, report: Report) -> None:
    page.open(report)
    box = page.chrome.find_element("css selector", "#tensor-table input")
    box.send_keys("BLK.2. ffn")
    found = [each.name for each in report.tensors if "blk.2." in each.name and "ffn" in each.name]
    assert sorted(page.column("tensor-table", 1)) == sorted(found)
    assert f"{len(found)} found" in page.text("#tensor-table .counted")
    box.clear()
    box.send_keys("no such tensor")
    assert page.column("tensor-table", 1) == []


# --- copying


def clipboard(page: Page) -> str:
    page.tell("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    read = "navigator.clipboard.readText().then(arguments[0], (e) => arguments[0](String(e)))"
    found: str = page.chrome.execute_async_script(read)
    return found


def test_the_buttons_copy_the_commands_as_they_are(page: Page, report: Report) -> None:
    page.open(report)
    steps = report.findings[0].fixes[0].steps
    for number, step in enumerate(steps, 1):
        page.click(f".fix.first > .steps > li:nth-child({number}) .copy")
        assert clipboard(page) == step.command
    page.click(".fix.first > .head .copy")
    copied = clipboard(page)
    assert [line for line in copied.split("\n") if line and line[0] != "#"] == [
        step.command for step in steps
    ]
    assert page.text("#said").startswith("Copied")


def test_copying_works_where_the_clipboard_is_refused(page: Page, report: Report) -> None:
    page.open(report)
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
    page.click(".fix.first > .steps > li:nth-child(1) .copy")
    assert clipboard(page) == report.findings[0].fixes[0].steps[0].command


# --- the map and the timeline, by mouse and by key


def test_arrow_keys_walk_the_map_and_show_figures(page: Page, report: Report) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(report)
    assert page.count(".heat .cell[tabindex='0']") == 1
    page.run("document.querySelector('.heat .cell[tabindex=\"0\"]').focus()")
    first = page.text("#tip")
    threads = {f"{each.tid} {each.comm}" for each in report.threads}
    assert any(first.startswith(name) for name in threads)
    page.press(Keys.ARROW_RIGHT)
    second = page.text("#tip")
    assert second != first
    page.press(Keys.END, Keys.ARROW_DOWN, Keys.HOME, Keys.ARROW_UP)
    assert page.text("#tip") == first
    assert page.count(".heat .cell[tabindex='0']") == 1
    assert page.run("return document.activeElement.ariaLabel").startswith(first[:8])
    page.press(Keys.ESCAPE)
    assert page.run("return document.getElementById('tip').hidden")


def test_the_map_has_the_reports_figures(page: Page, report: Report) -> None:
    page.open(report)
    where = "document.querySelectorAll('.heat .cell:not(.withheld)')"
    labels = [plain(each) for each in page.run(f"return [...{where}].map((e) => e.ariaLabel)")]
    server = next(each.tgid for each in report.processes if each.is_server)
    cells = [each for each in report.grid if each.tgid == server and each.tid]
    assert len(labels) == len(cells)
    expected = {
        f"reading {format_ns(each.read_ns)} ({format_count(each.samples, 'sample')})"
        for each in cells
    }
    assert {re.findall(r"reading [^,]*?\)", label)[0] for label in labels} == expected


def test_shares_of_too_few_samples_stay_withheld_on_the_map(page: Page, report: Report) -> None:
    page.open(report)
    page.click("#heat .choice label:last-child")
    server = next(each.tgid for each in report.processes if each.is_server)
    told = [each for each in report.grid if each.tgid == server and each.remote_share is not None]
    assert page.count(".heat .cell:not(.withheld)") == len(told)


def test_the_moment_can_be_moved_by_key(page: Page, report: Report) -> None:
    from selenium.webdriver.common.keys import Keys

    assert report.timeline is not None
    page.open(report)
    page.run("document.querySelector('.moment input').focus()")
    page.press(Keys.HOME)
    line = report.timeline
    for step in range(3):
        shown = dict(zip(page.texts(".readout dt"), page.texts(".readout dd"), strict=True))
        assert shown["time"] == f"{step * line.step_ns / 1e9:.1f} s"
        assert (shown["moves"], shown["faults"]) == (f"{line.moves[step]}", f"{line.faults[step]}")
        page.press(Keys.ARROW_RIGHT)
    assert page.count(".chart canvas") == 4


def test_all_that_works_can_be_reached_by_key(page: Page, report: Report) -> None:
    """Buttons, fields and folds have no negative tabindex; the map and the tables have one stop."""
    page.open(report)
    assert page.count("button[tabindex], input[tabindex], summary[tabindex], a[tabindex]") == 0
    unnamed = page.run(
        "return [...document.querySelectorAll('button, input')].filter((e) => "
        "!(e.ariaLabel || e.textContent || e.closest('label')?.textContent)).length"
    )
    assert unnamed == 0


# --- hostile traces


@pytest.mark.parametrize("name", ["S1", "S12"])
def test_hostile_names_neither_run_nor_break_the_page(page: Page, name: str) -> None:
    report = hostile(recorded(name))
    page.open(report)
    assert page.run("return window.pwned") is None
    assert page.count("img, iframe, object, embed, link, base, form") == 0
    assert page.count("script") == 3
    assert page.count("#origins .sortable tbody tr") == len(report.losses)
    assert page.count("#thread-table tbody tr") == min(len(report.threads), 20)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00-\x08\x1b\x9b]", page.text("main"))
    assert page.run("return ({}).pwned") is None


def test_the_policy_stops_what_would_be_added(page: Page, report: Report) -> None:
    page.open(report)
    script = """const done = arguments[0];
    const box = document.createElement("div");
    let caught = "";
    try { box.innerHTML = "<b>x</b>"; } catch (error) { caught = error.name; }
    const image = new Image();
    image.onload = () => done([caught, "loaded"]);
    image.onerror = () => done([caught, "refused"]);
    image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=";"""
    assert page.chrome.execute_async_script(script) == ["TypeError", "refused"]
    refused = page.said()
    assert refused
    assert all("Content Security Policy" in each or "TrustedHTML" in each for each in refused)


def test_a_huge_report_is_shown_and_says_what_it_leaves_out(page: Page, report: Report) -> None:
    data = data_of(page.open(huge(report)))
    rest = page.text("#origins")
    for name, number in data["left_out"].items():
        assert f"{name.replace('_', ' ')}: {number:,}" in rest
    assert page.count("#tensor-table tbody tr") == 20
    assert page.count(".fix .copy") == 0 or "Not to be copied" in page.text(".fix.first")


# --- the same numbers as everywhere


@pytest.mark.parametrize("name", ["S1", "S4", "S12"])
def test_tables_have_the_reports_numbers(page: Page, name: str) -> None:
    report = recorded(name)
    page.open(report)
    page.run("document.querySelectorAll('.below button:not([hidden])').forEach((e) => e.click())")
    thread_ns = [format_ns(sum(each.oncpu_ns.values())) for each in report.threads]
    number, _ = head(page, "thread-table", "CPU time")
    assert page.column("thread-table", number) == thread_ns
    number, _ = head(page, "thread-table", "faults")
    assert page.column("thread-table", number) == [f"{each.faults:,}" for each in report.threads]
    number, _ = head(page, "region-table", "size")
    assert page.column("region-table", number) == [format_bytes(e.bytes) for e in report.regions]
    for node in (each.node for each in report.machine.nodes):
        number, _ = head(page, "layer-table", f"node {node}")
        parts = [
            format_share(each.node_bytes.get(node, 0) / sum(each.node_bytes.values()))
            if sum(each.node_bytes.values()) else "–"
            for each in report.layers
        ]  # fmt: skip
        assert page.column("layer-table", number) == parts
    losses = [(e.family, e.recorded, e.attributed, e.unattributed, e.lost) for e in report.losses]
    shown = [page.column("loss-table", number) for number in range(1, 6)]
    assert list(zip(*shown, strict=True)) == [
        (family, *(f"{number:,}" for number in numbers)) for family, *numbers in losses
    ]


def test_numbers_are_written_as_in_the_text_report(page: Page, report: Report) -> None:
    """The page writes numbers itself: held against the text's writing, for thousands of them."""
    from dataclasses import replace

    chance = np.random.default_rng(17)
    exact = [n * 1024**k // 4 for n in range(1, 200) for k in range(1, 5)]
    values = [*exact, *(int(10**each) for each in chance.uniform(0, 17, 1000)), 0]
    row = replace(report.tensors[0], remote_share=None)
    tensors = tuple(
        replace(row, name=f"t{n}", bytes=value, node_bytes={0: value, 1: 10**6}, read_ns=value)
        for n, value in enumerate(values)
    )
    page.open(replace(report, tensors=tensors))
    _, by_name = head(page, "tensor-table", "tensor")
    page.click("#tensor-table .below button")
    page.click(by_name)
    assert page.column("tensor-table", 1) == [each.name for each in tensors]
    number, _ = head(page, "tensor-table", "size")
    assert page.column("tensor-table", number) == [format_bytes(value) for value in values]
    number, _ = head(page, "tensor-table", "node 0")
    shares = [format_share(value / (value + 10**6)) for value in values]
    assert page.column("tensor-table", number) == shares
    number, _ = head(page, "tensor-table", "reading")
    assert page.column("tensor-table", number) == [
        format_ns(value) if value else "–" for value in values
    ]
