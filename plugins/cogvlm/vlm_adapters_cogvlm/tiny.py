"""A tiny random CogVLM, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from vlm_adapters.testing.tiny import byte_tokenizer, random_model
from vlm_adapters_cogvlm.adapter import CogVLMAdapter
from vlm_adapters_cogvlm.config import CogVLMConfig
from vlm_adapters_cogvlm.processor import CogVLMProcessor

SPECIAL_TOKENS = {"<unk>": 0, "<s>": 1, "</s>": 2}

SIDE, PATCH = 56, 14
VISION = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "num_positions": (SIDE // PATCH) ** 2 + 1,
    "hidden_size": 32,
    "num_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
}


def tiny_config(**options: Any) -> CogVLMConfig:
    """A config of 3 layers with 4 heads, and 4 x 4 cells of 14 pixels.

    Args:
        options: Values that replace these.
    """
    sizes = {
        "vision_config": VISION,
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.2,
    }
    return CogVLMConfig(**(sizes | options))


def cogvlm(
    *, dtype: torch.dtype = torch.float32, attention: str = "sdpa", template_version: str = "chat"
) -> CogVLMAdapter:
    """Build CogVLM.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        template_version: Format of prompts.
    """
    config = tiny_config(template_version=template_version)
    model: Any = random_model(config, dtype=dtype, attention=attention)
    # Attention at random mixes cells beyond recognition, in the tower and after it, unless they stand out.
    vision = model.base_model.vision
    vision.linear_proj.dense_4h_to_h.weight.data.mul_(4)
    for block in vision.transformer.layers:
        nn.init.constant_(block.input_layernorm.weight, 0.2)
    return CogVLMAdapter(model, CogVLMProcessor.of(config, tiny_tokenizer()), checkpoint="tiny random CogVLM")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the control tokens of Llama."""
    return byte_tokenizer(
        SPECIAL_TOKENS, end="</s>", padding="<unk>", bos_token="<s>", unk_token="<unk>", add_bos_token=True
    )
