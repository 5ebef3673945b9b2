"""Tiny random models of the real LLaVA classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Literal

import torch
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_llava.adapter import LlavaAdapter, LlavaNextAdapter

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<image>", "<pad>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] + (' ' if message['role'] != 'assistant' else '</s>') }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The published template of LLaVA-1.5 (vicuna's), each answer ended as it was in training."""

SIDE, PATCH = 64, 8
TOWER = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
PINPOINTS = [[64, 128], [128, 64], [128, 128], [192, 64], [64, 192]]
"""As published, in units of the tile: 2 wide, 2 high, 4, 3 high, 3 wide."""


def llava(
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    vision_feature_select_strategy: Literal["default", "full"] = "default",
) -> LlavaAdapter:
    """Build LLaVA: 3 layers of 4 heads, 8 x 8 cells of 8 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        vision_feature_select_strategy: `"default"` drops the class token, `"full"` keeps it.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="</s>", padding="<pad>")
    square = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square),
        tokenizer,
        patch_size=PATCH,
        num_additional_image_tokens=1,
        vision_feature_select_strategy=vision_feature_select_strategy,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={"model_type": "clip_vision_model", **TOWER},
        image_token_index=token_ids(tokenizer)["<image>"],
        vision_feature_select_strategy=vision_feature_select_strategy,
    )
    return LlavaAdapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random LLaVA"
    )


def llava_next(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> LlavaNextAdapter:
    """Build LLaVA-Next: as LLaVA, with up to 4 tiles.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="</s>", padding="<pad>")
    square = {"height": SIDE, "width": SIDE}
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        patch_size=PATCH,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaNextConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={"model_type": "clip_vision_model", **TOWER},
        image_token_index=token_ids(tokenizer)["<image>"],
        image_grid_pinpoints=PINPOINTS,
    )
    return LlavaNextAdapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random LLaVA-Next"
    )
