"""A tiny random model of the real Molmo 2 classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

import torch
from transformers import Molmo2Config, Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_molmo.adapter import Molmo2Adapter

SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>"),
    *("<|image|>", "<im_low>", "<frame_start>", "<frame_end>", "<|video|>"),
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|image|>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The form of Qwen 3, on which Molmo 2 is trained."""

SIDE, PATCH, MARGIN, CROPS = 56, 8, 1, 4


def molmo2(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Molmo2Adapter:
    """Build Molmo 2: 3 layers of 4 heads; crops of 7 x 7 patches of 8 pixels, cells of 2 x 2 patches.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>", bos_token="<|im_end|>")
    processor = Molmo2Processor(
        Molmo2ImageProcessor(
            size={"height": SIDE, "width": SIDE}, patch_size=PATCH, max_crops=CROPS, overlap_margins=[MARGIN, MARGIN]
        ),
        Molmo2VideoProcessor(),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        use_single_crop_col_tokens=False,
    )
    ids = token_ids(tokenizer)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "initializer_range": 0.2,
    }
    config = Molmo2Config(
        text_config={
            **TINY_TEXT,
            "vocab_size": len(tokenizer) - 8,
            "additional_vocab_size": 8,
            "head_dim": 16,
            "initializer_range": 0.1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={**tower, "num_hidden_layers": 2, "image_size": [SIDE, SIDE], "patch_size": PATCH},
        adapter_config={
            **tower,
            "initializer_range": 0.1,
            "vision_feature_layer": [1, 0],
            "text_hidden_size": TINY_TEXT["hidden_size"],
        },
        image_start_token_id=ids["<im_start>"],
        low_res_image_start_token_id=ids["<low_res_im_start>"],
        image_end_token_id=ids["<im_end>"],
        image_patch_id=ids["<im_patch>"],
        frame_start_token_id=ids["<frame_start>"],
        frame_end_token_id=ids["<frame_end>"],
    )
    return Molmo2Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Molmo 2"
    )
