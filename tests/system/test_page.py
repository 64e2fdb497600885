"""Pages of `report --html` and `account --html` in a browser: without network, readable in light, dark, narrow and print."""

import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.acceptance.commands import Command
from tests.store import operated
from tests.store.stores import Store

pytestmark = pytest.mark.system
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@dataclass(frozen=True)
class Look:
    """How somebody looks at the page, and the rules of axe by which it is judged."""

    scheme: Literal["light", "dark"]
    rules: tuple[str, ...] = ()
    media: Literal["screen", "print"] = "screen"
    width: int = 1000


ALL = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
LOOKS = (Look("light", ALL), Look("dark", ("color-contrast",)), Look("dark", media="print"), Look("light", width=400))
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  const light = (colour) => { const [r, g, b] = parts(colour); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const contrast = (colour) => {
    const both = [light(colour), paper].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  };
  const of = (selector, property) =>
    [...document.querySelectorAll(selector)].map((found) => contrast(getComputedStyle(found)[property]));
  return {
    text: Math.min(...of("svg text", "fill")),
    bar: Math.min(...of("svg .bar:not([class*=series])", "fill"), ...of("svg [class*=series]", "stroke")),
  };
}"""
"""The least contrast of texts and bars of the charts with the page, as WCAG computes it; axe judges no text in SVG."""
OUTSIDE = """() => [...document.querySelectorAll("svg text")]
  .filter((text) => getComputedStyle(text).display !== "none")
  .filter((text) => { const box = text.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; })
  .map((text) => text.textContent)"""
JUDGE = "(rules) => axe.run({ exclude: ['tbody tr:nth-child(n+3)'] }, { runOnly: rules, resultTypes: ['violations'] })"
"""Rows of a table are alike, and looking at each takes most of the time."""
HIDDEN = "() => [...document.querySelectorAll('table')].filter((table) => !table.checkVisibility()).length"


def test_pages_in_a_browser(sweeper: Command, store: Store, tmp_path: Path) -> None:
    """No request but for the file, nothing on the console, no fault that axe finds; every chart and table can be read."""
    store.load(operated.mixed())
    operated.ran(store, {"purged": 1_234_567, "feedback_purged": 2}, started_at="2026-05-31T20:00:00Z")
    operated.ran(store, {"guard": "volume", "text": "More is due than is allowed."}, "refused")
    report, account = tmp_path / "report.html", tmp_path / "account.html"
    done = sweeper("report", "--html", str(report), "--as-of", operated.NOW)
    assert (done.code, done.err) == (0, "")
    assert sweeper("account", str(store.id("a1")), "--html", str(account), "--as-of", operated.NOW).code == 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_chromium(), args=ARGUMENTS, timeout=0)
        for file, look in product((report, account), LOOKS):
            assert (file.name, look, _seen(browser, file, look)) == (file.name, look, [])
        browser.close()


def _chromium() -> str:
    """Where chromium is."""
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("chromium is not installed, so no page was looked at: apt-get install chromium", pytrace=False)
    return found


def _seen(browser: Browser, file: Path, look: Look) -> list[str]:
    """What is wrong with the page as one reader sees it."""
    faults: list[str] = []
    context = browser.new_context(color_scheme=look.scheme, viewport={"width": look.width, "height": 900}, offline=True)
    page = context.new_page()
    context.on("request", lambda request: faults.append(request.url) if request.url != file.as_uri() else None)
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.goto(file.as_uri(), timeout=0)
    if look.media == "print":
        page.emulate_media(media="print")
        faults += [f"{page.evaluate(HIDDEN)} tables are not printed"] if page.evaluate(HIDDEN) else []
    else:
        page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    faults += [f"outside: {text}" for text in page.evaluate(OUTSIDE)]
    contrasts = page.evaluate(CONTRASTS)
    faults += [f"contrast {contrasts}"] if contrasts["text"] < 4.5 or contrasts["bar"] < 3 else []
    faults += (
        ["wider than the window"] if page.evaluate("() => document.documentElement.scrollWidth > innerWidth") else []
    )
    if look.rules:
        page.evaluate(AXE.read_text())
        found = page.evaluate(JUDGE, look.rules)
        faults += [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]
    context.close()
    return faults
