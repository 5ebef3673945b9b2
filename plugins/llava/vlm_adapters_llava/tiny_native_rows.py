"""Tiny random models with a Pixtral tower of the real classes, for the conformance suite."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaConfig, Mistral3Config, PixtralImageProcessor, PixtralProcessor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model
from vlm_adapters_llava.adapter import LlavaAdapter
from vlm_adapters_llava.native_rows import Mistral3Adapter

SPECIAL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
)

CHAT_TEMPLATE = (
    "<s>{% for message in messages %}{% set role = message['role'] %}"
    "{{ {'user': '[INST]', 'system': '[SYSTEM_PROMPT]', 'assistant': ''}[role] }}"
    "{% for part in message['content'] %}{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ {'user': '[/INST]', 'system': '[/SYSTEM_PROMPT]', 'assistant': '</s>'}[role] }}{% endfor %}"
)
"""The published format."""

LONGEST, PATCH, MERGE = 128, 8, 2
TOWER = {
    "model_type": "pixtral",
    "image_size": LONGEST,
    "patch_size": PATCH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}


def mistral3(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Mistral3Adapter:
    """Build Mistral 3: 3 layers of 4 heads, cells of 2 x 2 patches of 8 pixels, images of up to 128 pixels a side.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    processor = _processor(spatial_merge_size=MERGE)
    config = Mistral3Config(
        text_config={"model_type": "mistral", **_text(processor)},
        vision_config=TOWER,
        image_token_index=processor.image_token_id,
        spatial_merge_size=MERGE,
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return Mistral3Adapter(model, processor, checkpoint="tiny random Mistral 3")


def pixtral(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> LlavaAdapter:
    """Build LLaVA with a Pixtral tower: as Mistral 3, each patch a cell.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    processor = _processor(spatial_merge_size=1)
    config = LlavaConfig(
        text_config={"model_type": "mistral", **_text(processor)},
        vision_config=TOWER,
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return LlavaAdapter(model, processor, checkpoint="tiny random Pixtral")


def _processor(spatial_merge_size: int) -> Any:
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="</s>", padding="<pad>")
    images = PixtralImageProcessor(size={"longest_edge": LONGEST}, patch_size={"height": PATCH, "width": PATCH})
    return PixtralProcessor(
        images, tokenizer, patch_size=PATCH, spatial_merge_size=spatial_merge_size, chat_template=CHAT_TEMPLATE
    )


def _text(processor: Any) -> dict[str, Any]:
    return {"vocab_size": len(processor.tokenizer), "head_dim": 16, "sliding_window": None, **TINY_TEXT}
