"""Refined masks stay in place, and without training the best of several candidates is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from vlm_adapters.decoder.sam.candidates import outline_width, stability
from vlm_adapters.decoder.sam.geometry import Frame
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner, refine_untrained

TinySam = Callable[[], Sam]


def photo(size: tuple[int, int] = (30, 50)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))


def quarter(h: int, w: int, *, bottom: bool, right: bool) -> Tensor:
    """`(1, h, w)`: logit 6 in one quarter, -6 elsewhere."""
    logits = torch.full((1, h, w), -6.0)
    logits[:, h // 2 if bottom else 0 : h if bottom else h // 2, w // 2 if right else 0 : w if right else w // 2] = 6
    return logits


def echo(image: EncodedImage, *, masks: Tensor, **_: Any) -> Tensor:
    """In the place of the decoder: the mask prompt is the mask."""
    assert image.features.ndim == 4
    return masks.expand(-1, 4, -1, -1)


def test_a_mask_stays_in_its_corner(
    subtests: pytest.Subtests, tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    for padding, right, bottom, size in product(
        [0, 20], [False, True], [False, True], [(60, 100), (100, 60), (80, 80)]
    ):
        with subtests.test(padding=padding, right=right, bottom=bottom, size=size):
            sam = SegmentAnything(tiny_sam())
            monkeypatch.setattr(sam, "decode", echo)
            height, width = size
            wanted = quarter(*size, bottom=bottom, right=right)[0] > 0
            box = (-padding, -padding, width + padding, height + padding)
            # One cell per 5 pixels, padding included.
            inner = quarter(height // 5, width // 5, bottom=bottom, right=right)
            logits = functional.pad(inner, (padding // 5,) * 4, value=-6.0)
            image = sam.encode(photo(size))
            with torch.no_grad():
                refined = SAMRefiner(sam, use_text=False)(image, logits, box)[0] > 0
                chosen = refine_untrained(sam, image, logits, box).at_image_size()[0] > 0
            for found in (refined, chosen):
                assert float((found & wanted).sum() / (found | wanted).sum()) > 0.85


def test_candidates_are_asked_for_with_the_peak_with_and_without_a_box_and_with_points(
    tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = SegmentAnything(tiny_sam())
    asked: list[dict[str, Any]] = []

    def decode(image: EncodedImage, **prompts: Any) -> Tensor:
        asked.append(prompts)
        return echo(image, **prompts)

    monkeypatch.setattr(sam, "decode", decode)
    # Probabilities 0.4 and 0.3 in cells of 10 pixels, less than half of 0.4 elsewhere: no mask, but a peak.
    logits = torch.full((1, 3, 5), 0.1).logit()
    logits[0, 1, 3], logits[0, 1, 4] = torch.tensor(0.4).logit(), torch.tensor(0.3).logit()
    refine_untrained(sam, sam.encode(photo()), logits, (0, 0, 50, 30))
    with_box, without = ["boxes", "masks", "points"], ["masks", "points"]
    assert [sorted(prompts) for prompts in asked] == [with_box, without, with_box]
    (x, y), (left, top, right, bottom) = asked[0]["points"].places[0, 0].tolist(), asked[0]["boxes"][0].tolist()
    assert 34 <= x <= 35
    assert 14 <= y <= 15
    # From the centre of a cell to the next the probability falls from 0.4 to 0.1: 0.2 is reached after 6.7 pixels.
    assert (left, top, right, bottom) == (28, 8, 50, 22)
    assert [prompts["points"].labels.tolist() for prompts in asked[:2]] == [[[1]]] * 2
    # All of the image is above an eighth of the peak; nothing is below a tenth, so no place is surely outside.
    assert asked[2]["boxes"].tolist() == [[0, 0, 50, 30]]
    assert asked[2]["points"].labels.tolist() == [[1] * 5 + [-1] * 5]


def test_the_candidate_is_kept_that_looks_like_the_coarse_mask(
    tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = SegmentAnything(tiny_sam())
    shapes = [(bottom, right) for bottom in (False, True) for right in (False, True)]
    masks = torch.cat([quarter(24, 24, bottom=bottom, right=right) for bottom, right in shapes])
    halves = torch.where(masks > 0, 6.0, -6.0).roll(12, dims=1)
    halves = torch.maximum(masks, halves)  # two quarters each
    calls: list[Tensor] = [masks, halves, masks]
    monkeypatch.setattr(sam, "decode", lambda *_, points, **__: calls.pop(0).expand(len(points.places), -1, -1, -1))
    # On a square image the canvas is the image. Five masks: the quarters, and the left half.
    logits = torch.cat([quarter(4, 4, bottom=bottom, right=right) for bottom, right in shapes])
    left = torch.where(torch.arange(4) < 2, 6.0, -6.0).expand(1, 4, 4)
    found = (
        refine_untrained(sam, sam.encode(photo((48, 48))), torch.cat([logits, left]), (0, 0, 48, 48)).at_image_size()
        > 0
    )
    expected = [quarter(48, 48, bottom=bottom, right=right)[0] > 0 for bottom, right in shapes]
    expected.append((torch.arange(48) < 24).expand(48, 48))
    assert (found ^ torch.stack(expected)).sum() < 10  # bilinear steps round the corners


def test_what_candidates_say_of_the_padding_does_not_count(tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch) -> None:
    # A wide image fills the upper half of the canvas, and the middle of the square that the coarse logits cover. The
    # right candidate continues below the image; the wrong one ends at its edge, and is a little too narrow.
    sam = SegmentAnything(tiny_sam())
    frame = Frame((24, 48), 96)
    candidates = torch.full((4, 24, 24), -6.0)
    candidates[1, :, :12], candidates[2, :12, :10] = 6, 6
    monkeypatch.setattr(sam, "decode", lambda *_, **__: candidates[None])
    logits = torch.full((1, 8, 8), -6.0)
    logits[:, 2:6, :4] = 6
    image = EncodedImage(torch.zeros(1, 16, 6, 6), frame)
    found = refine_untrained(sam, image, logits, (0, -12, 48, 36)).at_image_size()[0] > 0
    assert torch.equal(found, (torch.arange(48) < 24).expand(24, 48))


def test_where_the_coarse_mask_is_sure_a_slip_of_an_unsure_model_does_not_count(
    tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The left half of the image is found, with a hole and a speck; nothing is known of its lowest quarter.
    sam = SegmentAnything(tiny_sam())
    decoded = torch.where(torch.arange(24) < 12, 0.9, -0.9).repeat(1, 4, 24, 1)
    decoded[:, :, 4:8, 4:8], decoded[:, :, 4:8, 18:20], decoded[:, :, 20:22, 4:6] = -0.9, 0.9, -0.9
    monkeypatch.setattr(sam, "decode", lambda *_, **__: decoded)
    logits = torch.where(torch.arange(8) < 4, 6.0, -6.0).repeat(1, 6, 1)
    found = refine_untrained(sam, sam.encode(photo((96, 96))), logits, (0, 0, 96, 72)).at_image_size()[0] > 0
    expected = (torch.arange(96) < 48).repeat(96, 1)
    assert torch.equal(found[:72], expected[:72])
    assert not found[81:87, 17:23].any()  # of what the coarse mask does not cover it says nothing


def test_a_mask_with_a_sharp_outline_stands_whatever_the_coarse_mask_is_sure_of(
    tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two phrases: the same half of the image, with a sharp outline and with a blurred one, and a coarse mask that is
    # sure of a column of cells more.
    sam = SegmentAnything(tiny_sam())
    half = torch.where(torch.arange(24) < 12, 1.0, -1.0).repeat(4, 24, 1)
    monkeypatch.setattr(sam, "decode", lambda *_, **__: torch.stack([4 * half, 0.9 * half]))
    logits = torch.where(torch.arange(8) < 5, 6.0, -6.0).repeat(2, 8, 1)
    sharp, blurred = refine_untrained(sam, sam.encode(photo((96, 96))), logits, (0, 0, 96, 96)).at_image_size() > 0
    assert torch.equal(sharp, (torch.arange(96) < 48).expand(96, 96))
    assert float(blurred.sum()) / 96 == pytest.approx(60, abs=2)


def test_of_candidates_that_agree_alike_the_one_with_the_sharpest_outline_is_kept(
    tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = SegmentAnything(tiny_sam())
    ramp = (11.5 - torch.arange(24.0)).repeat(24, 1)  # the left half, undecided over 2 / slope cells
    slopes = torch.tensor([0.2, 0.1, 3.0, 0.3])
    monkeypatch.setattr(sam, "decode", lambda *_, **__: (slopes[:, None, None] * ramp)[None])
    logits = torch.where(torch.arange(4) < 2, 6.0, -6.0).repeat(1, 4, 1)
    found = refine_untrained(sam, sam.encode(photo((48, 48))), logits, (0, 0, 48, 48))
    assert torch.equal(found.decoded[0], 3.0 * ramp)


@pytest.mark.parametrize(("slope", "width"), [(0.25, 8), (0.5, 4), (4.0, 0)])
def test_the_width_of_an_outline_is_that_of_its_undecided_band(slope: float, width: float) -> None:
    edge = (slope * (11.5 - torch.arange(24.0))).repeat(24, 1)
    assert float(outline_width(edge)) == width


def test_a_mask_is_stable_if_as_much_is_left_at_a_higher_cut() -> None:
    edge = (11.5 - torch.arange(24.0)).repeat(24, 1)
    assert float(stability(edge)) == pytest.approx(11 / 13)
    assert float(stability(9 * edge)) == 1
    assert float(stability(torch.full((3, 3), -5.0))) == 0
