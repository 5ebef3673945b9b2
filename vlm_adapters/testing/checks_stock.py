"""Checks against the stock processor: a frozen model must be given what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import CheckSkipped, prompt, require, require_close, two_images

_SIZES = ((84, 200), (160, 90))
_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


def check_ids_equal_stock(case: AdapterCase) -> None:
    """Token ids of a chat about an image are those that the stock processor makes of the same chat."""
    compare_ids(case, prompt(_SIZES[0]), "one image")


def check_ids_of_two_images_equal_stock(case: AdapterCase) -> None:
    """Token ids of a chat about two images are those that the stock processor makes of the same chat."""
    compare_ids(case, _of_two(case), "two images")


def check_pixels_equal_stock(case: AdapterCase) -> None:
    """Tensors of an image are those that the stock processor makes of it."""
    compare_pixels(case, prompt(_SIZES[0]), "one image")


def check_pixels_of_two_images_equal_stock(case: AdapterCase) -> None:
    """Tensors of two images in a prompt are those that the stock processor makes of them together."""
    compare_pixels(case, _of_two(case), "two images")


def _of_two(case: AdapterCase) -> Prompt:
    if not case.several_images:
        raise CheckSkipped(f"{case.name} takes one image per prompt (AdapterCase.several_images)")
    return two_images(_SIZES)


def _stock(case: AdapterCase, adapter: BackboneAdapter, of: Prompt) -> Mapping[str, Tensor]:
    stock = case.reference.stock_inputs(adapter, of)
    if stock is None:
        raise CheckSkipped(f"{case.name} has no chat template, and Reference.stock_inputs gives no other way")
    return stock


def compare_ids(case: AdapterCase, of: Prompt, images: str) -> None:
    """Raise an `AssertionError` unless the token ids of a prompt are those that the stock processor makes.

    Args:
        case: The case.
        of: The prompt.
        images: What it holds, for the message.
    """
    if case.ids_differ:
        raise CheckSkipped(f"AdapterCase.ids_differ: {case.ids_differ}")
    adapter = case.load()
    expected = _stock(case, adapter, of)["input_ids"][0].tolist()
    found = adapter.preprocess([of]).tensors["input_ids"][0].tolist()
    if found == expected:
        return
    pairs = enumerate(zip(found, expected, strict=False))
    first = next((index for index, (one, other) in pairs if one != other), min(len(found), len(expected)))
    around = slice(max(first - 3, 0), first + 5)
    require(
        condition=False,
        text=f"token ids of a chat about {images}: the stock processor makes {len(expected)} tokens, the adapter "
        f"{len(found)}; from position {first} on they differ: expected ...{expected[around]}..., found "
        f"...{found[around]}... The images of a prompt go through the processor together (`process_images`), and the "
        "text comes from the chat template (`render`); if the model must be given others, say why in "
        "AdapterCase.ids_differ",
    )


def compare_pixels(case: AdapterCase, of: Prompt, images: str) -> None:
    """Raise an `AssertionError` unless the tensors of a prompt's images are those that the stock processor makes.

    Args:
        case: The case.
        of: The prompt.
        images: What it holds, for the message.
    """
    if case.pixels_differ:
        raise CheckSkipped(f"AdapterCase.pixels_differ: {case.pixels_differ}")
    adapter = case.load()
    expected, found = _stock(case, adapter, of), adapter.preprocess([of]).tensors
    names = [name for name, value in expected.items() if name not in _TOKENS and isinstance(value, Tensor)]
    compared = [name for name in names if name in found]
    require(
        bool(compared),
        f"tensors of {images}: the stock processor makes {names}, and none of them is among the adapter's "
        f"{list(found)}. Pass on what the model's forward takes",
    )
    for name in compared:
        one, other = found[name].float(), expected[name].to(found[name].device).float()
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        what = (
            f"{name} of {images}, against the stock processor (if the adapter must make others, say why in "
            "AdapterCase.pixels_differ)"
        )
        require_close(one, other.to(one.dtype), 1e-5 * scale if case.dtype == torch.float32 else 1e-2 * scale, what)
