"""Tiny random models of the real MiniCPM-V classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoConfig, MiniCPMV4_6ImageProcessor, MiniCPMV4_6VideoProcessor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_minicpm.adapter import MiniCPMVAdapter

NAMED_TOKENS = {
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "image_start": "<image>",
    "image_end": "</image>",
    "slice_start": "<slice>",
    "slice_end": "</slice>",
    "image_id_start": "<image_id>",
    "image_id_end": "</image_id>",
}
"""Control tokens by the names under which the processor looks for them."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|image_pad|>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The form of Qwen 3.5, MiniCPM-V's language model."""

PATCH, SIDE, SLICES = 4, 64, 4


def minicpmv4_6(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> MiniCPMVAdapter:
    """Build MiniCPM-V 4.6: 4 layers, the last of which has attention; up to 4 slices of 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    return _adapter("minicpmv4_6", "MiniCPMV4_6Processor", {"dtype": dtype, "attention": attention})


def minicpmv4_7(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> MiniCPMVAdapter:
    """Build MiniCPM-V 4.7: as `minicpmv4_6`, with positions of all slices on one canvas.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    return _adapter("minicpmv4_7", "MiniCPMV4_7Processor", {"dtype": dtype, "attention": attention})


def _adapter(model_type: str, processor_class: str, options: dict[str, Any]) -> MiniCPMVAdapter:
    tokenizer = byte_tokenizer(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED_TOKENS.values()),
        end="<|im_end|>",
        padding="<|endoftext|>",
        extra_special_tokens={f"{name}_token": token for name, token in NAMED_TOKENS.items()},
    )
    slicing = {"patch_size": PATCH, "scale_resolution": SIDE, "max_slice_nums": SLICES}
    # By name: releases before 5.20 lack some of them.
    processor = getattr(transformers, processor_class)(
        MiniCPMV4_6ImageProcessor(**slicing),
        MiniCPMV4_6VideoProcessor(**slicing),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    ids = token_ids(tokenizer)
    text = {
        **TINY_TEXT,
        "model_type": "qwen3_5_text",
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "num_hidden_layers": 4,
        "initializer_range": 0.05,  # linear attention mixes tokens strongly with larger weights
        "head_dim": 16,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [2, 3, 3],
            "mrope_interleaved": True,
            "partial_rotary_factor": 1.0,
        },
    }
    markers = {"image_start", "image_end", "slice_start", "slice_end"} if model_type == "minicpmv4_7" else set()
    config = AutoConfig.for_model(
        model_type,
        text_config=text,
        vision_config={
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "initializer_range": 0.2,
        },
        insert_layer_id=0,
        image_size=SIDE,
        image_token_id=ids[NAMED_TOKENS["image"]],
        video_token_id=ids[NAMED_TOKENS["video"]],
        **{f"{name}_id": ids[NAMED_TOKENS[name]] for name in markers},
        **({"newline_id": tokenizer.convert_tokens_to_ids("\u010a")} if markers else {}),
    )
    return MiniCPMVAdapter(random_model(config, **options), processor, checkpoint=f"tiny random {model_type}")
