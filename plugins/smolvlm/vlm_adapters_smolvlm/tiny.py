"""Tiny random models of the real Idefics3 and SmolVLM classes, for the conformance suite: no download."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_smolvlm.adapter import SmolVLMAdapter

SPECIAL_TOKENS = (
    *("<|im_start|>", "<end_of_utterance>", "<pad>", "<fake_token_around_image>", "<image>", "<global-img>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The published template."""

PATCH, SCALE, CELLS, MOST_TILES = 8, 2, 4, 3
"""Pixels of a patch, patches along a side of a cell, cells along a side of a tile, tiles along the long side."""
EVEN_TILE, SEAMED_TILE = 64, 70
"""A tile that its cells fill, as at 512 pixels, and one with 6 pixels more, as at 384 (27 patches of 14)."""


def idefics3(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> SmolVLMAdapter:
    """Build Idefics3: 3 layers of 4 heads, tiles of 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<end_of_utterance>", padding="<pad>")
    images = Idefics3ImageProcessor(**_sizes(EVEN_TILE))
    processor = Idefics3Processor(images, tokenizer, image_seq_len=CELLS**2, chat_template=CHAT_TEMPLATE)
    config = Idefics3Config(**_settings(EVEN_TILE, len(tokenizer), token_ids(tokenizer)["<image>"]))
    model = random_model(config, dtype=dtype, attention=attention)
    return SmolVLMAdapter(model, processor, checkpoint="tiny random Idefics3")


def smolvlm(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> SmolVLMAdapter:
    """Build SmolVLM2: as Idefics3, with 6 pixels at the right and the bottom of every tile that belong to no cell.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<end_of_utterance>", padding="<pad>")
    sizes = _sizes(SEAMED_TILE)
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**sizes),
        tokenizer,
        SmolVLMVideoProcessor(**sizes),
        image_seq_len=CELLS**2,
        chat_template=CHAT_TEMPLATE,
    )
    config = SmolVLMConfig(**_settings(SEAMED_TILE, len(tokenizer), token_ids(tokenizer)["<image>"]))
    model = random_model(config, dtype=dtype, attention=attention)
    return SmolVLMAdapter(model, processor, checkpoint="tiny random SmolVLM2")


def _sizes(tile: int) -> dict[str, Any]:
    return {"size": {"longest_edge": MOST_TILES * tile}, "max_image_size": {"longest_edge": tile}}


def _settings(tile: int, vocabulary: int, image_token: int) -> dict[str, Any]:
    """The arguments of both configs."""
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "text_config": {"model_type": "llama", "vocab_size": vocabulary, **TINY_TEXT},
        "vision_config": {"image_size": tile, "patch_size": PATCH, "initializer_range": 0.2, **tower},
        "image_token_id": image_token,
        "scale_factor": SCALE,
    }
