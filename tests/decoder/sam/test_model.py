"""Segment Anything as a part: against `SamPredictor`, frozen where it must be, exact in every type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor, nn

from vlm_adapters.decoder.sam.geometry import mask_prompt
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.points import PointPrompts
from vlm_adapters.errors import DecoderError, ImageError

TinySam = Callable[[], Sam]

SIZES = [(30, 50), (50, 30), (96, 96), (97, 200), (7, 9)]


def photo(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))


def predictor(sam: Sam, image: Image.Image) -> SamPredictor:
    published = SamPredictor(sam)
    published.set_image(np.asarray(image))
    return published


def test_an_image_is_encoded_as_the_predictor_does(subtests: pytest.Subtests, tiny_sam: TinySam) -> None:
    for size in SIZES:
        with subtests.test(size=size):
            image = SegmentAnything(tiny_sam()).encode(photo(size))
            published = predictor(tiny_sam(), photo(size))
            torch.testing.assert_close(image.features, published.get_image_embedding(), atol=0, rtol=0)
            assert image.frame.resized == published.input_size
            assert image.frame.size == size


def test_boxes_points_and_masks_are_decoded_as_the_predictor_does(subtests: pytest.Subtests, tiny_sam: TinySam) -> None:
    for size in SIZES:
        with subtests.test(size=size):
            sam = SegmentAnything(tiny_sam())
            published = predictor(tiny_sam(), photo(size))
            height, width = size
            points = torch.tensor([[width * 0.25, height * 0.5], [width * 0.75, height * 0.125]])
            boxes = torch.tensor([[0, 0, width, height], [width * 0.5, 1, width, height * 0.5]])
            masks = torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(4))
            image = sam.encode(photo(size))
            coords = published.transform.apply_coords_torch(points, size)[:, None]
            one = PointPrompts.one_inside(points)
            kinds: list[tuple[dict[str, Any], tuple[Tensor | None, ...]]] = [
                ({"boxes": boxes}, (None, None, published.transform.apply_boxes_torch(boxes, size), None)),
                ({"masks": masks}, (None, None, None, masks)),
                ({"points": one, "masks": masks}, (coords, torch.ones(2, 1), None, masks)),
                (
                    {"points": one, "boxes": boxes, "masks": masks},
                    (coords, torch.ones(2, 1), published.transform.apply_boxes_torch(boxes, size), masks),
                ),
            ]
            for mine, theirs in kinds:
                with torch.no_grad():
                    decoded = sam.decode(image, **mine)
                    found = sam.at_image_size(decoded, image)
                for several in (False, True):
                    expected, _, low = published.predict_torch(*theirs, multimask_output=several, return_logits=True)
                    chosen = slice(1, None) if several else slice(0, 1)
                    torch.testing.assert_close(decoded[:, chosen], low, atol=1e-4, rtol=1e-4)
                    torch.testing.assert_close(found[:, chosen], expected, atol=1e-4, rtol=1e-4)
                    assert found.shape[2:] == size


@pytest.mark.parametrize("with_box", [True, False], ids=["box", "no box"])
@pytest.mark.parametrize("size", SIZES)
def test_points_inside_and_outside_are_decoded_as_the_predictor_does(
    tiny_sam: TinySam, size: tuple[int, int], *, with_box: bool
) -> None:
    sam, published = SegmentAnything(tiny_sam()), predictor(tiny_sam(), photo(size))
    height, width = size
    places = np.array([[0.25, 0.5], [0.75, 0.125], [0.5, 0.875], [0.0, 1.0]]) * (width, height)
    labels, box = np.array([1, 0, 1, 0]), np.array([1.0, 2.0, width - 1, height - 1])
    image = sam.encode(photo(size))
    points = PointPrompts(torch.tensor(places[None], dtype=torch.float32), torch.tensor(labels[None]))
    with torch.no_grad():
        boxes = torch.tensor(box[None], dtype=torch.float32) if with_box else None
        found = sam.at_image_size(sam.decode(image, points=points, boxes=boxes), image)[0]
    expected, _, _ = published.predict(places, labels, box if with_box else None, return_logits=True)
    torch.testing.assert_close(found[1:], torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_a_filler_is_what_the_predictor_pads_points_with(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    image = sam.encode(photo((30, 50)))
    places = torch.tensor([[[20.0, 10.0], [0.0, 0.0]]])
    encoder = sam.model.prompt_encoder
    with torch.no_grad():
        padded = sam.decode(image, points=PointPrompts(places, torch.tensor([[1, -1]])))
        # Without a box the package itself adds one such point.
        sparse, dense = encoder((image.frame.on_canvas(places[:, :1]), torch.ones(1, 1)), None, None)
        sparse = torch.cat([sparse, encoder.not_a_point_embed.weight[None]], dim=1)
        features, positions = image.features, encoder.get_dense_pe()
        expected, _ = sam.model.mask_decoder.predict_masks(features, positions, sparse, dense)
        elsewhere = PointPrompts(places + torch.tensor([[[0.0, 0.0], [9.0, 9.0]]]), torch.tensor([[1, -1]]))
        torch.testing.assert_close(sam.decode(image, points=elsewhere), padded, atol=0, rtol=0)
    assert (padded - sam.decode(image, points=PointPrompts(places, torch.tensor([[1, 0]])))).abs().max() > 0.01
    torch.testing.assert_close(padded, expected, atol=1e-4, rtol=1e-4)


def test_tokens_come_after_the_corners_of_the_box(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    image = sam.encode(photo((30, 50)))
    boxes = torch.tensor([[0.0, 0.0, 25.0, 30.0]])
    tokens = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(5))
    model = tiny_sam()
    with torch.no_grad():
        sparse, dense = model.prompt_encoder(None, boxes * 96 / 50 * torch.tensor([1, 58 / 57.6, 1, 58 / 57.6]), None)
        expected, _ = model.mask_decoder(
            image_embeddings=image.features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, tokens], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        found = sam.decode(image, boxes=boxes, tokens=tokens)
        without = sam.decode(image, boxes=boxes)
    torch.testing.assert_close(found[:, :1], expected, atol=1e-4, rtol=1e-4)
    assert (found - without).abs().max() > 0.01


def test_tokens_alone_are_prompts_enough(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    image = sam.encode(photo((30, 50)))
    tokens = torch.randn(4, 2, 16)
    assert sam.decode(image, tokens=tokens).shape == (4, 4, 24, 24)


def test_the_encoder_is_frozen_and_stays_in_eval_mode(tiny_sam: TinySam) -> None:
    whole = nn.ModuleDict({"sam": SegmentAnything(tiny_sam())})
    sam = whole["sam"]
    assert isinstance(sam, SegmentAnything)
    assert not any(parameter.requires_grad for parameter in sam.model.image_encoder.parameters())
    assert all(parameter.requires_grad for parameter in sam.model.mask_decoder.parameters())
    assert all(parameter.requires_grad for parameter in sam.model.prompt_encoder.parameters())
    for mode in (True, False, True):
        whole.train(mode)
        assert not any(module.training for module in sam.model.image_encoder.modules())
        assert sam.model.mask_decoder.training is mode
    assert sam.train() is sam


def test_encoding_leaves_no_graph_behind(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    sam.requires_grad_()  # as a whole, by someone who does not know
    assert not sam.encode(photo((30, 50))).features.requires_grad


def test_an_encoded_image_can_be_kept(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    image = sam.encode(photo((30, 50)))
    kept = EncodedImage(image.features.to(torch.bfloat16).float().clone(), image.frame)
    boxes = torch.tensor([[0.0, 0.0, 25.0, 30.0]])
    with torch.no_grad():
        close, same = sam.decode(kept, boxes=boxes), sam.decode(replace(image), boxes=boxes)
        torch.testing.assert_close(same, sam.decode(image, boxes=boxes), atol=0, rtol=0)
    torch.testing.assert_close(close, same, atol=0.1, rtol=0.1)


def test_positions_and_colours_stay_exact_in_bfloat16(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam()).to(torch.bfloat16)
    model, exact = sam.model, tiny_sam()
    assert model.mask_decoder.mask_tokens.weight.dtype == torch.bfloat16
    for found, expected in (
        (model.pixel_mean, exact.pixel_mean),
        (model.pixel_std, exact.pixel_std),
        (model.prompt_encoder.get_dense_pe(), exact.prompt_encoder.get_dense_pe()),
    ):
        assert torch.equal(found, expected)


def in_bfloat16(sam: SegmentAnything) -> SegmentAnything:
    return sam.to(torch.bfloat16)


def encoder_in_bfloat16(sam: SegmentAnything) -> SegmentAnything:
    sam.model.image_encoder.to(torch.bfloat16)
    return sam


def as_it_is(sam: SegmentAnything) -> SegmentAnything:
    return sam


def test_every_type_gives_nearly_the_same(subtests: pytest.Subtests, tiny_sam: TinySam) -> None:
    boxes = torch.tensor([[0.0, 0.0, 25.0, 30.0], [3.0, 4.0, 50.0, 30.0]])
    logits = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(6))

    def decoded(model: SegmentAnything) -> Tensor:
        image = model.encode(photo((30, 50)))
        masks = mask_prompt(logits, (0, 0, 50, 30), image.frame, model.mask_side)
        return model.decode(image, boxes=boxes, masks=masks)

    with torch.no_grad():
        expected = decoded(SegmentAnything(tiny_sam()))
    casts: list[Callable[[SegmentAnything], SegmentAnything]] = [as_it_is, in_bfloat16, encoder_in_bfloat16]
    for autocast, cast in product([False, True], casts):
        with subtests.test(autocast=autocast, cast=cast):
            sam = cast(SegmentAnything(tiny_sam()))
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                found = decoded(sam)
            assert found.dtype == torch.float32
            assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_an_encoder_in_half_precision_keeps_its_weights_and_gives_nearly_the_same(tiny_sam: TinySam) -> None:
    sam, image = SegmentAnything(tiny_sam()), photo((60, 80))
    exact = sam.encode(image).features
    weights = [weight.clone() for weight in sam.parameters()]
    sam.half_precision = True
    half = sam.encode(image).features
    assert half.dtype == torch.float32
    assert 0 < (half - exact).norm() < 0.05 * exact.norm()
    assert all(torch.equal(*both) for both in zip(sam.parameters(), weights, strict=True))


@pytest.mark.parametrize(("has_bfloat16", "used"), [(True, True), (False, False)])
def test_half_precision_is_taken_unasked_on_a_cuda_device_that_has_it(
    tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch, *, has_bfloat16: bool, used: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    sam = SegmentAnything(tiny_sam())
    assert sam.encodes_in_half_precision(torch.device("cuda")) == used
    assert not sam.encodes_in_half_precision(torch.device("cpu"))
    sam.half_precision = False
    assert not sam.encodes_in_half_precision(torch.device("cuda"))


def test_an_image_encoded_by_another_model_is_an_error(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    image = sam.encode(photo((30, 50)))
    other = replace(image, features=torch.zeros(1, 256, 64, 64))
    with pytest.raises(DecoderError, match=r"features \(1, 256, 64, 64\) on a canvas of 96 .* needs \(1, 16, 6, 6\)"):
        sam.decode(other, boxes=torch.zeros(1, 4))
    other = replace(image, frame=replace(image.frame, side=1024))
    with pytest.raises(DecoderError, match=r"canvas of 1024 pixels.*Encode the image with the model that decodes"):
        sam.decode(other, boxes=torch.zeros(1, 4))


def test_what_is_not_an_image_is_an_error(tiny_sam: TinySam) -> None:
    with pytest.raises(ImageError):
        SegmentAnything(tiny_sam()).encode("nowhere.png")
