"""Figures: colours where the masks are, bright where the map peaks, and no crash on odd images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.grounding.result import GroundedPhrase, Grounding, PackedMask, PhraseMap
from vlm_adapters.output.blocks import GAP, PANEL
from vlm_adapters.output.figures import grounding_figure, heat_sheet, mask_sheet
from vlm_adapters.output.render import (
    PALETTE,
    colour_of,
    grounding_overlay,
    heat_overlay,
    mask_overlay,
    write_png,
)
from vlm_adapters.prompt import Phrase

Pixels = NDArray[np.int64]
TEXT = "a cat on a mat"
RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(RNG.integers(0, 255, (60, 90, 3), dtype=np.uint8))


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (60, 90)) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def grounding(
    text: str = TEXT, phrases: Sequence[str | tuple[int, int]] = ("a cat", "a mat"), image: Image.Image = IMAGE
) -> Grounding:
    height, width = image.height, image.width
    grounded = []
    for phrase in phrases:
        found = Phrase.find(text, phrase) if isinstance(phrase, str) else Phrase.at(text, *phrase)
        mask = np.zeros((height, width), dtype=bool)
        mask[: height // 2 + 1, : width // 2 + 1] = True
        grounded.append(
            GroundedPhrase(found, PackedMask.of(mask), 0.75, PhraseMap.of_pixels(np.ones((height, width), np.float32)))
        )
    return Grounding(image, text, tuple(grounded))


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(int)


def colourfulness(image: Image.Image) -> Pixels:
    """`(H, W)`: 0 for grey."""
    spread: Pixels = np.ptp(pixels(image), axis=2)
    return spread


def has_colour(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((pixels(image) == colour).all(axis=2).any())


def test_colours_are_where_the_masks_are_and_nowhere_else() -> None:
    masks = [rectangle(5, 10, 25, 40), rectangle(30, 50, 55, 85)]
    drawn = mask_overlay(IMAGE, masks, PALETTE[:2])
    assert (colourfulness(drawn) > 20).tolist() == (masks[0] | masks[1]).tolist()


def test_a_mask_has_the_hue_of_its_colour() -> None:
    mask = rectangle(5, 10, 25, 40)
    grey = np.asarray(IMAGE.convert("L"))[mask].mean()
    for colour in PALETTE:
        inside = pixels(mask_overlay(IMAGE, [mask], [colour]))[mask].mean(axis=0)
        # A mixture of the colour and of grey: its distance from grey points in the direction of the colour.
        pull = np.array(colour) - grey
        cosine = (inside - grey) @ pull / np.linalg.norm(inside - grey) / np.linalg.norm(pull)
        assert cosine > 0.98, colour


def test_the_edge_of_a_mask_is_its_pure_colour() -> None:
    mask = rectangle(5, 10, 25, 40)
    drawn = pixels(mask_overlay(IMAGE, [mask], [PALETTE[0]]))
    for edge in (drawn[5, 10:40], drawn[24, 10:40], drawn[5:25, 10], drawn[5:25, 39]):
        assert (edge == PALETTE[0]).all()
    assert not (drawn[15, 20] == PALETTE[0]).all()


def test_the_true_outline_is_drawn_over_the_mask() -> None:
    truth = rectangle(8, 12, 30, 60)
    drawn = pixels(mask_overlay(IMAGE, [rectangle(5, 10, 25, 40)], [PALETTE[0]], [truth]))
    assert (drawn[8, 12:60] < 40).all()
    assert (drawn[9, 13:59] == 255).all()


def test_colours_of_phrases_differ_and_start_again_at_the_end() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert colour_of(len(PALETTE)) == colour_of(0)


def test_a_heat_map_is_brightest_at_its_peak() -> None:
    rows, columns = np.mgrid[:60, :90]
    for peak in ((0, 0), (59, 89), (20, 70)):
        heat = np.exp(-((rows - peak[0]) ** 2 + (columns - peak[1]) ** 2) / 200).astype(np.float32)
        drawn = pixels(heat_overlay(Image.new("RGB", (90, 60), "grey"), heat)).sum(axis=2)
        assert np.unravel_index(drawn.argmax(), drawn.shape) == peak


def test_brightness_rises_with_heat() -> None:
    heat = np.linspace(0, 1, 90, dtype=np.float32)[None].repeat(60, axis=0)
    grey = np.asarray(heat_overlay(Image.new("RGB", (90, 60), "grey"), heat).convert("L")).astype(int)
    assert (np.diff(grey[0]) >= 0).all()
    assert grey[0, -1] - grey[0, 0] > 120


def test_heat_beyond_its_range_is_clipped() -> None:
    heat = np.array([[-1, 2]], dtype=np.float32)
    image = Image.new("RGB", (2, 1), "grey")
    assert (pixels(heat_overlay(image, heat)) == pixels(heat_overlay(image, np.clip(heat, 0, 1)))).all()


def test_inputs_are_left_as_they_are() -> None:
    shown = grounding()
    before = (IMAGE.tobytes(), shown.phrases[0].mask.copy(), shown.phrases[0].map.copy())
    grounding_figure(shown, [grounded.mask for grounded in shown.phrases])
    assert IMAGE.tobytes() == before[0]
    assert (shown.phrases[0].mask == before[1]).all()
    assert (shown.phrases[0].map == before[2]).all()


def test_the_figure_is_deterministic() -> None:
    assert grounding_figure(grounding()).tobytes() == grounding_figure(grounding()).tobytes()


def test_the_figure_shows_every_phrase_in_its_colour() -> None:
    figure = grounding_figure(grounding())
    sentence = figure.crop((0, GAP, figure.width, GAP + 28))
    assert has_colour(sentence, PALETTE[0])
    assert has_colour(sentence, PALETTE[1])
    assert not has_colour(sentence, PALETTE[2])


def test_the_figure_changes_with_the_truth() -> None:
    shown = grounding()
    right = [grounded.mask for grounded in shown.phrases]
    wrong = [~mask for mask in right]
    without, good, bad = (grounding_figure(shown, truth).tobytes() for truth in (None, right, wrong))
    assert len({without, good, bad}) == 3


def test_many_phrases_go_on_below() -> None:
    text = " ".join(f"thing{index:02d}" for index in range(20))
    few, many = grounding_figure(grounding(text, text.split()[:4])), grounding_figure(grounding(text, text.split()))
    assert few.width == many.width
    assert many.height > 3 * few.height


def test_no_phrases_do_not_crash() -> None:
    assert grounding_figure(grounding(phrases=())).width > PANEL
    assert (pixels(grounding_overlay(grounding(phrases=()))) == pixels(IMAGE)).all()


def test_an_image_one_pixel_wide_does_not_crash() -> None:
    for size in ((1, 200), (200, 1), (1, 1), (3, 2)):
        shown = grounding(image=Image.new("RGB", size, "red"))
        assert grounding_figure(shown, [grounded.mask for grounded in shown.phrases]).width > PANEL
        assert grounding_overlay(shown).size == size


def test_the_overlay_is_the_image_itself_where_no_mask_is() -> None:
    shown = grounding()
    drawn = pixels(grounding_overlay(shown))
    masked = np.any([grounded.mask for grounded in shown.phrases], axis=0)
    assert (drawn[~masked] == pixels(IMAGE)[~masked]).all()
    assert (drawn[masked] != pixels(IMAGE)[masked]).any()


def test_a_long_sentence_wraps() -> None:
    short, long = grounding_figure(grounding(TEXT)), grounding_figure(grounding(TEXT + ", and more" * 20))
    assert long.width == short.width
    assert long.height >= short.height + 28
    ink = pixels(long)[:, -GAP:]
    assert (ink == 255).all()


def test_a_word_longer_than_a_line_wraps_too() -> None:
    word = "x" * 400
    figure = grounding_figure(grounding(word, [(0, 10), (390, 400)]))
    first, last = PALETTE[0], PALETTE[1]
    assert has_colour(figure.crop((0, GAP, figure.width, GAP + 28)), first)
    assert not has_colour(figure.crop((0, GAP, figure.width, GAP + 28)), last)
    assert has_colour(figure.crop((0, GAP + 28, figure.width, GAP + 200)), last)
    assert (pixels(figure)[:, -GAP:] == 255).all()


def test_a_phrase_longer_than_a_panel_is_cut() -> None:
    text = "a very long phrase that never comes to an end and goes on and on"
    one, two = grounding_figure(grounding(text, [text])), grounding_figure(grounding("a cat", ["a cat"]))
    assert one.width == two.width


def test_white_space_and_control_characters_do_not_crash() -> None:
    for text in ("one\ntwo", "one\ttwo", "one\r\n\r\ntwo", "one\x00two", "one\u2028two", "one  two "):
        shown = grounding(text, [(0, len(text))])
        assert grounding_figure(shown).width > PANEL
        assert has_colour(grounding_figure(shown), PALETTE[0])


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.MissingFontWarning")
@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip))
def test_any_text_can_be_drawn(text: str) -> None:
    grounding_figure(grounding(text, [(0, len(text))], Image.new("RGB", (20, 10))))


def test_a_sheet_has_a_row_per_title_and_wraps() -> None:
    heat = np.zeros((60, 90), np.float32)
    one = heat_sheet(IMAGE, [("a", [("layer 0", heat)])])
    two = heat_sheet(IMAGE, [("a", [("layer 0", heat)]), ("b", [("layer 0", heat)])])
    wide = heat_sheet(IMAGE, [("a", [(f"layer {index}", heat) for index in range(40)])])
    assert two.width == one.width
    assert two.height > 1.8 * one.height - 2 * GAP
    assert wide.width <= 7 * (PANEL + GAP) + GAP
    assert wide.height > 4 * one.height


def test_a_contact_sheet_wraps_and_names_every_phrase_in_the_colour_of_its_mask() -> None:
    image, mask = Image.new("RGB", (40, 30), "white"), np.zeros((30, 40), np.bool_)
    mask[5:25, 5:35] = True
    one = (image, ["a cat", "a dog"], [mask, ~mask], [mask, mask])
    narrow, wide, two_rows = (mask_sheet([one] * count) for count in (1, 4, 5))
    assert wide.width > 3 * (PANEL + GAP) > narrow.width
    assert (two_rows.width, two_rows.height > 1.8 * wide.height) == (wide.width, True)
    shown = np.asarray(narrow)
    below = shown[GAP + 2 * 195 + GAP :].reshape(-1, 3)  # under both panels
    for index in range(2):
        assert (below == colour_of(index)).all(axis=1).any()


def test_a_png_is_written_as_it_is(tmp_path: Path) -> None:
    write_png(IMAGE, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as read:
        assert read.tobytes() == IMAGE.tobytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
