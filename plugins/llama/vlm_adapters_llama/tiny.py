"""A tiny random model of the real Llama 4 classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

import torch
from transformers import Llama4Config, Llama4ImageProcessor, Llama4Processor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_llama.adapter import Llama4Adapter

SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|eot|>",
    "<|finetune_right_pad|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    "<|image|>",
    "<|patch|>",
)

SIDE, PATCH, MAX_TILES = 64, 8, 6


def llama4(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa", chunk: int = 4096) -> Llama4Adapter:
    """Build Llama 4: 3 layers of 4 heads, the second without rotation, two experts, up to 6 tiles of 4 x 4 cells.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        chunk: Tokens of a chunk; in the first and last layer a token sees those of its chunk only.
    """
    tokenizer = byte_tokenizer(
        SPECIAL_TOKENS, end="<|eot|>", padding="<|finetune_right_pad|>", bos_token="<|begin_of_text|>"
    )
    ids = token_ids(tokenizer)
    processor = Llama4Processor(  # its own chat template is the published one
        Llama4ImageProcessor(size={"height": SIDE, "width": SIDE}, max_patches=MAX_TILES),
        tokenizer,
        patch_size=PATCH,
    )
    config = Llama4Config(
        text_config={
            "vocab_size": len(tokenizer),
            **TINY_TEXT,
            "intermediate_size_mlp": 96,
            "head_dim": 16,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 2,
            "attention_chunk_size": chunk,
            "bos_token_id": ids["<|begin_of_text|>"],
            "eos_token_id": ids["<|eot|>"],
            "pad_token_id": ids["<|finetune_right_pad|>"],
        },
        vision_config={
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projector_input_dim": 48,
            "projector_output_dim": 48,
            "vision_output_dim": 48,
            "initializer_range": 0.2,
        },
        image_token_index=ids["<|patch|>"],
        boi_token_index=ids["<|image_start|>"],
        eoi_token_index=ids["<|image_end|>"],
    )
    return Llama4Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Llama 4"
    )
