"""A real browser for tests of pages: the system's Chromium, driven by selenium."""

import contextlib
import shutil
from pathlib import Path

import pytest

# Labels of charts: how large they are on the screen, which overlap, which are cut.
LABELS = """
document.querySelectorAll("details").forEach((details) => (details.open = true));
const found = { smallest: Infinity, overlapping: [], cut: [], labels: 0 };
for (const svg of document.querySelectorAll("svg[role=img]")) {
  const frame = svg.getBoundingClientRect(), seen = [];
  for (const label of frame.width ? svg.querySelectorAll("text") : []) {
    const box = label.getBoundingClientRect(), matrix = label.getScreenCTM();
    const turned = Math.abs(Math.atan2(matrix.b, matrix.a)), name = [svg.dataset.chart, label.textContent];
    const size = parseFloat(getComputedStyle(label).fontSize) * Math.hypot(matrix.a, matrix.b);
    if (!box.width) continue;
    found.labels += 1;
    found.smallest = Math.min(found.smallest, size);
    if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.bottom > frame.bottom + 2) found.cut.push(name);
    if (turned > 0.1 && turned < 1.5) continue;
    for (const [other, text] of seen) {
      const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
      // Boxes hold room for accents and descenders, a quarter of a line.
      const high = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) - size / 4;
      if (wide > 1 && high > 0) found.overlapping.push([...name, text]);
    }
    seen.push([box, label.textContent]);
  }
}
found.width = document.documentElement.scrollWidth;
return found;
"""

# Brings an element into sight; returns its middle.
MIDDLE = """
const found = document.querySelector(arguments[0]);
found.scrollIntoView({ block: "center", behavior: "instant" });
const box = found.getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""


class Browser:
    """Chromium with one page at a time."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=1280, dark=False):
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(f"file://{Path(path).resolve()}")
        return self

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector):
        """The texts of all elements that are shown."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].filter((one) => one.getClientRects().length)"
            ".map((one) => one.textContent.replace(/\\\\s+/g, ' ').trim())",
            selector,
        )

    def count(self, selector):
        return len(self.texts(selector))

    def click(self, selector):
        element = self.driver.find_element("css selector", selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def point_at(self, selector):
        """Moves the mouse over the middle of an element; returns what the page says."""
        x, y = self.run(MIDDLE, selector)
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
        return self.said()

    def touch(self, selector):
        """Taps the middle of an element; returns what the page says."""
        x, y = self.run(MIDDLE, selector)
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        return self.said()

    def press(self, selector, *keys):
        element = self.driver.find_element("css selector", selector)
        self.run("arguments[0].focus()", element)
        self.driver.switch_to.active_element.send_keys(*keys)
        return self.said()

    def said(self):
        shown = self.texts(".tip")
        return shown[0] if shown else ""

    def copied(self):
        """What the clipboard holds."""
        return self.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")

    def problems(self):
        """What the console holds."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


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
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found["chromedriver"]))
    # Of the tests alone: a page may write to the clipboard when it is clicked.
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    try:
        yield Browser(driver)
    finally:
        driver.quit()
