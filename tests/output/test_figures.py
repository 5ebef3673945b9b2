"""Figures as a reader needs them: scales, legends, captions and panels that are large enough, in every case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.grounding.result import GroundedPhrase, Grounding, PackedMask, PhraseMap
from vlm_adapters.output.blocks import LARGEST_PANEL, LEAST_TOP, MOST_PIXELS, PANEL, Block, Page, in_means
from vlm_adapters.output.figures import grounding_figure, heat_sheet, labelled_overlay, mask_sheet
from vlm_adapters.output.render import colour_of
from vlm_adapters.prompt import Phrase

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))


def grounding(
    text: str = "a cat on a mat", phrases: tuple[str, ...] = ("a cat", "a mat"), image: Image.Image = IMAGE
) -> Grounding:
    """Every phrase in the upper left quarter, and looking everywhere."""
    height, width = image.height, image.width
    mask = np.zeros((height, width), np.bool_)
    mask[: height // 2 + 1, : width // 2 + 1] = True
    seen = PhraseMap.of_pixels(np.ones((height, width), np.float32))
    found = (GroundedPhrase(Phrase.find(text, phrase), PackedMask.of(mask), 0.75, seen) for phrase in phrases)
    return Grounding(image, text, tuple(found))


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


def has_colour(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((pixels(image) == colour).all(axis=2).any())


def test_letters_of_other_scripts_are_drawn_and_differ() -> None:
    drawn = {grounding_figure(grounding(text, (text,))).tobytes() for text in ("Über", "Uber", "кошка", "кошки")}
    assert len(drawn) == 4


def test_a_figure_of_boxes_has_no_heat_maps_and_says_that_no_attention_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    paragraph = Page.paragraph

    def noted(page: Page, text: str, width: int) -> Block:
        said.append(text)
        return paragraph(page, text, width)

    monkeypatch.setattr(Page, "paragraph", noted)
    by_box = grounding_figure(replace(grounding(), method="box"))
    assert said[0] == (
        "Masks are the boxes that the model wrote, filled, or what Segment Anything made of them; no attention was "
        "read."
    )
    assert by_box.height < 0.7 * grounding_figure(grounding()).height
    assert "not compared with a neutral sentence" in said[1]


def test_a_flat_map_stays_darker_than_a_sharp_one() -> None:
    flat, sharp = np.ones((60, 90), np.float32), np.zeros((60, 90), np.float32)
    sharp[20:30, 20:30] = 1
    assert in_means(flat)[1] == LEAST_TOP
    values, top = in_means(sharp)
    np.testing.assert_allclose((values.max(), top), 60 * 90 / 100, rtol=1e-5)
    peaks = []
    for heat in (flat, sharp):
        canvas = Image.new("RGB", (PANEL, 250), "white")
        Page(PANEL, PANEL).heat_panel(Image.new("RGB", (90, 60)), lambda heat=heat: heat).paint(canvas, 0, 0)  # type: ignore[misc]
        peaks.append(pixels(canvas)[:173].sum(axis=2).max())
    assert peaks[0] < 0.6 * peaks[1]


def test_a_map_of_nothing_does_not_crash() -> None:
    values, top = in_means(np.zeros((3, 4), np.float32))
    assert not values.any()
    assert top == LEAST_TOP


def test_the_overlay_with_a_legend_leaves_the_image_whole_and_names_every_phrase_below() -> None:
    image = Image.new("RGB", (400, 300), "grey")
    shown = grounding(image=image)
    drawn = labelled_overlay(shown)
    assert drawn.width == image.width
    outside = ~np.any([grounded.mask for grounded in shown.phrases], axis=0)
    assert (pixels(drawn)[:300][outside] == pixels(image)[outside]).all()
    legend = drawn.crop((0, 300, drawn.width, drawn.height))
    for index in range(2):
        assert has_colour(legend, colour_of(index))
    other = labelled_overlay(grounding("a dog on a mat", ("a dog", "a mat"), image))
    assert other.crop((0, 300, 400, other.height)).tobytes() != legend.tobytes()


def test_the_overlay_has_a_thin_box_around_every_mask() -> None:
    mask = np.zeros((300, 400), np.bool_)
    mask[50:150, 100], mask[100, 50:200] = True, True  # a cross, whose box is empty but for it
    shown = grounding(phrases=("a cat",), image=Image.new("RGB", (400, 300), "grey"))
    crossed = replace(shown.phrases[0], packed=PackedMask.of(mask))
    drawn = pixels(labelled_overlay(replace(shown, phrases=(crossed,))))
    assert (drawn[50, 50:200] == colour_of(0)).all()
    assert (drawn[50:150, 199] == colour_of(0)).all()
    assert (drawn[60, 60] == 128).all()


def test_a_legend_of_many_phrases_is_bounded() -> None:
    text = " ".join(f"thing{index:03d}" for index in range(300))
    drawn = labelled_overlay(grounding(text, tuple(text.split()), Image.new("RGB", (400, 300))))
    assert drawn.height < 300 + 31 * 60 + 60
    assert labelled_overlay(grounding(image=Image.new("RGB", (1, 1)))).width >= PANEL


def test_no_legend_without_phrases() -> None:
    assert labelled_overlay(grounding(phrases=())).tobytes() == IMAGE.tobytes()


def test_panels_are_as_large_as_the_image_within_bounds() -> None:
    sides = {size: Page.of([size], 4).side for size in ((30, 20), (480, 640), (3000, 4000))}
    assert sides == {(30, 20): PANEL, (480, 640): 640, (3000, 4000): LARGEST_PANEL}
    for panels in (1, 8, 40, 200):
        side = Page.of([(4000, 4000)], panels).side
        assert panels * side**2 <= MOST_PIXELS


def test_a_sheet_of_28_layers_is_bounded_and_leaves_no_column_empty() -> None:
    image, heat = Image.new("RGB", (1200, 900)), np.ones((900, 1200), np.float32)
    rows = [
        ("heads", [(f"head {index}", heat) for index in range(6)]),
        ("layers", [(f"layer {index}", heat) for index in range(28)]),
    ]
    sheet = heat_sheet(image, rows, sentence=("a cat", [(0, 5)]), caption="What is shown.")
    assert sheet.width * sheet.height < 2 * MOST_PIXELS
    last = sheet.crop((sheet.width - 200, 0, sheet.width, sheet.height))
    assert (pixels(last).max(axis=2) < 100).mean() > 0.3


def test_a_title_is_drawn_above_a_contact_sheet_and_no_phrase_is_cut() -> None:
    image, mask = Image.new("RGB", (40, 30), "white"), np.ones((30, 40), np.bool_)
    short = mask_sheet([(image, ["a cat"], [mask], [mask])])
    long = mask_sheet([(image, ["a cat " * 30], [mask], [mask])])
    titled = mask_sheet([(image, ["a cat"], [mask], [mask])], "Step 200: mean IoU 0.5000")
    assert long.height > short.height + 120
    assert titled.height > short.height
