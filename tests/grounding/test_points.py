"""The map of a phrase says which part of a box is meant, and the box alone decides where they disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from vlm_adapters.answer import Answer
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.errors import DecoderError
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.geometry import CoordinateFrame
from vlm_adapters.grounding.boxes import BoxGrounder
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.points import CoarseMask, height_logits, masks_in_boxes
from vlm_adapters.heads.profile import HeadProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from segment_anything.modeling import Sam
    from torch import Tensor

    from vlm_adapters.data.sample import Sample
    from vlm_adapters.decoder.sam.model import EncodedImage
    from vlm_adapters.decoder.sam.points import PointPrompts
    from vlm_adapters.prompt import Prompt

SIDE = 160
"""Of the image, whose canvas has 96 pixels and 24 cells a side."""
BOX = (20.0, 10.0, 140.0, 90.0)
PROFILE = HeadProfile.model_validate(
    {
        "backbone": {"checkpoint": "acme/planted", "model_type": "planted", "revision": "abc123", "options": {}},
        "criterion": "iou",
        "source": "scenes",
        "samples": 4,
        "seed": 5,
        "neutral": "an image",
        "heads": [{"layer": 2, "head": 1, "weight": 1.0, "value": 0.5}],
        "smoothing": 0.5,
        "threshold": 0.5,
        "least_prominence": 8.0,
    }
)


def half(*, right: bool) -> Tensor:
    """`(24, 24)` logits: one half of the canvas."""
    return torch.where((torch.arange(24) >= 12) == right, 6.0, -6.0).expand(24, 24)


def halves(image: EncodedImage, *, points: PointPrompts | None = None, boxes: Tensor, **_: Any) -> Tensor:
    """In the place of the decoder: the half of the canvas in which the first point is; both for a box alone."""
    if points is None:
        return torch.full((len(boxes), 4, 24, 24), 6.0)
    firsts = points.places[:, 0, 0] / image.frame.size[1]
    return torch.stack([half(right=bool(first > 0.5)).expand(4, 24, 24) for first in firsts])


@pytest.fixture
def sam(tiny_sam: Callable[[], Sam], monkeypatch: pytest.MonkeyPatch) -> SegmentAnything:
    model = SegmentAnything(tiny_sam())
    monkeypatch.setattr(model, "decode", halves)
    return model


def image_of(sam: SegmentAnything) -> EncodedImage:
    return sam.encode(np.zeros((SIDE, SIDE, 3), np.uint8))


def coarse(*, right: bool) -> CoarseMask:
    """One half of the image, in cells of 20 pixels."""
    logits = torch.where((torch.arange(8) >= 4) == right, 4.0, -4.0).expand(8, 8)
    return CoarseMask(logits, (0.0, 0.0, float(SIDE), float(SIDE)))


@pytest.mark.parametrize("right", [False, True], ids=["left", "right"])
def test_of_a_box_the_part_is_kept_that_the_map_shows(sam: SegmentAnything, *, right: bool) -> None:
    found = masks_in_boxes(sam, image_of(sam), [(0.0, 0.0, 160.0, 160.0)], coarse(right=right)) > 0.5
    expected = np.broadcast_to((np.arange(SIDE) >= SIDE // 2) == right, (SIDE, SIDE))
    assert np.array_equal(found, expected)


def test_without_a_map_the_box_alone_decides(sam: SegmentAnything) -> None:
    assert (masks_in_boxes(sam, image_of(sam), [(0.0, 0.0, 160.0, 160.0)]) > 0.5).all()


def test_a_map_that_is_elsewhere_is_not_believed(sam: SegmentAnything) -> None:
    # The box is in the left half; the map shows the right one, of which the box holds nothing.
    found = masks_in_boxes(sam, image_of(sam), [(10.0, 10.0, 70.0, 150.0)], coarse(right=True)) > 0.5
    assert found.all()


def test_every_box_has_points_of_its_own_and_the_masks_are_joined(sam: SegmentAnything) -> None:
    everywhere = CoarseMask(torch.full((8, 8), 4.0), (0.0, 0.0, float(SIDE), float(SIDE)))
    boxes = [(0.0, 0.0, 80.0, 160.0), (80.0, 0.0, 160.0, 160.0)]
    assert (masks_in_boxes(sam, image_of(sam), boxes, everywhere) > 0.5).all()
    for box, right in zip(boxes, (False, True), strict=True):
        found = masks_in_boxes(sam, image_of(sam), [box], coarse(right=right)) > 0.5
        assert np.array_equal(found, np.broadcast_to((np.arange(SIDE) >= SIDE // 2) == right, (SIDE, SIDE)))


def test_a_map_of_which_half_lies_outside_the_boxes_is_not_believed(sam: SegmentAnything) -> None:
    everywhere = CoarseMask(torch.full((8, 8), 4.0), (0.0, 0.0, float(SIDE), float(SIDE)))
    assert (masks_in_boxes(sam, image_of(sam), [(0.0, 0.0, 80.0, 160.0)], everywhere) > 0.5).all()


def test_the_threshold_of_heights_has_logit_zero() -> None:
    logits = height_logits(torch.tensor([0.0, 0.29, 0.31, 1.0]), 0.3)
    assert logits.sign().tolist() == [-1, -1, 1, 1]
    assert float(height_logits(torch.tensor(0.3), 0.3)) == pytest.approx(0, abs=1e-6)
    assert bool(logits.isfinite().all())


class PointingPlanted:
    """The planted adapter, which answers every question with one box that holds both squares."""

    def __init__(self, planted: Any) -> None:
        self.planted, self.name, self.info = planted, planted.name, planted.info
        self.preprocess, self.extract = planted.preprocess, planted.extract
        self.locate_image_tokens = planted.locate_image_tokens

    def generate(self, prompt: Prompt, max_new_tokens: int = 256, **_: object) -> Answer:
        assert prompt.messages
        assert max_new_tokens
        return Answer(str(list(BOX)))

    def coordinate_frame(self, size: tuple[int, int]) -> CoordinateFrame:
        return CoordinateFrame(size[1], size[0])


def block(image: EncodedImage, *, points: PointPrompts | None = None, boxes: Tensor, **_: Any) -> Tensor:
    """In the place of the decoder: seven by seven cells around the middle of the points inside; all for a box alone."""
    if points is None:
        return torch.full((len(boxes), 4, 24, 24), 6.0)
    inside = (points.labels == 1).float()[..., None]
    middles = (points.places * inside).sum(dim=1) / inside.sum(dim=1) * 24 / image.frame.size[1]
    places = torch.stack(torch.meshgrid(torch.arange(24), torch.arange(24), indexing="xy"), dim=-1) + 0.5
    near = (places[None] - middles[:, None, None]).abs().amax(dim=-1) <= 3.5
    return torch.where(near, 6.0, -6.0)[:, None].expand(-1, 4, -1, -1)


def test_a_grounder_with_a_profile_tells_the_things_of_one_box_apart(
    planted: Any, squares: list[Sample], sam: SegmentAnything, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam, "decode", block)
    grounder = BoxGrounder(PointingPlanted(planted), sam, PROFILE)
    red, green = grounder.ground_all([squares[0].prompt])[0].phrases
    assert mask_iou(red.mask, squares[0].masks[0]) > 0.6
    assert mask_iou(green.mask, squares[0].masks[1]) > 0.6
    assert planted.texts == [squares[0].text, PROFILE.neutral]
    alone, same = BoxGrounder(PointingPlanted(planted), sam).ground_all([squares[0].prompt])[0].phrases
    assert np.array_equal(alone.mask, same.mask)


def test_a_phrase_without_a_peak_is_segmented_by_its_box_alone(
    planted: Any, squares: list[Sample], sam: SegmentAnything
) -> None:
    grounder = BoxGrounder(PointingPlanted(planted), sam, PROFILE)
    (found,) = grounder.ground(squares[0].image, "a blue square", ["a blue square"]).phrases
    assert found.mask.all()


def test_description_and_fingerprint_name_the_profile_that_is_read(planted: Any, sam: SegmentAnything) -> None:
    adapter = PointingPlanted(planted)
    chosen = BoxGrounder(adapter, sam, PROFILE)
    assert chosen.description.endswith("masks by Segment Anything, chosen by the maps of heads 2.1")
    assert set(chosen.fingerprint()) == {"sam", "head_profile"}
    assert chosen.fingerprint()["head_profile"] == HeadGrounder(planted, PROFILE).fingerprint()["head_profile"]
    assert set(BoxGrounder(adapter, sam).fingerprint()) == {"sam"}
    assert BoxGrounder(adapter, None, PROFILE).fingerprint() == {}


def test_a_profile_of_another_backbone_is_refused(planted: Any, sam: SegmentAnything) -> None:
    other = PROFILE.model_copy(update={"backbone": PROFILE.backbone.model_copy(update={"model_type": "llava"})})
    with pytest.raises(DecoderError, match="is of llava"):
        BoxGrounder(PointingPlanted(planted), sam, other)
