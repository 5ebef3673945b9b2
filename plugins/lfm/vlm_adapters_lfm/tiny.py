"""A tiny random LFM2-VL of the real classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Lfm2VlConfig, Lfm2VlImageProcessor, Lfm2VlProcessor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_lfm.adapter import Lfm2VlAdapter

SPECIAL_TOKENS = (
    *("<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"),
    *("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"),
    *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)),
)

CHAT_TEMPLATE = (
    "{{ '<|startoftext|>' }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template, without tools."""

PATCH, MERGE, TILE, MOST_TILES, FEWEST_CELLS, MOST_CELLS = 8, 2, 64, 4, 4, 16


def lfm2_vl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa", **options: Any) -> Lfm2VlAdapter:
    """Build LFM2-VL: 4 layers of 4 heads, two of them convolutions; tiles of 4 x 4 cells of 16 pixels, at most 4.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        options: Passed to the image processor.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|pad|>")
    images = Lfm2VlImageProcessor(
        encoder_patch_size=PATCH,
        downsample_factor=MERGE,
        tile_size=TILE,
        max_tiles=MOST_TILES,
        min_image_tokens=FEWEST_CELLS,
        max_image_tokens=MOST_CELLS,
        **options,
    )
    processor = Lfm2VlProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)
    config = Lfm2VlConfig(
        text_config={
            "model_type": "lfm2",
            "vocab_size": len(tokenizer),
            **TINY_TEXT,
            "num_hidden_layers": 4,
            "layer_types": ["full_attention", "conv", "conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "patch_size": PATCH,
            "num_patches": (TILE // PATCH) ** 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vision_use_head": False,
        },
        image_token_id=token_ids(tokenizer)["<image>"],
        downsample_factor=MERGE,
        projector_hidden_size=64,
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return Lfm2VlAdapter(model, processor, checkpoint="tiny random LFM2-VL")
