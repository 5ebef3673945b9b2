"""The parts of the embedded tiny LLaVA: the real classes with small sizes."""

from __future__ import annotations

import torch
from PIL import Image
from tiny_family import build_tokenizer, set_tokens, to_tensor
from tiny_square import VISION_WIDTH, SquareFamily
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
)
from typing_extensions import override

from vlm_adapters.backbone import fit_square
from vlm_adapters_llava.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS

UNKNOWN, BEGIN, END, IMAGE, PADDING = SPECIAL_TOKENS
FEATURE_LAYER = -2


class TinyLlava(SquareFamily):
    """LLaVA 1.5: a CLIP tower read before its last layer, and a Llama."""

    name = "tiny-llava"
    tower_layers = 4

    @property
    @override
    def about(self) -> str:
        return (
            f"CLIP tower of {self.tower_layers} layers, {VISION_WIDTH} wide, patches of {self.patch} pixels, read\n"
            f"before its last layer as LLaVA does; images padded to a square of {self.side} pixels. Llama of\n"
            f"{self.language_layers} layers, 128 wide, 8 heads of which pairs share keys."
        )

    def build_processor(self) -> LlavaProcessor:
        """The stock processor classes around a tokenizer made for the words of the scenes."""
        side = {"height": self.side, "width": self.side}
        return LlavaProcessor(
            image_processor=CLIPImageProcessor(size=side, crop_size=side, do_resize=False, do_center_crop=False),
            tokenizer=build_tokenizer(
                SPECIAL_TOKENS,
                ["USER: ASSISTANT: ", *self.words],
                unk_token=UNKNOWN,
                bos_token=BEGIN,
                eos_token=END,
                pad_token=PADDING,
                extra_special_tokens={"image_token": IMAGE},
            ),
            patch_size=self.patch,
            vision_feature_select_strategy="default",
            chat_template=CHAT_TEMPLATE,
            num_additional_image_tokens=1,
        )

    def build_model(self, seed: int = 0) -> LlavaForConditionalGeneration:
        """The stock model class with random weights."""
        tokenizer = self.processor.tokenizer
        config = LlavaConfig(
            text_config=self.text_config(tokenizer),
            vision_config=self.vision_config("clip_vision_model") | {"initializer_range": 0.06},
            image_token_index=self.processor.image_token_id,
            image_seq_length=(self.side // self.patch) ** 2,
            vision_feature_layer=FEATURE_LAYER,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        set_tokens(model, tokenizer)
        return model

    def present(self, image: Image.Image) -> Image.Image:
        """The image resized and padded to a square: the processor would cut its sides off."""
        mean = self.processor.image_processor.image_mean
        return fit_square(image, self.side, tuple(int(value * 255) for value in mean))

    def resize(self, image: Image.Image) -> Tensor:
        """The padded image `(3, H, W)` uint8."""
        return to_tensor(self.present(image))

    def see(self, model: PreTrainedModel, pixels: Tensor) -> Tensor:
        """Run the tower up to the layer that is read."""
        tower = model.model.vision_tower
        hidden = tower.pre_layrnorm(tower.embeddings(pixels))
        for layer in tower.encoder.layers[: FEATURE_LAYER + 1]:
            hidden = layer(hidden, None)
        return model.model.multi_modal_projector(hidden[:, 1:])
