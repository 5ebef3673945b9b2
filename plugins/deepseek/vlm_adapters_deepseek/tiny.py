"""Tiny random models of the real DeepSeek-VL classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLHybridConfig,
    DeepseekVLHybridImageProcessor,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    PreTrainedTokenizerFast,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_deepseek.adapter import DeepseekVLAdapter, DeepseekVLHybridAdapter

SPECIAL_TOKENS = ("<begin>", "<end>", "<image_placeholder>", "<pad>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() + ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image_placeholder>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<end>' if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The published template, without its system prompt and with a plain end token."""

SIDE, FINE_SIDE, PATCH, CELLS = 64, 128, 8, 8
TOWER = {
    "model_type": "siglip_vision_model",
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vision_use_head": False,
}


def deepseek_vl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> DeepseekVLAdapter:
    """Build DeepSeek-VL with one tower: 3 layers of 4 heads, 8 x 8 cells of 8 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = tiny_tokenizer()
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        num_image_tokens=CELLS**2,
    )
    config = DeepseekVLConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config=TOWER,
        image_token_id=token_ids(tokenizer)["<image_placeholder>"],
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return DeepseekVLAdapter(model, processor, checkpoint="tiny random DeepSeek-VL")


def deepseek_vl_hybrid(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> DeepseekVLHybridAdapter:
    """Build DeepSeek-VL with two towers, the second for 128 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision towers.
    """
    tokenizer = tiny_tokenizer()
    processor = DeepseekVLHybridProcessor(
        DeepseekVLHybridImageProcessor(
            size={"height": SIDE, "width": SIDE}, high_res_size={"height": FINE_SIDE, "width": FINE_SIDE}
        ),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        num_image_tokens=CELLS**2,
    )
    config = DeepseekVLHybridConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config=TOWER,
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "image_size": FINE_SIDE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "mlp_dim": 48,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "window_size": 4,
            "global_attn_indexes": [0],
        },
        image_token_id=token_ids(tokenizer)["<image_placeholder>"],
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return DeepseekVLHybridAdapter(model, processor, checkpoint="tiny random DeepSeek-VL hybrid")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the family's control tokens."""
    return byte_tokenizer(
        SPECIAL_TOKENS, end="<end>", padding="<pad>", extra_special_tokens={"image_token": "<image_placeholder>"}
    )
