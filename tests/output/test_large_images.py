"""Figures of large images: the same at a glance as those painted at full size, in the memory of a panel."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase
from vlm_adapters.output import render
from vlm_adapters.output.exports import indexed_image
from vlm_adapters.output.figures import grounding_figure
from vlm_adapters.output.render import PALETTE, grounding_overlay, heat_overlay, mask_overlay, shrunk, shrunk_mask
from vlm_adapters.prompt import Phrase

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def photo(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    channels = (rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width))
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def grounding(height: int, width: int) -> Grounding:
    text = "a cat on a mat"
    phrases = []
    for index, (start, end) in enumerate(((0, 5), (9, 14))):
        probability = np.zeros((height, width), np.float32)
        probability[height // 5 : height // 2, (1 + index) * width // 6 : (3 + index) * width // 6] = 0.75
        cells = np.random.default_rng(index).random((9, 12)).astype(np.float32)
        seen = PhraseMap(cells, (0, 0, width, height), (height, width))
        phrases.append(grounded_phrase(Phrase.at(text, start, end), probability, seen))
    return Grounding(photo(height, width), text, tuple(phrases))


def eroded_step_by_step(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The outline by its definition: `width` times, what touches the outside is taken away."""
    inner = mask.copy()
    for _ in range(width):
        padded = np.pad(inner, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inner
    rim: NDArray[np.bool_] = mask & ~inner
    return rim


@settings(max_examples=60)
@given(SIZES, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_an_outline_is_what_is_taken_away_step_by_step(size: tuple[int, int], width: int, seed: int) -> None:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 7), dtype=np.uint8))
    mask = np.asarray(coarse.resize(size[::-1])) > 90
    assert np.array_equal(render.outline(mask, width), eroded_step_by_step(mask, width))


@settings(max_examples=30)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_overlays_hold_the_mixtures_of_their_definition(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    mask, truth = rng.random((2, *size)) > 0.3
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    expected = 0.6 * grey + 0.4 * 255
    expected[mask] = 0.45 * grey[mask] + 0.55 * np.array(PALETTE[0], dtype=np.float32)
    for outlined, width, colour in ((mask, 1, PALETTE[0]), (truth, 2, render.PAPER), (truth, 1, render.INK)):
        expected[eroded_step_by_step(outlined, width)] = colour
    drawn = mask_overlay(image, [mask], PALETTE[:1], [truth])
    assert np.array_equal(np.asarray(drawn), expected.astype(np.uint8))


def test_heat_is_painted_in_bands_with_the_colours_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    image, heat = photo(70, 50), np.random.default_rng(0).random((70, 50)).astype(np.float32)
    whole = heat_overlay(image, heat).tobytes()
    monkeypatch.setattr(render, "_ROWS_AT_ONCE", 9)
    assert heat_overlay(image, heat).tobytes() == whole


def test_the_figure_of_a_large_image_looks_like_one_that_was_painted_at_full_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = grounding(1500, 2400)
    truth = [grounded.mask for grounded in shown.phrases]
    small = np.asarray(grounding_figure(shown, truth)).astype(int)
    monkeypatch.setattr(render, "PAINTED_SIDE", 10**6)
    large = np.asarray(grounding_figure(shown, truth)).astype(int)
    assert small.shape == large.shape
    apart = np.abs(small - large).max(axis=2)
    assert apart.mean() < 1
    assert (apart > 40).mean() < 0.002  # some pixels at outlines


def test_an_ordinary_image_is_painted_as_it_is() -> None:
    image = photo(480, 640)
    assert shrunk(image) is image
    mask = np.zeros((480, 640), np.bool_)
    assert shrunk_mask(mask, (480, 640)) is mask


def test_a_shrunk_mask_holds_what_it_covers_by_half() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[:20, :17] = True
    assert shrunk_mask(mask, (4, 4)).tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2


def test_the_overlay_keeps_the_size_of_the_image() -> None:
    shown = grounding(1500, 2400)
    drawn = grounding_overlay(shown)
    assert drawn.size == (2400, 1500)
    outside = ~(shown.phrases[0].mask | shown.phrases[1].mask)
    assert np.array_equal(np.asarray(drawn)[outside], np.asarray(shown.image)[outside])


LARGE = """
import resource
from PIL import Image
import numpy as np
from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase
from vlm_adapters.output.exports import indexed_image
from vlm_adapters.output.figures import grounding_figure
from vlm_adapters.output.render import heat_overlay
from vlm_adapters.prompt import Phrase

def shown(height, width):
    probability = np.zeros((height, width), np.float32)
    probability[height // 4:, : width // 2] = 0.75
    seen = PhraseMap(np.eye(9, 12, dtype=np.float32), (0, 0, width, height), (height, width))
    phrases = tuple(grounded_phrase(Phrase("a cat", 0, 5), probability, seen) for _ in range(3))
    return Grounding(Image.new("RGB", (width, height)), "a cat", phrases)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

grounding_figure(shown(90, 120))
large = shown(3000, 4000)
before = peak()
{work}
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
@pytest.mark.parametrize("work", ["grounding_figure(large)", "indexed_image(large)"])
def test_large_images_cost_tens_of_mebibytes(work: str) -> None:
    run = subprocess.run([sys.executable, "-c", LARGE.format(work=work)], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 90  # painted at full size, it was 12 megapixels x about 100 bytes


def test_an_indexed_image_numbers_the_pixels() -> None:
    image = indexed_image(grounding(60, 90))
    assert (image.mode, image.size) == ("P", (90, 60))
    assert sorted(set(image.tobytes())) == [0, 1, 2]
