"""Memory of grounding an image: the real model, decoder and Segment Anything run on the meta device.

Counted is every tensor of these passes by itself: the inputs, what the vision tower, the language model and the
decoder make, the recorded maps and states. Not counted is what an allocator keeps beyond tensors, and most of what a
kernel uses inside: fused attention counts as its output. Convolutions and small enlargements are counted with the
copies in another memory layout that they work on.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.embedded.unlike_scenes import images_of_our_own
from vlm_adapters.errors import PromptError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.hf.language_model import language_model_of
from vlm_adapters.inspection.memory import FusedAttention
from vlm_adapters.inspection.meta_pass import MetaPass, ValuesOfPython
from vlm_adapters.prompt import Prompt

_WORDS = ("cat", "a red cat")
"""Phrases of about three tokens: for a tokenizer of bytes, and for one of words."""


@dataclass(frozen=True)
class GroundingMemory:
    """Bytes beyond the weights while an image is grounded.

    Attributes:
        tokens: Length of the sequence.
        image_tokens: Number of tokens of the image.
        inputs: The inputs of the model, pixels included.
        vision: Peak while the vision tower runs.
        language: Peak while the language model runs, its rows recorded.
        kept: Maps and phrase states when the pass has ended.
        sam: Peak while Segment Anything encodes the image; 0 without it.
        decoder: Peak while masks are made of the maps; 0 if only maps are extracted.
    """

    tokens: int
    image_tokens: int
    inputs: int
    vision: int
    language: int
    kept: int
    sam: int
    decoder: int

    @property
    def peak(self) -> int:
        """The most of all."""
        return max(self.vision, self.language, self.sam, self.decoder)


@dataclass(frozen=True)
class Scene:
    """What is grounded.

    Attributes:
        image: `(H, W)` in pixels.
        phrases: Number of phrases, of about three tokens each.
    """

    image: Size
    phrases: int

    def prompt(self, adapter: TransformersBackbone) -> Prompt:
        """A prompt of this size: a black image, and a text that is a list of the phrases."""
        tokenizer = adapter.processor.tokenizer
        long = len(tokenizer(_WORDS[0], add_special_tokens=False)["input_ids"]) > 1
        word, height, width = _WORDS[0 if long else 1], *self.image
        step = len(word) + 1
        spans = [(step * index, step * index + len(word)) for index in range(self.phrases)]
        return Prompt.describe(Image.new("RGB", (width, height)), f"{word} " * self.phrases, spans)


def on_meta(adapter: TransformersBackbone, dtype: torch.dtype) -> TransformersBackbone:
    """The same adapter over the same model on the meta device, in a dtype."""
    model, sized = adapter.model, dict[int, Any]()
    for weight in model.parameters():
        kind = dtype if weight.is_floating_point() else weight.dtype
        sized[id(weight)] = nn.Parameter(torch.empty_like(weight, dtype=kind, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        sized[id(buffer)] = torch.empty_like(buffer, device="meta")
    twin = copy(adapter)
    twin.model = deepcopy(model, sized)  # with the hooks of the adapter
    if model.config._attn_implementation not in ("eager", "sdpa"):  # noqa: SLF001 - transformers has no public reader
        twin.model.set_attn_implementation("sdpa")
    return twin


@images_of_our_own()
def grounding_memory(
    adapter: TransformersBackbone, scene: Scene, request: GridRequest, decoder: MaskDecoder | None = None
) -> GroundingMemory:
    """Count the memory of grounding.

    Args:
        adapter: An adapter with its model on the meta device; see `on_meta`.
        scene: What is grounded.
        request: What is extracted; a decoder has its own request.
        decoder: The decoder on the meta device, with its refiner; None to extract only.

    Raises:
        ImageError: The family takes no image of this size.
        PromptError: There are more phrases than the model has positions for.
        BackboneError: The computation of the model depends on values that are not there.
    """
    prompt = scene.prompt(adapter)
    try:
        inputs = adapter.preprocess([prompt])
    except PromptError as error:
        raise PromptError(
            f"{scene.phrases:,} phrases do not fit in one call: {error} Ground them in several calls."
        ) from error
    image_tokens = sum(len(tokens) for tokens in inputs.image_tokens[0])
    parts = nn.ModuleList([adapter.model, *([decoder] if decoder else [])])
    counter = MetaPass(parts)
    with torch.no_grad(), FusedAttention(), ValuesOfPython(), counter:
        found = _peaks(adapter, prompt, _moved(inputs), request, decoder, counter)
    return GroundingMemory(inputs.tensors["input_ids"].shape[1], image_tokens, **found)


def _moved(inputs: BackboneInputs) -> BackboneInputs:
    return replace(inputs, tensors={name: tensor.to("meta") for name, tensor in inputs.tensors.items()})


def _peaks(
    adapter: TransformersBackbone,
    prompt: Prompt,
    inputs: BackboneInputs,
    request: GridRequest,
    decoder: MaskDecoder | None,
    counter: MetaPass,
) -> dict[str, int]:
    """The peak of every part, in the order in which `GroundedVLM` runs them; it writes one mask after the other."""
    peaks = {"inputs": counter.next_peak(), "vision": 0, "sam": 0, "decoder": 0}
    encoded = []
    if decoder and decoder.refiner:
        encoded = [decoder.refiner.sam.encode(prompt.first_image)]
        peaks["sam"] = counter.next_peak()
    first_layer = language_model_of(adapter.model).layers[0]
    hook = first_layer.register_forward_pre_hook(lambda *_: peaks.update(vision=counter.next_peak()))
    try:
        grids = adapter.extract(inputs, decoder.request.grids if decoder else request)[0]
    finally:
        hook.remove()
    peaks |= {"language": counter.next_peak(), "kept": counter.live}
    if decoder:
        features = PhraseFeatures.of(grids, decoder.request, adapter.info)
        del grids
        logits = decoder([features], encoded)[0]
        image = prompt.first_image
        next(logits.by_phrase()).at_image_size((image.height, image.width)).sigmoid()  # a mask over all of the image
        peaks["decoder"] = counter.next_peak()
    return peaks
