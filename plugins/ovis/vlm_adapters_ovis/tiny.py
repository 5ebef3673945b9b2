"""A tiny random model of the real Ovis 2 classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

import torch
from transformers import Ovis2Config, Ovis2ImageProcessor, Ovis2Processor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_ovis.adapter import Ovis2Adapter

INDICATORS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<IMG_ATOM>", *INDICATORS)
"""As published, the placeholder `<image>` is not among them: the processor replaces it in the text."""

CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template, for images and texts."""

SIDE, PATCH, STRIDE, MAX_TILES = 64, 8, 2, 6


def ovis2(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Ovis2Adapter:
    """Build Ovis 2: 3 layers of 4 heads, up to 6 tiles of 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>")
    ids = token_ids(tokenizer)
    processor = Ovis2Processor(
        Ovis2ImageProcessor(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=MAX_TILES),
        tokenizer,
        image_seq_length=(SIDE // PATCH // STRIDE) ** 2,
        chat_template=CHAT_TEMPLATE,
    )
    config = Ovis2Config(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_stride": STRIDE,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 64,
            "num_visual_indicator_tokens": len(INDICATORS),
            "initializer_range": 0.05,
        },
        image_token_id=ids["<IMG_ATOM>"],
        visual_indicator_token_ids=[ids[token] for token in INDICATORS],
        hidden_size=TINY_TEXT["hidden_size"],
        vocab_size=len(tokenizer),
    )
    return Ovis2Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Ovis 2"
    )
