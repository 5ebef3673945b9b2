"""Images, prompts and comparisons that the checks share."""

from __future__ import annotations

import math
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlm_adapters.backbone.grids import BackboneInputs, Grids
from vlm_adapters.backbone.protocol import BackboneAdapter, HasModel
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.prompt import Message, Prompt
from vlm_adapters.testing.case import AdapterCase

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT = "a red circle , a blue star and a green square at the top left"
PHRASES = ("a red circle", "blue star")
SIZE = (96, 150)
"""`(H, W)` of the image of checks that need only one."""


class CheckSkipped(unittest.SkipTest):
    """Raised when a check does not apply to an adapter; the text is the reason."""


def require(condition: bool, text: str) -> None:  # noqa: FBT001 (reads like assert, which `python -O` would drop)
    """Raise `AssertionError(text)` unless the condition holds."""
    if not condition:
        raise AssertionError(text)


def require_equal(found: object, expected: object, what: str) -> None:
    """Raise an `AssertionError` that shows both unless they are equal."""
    require(found == expected, f"{what}: expected {expected}, found {found}")


def require_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise an `AssertionError` unless two tensors have one shape and differ by at most `tolerance` everywhere."""
    require_equal(tuple(found.shape), tuple(expected.shape), f"{what}, shape")
    if not found.numel():
        return
    found, expected = found.detach().cpu(), expected.detach().cpu()
    difference = (found.float() - expected.float()).abs()
    worst = difference.max().item()
    position = tuple(
        int(index) for index in torch.unravel_index(difference.nan_to_num(torch.inf).argmax(), difference.shape)
    )
    require(
        worst <= tolerance,
        f"{what}: expected {expected[position].item():.6g} at {position}, found {found[position].item():.6g}; the "
        f"largest difference is {worst:.3g}, allowed is {tolerance:.3g}",
    )


def require_same(case: AdapterCase, found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Like `require_close`, for two results that the adapter computes alike in any precision.

    An accelerator sums in another order for every shape, so ten times the tolerance is allowed there.
    """
    require_close(found, expected, tolerance * (1 if case.device == "cpu" else 10), what)


def require_agrees(
    case: AdapterCase, found: Tensor, expected: Tensor, tolerance: float, what: str, *, rough: float = 0.1
) -> None:
    """Like `require_same` if the case runs in float32; below that, within `rough` of the mean size on average."""
    if case.dtype == torch.float32:
        require_same(case, found, expected, tolerance, what)
        return
    require_equal(tuple(found.shape), tuple(expected.shape), f"{what}, shape")
    if found.numel():
        found, expected = found.detach().float().cpu(), expected.detach().float().cpu()
        error = ((found - expected).abs().mean() / expected.abs().mean()).item()
        require(error <= rough, f"{what}: expected within {rough:.0%} on average in {case.dtype}, found {error:.1%}")


def require_identical(found: Tensor, expected: Tensor, what: str) -> None:
    """Raise an `AssertionError` unless two tensors are bit for bit the same."""
    require_equal(found.dtype, expected.dtype, f"{what}, dtype")
    require_close(found, expected, 0.0, what)


def require_error(kind: type[Exception], work: Callable[[], object], what: str) -> None:
    """Raise an `AssertionError` unless the work raises an error of this kind."""
    try:
        work()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what}: expected a {kind.__name__}, found {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what}: expected a {kind.__name__}, found no error")


def image(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """An image `(H, W)` of random coloured blocks of 4 pixels: no two cells look alike."""
    blocks = np.random.default_rng(seed).integers(
        0, 256, (math.ceil(size[0] / 4), math.ceil(size[1] / 4), 3), dtype=np.uint8
    )
    return Image.fromarray(blocks.repeat(4, axis=0).repeat(4, axis=1)[: size[0], : size[1]])


def prompt(
    size: tuple[int, int] = SIZE, text: str = TEXT, phrases: Sequence[str | tuple[int, int]] = PHRASES, seed: int = 0
) -> Prompt:
    """The caption case over a random image."""
    return Prompt.describe(image(size, seed), text, phrases)


def different_prompts() -> list[Prompt]:
    """Prompts that differ in size of image, length of text and number of phrases."""
    return [
        prompt(),
        prompt((180, 70), "a circle", ("circle",), seed=1),
        prompt(
            (60, 60), f"{TEXT} , and more of it : {TEXT.upper()}", ("more of it", "A RED CIRCLE", "a blue star"), seed=2
        ),
        prompt((70, 200), "nothing to ground", (), seed=3),
    ]


def two_images(sizes: tuple[tuple[int, int], tuple[int, int]], seed: int = 0) -> Prompt:
    """A prompt whose question holds two images."""
    question = Message("user", (image(sizes[0], seed), image(sizes[1], seed + 1), "Describe both."))
    return Prompt.chat([question, Message("assistant", (TEXT,))], PHRASES)


def run(
    adapter: BackboneAdapter, of: Prompt, request: GridRequest | None = None
) -> tuple[BackboneInputs, Sequence[Grids]]:
    """Inputs and grids of one prompt."""
    inputs = adapter.preprocess([of])
    return inputs, adapter.extract(inputs, request or GridRequest())[0]


def maps(grids: Sequence[Grids]) -> Tensor:
    """Attention `(P, L, n, C)` of all cells of all grids of one prompt."""
    return torch.cat([grid.attention.flatten(-2) for grid in grids], dim=-1)


def cells(grids: Sequence[Grids]) -> Tensor:
    """Positions `(C,)` of all cells of all grids of one prompt."""
    return torch.cat([grid.grid.tokens.flatten() for grid in grids])


def hidden(grids: Sequence[Grids]) -> Tensor:
    """Hidden states `(K, D, C)` of all cells of all grids of one prompt."""
    return torch.cat([grid.hidden.flatten(-2) for grid in grids], dim=-1)


_REDUCED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda rows: rows.mean(0),
    "max": lambda rows: rows.amax(0),
    "last": lambda rows: rows[-1],
}


def by_phrase(rows: Tensor, phrase_tokens: Sequence[Tensor], reduce: str) -> Tensor:
    """`(P, L, n, C)` from the rows `(R, L, n, C)` of all phrases, one after the other; with `"none"` the rows."""
    if reduce == "none" or not phrase_tokens:
        return rows
    parts = rows.split([len(tokens) for tokens in phrase_tokens])
    return torch.stack([_REDUCED[reduce](part) for part in parts])


def module_of(adapter: BackboneAdapter) -> nn.Module:
    """The torch module behind an adapter.

    Raises:
        CheckSkipped: There is none.
    """
    if not isinstance(adapter, HasModel):
        raise CheckSkipped(f"{type(adapter).__name__} has no torch module `model`")
    return adapter.model


def transformers_model_of(adapter: BackboneAdapter) -> PreTrainedModel:
    """The transformers model behind an adapter.

    Raises:
        CheckSkipped: There is none.
    """
    from transformers import PreTrainedModel  # noqa: PLC0415 (heavy)

    if not (isinstance(adapter, HasModel) and isinstance(adapter.model, PreTrainedModel)):
        raise CheckSkipped(f"{type(adapter).__name__} has no transformers model `model`")
    return adapter.model


def has_prefix(adapter: BackboneAdapter) -> bool:
    """Whether the adapter declares that images and the question see each other both ways; the answer is then causal."""
    return getattr(adapter, "attention_pattern", "undeclared") == "bidirectional prefix"


def before_first_layer(model: PreTrainedModel, inputs: BackboneInputs) -> Tensor:
    """The states `(B, S, D)` that enter the first layer of the language model."""
    from vlm_adapters.hf.language_model import language_model_of  # noqa: PLC0415 (imports transformers)

    found: list[Tensor] = []
    hook = language_model_of(model).layers[0].register_forward_pre_hook(lambda _, args: found.append(args[0]))
    try:
        with torch.no_grad():
            model.base_model(**inputs.tensors, use_cache=False)
    finally:
        hook.remove()
    return found[0]


def continued(adapter: BackboneAdapter, inputs: BackboneInputs, new: Tensor) -> dict[str, Tensor]:
    """Tensors of the inputs of one prompt with the new tokens `(1, T)`, written by the model, at their end."""
    ones = {"attention_mask", "token_type_ids"} if has_prefix(adapter) else {"attention_mask"}
    tensors = dict(inputs.tensors)
    shape = inputs.tensors["input_ids"].shape
    for name, tensor in inputs.tensors.items():
        if tensor.shape == shape:
            added = new if name == "input_ids" else torch.full_like(new, int(name in ones))
            tensors[name] = torch.cat([tensor, added.to(tensor.dtype)], dim=1)
    return tensors
