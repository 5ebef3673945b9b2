"""A tiny random LLaVA-OneVision of the real classes, for the conformance suite."""

from __future__ import annotations

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_llava.onevision import LlavaOnevisionAdapter

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template."""

TILE, PATCH, MOST = 54, 8, 3
"""Pixels of a tile and of a patch (6 of a tile belong to none, as at 384 and 14); how many tiles of cells remain."""
PINPOINTS = [[rows * TILE, columns * TILE] for rows in range(1, 4) for columns in range(1, 4)]
"""As published, where it is up to 6 tiles along each side."""


def llava_onevision(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> LlavaOnevisionAdapter:
    """Build LLaVA-OneVision: 3 layers of 4 heads, tiles of 6 x 6 cells of 8 pixels, at most 3 tiles of cells.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>")
    size = {"height": TILE, "width": TILE}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{MOST}",
        chat_template=CHAT_TEMPLATE,
    )
    ids = token_ids(tokenizer)
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": TILE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vision_use_head": False,
        },
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio=f"anyres_max_{MOST}",
    )
    return LlavaOnevisionAdapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random LLaVA-OneVision"
    )
