"""Refined masks: against the steps of the paper done one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional

from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner, refine_untrained
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import DecoderError
from vlm_adapters.geometry import Box

TinySam = Callable[[], Sam]
SIZE = (30, 50)
WHOLE: Box = (0, 0, 50, 30)
LENGTHS = (2, 1, 3, 2, 1)
"""Tokens of five phrases."""


def photo(size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8))


def coarse(count: int = len(LENGTHS)) -> Tensor:
    logits = torch.randn(count, 6, 10, generator=torch.Generator().manual_seed(7)) - 1
    logits[0] = -2.0  # nothing found
    return logits


def hidden(lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(3, length, 8, generator=generator) for length in lengths]


def refiner(sam: Sam, **use: bool) -> SAMRefiner:
    torch.manual_seed(9)
    return SAMRefiner(SegmentAnything(sam), TextPrompt(8, 3, 16), **use)


def step_by_step(model: Sam, image: EncodedImage, logits: Tensor, tokens: list[Tensor]) -> Tensor:
    """The refiner for an image that the coarse logits cover, phrase by phrase, with the parts of segment_anything."""
    (height, width), (tall, wide) = image.frame.size, image.frame.resized
    fill = min(-1.0, float(logits.min()))
    masks = []
    for coarse, words in zip(logits, tokens, strict=True):
        placed = functional.interpolate(coarse[None, None], (tall, wide), mode="bilinear", align_corners=False)
        padded = functional.pad(placed, (0, 96 - wide, 0, 96 - tall), value=fill)
        dense = functional.interpolate(padded, (24, 24), mode="bilinear", align_corners=False)
        sure = functional.interpolate(
            coarse.sigmoid()[None, None], (height, width), mode="bilinear", align_corners=False
        )
        rows, columns = np.nonzero(sure[0, 0].numpy() > 0.5)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, width, height]
        scale = torch.tensor([wide / width, tall / height] * 2)
        sparse, embedded = model.prompt_encoder(None, torch.tensor([box]) * scale, dense)
        low, _ = model.mask_decoder(
            image_embeddings=image.features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, words[None]], dim=1),
            dense_prompt_embeddings=embedded,
            multimask_output=False,
        )
        canvas = functional.interpolate(low, (96, 96), mode="bilinear", align_corners=False)[:, :, :tall, :wide]
        masks.append(functional.interpolate(canvas, (height, width), mode="bilinear", align_corners=False)[0, 0])
    return torch.stack(masks)


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (96, 96), (130, 41)])
def test_phrases_are_refined_as_in_the_paper_and_as_one_by_one(tiny_sam: TinySam, size: tuple[int, int]) -> None:
    whole = refiner(tiny_sam())
    assert whole.text is not None
    image = whole.sam.encode(photo(size))
    with torch.no_grad():
        found = whole(image, coarse(), (0, 0, size[1], size[0]), hidden())
        expected = step_by_step(tiny_sam(), image, coarse(), [whole.text(states) for states in hidden()])
    assert found.shape == (len(LENGTHS), *size)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (found[3] - found[0]).abs().max() > 0.01 * expected.abs().max()


def test_a_batch_is_its_phrases_one_by_one(tiny_sam: TinySam) -> None:
    whole = refiner(tiny_sam())
    image = whole.sam.encode(photo())
    logits = coarse()
    logits[:, 0, 0] = -9  # the padding, the lowest logit of all phrases of the image, is that of each
    with torch.no_grad():
        together = whole(image, logits, WHOLE, hidden())
        alone = [whole(image, one[None], WHOLE, [states])[0] for one, states in zip(logits, hidden(), strict=True)]
    assert (together - torch.stack(alone)).abs().max() < 1e-5 * together.abs().max()


def test_phrases_of_equal_length_are_decoded_as_one_batch(tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = refiner(tiny_sam())
    batches: list[int] = []
    decode = whole.sam.decode

    def counted(image: EncodedImage, **prompts: Tensor) -> Tensor:
        batches.append(len(prompts["tokens"]))
        return decode(image, **prompts)

    monkeypatch.setattr(whole.sam, "decode", counted)
    whole(whole.sam.encode(photo()), coarse(), WHOLE, hidden())
    assert batches == [2, 2, 1]


def test_what_is_not_used_changes_nothing(tiny_sam: TinySam) -> None:
    other = coarse() * 0.5 - 0.01  # other logits, and, nearly, the same boxes
    words = [states + 1 for states in hidden()]
    image = refiner(tiny_sam()).sam.encode(photo())
    with torch.no_grad():
        for use, logits, states in (
            ({"use_text": False}, coarse(), words),
            ({"use_mask": False}, coarse() * 2, hidden()),
            ({"use_box": False, "use_mask": False}, other, hidden()),
        ):
            part, everything = refiner(tiny_sam(), **use), refiner(tiny_sam())
            first, second = part(image, coarse(), WHOLE, hidden()), part(image, logits, WHOLE, states)
            torch.testing.assert_close(first, second, atol=0, rtol=0)
            assert (first - everything(image, coarse(), WHOLE, hidden())).abs().max() > 0.01
            assert (everything(image, logits, WHOLE, states) - first).abs().max() > 0.01


def test_without_text_neither_text_prompt_nor_hidden_states_are_needed(tiny_sam: TinySam) -> None:
    part = SAMRefiner(SegmentAnything(tiny_sam()), use_text=False)
    assert part(part.sam.encode(photo()), coarse(), WHOLE).shape == (5, *SIZE)


def test_gradient_reaches_all_but_the_image_encoder(tiny_sam: TinySam) -> None:
    whole = refiner(tiny_sam()).train()
    image = whole.sam.encode(photo())
    logits = coarse().requires_grad_()
    whole(image, logits, WHOLE, hidden()).square().mean().backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=(1, 2)) > 0).all()
    for name, weight in whole.named_parameters():
        frozen = "image_encoder" in name
        assert weight.requires_grad is not frozen
        if frozen:
            assert weight.grad is None
    model = whole.sam.model
    assert whole.text is not None
    for trained in (
        whole.text.projection.weight,
        whole.text.layer_weights,
        model.prompt_encoder.mask_downscaling[0].weight,
        model.prompt_encoder.point_embeddings[2].weight,
        model.mask_decoder.mask_tokens.weight,
    ):
        assert trained.grad is not None
        assert trained.grad.abs().sum() > 0


def test_the_gradient_of_the_coarse_logits_is_their_finite_difference(tiny_sam: TinySam) -> None:
    whole = refiner(tiny_sam(), use_box=False).double()
    image = whole.sam.encode(photo())
    generator = torch.Generator().manual_seed(10)
    logits = coarse()
    logits[1, 0, 0] = -9.0  # the lowest stays the lowest
    direction = torch.randn(logits.shape, generator=generator)
    direction[1, 0, 0] = 0
    weights = torch.randn(len(logits), *SIZE, generator=generator)

    def value(step: float) -> Tensor:
        return (whole(image, logits + step * direction, WHOLE, hidden()).double() * weights).mean()

    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(value(0), logits)
    slope = (value(0.005) - value(-0.005)) / 0.01
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-3)


@pytest.mark.parametrize("whole_in_bfloat16", [False, True])
def test_it_is_trained_in_bfloat16_too(tiny_sam: TinySam, *, whole_in_bfloat16: bool) -> None:
    whole = refiner(tiny_sam())
    image = whole.sam.encode(photo())
    with torch.no_grad():
        expected = whole(image, coarse(), WHOLE, hidden())
    if whole_in_bfloat16:
        whole.to(torch.bfloat16)
    logits = coarse().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not whole_in_bfloat16):
        found = whole(whole.sam.encode(photo()), logits, WHOLE, [states.bfloat16() for states in hidden()])
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()
    found.square().mean().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad.abs().sum(dim=(1, 2)) > 0).all()


def test_no_phrases_give_no_masks(tiny_sam: TinySam) -> None:
    whole = refiner(tiny_sam())
    image = whole.sam.encode(photo())
    assert whole(image, torch.zeros(0, 6, 10), WHOLE, []).shape == (0, *SIZE)
    assert refine_untrained(whole.sam, image, torch.zeros(0, 6, 10), WHOLE).at_image_size().shape == (0, *SIZE)


def test_all_parts_together_have_as_many_trained_weights_as_the_published_one() -> None:
    with torch.device("meta"):
        sam = SegmentAnything(sam_model_registry["vit_b"]())
        parts = (UNet(UNetConfig(channels=1024)), SAMRefiner(sam, TextPrompt(4096, 32)))
    trained = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in trained) == 12_886_033


def test_parts_that_do_not_fit_are_errors(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    with pytest.raises(DecoderError, match="without mask, box and text has no prompt"):
        SAMRefiner(sam, use_mask=False, use_box=False, use_text=False)
    with pytest.raises(DecoderError, match="use_text needs a TextPrompt"):
        SAMRefiner(sam)
    with pytest.raises(DecoderError, match=r"tokens of width 256, and the model takes 16\. Build it with width=16"):
        SAMRefiner(sam, TextPrompt(8, 3))


def test_inputs_that_do_not_fit_are_errors(tiny_sam: TinySam) -> None:
    whole = refiner(tiny_sam())
    image = whole.sam.encode(photo())
    with pytest.raises(DecoderError, match=r"5 coarse masks and no hidden states.*use_text=False"):
        whole(image, coarse(), WHOLE)
    with pytest.raises(DecoderError, match="5 coarse masks and the hidden states of 4 phrases"):
        whole(image, coarse(), WHOLE, hidden()[:4])
    for logits in (torch.zeros(6, 10), torch.zeros(2, 0, 3)):
        with pytest.raises(DecoderError, match=r"coarse logits have shape .*Give \(phrases, h, w\)"):
            whole(image, logits, WHOLE, hidden())
        with pytest.raises(DecoderError, match="coarse logits have shape"):
            refine_untrained(whole.sam, image, logits, WHOLE)
