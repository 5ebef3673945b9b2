"""CogVLM: one square grid of an image that is squashed to it; all patches share one position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from typing_extensions import override

from vlm_adapters import ImageLayout, Prompt, TransformersBackbone
from vlm_adapters.errors import ImageError
from vlm_adapters.geometry import Size
from vlm_adapters.hf import RenderedPrompt
from vlm_adapters_cogvlm.config import CogVLMConfig
from vlm_adapters_cogvlm.model import CogVLMForCausalLM, CogVLMModel
from vlm_adapters_cogvlm.processor import CogVLMProcessor
from vlm_adapters_cogvlm.sequence import position_ids_of

AutoConfig.register("cogvlm", CogVLMConfig, exist_ok=True)
AutoModel.register(CogVLMConfig, CogVLMModel, exist_ok=True)
AutoModelForImageTextToText.register(CogVLMConfig, CogVLMForCausalLM, exist_ok=True)
AutoProcessor.register(CogVLMConfig, CogVLMProcessor, exist_ok=True)


class CogVLMAdapter(TransformersBackbone):
    """Adapter for CogVLM."""

    attention_pattern = "causal"
    config_class = CogVLMConfig

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        if len(sizes) > 1:
            raise ImageError(f"CogVLM takes one image per prompt, and {len(sizes)} were given. Leave the others out.")
        cells = self.processor.cells
        side = cells * self.processor.patch_size
        # The learned begin and end of the image stand around its patches.
        return [[ImageLayout(size, (side, side), (side, side), (cells, cells), first=1, last=1)] for size in sizes]

    @override
    def render(self, prompt: Prompt) -> RenderedPrompt:
        rendered = super().render(prompt)
        start = rendered.slots[0][1]  # the template writes the placeholder first
        words = rendered.text[start:]
        if not words or words.startswith(" ") or not self.processor.joins_words_to_image:
            return rendered
        # The text is encoded apart from the image; a space makes of its first word the token that it has so.
        spans = tuple((begin + 1, end + 1) for begin, end in rendered.user_spans)
        return replace(rendered, text=f"{rendered.text[:start]} {words}", user_spans=spans)

    @override
    def position_ids(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return position_ids_of(tensors["token_type_ids"])
