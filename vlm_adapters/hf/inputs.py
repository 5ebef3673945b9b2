"""From prompts to the inputs of a transformers model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from vlm_adapters.backbone.batch_tensors import BatchTensors
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.geometry import Size
from vlm_adapters.hf.chat import RenderedPrompt, pad, phrase_positions, tokenize
from vlm_adapters.hf.lengths import check_length
from vlm_adapters.hf.placement import pixel_dtype
from vlm_adapters.hf.shared_prefix import process_distinct
from vlm_adapters.prompt import Prompt


class _Backbone(Protocol):
    """What is read of an adapter."""

    processor: Any

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def image_token_ids(self) -> frozenset[int]: ...

    def process_images(self, images: Sequence[Image.Image]) -> BatchFeature: ...

    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]: ...

    def render(self, prompt: Prompt) -> RenderedPrompt: ...


def inputs_of(backbone: _Backbone, prompts: Sequence[Prompt]) -> BackboneInputs:
    """Process the images of prompts, each distinct one once, render and tokenize their texts, and pad them to a batch.

    Raises:
        PromptError: A prompt cannot be encoded, or is too long for the model.
    """
    images = [image for prompt in prompts for image in prompt.images]
    found, distinct = process_distinct(images, backbone.process_images, backbone.select_images)
    features = dict(found)
    ids, mask = features.pop("input_ids"), features.pop("attention_mask").bool()
    # Processors give the types under the name that their model's forward takes.
    type_name = next(name for name in ("mm_token_type_ids", "token_type_ids") if name in features)
    types = features.pop(type_name)
    of_distinct = [(ids[b][keep].tolist(), types[b][keep].tolist()) for b, keep in enumerate(mask)]
    expansions = [of_distinct[index] for index in distinct]
    tokenizer = backbone.processor.tokenizer
    sequences, positions = [], []
    for prompt in prompts:
        of_prompt, expansions = expansions[: len(prompt.images)], expansions[len(prompt.images) :]
        rendered = backbone.render(prompt)
        sequences.append(tokenize(tokenizer, rendered, of_prompt))
        positions.append([phrase_positions(sequences[-1], rendered, prompt, phrase) for phrase in prompt.phrases])
    check_length(max(len(sequence.ids) for sequence in sequences), backbone.model)
    tensors, shifts = pad(sequences, tokenizer, type_name)
    firsts = [images[distinct.index(number)] for number in range(len(of_distinct))]
    image_token_ids = backbone.image_token_ids
    return BackboneInputs(
        prompts=tuple(prompts),
        tensors=BatchTensors(
            _accepted(backbone, tensors),
            _accepted(backbone, features),
            [(image.height, image.width) for image in firsts],
            distinct,
            backbone.select_images,
        ),
        phrase_tokens=tuple(
            tuple(torch.tensor(phrase) + shift for phrase in phrases)
            for phrases, shift in zip(positions, shifts, strict=True)
        ),
        image_tokens=tuple(
            tuple(
                torch.tensor([p + shift for p in image if sequence.ids[p] in image_token_ids]).long()
                for image in sequence.images
            )
            for sequence, shift in zip(sequences, shifts, strict=True)
        ),
    )


def _accepted(backbone: _Backbone, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that the model's forward takes, on the model's device; pixels in the precision of its weights."""
    accepted = signature(type(backbone.model).forward).parameters
    dtype = pixel_dtype(backbone.model)
    return {
        name: tensor.to(backbone.device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in tensors.items()
        if name in accepted
    }
