"""The README's pictures: pages of the report of the committed results, as a browser shows them.

`python -m tests.pictures` makes them again, in docs/pictures/; needs Debian's `chromium`.
"""

from __future__ import annotations

import shutil
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect, Page, sync_playwright

from harness.report.build import build

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1280
COLOURS = 256  # enough for flat pages, in a third of the bytes


def overview(page: Page) -> FloatRect:
    """From the top to the end of the first two answers."""
    return _down_to(page, ".card >> nth=1")


def tradeoffs(page: Page) -> FloatRect:
    """The first workload's two charts."""
    page.locator(".pair:visible .main-svg").nth(3).wait_for()
    return _down_to(page, ".pair:visible")


SHOWN = {
    "overview": ("index.html", overview),
    "tradeoffs": ("tradeoffs.html", tradeoffs),
}


def _down_to(page: Page, last: str) -> FloatRect:
    box = page.locator(last).bounding_box()
    assert box is not None
    return {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 12}


def main() -> None:
    """Make every picture."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        build(ROOT / "results", Path(folder))
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        for name, (address, part) in SHOWN.items():
            page.goto(f"{Path(folder).as_uri()}/{address}")
            page.locator("body[data-ready]").wait_for()
            taken = page.screenshot(clip=part(page), full_page=True)
            picture = Image.open(BytesIO(taken)).convert("RGB").quantize(COLOURS)
            picture.save(PICTURES / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
