"""A real browser for tests of pages: the system's Chromium, driven by selenium. It waits for conditions."""

import contextlib
import re
import shutil
from pathlib import Path

import pytest

# Seconds in which a condition comes true, on a machine that does much else.
PATIENCE = 120

# Texts of charts: how large they are on the screen, how far they stick out, which lie over each other, in pixels, and
# which have little contrast (WCAG 2). A text is its line's box, turned as the text is; two boxes overlap by the least
# way that parts them.
TEXTS = r"""
document.querySelectorAll("details").forEach((details) => (details.open = true));
const found = { texts: 0, smallest: Infinity, outside: [], overlapping: [], faint: [] };
const light = (colour) => colour.match(/[\d.]+/g).slice(0, 3)
  .map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
found.paper = light(getComputedStyle(document.querySelector(".card")).backgroundColor);
const corners = ({ x, y, width, height }, m) => [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
  .map(([x, y]) => [m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f]);
const shared = (box, other) => Math.min(...[box, other].flatMap((one) => [0, 1].map((side) => {
  const [[x, y], [u, v]] = one.slice(side, side + 2), length = Math.hypot(u - x, v - y);
  const [a, b] = [box, other].map((each) => each.map(([p, q]) => (p * (v - y) - q * (u - x)) / length));
  return Math.min(Math.max(...a), Math.max(...b)) - Math.max(Math.min(...a), Math.min(...b));
})));
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect(), seen = [];
  for (const text of frame.width ? svg.querySelectorAll("text") : []) {
    const words = text.textContent, matrix = text.getScreenCTM(), box = corners(text.getBBox(), matrix);
    const [left, right] = [Math.min, Math.max].map((end) => end(...box.map(([x]) => x)));
    const [top, bottom] = [Math.min, Math.max].map((end) => end(...box.map(([, y]) => y)));
    if (right - left < 1 || !words.trim()) continue;
    const size = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b);
    found.texts += 1;
    found.smallest = Math.min(found.smallest, size);
    const out = Math.max(frame.left - left, right - frame.right, frame.top - top, bottom - frame.bottom);
    const ink = light(getComputedStyle(text).fill), [least, most] = [ink, found.paper].sort((a, b) => a - b);
    const faint = svg.dataset.chart != "confusion" && (most + 0.05) / (least + 0.05) < 4.5;
    if (faint) found.faint.push([svg.dataset.chart, words]);
    if (out > 1) found.outside.push([svg.dataset.chart, words, out]);
    for (const [other, others] of seen) {
      const deep = shared(box, other);
      if (deep > 1) found.overlapping.push([svg.dataset.chart, words, others, deep]);
    }
    seen.push([box, words]);
  }
}
found.width = document.documentElement.scrollWidth;
return found;
"""

# Brings an element into sight; returns its middle.
MIDDLE = """
arguments[0].scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
const box = arguments[0].getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""

# Every table: its names of columns, and the texts of its rows that are shown.
TABLES = """
const text = (cell) => cell.textContent.replace(/\\s+/g, " ").trim();
return [...document.querySelectorAll(".scroll>table")].filter((table) => table.tHead).map((table) => ({
  head: [...table.tHead.rows[0].cells].map(text),
  rows: [...table.tBodies[0].rows].filter((row) => getComputedStyle(row).display != "none")
    .map((row) => [...row.cells].filter((cell) => getComputedStyle(cell).display != "none").map(text)),
}));
"""


class Browser:
    """Chromium with one page at a time."""

    def __init__(self, driver):
        self.driver, self.scripted = driver, True

    def open(self, path, width=1280, dark=False):
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # What pages before have kept in this tab.
        self.run("try { sessionStorage.clear() } catch {}")
        self.driver.get(f"file://{Path(path).resolve()}")
        return self.ready()

    def ready(self):
        """Waits until the page has been read whole, and its script has done its work."""
        self.wait(lambda: self.run("return document.readyState") == "complete", "the end of the page")
        if self.scripted:
            self.wait(lambda: self.all(".tip"), "the script of the page")
        return self

    def reload(self):
        self.driver.refresh()
        return self.ready()

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition, what):
        """Waits until a condition is true; returns its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02).until(lambda _: condition(), what)

    def find(self, element):
        """Returns an element by its selector, or as it is."""
        return self.driver.find_element("css selector", element) if isinstance(element, str) else element

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector):
        """The texts of all elements that are shown."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].filter((one) => one.getClientRects().length)"
            ".map((one) => one.textContent.replace(/\\s+/g, ' ').trim())",
            selector,
        )

    def count(self, selector):
        return len(self.texts(selector))

    def tables(self):
        return self.run(TABLES)

    def click(self, element):
        element = self.find(element)
        self.run(MIDDLE, element)
        element.click()

    def point_at(self, element):
        """Moves the mouse over the middle of an element."""
        x, y = self.run(MIDDLE, self.find(element))
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def touch(self, element):
        """Taps the middle of an element."""
        x, y = self.run(MIDDLE, self.find(element))
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def press(self, *keys):
        """Presses keys where the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, element):
        """Brings the focus to an element by the Tab key, from what has it before."""
        from selenium.webdriver.common.keys import Keys

        element = self.find(element)
        before = (
            "const all = [...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')]"
            ".filter((one) => one.checkVisibility() && !(one.type == 'radio' && !one.checked));"
            "all[all.indexOf(arguments[0]) - 1].focus()"
        )
        self.run(before, element)
        self.press(Keys.TAB)
        assert self.driver.switch_to.active_element == element

    def says(self, pattern):
        """Waits until the page says next to a point what matches; returns the match."""
        return self.wait(lambda: re.fullmatch(pattern, self.said()), f"{pattern} in what is said")

    def said(self):
        return next(iter(self.texts(".tip")), "")

    def copied(self, button):
        """Clicks a button of a table that copies; returns what the clipboard holds then."""
        button = self.find(button)
        self.run("arguments[0].textContent = arguments[0].textContent.replace('Copied', 'Copy')", button)
        self.click(button)
        self.wait(lambda: button.text.startswith("Copied"), "the end of copying")
        return self.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")

    def problems(self):
        """What the console holds."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @contextlib.contextmanager
    def without_script(self):
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        self.scripted = False
        try:
            yield self
        finally:
            self.scripted = True
            self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@contextlib.contextmanager
def open_browser():
    """Opens Chromium, or skips with the reason where it, its driver or selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"no {' and no '.join(missing)} on PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Given its path, selenium looks for no driver on the network.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found["chromedriver"]))
    # Of the tests alone: a page may write to the clipboard when it is clicked.
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    try:
        yield Browser(driver)
    finally:
        driver.quit()
