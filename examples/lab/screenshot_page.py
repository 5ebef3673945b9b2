"""Draw docs/web.png: `adapters web` in Chromium, with an example grounded, a word and a pixel clicked.

    python examples/lab/screenshot_page.py

Needs the extra `web`, playwright and Chromium.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parents[2] / "docs" / "web.png"
COMMAND = [sys.executable, "-m", "vlm_adapters", "web", "tiny-llava", "--port", "0"]
PHRASE, POINT = "a yellow cross", {"x": 100, "y": 270}


def draw(address: str) -> Image.Image:
    """The page as somebody sees it who has clicked a word and a pixel."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 900, "height": 800})
        tab.goto(address)
        tab.get_by_role("button", name="Example 3").click()
        tab.wait_for_timeout(1_000)
        tab.get_by_role("button", name="Ground", exact=True).click()
        tab.locator("#sentence").get_by_role("button", name=PHRASE).click()
        tab.locator("#mask-stage").click(position=POINT)
        tab.locator("#words li").first.wait_for()
        tab.wait_for_timeout(1_000)
        drawn = tab.screenshot(full_page=True)
        browser.close()
    return Image.open(BytesIO(drawn)).convert("RGB")


if __name__ == "__main__":
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own command
        found = next(match for line in server.stdout or () if (match := re.match(r"http://\S+", line)))
        try:
            draw(found[0]).quantize(256, kmeans=3, dither=Image.Dither.NONE).save(OUT, optimize=True)
        finally:
            server.terminate()
    print(f"{OUT}: {OUT.stat().st_size // 1000} kB")
