"""A tiny random Fuyu of the real classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

import torch
from transformers import FuyuConfig, FuyuImageProcessor, FuyuProcessor
from transformers.image_utils import SizeDict

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_fuyu.adapter import FuyuAdapter

SPECIAL_TOKENS = ("<s>", "</s>", "|SPEAKER|", "|NEWLINE|", "<0x04>", "<pad>")
PATCH, MOST = 16, 160


def fuyu(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> FuyuAdapter:
    """Build the adapter: 3 layers of 4 heads, at most 10 x 10 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model.
    """
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="</s>", padding="<pad>")
    images = FuyuImageProcessor(size={"height": MOST, "width": MOST}, patch_size=SizeDict(height=PATCH, width=PATCH))
    text = {name: value for name, value in TINY_TEXT.items() if name != "num_key_value_heads"}
    config = FuyuConfig(
        text_config={"model_type": "persimmon", "vocab_size": len(tokenizer), "partial_rotary_factor": 0.5, **text},
        hidden_size=text["hidden_size"],  # of the patches' projection before transformers 5.20
        patch_size=PATCH,
        image_token_id=token_ids(tokenizer)["|SPEAKER|"],
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return FuyuAdapter(model, FuyuProcessor(images, tokenizer), checkpoint="tiny random Fuyu")
