"""Tiny random models of the real Aya Vision and Command A Vision classes: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AyaVisionConfig,
    AyaVisionProcessor,
    Cohere2VisionConfig,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    GotOcr2ImageProcessor,
    PreTrainedTokenizerBase,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_cohere.adapter import AyaVisionAdapter, Cohere2VisionAdapter

SPECIAL_TOKENS = (
    "<PAD>",
    "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|START_OF_IMG|>",
    "<|END_OF_IMG|>",
    "<|IMG_LINE_BREAK|>",
    "<|IMG_PATCH|>",
    "TILE_GLOBAL",
    *(f"TILE_{number}" for number in range(1, 7)),
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|START_OF_TURN_TOKEN|>"
    "{{ {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>', 'system': '<|SYSTEM_TOKEN|>'}[message['role']] }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ image_token }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
"""The published format of turns, for images and texts, without the system's introduction of itself."""

TOKEN_NAMES = {
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
    "image_token": "<|IMG_PATCH|>",
}
"""How the tokenizer of Command A Vision names its control tokens for images."""

SIDE, PATCH, FACTOR, MAX_TILES = 64, 8, 2, 6
SQUARE = {"height": SIDE, "width": SIDE}
TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vision_use_head": False,
}


def aya_vision(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> AyaVisionAdapter:
    """Build Aya Vision: 3 layers of 4 heads, up to 6 tiles of 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<|END_OF_TURN_TOKEN|>", padding="<PAD>", bos_token="<BOS_TOKEN>")
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessor(size=SQUARE, max_patches=MAX_TILES),
        tokenizer,
        patch_size=PATCH,
        downsample_factor=FACTOR,
        img_size=SIDE,
        chat_template=CHAT_TEMPLATE.replace("image_token", "'<image>'"),
    )
    config = AyaVisionConfig(
        text_config=_text_config(tokenizer),
        vision_config=TOWER,
        downsample_factor=FACTOR,
        image_token_index=token_ids(tokenizer)["<|IMG_PATCH|>"],
    )
    return AyaVisionAdapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Aya Vision"
    )


def cohere2_vision(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Cohere2VisionAdapter:
    """Build Command A Vision: as Aya Vision, each tile followed by a token of its own.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(
        SPECIAL_TOKENS,
        end="<|END_OF_TURN_TOKEN|>",
        padding="<PAD>",
        bos_token="<BOS_TOKEN>",
        extra_special_tokens=TOKEN_NAMES,
    )
    processor = Cohere2VisionProcessor(
        Cohere2VisionImageProcessor(size=SQUARE, max_patches=MAX_TILES, patch_size=SIDE // PATCH // FACTOR),
        tokenizer,
        chat_template=CHAT_TEMPLATE.replace("image_token", "'<|IMG_PATCH|>'"),
    )
    config = Cohere2VisionConfig(
        text_config=_text_config(tokenizer),
        vision_config=TOWER,
        downsample_factor=FACTOR,
        alignment_intermediate_size=96,
        image_token_id=token_ids(tokenizer)["<|IMG_PATCH|>"],
    )
    return Cohere2VisionAdapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Command A Vision"
    )


def _text_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A language model whose first and last layer see the last 64 tokens."""
    ids = token_ids(tokenizer)
    return {
        "model_type": "cohere2",
        **TINY_TEXT,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "vocab_size": len(tokenizer),
        "bos_token_id": ids["<BOS_TOKEN>"],
        "eos_token_id": ids["<|END_OF_TURN_TOKEN|>"],
        "pad_token_id": ids["<PAD>"],
    }
