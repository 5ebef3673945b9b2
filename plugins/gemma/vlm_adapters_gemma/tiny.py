"""Tiny random models of the real Gemma classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Gemma3Config, Gemma3ImageProcessor, Gemma3Processor, PreTrainedTokenizerFast

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_gemma.adapter import Gemma3Adapter

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
GEMMA3_TOKENS = (*SPECIAL_TOKENS, "<start_of_image>", "<end_of_image>", "<image_soft_token>")
LINE_BREAKS = ("\n\n", "\n\n\n", "\n\n\n\n")
"""Several line breaks are one token in Gemma's vocabulary."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""The published template of Gemma 3, without its handling of system messages."""

SIDE, PATCH, CELLS, WINDOW = 64, 8, 4, 24
TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vision_use_head": False,
}


def gemma3(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Gemma3Adapter:
    """Build Gemma 3: 3 layers of 4 heads, two of which see 24 tokens only; 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = _tokenizer(GEMMA3_TOKENS, image="<image_soft_token>", boi="<start_of_image>", eoi="<end_of_image>")
    square = {"height": SIDE, "width": SIDE}
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size=square), tokenizer, chat_template=CHAT_TEMPLATE, image_seq_length=CELLS**2
    )
    ids = token_ids(tokenizer)
    config = Gemma3Config(
        text_config={
            **TINY_TEXT,
            **_text_ids(ids),
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        vision_config=TOWER,
        mm_tokens_per_image=CELLS**2,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    return Gemma3Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Gemma 3"
    )


def _tokenizer(special_tokens: tuple[str, ...], **names: str) -> PreTrainedTokenizerFast:
    """A tokenizer with Gemma's control tokens, some of them also under the names by which the processor finds them."""
    named = {f"{name}_token": token for name, token in names.items()}
    tokenizer = byte_tokenizer(
        special_tokens, end="<eos>", padding="<pad>", bos_token="<bos>", unk_token="<unk>", extra_special_tokens=named
    )
    tokenizer.add_tokens(list(LINE_BREAKS))
    return tokenizer


def _text_ids(ids: dict[str, int]) -> dict[str, int]:
    return {"pad_token_id": ids["<pad>"], "bos_token_id": ids["<bos>"], "eos_token_id": ids["<eos>"]}
