"""A real browser without a window: the measured layout of a page, and its network requests."""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal

from processes import no_server

Scheme = Literal["dark", "light"]
_SCHEMES: dict[Scheme, int] = {"dark": 0, "light": 1}

_MEASURE = """
const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const parsed = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}
function background(element) {
  for (let each = element; each; each = each.parentElement) {
    const color = parsed(each.ownerDocument.defaultView.getComputedStyle(each).backgroundColor);
    if (color[3] > 0) return color;
  }
  return [255, 255, 255, 1];
}
function measure(frame) {
  const page = frame.contentDocument, view = frame.contentWindow, texts = [];
  page.querySelectorAll("details").forEach(each => each.open = true);
  const walker = page.createTreeWalker(page.body, view.NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("title, desc")) continue;
    const style = view.getComputedStyle(element), svg = element.namespaceURI.endsWith("svg");
    const color = parsed(svg ? style.fill : style.color);
    texts.push([contrast(color, background(element)), element.tagName, walker.currentNode.data.trim().slice(0, 40)]);
  }
  texts.sort((a, b) => a[0] - b[0]);
  const cut = [...page.querySelectorAll("svg")].flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
    const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
    return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.bottom > outer.bottom + 1;
  }).map(text => text.textContent));
  const series = [...page.querySelectorAll(".swatch")];
  const colors = series.map(each => parsed(view.getComputedStyle(each).backgroundColor));
  return {
    series: colors.map((color, place) => contrast(color, background(series[place].parentElement))),
    neighbours: colors.slice(1).map((color, place) => contrast(color, colors[place])),
    hidden: [...page.querySelectorAll(".scroll")].filter(each => each.scrollWidth > each.clientWidth).map(
      each => each.getAttribute("aria-label")),
    lines: [...page.querySelectorAll(".exports td:nth-child(2)")].map(each => {
      const range = page.createRange();
      range.selectNodeContents(each);
      return new Set([...range.getClientRects()].map(rectangle => rectangle.top)).size;
    }),
    needed: page.documentElement.scrollWidth, texts: texts.length, faintest: texts[0], cut: cut,
    requests: view.performance.getEntriesByType("resource").map(each => each.name),
    elements: page.querySelectorAll("img, script, iframe").length,
    page: view.getComputedStyle(page.body).backgroundColor,
  };
}
addEventListener("load", () => {
  document.getElementById("measured").textContent = JSON.stringify(measure(document.querySelector("iframe")));
});
"""


def measured(page: str, *, width: int, scheme: Scheme) -> dict[str, Any]:
    """What a browser of a width makes of a page: the page's width, the contrast of its texts, what it has asked for.

    The page is put into a frame, since a window cannot be as narrow as a phone; all details are opened. Of the colours
    for series, the contrast to their background and to their neighbours.
    """
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
    wrapper = f'<!doctype html><meta charset="utf-8">{frame}<pre id="measured"></pre><script>{_MEASURE}</script>'
    dumped = _browse(wrapper, scheme, "--dump-dom")
    measured = re.search(r'<pre id="measured">(.*?)</pre>', dumped, re.DOTALL)
    assert measured, dumped[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(measured[1]))
    return found


def printed(page: str) -> int:
    """How many sheets of paper a page takes."""
    with tempfile.TemporaryDirectory(prefix="feedback_etl_printed_") as folder:
        path = Path(folder) / "page.pdf"
        _browse(page, "light", f"--print-to-pdf={path}")
        return len(re.findall(rb"/Type /Page\b", path.read_bytes()))


def _browse(text: str, scheme: Scheme, *options: str) -> str:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        no_server("there is no browser: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="feedback_etl_browser_") as folder:
        page = Path(folder) / "page.html"
        page.write_text(text, encoding="utf-8")
        command = [browser, "--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        command += ["--no-sandbox"] if os.getuid() == 0 else []  # which it refuses to have for root
        command += [f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}"]
        command += ["--virtual-time-budget=2000", *options, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
