"""A real browser without a window: pictures of a page, and where its elements come to lie."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

from tests.tools import lacking

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: Tells the window around it what sticks out of the page, or of an element that does not scroll.
PROBE = """
<script>
addEventListener("load", () => {
  const inside = element => {
    for (let at = element.parentElement; at; at = at.parentElement)
      if (["auto", "hidden"].includes(getComputedStyle(at).overflowX)) return true;
    return false;
  };
  const out = [];
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height || element.closest("svg, .skip, .unseen") && element.tagName != "svg") continue;
    if ((box.right > innerWidth + 1 || box.left < -1) && !inside(element))
      out.push(element.tagName + "." + element.getAttribute("class") + ": " + element.textContent.slice(0, 60));
  }
  const shown = [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width).length;
  const texts = [...document.querySelectorAll("svg text")].map(text => text.getBoundingClientRect());
  const smallest = Math.min(...texts.filter(box => box.height).map(box => box.height));
  const result = {width: innerWidth, scroll: document.documentElement.scrollWidth, out, shown, smallest,
                  height: document.documentElement.scrollHeight};
  parent.document.getElementById("result").textContent = JSON.stringify(result);
});
</script>
"""


def browser() -> str:
    """Its path; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or lacking(f"no browser: none of {', '.join(NAMES)} is on the PATH")


def screenshot(html: str, folder: Path, width: int, height: int, *, dark: bool = False) -> Path:
    """A picture of the upper part of a page in a window of that size. Narrow windows are frames in a wide one."""
    page = folder / "framed.html"
    page.write_text(framed(html, width, height))
    picture = folder / "page.png"
    picture.unlink(missing_ok=True)
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    _run(page, f"--window-size={max(width, 500)},{height}", f"--screenshot={picture}", *scheme)
    return picture


def layout(html: str, folder: Path, width: int) -> dict[str, Any]:
    """Where elements come to lie in a window of that width: see PROBE."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)  # which allows no script
    assert free != html
    page = folder / "probed.html"
    page.write_text(framed(free.replace("</body>", PROBE + "</body>"), width, 2000))
    tree = _run(page, "--window-size=1400,2000", "--dump-dom")
    found = re.search(r'<pre id="result">(.+?)</pre>', tree)
    assert found is not None, tree[-2000:]
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


def framed(html: str, width: int, height: int) -> str:
    """The page in a frame: no browser window is as narrow as a telephone."""
    style = f"border:0;width:{width}px;height:{height}px;display:block"
    return (
        '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body style="margin:0">'
        f'<iframe style="{style}" srcdoc="{escape(html)}"></iframe><pre id="result"></pre>'
    )


def _run(page: Path, *arguments: str) -> str:
    # Its sandbox needs a user that is not root; the page is the test's own.
    rights = ["--no-sandbox"] if os.geteuid() == 0 else []
    fixed = [
        "--headless",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        f"--user-data-dir={page.parent / 'user'}",
    ]
    command = [browser(), *rights, *fixed, *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
