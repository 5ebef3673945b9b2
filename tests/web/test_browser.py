"""The page in a real browser: the whole way of somebody who comes to look."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.web.limits import WebLimits

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator
    from playwright.sync_api import Page as Tab

    from vlm_adapters.data.sample import Sample

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
mask_utils = pytest.importorskip("pycocotools.mask")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to try the page in")

ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MODEL, EXAMPLE = "tiny-qwen2_5_vl", 2
PATIENCE = 30_000
"""Milliseconds for one step, on a machine that has other work."""
WIDE, PHONE = {"width": 1000, "height": 800}, {"width": 390, "height": 844}
IS_GREY_AT = """async ([x, y]) => {
  const image = document.getElementById("mask"), canvas = document.createElement("canvas");
  await image.decode();
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const [red, green, blue] = context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
  return Math.max(red, green, blue) - Math.min(red, green, blue) < 10;
}"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where `adapters web` says that the page is; Ctrl-C ends it."""
    command = [sys.executable, "-m", "vlm_adapters", "web", MODEL, "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        said = next(iter(found for line in run.stdout if (found := re.match(r"http://127\.0\.0\.1:\d+", line))), None)
        assert said, run.stderr.read()
        yield said[0]
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130, run.stderr.read()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Tab]:
    """A tab that is at the page. In the end nobody else must have been asked for anything."""
    requests, faults = list[str](), list[str]()
    tab = browser.new_page(viewport=WIDE)
    tab.set_default_timeout(PATIENCE)
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(address)
    yield tab
    tab.close()
    assert faults == []
    assert {url.partition("//")[2].partition("/")[0] for url in requests if url.startswith("http")} == {
        address.removeprefix("http://")
    }


@pytest.fixture(scope="module")
def scene() -> Sample:
    return Scenes(1, seed=HELD_OUT_SEED, first=EXAMPLE)[0]


def centre(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[float, float]:
    """`(x, y)` of the middle of a mask, as shares of the image."""
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


def choose_example(tab: Tab) -> None:
    tab.get_by_role("button", name=f"Example {EXAMPLE + 1}").press("Enter")
    sync_api.expect(tab.locator("#phrases")).not_to_have_value("", timeout=PATIENCE)


def ground_example(tab: Tab) -> None:
    choose_example(tab)
    tab.get_by_role("button", name="Ground", exact=True).click()
    tab.locator("#result").wait_for()


def phrase(tab: Tab, text: str) -> Locator:
    return tab.locator("#sentence").get_by_role("button", name=text)


def is_grey(tab: Tab, point: tuple[float, float]) -> bool:
    """Whether the picture of the mask has no colour at a point."""
    grey: bool = tab.evaluate(IS_GREY_AT, list(point))
    return grey


def downloaded(tab: Tab, name: str) -> bytes:
    with tab.expect_download() as download:
        tab.get_by_role("link", name=name).click()
    return Path(download.value.path()).read_bytes()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_an_example_is_grounded_clicked_and_downloaded(tab: Tab, scene: Sample) -> None:
    ground_example(tab)
    centres = [centre(mask) for mask in scene.masks]
    for index, named in enumerate(scene.phrases):
        phrase(tab, named.text).click()
        assert phrase(tab, named.text).get_attribute("aria-pressed") == "true"
        tab.get_by_alt_text(f"The mask of {named.text}").wait_for()
        assert [is_grey(tab, point) for point in centres] == [other != index for other in range(len(centres))]

    stage = tab.locator("#mask-stage").bounding_box()
    assert stage is not None
    x, y = centres[0]
    tab.locator("#mask-stage").click(position={"x": x * stage["width"], "y": y * stage["height"]})
    tab.locator("#words li").first.wait_for()
    words = tab.locator("#words li").all_inner_texts()
    assert sorted(word.split("\n")[0] for word in words) == sorted(named.text for named in scene.phrases)
    assert [named.text for named in scene.phrases if any(named.text in w and "in its mask" in w for w in words)] == [
        scene.phrases[0].text
    ]

    vlm = GroundedVLM.from_pretrained(MODEL)
    expected = {found.phrase.text: found for found in vlm.ground(scene.image, scene.text, scene.phrases).phrases}
    grounding = json.loads(downloaded(tab, "grounding (JSON)"))
    for found in grounding["phrases"]:
        decoded = mask_utils.decode(found["mask"]).astype(np.bool_)
        assert mask_iou(decoded, expected[found["text"]].mask) == 1
    results = json.loads(downloaded(tab, "COCO results (RLE)"))
    assert [mask_utils.area(result["segmentation"]) for result in results] == [
        expected[found["text"]].packed.area for found in grounding["phrases"]
    ]
    downloaded(tab, "image with masks (PNG)")


def test_everything_is_done_with_the_keyboard(tab: Tab, scene: Sample) -> None:
    choose_example(tab)
    tab.get_by_role("button", name="Ground", exact=True).press("Enter")
    tab.locator("#result").wait_for()
    phrase(tab, scene.phrases[1].text).press("Space")
    tab.get_by_alt_text(f"The mask of {scene.phrases[1].text}").wait_for()
    tab.locator("#layer").press("ArrowDown")
    assert "layer=0" in str(tab.locator("#map").get_attribute("src"))
    tab.locator("#head").press("ArrowDown")
    assert "layer=0&head=0" in str(tab.locator("#map").get_attribute("src"))
    tab.locator("#map-stage").press("ArrowRight")
    tab.locator("#words li").first.wait_for()
    before = tab.locator("#here-title").inner_text()
    tab.locator("#map-stage").press("ArrowUp")
    assert tab.locator("#here-title").inner_text() != before
    tab.locator("#map-stage").press("Escape")
    assert tab.locator("#words li").count() == 0


def test_the_answer_to_a_question_is_grounded(tab: Tab) -> None:
    choose_example(tab)
    tab.get_by_label("Ask a question").check()
    assert tab.get_by_label("Question", exact=True).input_value() == "Please give me a description of the image."
    tab.get_by_role("button", name="Ground", exact=True).click()
    tab.locator("#result").wait_for()
    assert tab.locator("#sentence button").count() >= 2


def test_what_is_wrong_is_a_line_on_the_page_and_what_is_doubtful_too(tab: Tab, tmp_path: Path) -> None:
    ground = tab.get_by_role("button", name="Ground", exact=True)
    tab.get_by_label("Sentence", exact=True).fill("<b>a red circle</b>")
    ground.click()
    error = tab.get_by_role("alert")
    assert error.inner_text() == "There is no image. Choose a file, or an example."
    Image.new("L", (6000, 5000)).save(tmp_path / "large.png")
    tab.locator("#file").set_input_files(tmp_path / "large.png")
    ground.click()
    sync_api.expect(error).to_contain_text("pixels", timeout=PATIENCE)
    assert "6000 x 5000" in error.inner_text()
    (tmp_path / "long.png").write_bytes(bytes(WebLimits().max_file_bytes + 1))
    tab.locator("#file").set_input_files(tmp_path / "long.png")
    ground.click()
    assert error.inner_text() == "The image file has more than the 16 MiB that are allowed. Shrink it."
    assert tab.locator("#result").is_hidden()

    Image.new("RGB", (200, 150), "white").save(tmp_path / "white.png")
    tab.locator("#file").set_input_files(tmp_path / "white.png")
    ground.click()
    tab.locator("#result").wait_for()
    assert error.inner_text() == ""
    assert "trained on synthetic scenes" in tab.locator("#warnings").inner_text()
    assert "<b>" in tab.locator("#sentence").inner_text()  # a text, not markup
    assert tab.locator("#sentence b").count() == 0


def test_an_absent_phrase_is_shown_as_absent(tab: Tab, scene: Sample) -> None:
    def absent(route: Any) -> None:
        content = route.fetch().json()
        content["phrases"][0] |= {"state": "absent", "presence": 0.02}
        route.fulfill(json=content)

    tab.route("**/results", absent)
    ground_example(tab)
    first = min(scene.phrases, key=lambda named: named.start)
    assert "absent" in phrase(tab, first.text).inner_text()
    assert tab.locator("#about").inner_text().startswith(f"{first.text}: absent from the image, presence 0.02.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_in_its_width(tab: Tab, scheme: Any) -> None:
    tab.set_viewport_size(PHONE)
    tab.emulate_media(color_scheme=scheme)
    ground_example(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    paper, ink = tab.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")
