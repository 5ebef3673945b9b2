"""A tiny random model of the real InternVL classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

import torch
from transformers import GotOcr2ImageProcessor, InternVLConfig, InternVLProcessor
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_internvl.adapter import InternVLAdapter

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template, for images and texts."""

TOKEN_NAMES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""How the published tokenizer names its control tokens for images."""

SIDE, PATCH, MAX_TILES = 64, 8, 6


def internvl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> InternVLAdapter:
    """Build InternVL: 3 layers of 4 heads, up to 6 tiles of 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(
        SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>", extra_special_tokens=TOKEN_NAMES
    )
    square = {"height": SIDE, "width": SIDE}
    cells = (SIDE // PATCH // 2) ** 2
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=square, max_patches=MAX_TILES),
        tokenizer,
        InternVLVideoProcessor(size=square),
        image_seq_length=cells,
        chat_template=CHAT_TEMPLATE,
    )
    config = InternVLConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH],
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "initializer_range": 0.2,
        },
        image_token_id=token_ids(tokenizer)["<IMG_CONTEXT>"],
        image_seq_length=cells,
    )
    return InternVLAdapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random InternVL"
    )
