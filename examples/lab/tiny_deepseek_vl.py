"""The parts of the embedded tiny DeepSeek-VL: the real classes with small sizes."""

from __future__ import annotations

import torch
from PIL import Image
from tiny_family import build_tokenizer, set_tokens, to_tensor
from tiny_square import VISION_WIDTH, SquareFamily
from torch import Tensor
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    PreTrainedModel,
)
from typing_extensions import override

from vlm_adapters_deepseek.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS

BEGIN, END, IMAGE, PADDING = SPECIAL_TOKENS


class TinyDeepseek(SquareFamily):
    """DeepSeek-VL: a SigLIP tower and a Llama."""

    name = "tiny-deepseek_vl"
    tower_layers = 3

    @property
    @override
    def about(self) -> str:
        return (
            f"SigLIP tower of {self.tower_layers} layers, {VISION_WIDTH} wide, patches of {self.patch} pixels; images\n"
            f"padded to a square of {self.side} pixels. Llama of {self.language_layers} layers, 128 wide, 8 heads of\n"
            "which pairs share keys."
        )

    def build_processor(self) -> DeepseekVLProcessor:
        """The stock processor classes around a tokenizer made for the words of the scenes."""
        return DeepseekVLProcessor(
            image_processor=DeepseekVLImageProcessor(size={"height": self.side, "width": self.side}),
            tokenizer=build_tokenizer(
                SPECIAL_TOKENS,
                ["User: \n\nAssistant: ", *self.words],
                bos_token=BEGIN,
                eos_token=END,
                pad_token=PADDING,
                extra_special_tokens={"image_token": IMAGE},
            ),
            chat_template=CHAT_TEMPLATE,
            num_image_tokens=(self.side // self.patch) ** 2,
        )

    def build_model(self, seed: int = 0) -> DeepseekVLForConditionalGeneration:
        """The stock model class with random weights."""
        tokenizer = self.processor.tokenizer
        config = DeepseekVLConfig(
            text_config=self.text_config(tokenizer),
            vision_config=self.vision_config("siglip_vision_model") | {"vision_use_head": False},
            image_token_id=self.processor.image_token_id,
            tie_word_embeddings=True,
        )
        torch.manual_seed(seed)
        model = DeepseekVLForConditionalGeneration(config)
        set_tokens(model, tokenizer)
        return model

    def resize(self, image: Image.Image) -> Tensor:
        """The image `(3, H, W)` uint8 as the processor resizes and pads it."""
        images = self.processor.image_processor
        resized = images.resize(to_tensor(image)[None], images.size, images.min_size, images.resample)
        return images.pad_to_square(resized, images.background_color)[0]

    def see(self, model: PreTrainedModel, pixels: Tensor) -> Tensor:
        """The stock tower takes batches as they are."""
        return model.model.get_image_features(pixels).pooler_output
