"""A person uses the operator's page: Debian's Chromium, beside a real daemon that judges boards.

`make console-test` runs it and leaves pictures of every view in .out/console/. Wherever the page
logs an error, breaks its own content policy, or can be scrolled sideways, the test fails.
"""

import asyncio
import csv
import json
import os
import random
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from ageing import LEARN, WINDOW, darker, play, watched_closely
from brokers import connected, require_mosquitto, running_broker, until
from consoles import ROOT, TOKEN, Console
from daemons import Daemon, line_to

from edge.mqtt.brokers import LocalBroker

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        "EDGE_TEST_BROWSER" not in os.environ, reason="needs Chromium: make console-test"
    ),
]

OUT: Final = ROOT / ".out" / "console"
BOARDS: Final = 48
DEFECTS: Final = ((), (), ("open",), (), ("short",), (), ("spur", "mousebite"), ())
SIZES: Final = {
    "panel": (1024, 768),
    "desk": (1440, 900),
    "wall": (1920, 1080),
    "phone": (360, 740),
}
WAIT_S: Final = 20.0


class Browser:
    """Chromium, and what a person does with it."""

    def __init__(self, address: str) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service

        options = Options()
        options.binary_location = "/usr/bin/chromium"
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver: Any = webdriver.Chrome(
            options=options, service=Service("/usr/bin/chromedriver")
        )
        self.address = address
        self.size("desk")

    def size(self, name: str, *, dark: bool = False) -> None:
        """Look on another screen."""
        width, height = SIZES[name]
        self.width = width
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def go(self, path: str) -> None:
        """Open a view."""
        self.driver.get(self.address + path)

    def all(self, selector: str) -> list[Any]:
        """Elements by a CSS selector."""
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str, text: str = "") -> Any:
        """Wait for a shown element that holds a text."""
        return self.wait(
            lambda: next(
                (each for each in self.all(selector) if each.is_displayed() and text in each.text),
                None,
            ),
            f"{selector} {text!r}",
        )

    def wait(self, look: Callable[[], Any], what: str) -> Any:
        """Wait until something is there, and return it."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + WAIT_S
        while True:
            try:
                if found := look():
                    return found
            except StaleElementReferenceException:
                pass  # it was drawn anew between two looks
            if time.monotonic() > end:
                self.picture("failed")
                pytest.fail(f"not on the page: {what}; {self.complaints()}")
            time.sleep(0.05)  # between two looks, until the deadline

    def run(self, script: str, *values: object) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *values)

    def too_wide(self) -> int:
        """Return by how many pixels the page can be scrolled sideways.

        A phone lays a page out as wide as what is in it, so `innerWidth` would say nothing.
        """
        wide: int = self.run("return document.documentElement.scrollWidth")
        return wide - self.width

    def picture(self, name: str) -> None:
        """Keep what is seen."""
        OUT.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(OUT / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the browser logged."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalBroker, Path]]:
    """A broker, and a daemon that goes on judging boards until the tests end."""
    require_mosquitto()
    folder = tmp_path_factory.mktemp("box")
    ending = threading.Event()
    played = threading.Event()

    async def play(broker: LocalBroker) -> None:
        async with line_to(broker) as line:
            number, chance = 0, random.Random(8)
            while not ending.is_set():
                # Later by chance: else a page that looks each second may meet good ones alone.
                part = number % 8 if number < BOARDS else chance.randrange(8)
                name = line.inspect(part, defects=DEFECTS[part], part_id=f"board-{number:04d}")
                await line.verdict(name)
                number += 1
                if number == BOARDS:
                    played.set()
                if number >= BOARDS:
                    await asyncio.sleep(0.5)  # the pace of the line

    with running_broker(kind="mosquitto") as broker:
        overrides = ("status.interval_s=1", "ledger.frames.pass_share=0.5")
        with Daemon(broker, folder, overrides=overrides, budget_ms=0) as daemon:
            daemon.ready()
            thread = threading.Thread(target=lambda: asyncio.run(play(broker)))
            thread.start()
            try:
                assert played.wait(60)
                yield broker, folder
            finally:
                ending.set()
                thread.join(60)


@pytest.fixture(scope="module")
def console(box: tuple[LocalBroker, Path]) -> Iterator[Console]:
    broker, folder = box
    with Console(broker.port, folder) as started:
        yield started


@pytest.fixture
def browser(console: Console) -> Iterator[Browser]:
    """A browser that must have nothing to complain about."""
    opened = Browser(f"http://127.0.0.1:{console.visitor.port}/")
    try:
        yield opened
        assert not opened.complaints()
    finally:
        opened.driver.quit()


def next_verdict(browser: Browser) -> None:
    """Wait until Live shows another part."""
    part = browser.one(".verdict-now .about strong").text
    browser.wait(lambda: browser.one(".verdict-now .about strong").text != part, "the next verdict")


def test_the_line_is_seen_as_it_goes(browser: Browser) -> None:
    browser.go("#/live")
    browser.one("#health", "ready")
    next_verdict(browser)
    assert browser.one(".verdict-now .word").text.split()[-1] in ("PASS", "REVIEW", "REJECT")
    assert len(browser.all(".tick")) > 10
    browser.one(".kept svg.findings text", "")
    browser.one(".pipelines h2", "pcb")
    browser.one(".counts", "reject")
    # Three metres need letters of a fiftieth of that on the screen of a panel PC.
    browser.size("panel")
    tall = browser.run(
        "return parseFloat(getComputedStyle(document.querySelector('.verdict-now .word')).fontSize)"
    )
    assert tall > 90


def test_a_part_is_found_looked_at_and_corrected(browser: Browser) -> None:
    browser.go("#/parts")
    browser.one("input[name=part]").send_keys("board-0002")
    browser.one("button.primary", "Search").click()
    browser.wait(lambda: len(browser.all(".records tbody tr")) == 1, "one row")
    browser.one(".records tbody a", "board-0002").click()
    browser.one("h1", "Part board-0002")
    assert browser.one(".part-head .kind").text.endswith("REJECT")
    image = browser.one(".picture img")
    browser.wait(lambda: browser.run("return arguments[0].naturalWidth", image) > 100, "the frame")
    box = browser.one(".findings .box")
    assert browser.run("return arguments[0].getBBox().width", box) > 0
    # The drawing lies on the picture, to the pixel.
    same = "const [a, b] = ['.picture img', '.findings'].map((s) => document.querySelector(s)"
    same += (
        ".getBoundingClientRect()); return Math.abs(a.width - b.width) + Math.abs(a.top - b.top)"
    )
    assert browser.run(same) < 1
    browser.one("button", "Findings").click()
    assert not browser.one(".picture").find_elements("css selector", ".findings")[0].is_displayed()
    browser.run("document.body.focus()")
    browser.one("body").send_keys("r")
    browser.wait(
        lambda: browser.one(".picture img").get_attribute("src").endswith("/reference"),
        "the reference, by its key",
    )
    browser.one("input[name=by]").send_keys("quality")
    browser.one("input[name=reason]").send_keys("<b>a reflex</b>, no open")
    browser.one("button", "Good").click()
    word = browser.one(".words li", "<b>a reflex</b>, no open")  # text, and no markup
    assert "quality" in word.text
    browser.one("code", "edge ledger prove --seq")


def test_what_the_buttons_need_is_said(browser: Browser, console: Console) -> None:
    seq = console.visitor.get("/api/records?part=board-0004")["lines"][0]["seq"]
    browser.go(f"#/part/{seq}")
    browser.one("button", "Bad").click()
    assert browser.run("return document.querySelector('input[name=by]').matches(':invalid')")
    assert not console.visitor.get(f"/api/records/{seq}")["words"]


def test_a_slider_moves_parts_and_nothing_else(browser: Browser, console: Console) -> None:
    before = console.visitor.get("/api/records?limit=1")["last"]
    seqs = [
        line["seq"] for line in console.visitor.get("/api/records?kind=reject&limit=9")["lines"]
    ]
    for seq in seqs[:4]:
        word = {"seq": seq, "verdict": "reject", "by": "quality", "reason": "an open"}
        assert console.visitor.post("/api/override", word).status == 200
    browser.go("#/tune")
    browser.one(".outcome")
    browser.one(".few", "That is few")
    slider = browser.one("input[name=reject]")
    assert slider.get_attribute("value") == "0.62"  # the manifest's
    move = "arguments[0].value = 1; arguments[0].dispatchEvent(new Event('input'))"
    browser.run(move, slider)
    browser.wait(lambda: browser.one(".slider.reject output").text == "1.00", "the slider's number")
    rejected = browser.all(".outcome tbody tr")[2].find_elements("css selector", "td")
    assert (rejected[1].text, rejected[0].text != "0") == ("0", True)
    browser.one(".rate.escape", "bad parts, passed")
    browser.one("main", "pipelines.pcb.decide.parameters.reject")
    browser.one("main", "Nothing is changed from here.")
    browser.one("button", "back to 0.62").click()
    browser.wait(lambda: browser.one(".slider.reject output").text == "0.62", "the way back")
    # Our words are the only records beside the verdicts that the line went on to give.
    last = console.visitor.get("/api/records?limit=1")["last"]
    words = console.visitor.get("/api/records?worded=1&limit=100")["lines"]
    assert last > before
    assert len(words) >= 4


def test_what_people_said_is_saved(browser: Browser, tmp_path: Path) -> None:
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.go("#/parts")
    browser.one(".dataset .button").click()
    browser.one(".dataset .quiet", "saved")
    browser.wait((tmp_path / "said.zip").exists, "the file")
    with zipfile.ZipFile(tmp_path / "said.zip") as saved:
        rows = list(csv.DictReader(saved.read("parts.csv").decode().splitlines()))
        held = set(saved.namelist())
    assert rows
    assert {row["verdict"] for row in rows} <= {"OK", "NG"}
    assert {f"images/{row['image']}" for row in rows} <= held


def test_the_whole_page_is_reached_by_keys(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("#/live")
    browser.one(".verdict-now .word")
    seen = []
    for _ in range(5):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.driver.switch_to.active_element
        seen.append(active.text)
        assert browser.run(
            "const s = getComputedStyle(arguments[0]); return s.outlineStyle !== 'none'", active
        ), "where the focus is must be seen"
    assert seen[0].startswith("Skip")
    assert {"Live", "Parts", "Tune"} <= set(seen)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.one("h1", "Tune")


def test_the_focus_stays_while_the_line_goes_on(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("#/live")
    browser.one(".tick")
    held = "return document.activeElement.matches(arguments[0])"
    assert browser.run("return document.querySelectorAll('.tick[tabindex=\"0\"]').length") == 1
    browser.run("document.querySelector('.tick').focus()")
    active = browser.run("return document.activeElement.getAttribute('href')")
    for key, place in ((Keys.ARROW_RIGHT, 1), (Keys.ARROW_RIGHT, 2), (Keys.ARROW_LEFT, 1)):
        browser.driver.switch_to.active_element.send_keys(key)
        assert browser.run(held, ".tick")
        # The line may have gone on meanwhile; then the ticks have moved, the focus with them.
        assert browser.run("return document.activeElement.getAttribute('href')") != active, place
    for selector in (".tick:focus", ".counts a"):
        browser.run(f"document.querySelector('{selector}')?.focus()")
        next_verdict(browser)
        assert browser.run(held, selector.removesuffix(":focus")), selector


def test_a_word_by_keys_alone(browser: Browser, console: Console) -> None:
    from selenium.webdriver.common.keys import Keys

    seq = console.visitor.get("/api/records?kind=reject&limit=9")["lines"][-1]["seq"]
    browser.go(f"#/part/{seq}")
    browser.one("h1", "Part")
    browser.one("body").send_keys("O")  # with Caps Lock
    browser.wait(lambda: browser.all(".picture.bare"), "no findings, by the key")
    browser.one("input[name=by]").send_keys("quality", Keys.TAB, "a scratch", Keys.TAB)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    word = browser.one(".words li", "a scratch")
    browser.wait(lambda: browser.driver.switch_to.active_element == word, "the focus on it")


def test_older_ones_by_keys_alone(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("#/parts?as=pictures")
    browser.one("button", "Older ones").send_keys(Keys.ENTER)
    browser.wait(lambda: len(browser.all(".card")) > 24, "older ones")
    where = "return document.activeElement.matches('button, .card a')"
    assert browser.run(where), "the focus is lost"


CONTRAST: Final = """
const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const found = parse(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] > 0.99) return found;
  }
  return [255, 255, 255];
};
const bad = [];
for (const node of document.querySelectorAll('body *')) {
  const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
  if (!own || !node.getClientRects().length) continue;
  if (node.closest('svg, .unseen, .skip, noscript, option, :disabled, .down')) continue;
  const style = getComputedStyle(node);
  const [a, b] = [light(parse(style.color)), light(ground(node))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const large = parseFloat(style.fontSize) >= 24;
  if (ratio < (large ? 3 : 4.5)) {
    bad.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)} ${node.textContent}`);
  }
}
return bad;
"""
"""WCAG 2.2, 1.4.3: the contrast of all text that is shown, computed."""

CUT: Final = """
return [...document.querySelectorAll('main *, #trouble')].filter((node) => {
  if (node.closest('svg, .unseen, .strip, .wide')) return false;
  return node.clientWidth && node.scrollWidth > node.clientWidth + 1;
}).map((node) => `${node.tagName}.${node.className} ${node.scrollWidth} in ${node.clientWidth}`);
"""
"""Whatever is wider than its place; but for what may be scrolled, or is cut on purpose."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits_each_screen_and_can_be_read(
    browser: Browser, console: Console, size: str, dark: bool
) -> None:
    browser.size(size, dark=dark)
    seq = console.visitor.get("/api/records?part=board-0006")["lines"][0]["seq"]
    ready = {
        "live": ".kept .findings",
        "parts": ".records tbody tr",
        "parts?as=pictures": ".card .findings .box",
        f"part/{seq}": ".findings .box",
        "tune": ".outcome",
    }
    names = {view: re.sub(r"/.*|\?as=", "", view) for view in ready}
    for view, selector in ready.items():
        browser.go(f"#/{view}")
        browser.one("#health", "ready")
        browser.one(selector)
        browser.picture(f"{names[view]}-{size}-{'dark' if dark else 'light'}")
        assert browser.too_wide() <= 0, f"{view} can be scrolled sideways"
        assert browser.run(CONTRAST) == [], view
        unnamed = browser.run(
            "return [...document.querySelectorAll('input, select')].filter((each) =>"
            " !each.labels.length).map((each) => each.name)"
        )
        assert unnamed == [], view


def test_the_sign_in_leads_to_the_page(box: tuple[LocalBroker, Path], tmp_path: Path) -> None:
    broker, folder = box
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    with Console(broker.port, folder, "--token-file", str(file)) as console:
        browser = Browser(f"http://127.0.0.1:{console.visitor.port}/")
        try:
            browser.go("")
            browser.one("#token").send_keys("not the token at all")
            browser.one("button", "Sign in").click()
            browser.one("#problem", "not the token")
            browser.picture("sign-in")
            field = browser.one("#token")
            field.clear()
            field.send_keys(TOKEN)
            browser.one("button", "Sign in").click()
            browser.one("#health", "ready")
            assert browser.run("return document.cookie") == ""
        finally:
            browser.driver.quit()


def test_a_lamp_that_ages_is_said_with_its_remedy(tmp_path: Path) -> None:
    require_mosquitto()

    async def aged(broker: LocalBroker, daemon: Daemon) -> None:
        async with line_to(broker, "fourth-line") as line:
            await play(line, LEARN + WINDOW)
            daemon.logged("drift_learnt")
            await play(line, WINDOW, darker)
            daemon.logged("drift_began")

    deployment = watched_closely(tmp_path / "deployment")
    with (
        running_broker(kind="mosquitto") as broker,
        Daemon(
            broker, tmp_path, deployment=deployment, overrides=("status.interval_s=1",)
        ) as daemon,
        Console(broker.port, tmp_path) as console,
    ):
        asyncio.run(aged(broker, daemon.ready()))
        browser = Browser(f"http://127.0.0.1:{console.visitor.port}/")
        try:
            browser.go("#/live")
            browser.one(".pipelines li.caution", "camera.top is darker than when the reference")
            browser.one(".sights", "brightness")
            browser.driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
            browser.picture("drift")
            browser.size("phone")
            browser.one(".sights", "brightness")
            browser.picture("drift-phone")
            assert browser.too_wide() <= 0
            assert not browser.complaints()
        finally:
            browser.driver.quit()


def test_a_daemon_that_is_gone_is_said_large(tmp_path: Path) -> None:
    require_mosquitto()

    async def one_board(broker: LocalBroker, daemon: Daemon, console: Console) -> None:
        async with line_to(broker, "third-line") as line:
            await line.verdict(line.inspect(1, part_id="last"))
            await until(
                lambda: bool(console.visitor.get("/api/live")["verdicts"]), "the page hears it"
            )
        daemon.kill()

    with (
        running_broker(kind="mosquitto") as broker,
        Daemon(broker, tmp_path, overrides=("status.interval_s=1",)) as daemon,
        Console(broker.port, tmp_path) as console,
    ):
        asyncio.run(one_board(broker, daemon.ready(), console))
        browser = Browser(f"http://127.0.0.1:{console.visitor.port}/")
        try:
            browser.size("panel")
            browser.go("#/live")
            browser.one(".verdict-now.down .word", "OFFLINE")
            browser.one("#trouble", "The daemon is offline")
            browser.picture("offline")
            console.process.kill()
            browser.one("#trouble", "lost the console")
        finally:
            browser.driver.quit()


PIPELINES: Final = 16
"""As many as a manifest may have."""
LONG: Final = "of-the-line-that-makes-the-caps-in-hall-seventeen"
UNBROKEN: Final = "X" * 128
"""As long as an id may be."""


@pytest.mark.parametrize("size", ["phone", "wall"])
def test_many_pipelines_and_long_names_have_room(
    box: tuple[LocalBroker, Path], console: Console, size: str
) -> None:
    broker, folder = box
    device = f"box-{LONG}"
    status = console.visitor.get("/api/live")["status"]
    one = status["pipelines"]["pcb"]
    lame = {**one, "ready": False, "trouble": f"its provider offers no {UNBROKEN}"}
    names = [f"{number:02}-{LONG}" for number in range(PIPELINES)]
    said = {
        "pipeline": names[0],
        "frame_id": UNBROKEN,
        "part_id": UNBROKEN,
        "verdict": "reject",
        "reason": LONG,
    }

    async def speak() -> None:
        counters = {f"verdicts{{kind=reject,reason={LONG}}}": 12_345_678}
        now = {**status, "device": device, "time_ns": time.time_ns() + 10**12, "counters": counters}
        async with connected(broker, "long-names") as line:
            for ready in (True, False):
                pipelines = dict.fromkeys(names, one) | {names[-1]: one if ready else lame}
                word = json.dumps({**now, "ready": ready, "pipelines": pipelines}).encode()
                await line.publish(f"edge/{device}/status", word, retain=True)
                verdict = json.dumps({**said, "captured_at_ns": time.time_ns()}).encode()
                await line.publish(f"edge/{device}/{names[0]}/verdict", verdict)
                await asyncio.to_thread(look, ready)

    def look(ready: bool) -> None:
        browser.one("#health", "ready" if ready else "not ready")
        browser.one(".verdict-now .about", UNBROKEN)
        browser.picture(f"many-{size}-{'ready' if ready else 'lame'}")
        assert browser.too_wide() <= 0
        assert browser.run(CUT) == []
        assert device in browser.one(".brand").text
        # Which one is not ready is seen first.
        assert browser.all(".pipelines h2")[0].text == (names[0] if ready else names[-1])

    with Console(broker.port, folder, "--set", f"device.id={device}") as other:
        browser = Browser(f"http://127.0.0.1:{other.visitor.port}/")
        try:
            browser.size(size)
            browser.go("#/live")
            browser.one(".verdict-now")
            asyncio.run(speak())
            assert not browser.complaints()
        finally:
            browser.driver.quit()
