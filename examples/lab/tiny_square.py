"""What the embedded tiny LLaVA and DeepSeek-VL share: square padded images and a Llama of small size."""

from __future__ import annotations

from typing import Any, ClassVar

from tiny_family import TinyFamily
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from transformers import PreTrainedTokenizerFast
from typing_extensions import override

VISION_WIDTH, VISION_HEADS = 128, 4


class SquareFamily(TinyFamily):
    """Images padded to a square of one size, so that every one has `(side / patch) ** 2` tokens."""

    side: ClassVar = 128
    patch: ClassVar = 8
    vision_steps = 2000
    caption_steps = 2800

    @property
    @override
    def cell(self) -> int:
        return self.patch

    @property
    @override
    def cells(self) -> str:
        return f"{(self.side // self.patch) ** 2}"

    def frame(self, masks: Tensor) -> Tensor:
        """Masks padded to a square around the middle."""
        height, width = masks.shape[-2:]
        down, across = max(0, width - height), max(0, height - width)
        return F.pad(masks, (across // 2, across - across // 2, down // 2, down - down // 2))

    def text_config(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        """Of a Llama whose pairs of heads share keys."""
        return {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": self.vision_width,
            "intermediate_size": 256,
            "num_hidden_layers": self.language_layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "initializer_range": 0.06,
            # Words far from the image must find its tokens by what these show: that takes slow rotations.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }

    def vision_config(self, model_type: str) -> dict[str, Any]:
        """Of a tower with plain attention over all patches."""
        return {
            "model_type": model_type,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 3 * VISION_WIDTH,
            "num_hidden_layers": self.tower_layers,
            "num_attention_heads": VISION_HEADS,
            "image_size": self.side,
            "patch_size": self.patch,
        }
