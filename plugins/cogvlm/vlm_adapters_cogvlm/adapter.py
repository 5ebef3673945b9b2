"""CogVLM: one square grid of an image that is squashed to it; all patches share one position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
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
    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        cells = self.processor.cells
        side = cells * self.processor.patch_size
        return [ImageLayout(size, (side, side), (side, side), (cells, cells), first=1, last=1)]

    @override
    def position_ids(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return position_ids_of(tensors["token_type_ids"])
