"""Tiny random Qwen-VL models of the real classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_qwen.adapter import QwenAdapter

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template without tools and video; it changes no text."""

MIN_CELLS, MAX_CELLS = 4, 64
"""Limits of the size of the tiny models' images, in cells."""

_TOWER: dict[str, Any] = {"depth": 2, "num_heads": 2, "initializer_range": 0.2}
_TOWER_2_5 = {
    **_TOWER,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "fullatt_block_indexes": [1],
    "window_size": 112,
}
_TOWER_3 = {
    **_TOWER,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
_PLANE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_INTERLEAVED = {**_PLANE, "mrope_interleaved": True}


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the family's control tokens."""
    return byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>")


def build_processor(processor_class: type, tokenizer: PreTrainedTokenizerBase, **images: Any) -> Any:
    """Build a processor of the family.

    Args:
        processor_class: `Qwen2VLProcessor`, `Qwen2_5_VLProcessor` or `Qwen3VLProcessor`.
        tokenizer: A tokenizer with the family's control tokens.
        images: Arguments of `Qwen2VLImageProcessor`.
    """
    return processor_class(
        image_processor=Qwen2VLImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor() if processor_class is Qwen3VLProcessor else Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def _adapter(
    config_class: Any,
    processor_class: type,
    text: dict[str, Any],
    vision: dict[str, Any],
    options: dict[str, Any],
) -> QwenAdapter:
    tokenizer = byte_level_tokenizer()
    ids = token_ids(tokenizer)
    config = config_class(
        text_config={
            **TINY_TEXT,
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            **text,
        },
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    patch = config.vision_config.patch_size
    cell = (2 * patch) ** 2
    processor = build_processor(
        processor_class,
        tokenizer,
        patch_size=patch,
        merge_size=2,
        # Given as min_pixels and max_pixels, they become the defaults of every later processor in transformers 5.17.
        size={"shortest_edge": MIN_CELLS * cell, "longest_edge": MAX_CELLS * cell},
    )
    return QwenAdapter(random_model(config, **options), processor, checkpoint=f"tiny random {config_class.model_type}")


def qwen2_vl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen2-VL: 3 layers of 4 heads in groups that share keys, cells of 28 pixels."""
    options = {"dtype": dtype, "attention": attention}
    vision = {**_TOWER, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return _adapter(Qwen2VLConfig, Qwen2VLProcessor, {"rope_parameters": _PLANE}, vision, options)


def qwen2_5_vl(
    *, seed: int = 0, dtype: torch.dtype = torch.float32, attention: str = "sdpa", key_value_heads: int = 2
) -> QwenAdapter:
    """Build Qwen2.5-VL: 3 layers of 4 heads in groups that share keys, cells of 28 pixels.

    Args:
        seed: Seed of the random weights.
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        key_value_heads: Number of key heads; fewer than 4 means grouped queries.
    """
    text = {"rope_parameters": _PLANE, "num_key_value_heads": key_value_heads}
    options = {"seed": seed, "dtype": dtype, "attention": attention}
    return _adapter(Qwen2_5_VLConfig, Qwen2_5_VLProcessor, text, _TOWER_2_5, options)


def qwen3_vl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3-VL: 3 layers of 4 heads, cells of 32 pixels, features of one early vision layer added again."""
    text = {"rope_parameters": _INTERLEAVED, "head_dim": 16}
    options = {"dtype": dtype, "attention": attention}
    vision = {**_TOWER_3, "deepstack_visual_indexes": [0]}
    return _adapter(Qwen3VLConfig, Qwen3VLProcessor, text, vision, options)


def qwen3_vl_moe(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3-VL with 4 experts, of which 2 are used per token."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    text = {"rope_parameters": _INTERLEAVED, "head_dim": 16, **experts}
    options = {"dtype": dtype, "attention": attention}
    vision = {**_TOWER_3, "deepstack_visual_indexes": [0]}
    return _adapter(Qwen3VLMoeConfig, Qwen3VLProcessor, text, vision, options)


def qwen3_5(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3.5: 8 layers of which every 4th has attention."""
    linear = {
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    }
    rope = {**_INTERLEAVED, "partial_rotary_factor": 1.0}
    text = {"num_hidden_layers": 8, "rope_parameters": rope, "head_dim": 16, **linear}
    options = {"dtype": dtype, "attention": attention}
    return _adapter(Qwen3_5Config, Qwen3VLProcessor, text, _TOWER_3, options)
