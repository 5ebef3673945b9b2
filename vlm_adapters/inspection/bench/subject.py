"""The model that is measured, and what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from math import prod, sqrt
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.prompt import Prompt
from vlm_adapters.registry.loading import load_adapter, load_published

TEXT = "the tree and the dog beside the bus and the boat"
PHRASES = ("the tree", "the dog", "the bus", "the boat")
"""30 tokens in the stand-in tokenizer of published checkpoints, which has one for every byte."""


@lru_cache(maxsize=1)
def load_model(settings: BenchSettings) -> TransformersBackbone:
    """Load an embedded model or the checkpoint of a folder, or make a published one with random weights.

    Raises:
        CheckpointError: There is no such model here; nothing is downloaded.
        OptionError: The adapter is not one over a transformers model.
    """
    name = str(settings.model)
    local = name in embedded_checkpoints() or Path(name).is_dir()
    adapter = load_adapter(name, device=settings.device, dtype=settings.dtype) if local else load_published(name)
    if adapter is None:
        raise CheckpointError(
            f"No plugin knows the sizes of {name!r}, and nothing is downloaded. Give an embedded model "
            f"({', '.join(embedded_checkpoints())}), a folder, or a checkpoint that `adapters info` shows as published."
        )
    if not isinstance(adapter, TransformersBackbone):
        raise OptionError(f"{name} does not run a transformers model, so there is no plain pass to compare with.")
    if not local:
        adapter = with_random_weights(adapter, settings.device, settings.dtype)
    _allow_pixels(adapter, 2 * max(settings.image_tokens) * prod(adapter.info.cell))
    return adapter


def _allow_pixels(adapter: Any, pixels: int) -> None:
    """Let images keep their size, in families that take them at any."""
    if "max_pixels" in adapter.options:
        adapter.max_pixels = max(adapter.max_pixels, pixels)


def with_random_weights(adapter: TransformersBackbone, device: str, dtype: str) -> TransformersBackbone:
    """Make the model of an adapter on the meta device anew, with random weights, right on its device."""
    torch.manual_seed(0)
    config = deepcopy(adapter.model.config)
    with torch.device(device):
        model = getattr(transformers, adapter.auto_model).from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.02)
    return type(adapter)(model, adapter.processor, checkpoint=adapter.info.checkpoint)


def image_of(adapter: TransformersBackbone, tokens: int) -> Image.Image:
    """An image, four wide and three high, that becomes about so many tokens where the family keeps its size."""
    cell = adapter.info.cell
    return scene(round(sqrt(tokens * 3 / 4)) * cell[0], round(sqrt(tokens * 4 / 3)) * cell[1])


def scene(height: int, width: int) -> Image.Image:
    """A synthetic scene at this size; embedded models warn of any other image."""
    return Scenes(1)[0].image.resize((width, height), Image.Resampling.BICUBIC)


def inputs_of(adapter: TransformersBackbone, tokens: int) -> BackboneInputs:
    """One image of about so many tokens with one sentence of four phrases."""
    return adapter.preprocess([Prompt.describe(image_of(adapter, tokens), TEXT, PHRASES)])


def length_of(inputs: BackboneInputs) -> int:
    """Length of the sequence."""
    return inputs.tensors["input_ids"].shape[1]


@torch.no_grad()
def plain_pass(adapter: TransformersBackbone, inputs: BackboneInputs, **options: bool) -> object:
    """A pass as transformers runs it, without the head over the vocabulary."""
    return adapter.model.base_model(**inputs.tensors, use_cache=False, **options)


@contextmanager
def windows(adapter: TransformersBackbone, *, together: bool) -> Iterator[None]:
    """A block in which the windows of the vision tower go through together, or as transformers runs them."""
    before = adapter.batch_windows
    adapter.batch_windows = together
    try:
        yield
    finally:
        adapter.batch_windows = before


@contextmanager
def kernel(adapter: TransformersBackbone, name: str) -> Iterator[None]:
    """A block in which the model runs another kernel for its attention."""
    before = adapter.model.config._attn_implementation  # noqa: SLF001 - transformers has no public reader
    adapter.model.set_attn_implementation(name)
    try:
        yield
    finally:
        adapter.model.set_attn_implementation(before)
