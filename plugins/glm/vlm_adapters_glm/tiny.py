"""Tiny random GLM-V models of the real classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    Glm4vConfig,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VConfig,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_glm.adapter import Glm4vAdapter

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
)

CHAT_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|begin_of_image|><|image|><|end_of_image|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|begin_of_video|><|video|><|end_of_video|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""The published template without tools; it changes no text."""

MIN_CELLS, MAX_CELLS = 4, 64
"""Limits of the size of the tiny models' images, in cells."""

CELL = 28
"""Side of a cell, in pixels of the resized image."""

_PLANE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 2]}
_TEXT = {**TINY_TEXT, "rope_parameters": _PLANE}
_EXPERTS = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_VISION = {
    "depth": 1,
    "num_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "image_size": 112,
    "initializer_range": 0.02,
}
"""A tower of one layer with small weights: with more, a token answers to its surroundings rather than to its cell."""


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the family's control tokens."""
    return byte_tokenizer(SPECIAL_TOKENS, end="<|endoftext|>", padding="<|endoftext|>")


def build_processor(
    model_type: str, tokenizer: PreTrainedTokenizerBase, videos: Mapping[str, Any] | None = None, **images: Any
) -> Any:
    """Build a processor of the family.

    Args:
        model_type: `glm4v`, `glm4v_moe` or `glm46v`.
        tokenizer: A tokenizer with the family's control tokens.
        videos: Arguments of the video processor; None takes its defaults.
        images: Arguments of the image processor.
    """
    classes: Any = (Glm4vProcessor, Glm4vImageProcessor, Glm4vVideoProcessor)
    if model_type == "glm46v":
        classes = (Glm46VProcessor, Glm46VImageProcessor, Glm46VVideoProcessor)
    processor, image_processor, video_processor = classes
    return processor(image_processor(**images), tokenizer, video_processor(**videos or {}), chat_template=CHAT_TEMPLATE)


def _adapter(
    config_class: Any, text: dict[str, Any], vision: dict[str, Any], *, dtype: torch.dtype, attention: str
) -> Glm4vAdapter:
    tokenizer = byte_level_tokenizer()
    ids = token_ids(tokenizer)
    control = {"bos_token_id": None, "eos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"]}
    config = config_class(
        text_config={**text, "vocab_size": len(tokenizer), **control},
        vision_config=vision,
        image_token_id=ids["<|image|>"],
        video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"],
        image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"],
        video_end_token_id=ids["<|end_of_video|>"],
    )
    frames = 2  # of an image, which the limits count
    limits = {"shortest_edge": frames * MIN_CELLS * CELL**2, "longest_edge": frames * MAX_CELLS * CELL**2}
    processor = build_processor(config.model_type, tokenizer, videos={"size": limits}, size=limits)
    model = random_model(config, dtype=dtype, attention=attention)
    return Glm4vAdapter(model, processor, checkpoint=f"tiny random {config_class.model_type}")


def glm4v(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Glm4vAdapter:
    """Build GLM-4.1V: 3 layers of 4 heads in groups that share keys."""
    return _adapter(Glm4vConfig, _TEXT, _VISION, dtype=dtype, attention=attention)


def glm4v_moe(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Glm4vAdapter:
    """Build GLM-4.5V: after a dense layer 4 experts, of which 2 are used per token."""
    return _adapter(Glm4vMoeConfig, {**_TEXT, **_EXPERTS}, _VISION, dtype=dtype, attention=attention)


def glm46v(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Glm4vAdapter:
    """Build GLM-4.6V-Flash: the parts of GLM-4.1V in a model of its own."""
    text, vision = {"model_type": "glm4v_text", **_TEXT}, {"model_type": "glm4v_vision", **_VISION}
    return _adapter(Glm46VConfig, text, vision, dtype=dtype, attention=attention)
