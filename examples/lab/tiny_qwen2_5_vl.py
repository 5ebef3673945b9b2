"""The parts of the embedded tiny Qwen2.5-VL: the real classes with small sizes."""

from __future__ import annotations

import torch
from fast_attention import attend_vision, group_windows
from PIL import Image
from tiny_family import TinyFamily, build_tokenizer, set_tokens, to_tensor
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index
from typing_extensions import override

from vlm_adapters_qwen.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS

PATCH, MERGE = 8, 2
FEWEST_CELLS, MOST_CELLS = 180, 216


class TinyQwen(TinyFamily):
    """Qwen2.5-VL: images of any size, patches merged by four, rotary positions of three axes."""

    name = "tiny-qwen2_5_vl"
    tower_layers = 3

    @property
    @override
    def cell(self) -> int:
        return PATCH * MERGE

    @property
    @override
    def cells(self) -> str:
        return f"about {FEWEST_CELLS} to {MOST_CELLS}"

    @property
    @override
    def about(self) -> str:
        return (
            f"Vision tower of {self.tower_layers} layers, 64 wide, cells of 16 x 16 pixels; language model of\n"
            f"{self.language_layers} layers, 128 wide, 8 heads of which pairs share keys."
        )

    def build_processor(self) -> Qwen2_5_VLProcessor:
        """The stock processor classes around a tokenizer made for the words of the scenes."""
        size = {"shortest_edge": FEWEST_CELLS * self.cell**2, "longest_edge": MOST_CELLS * self.cell**2}
        sizes = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2, "size": size}
        return Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(**sizes),
            tokenizer=build_tokenizer(
                SPECIAL_TOKENS,
                ["system\nuser\nassistant\n", *self.words],
                eos_token=SPECIAL_TOKENS[2],
                pad_token=SPECIAL_TOKENS[0],
                additional_special_tokens=[*SPECIAL_TOKENS[1:2], *SPECIAL_TOKENS[3:]],
            ),
            video_processor=Qwen2VLVideoProcessor(**sizes),
            chat_template=CHAT_TEMPLATE,
        )

    def build_model(self, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
        """The stock model class with random weights."""
        tokenizer = self.processor.tokenizer
        token = tokenizer.convert_tokens_to_ids
        config = Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": self.vision_width,
                "intermediate_size": 256,
                "num_hidden_layers": self.language_layers,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "max_position_embeddings": 4096,
                "initializer_range": 0.06,
                # Slow rotations could not tell the few rows and columns apart.
                "rope_parameters": {"rope_type": "default", "rope_theta": 30.0, "mrope_section": [2, 3, 3]},
                "bos_token_id": None,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                "depth": self.tower_layers,
                "hidden_size": 64,
                "intermediate_size": 192,
                "num_heads": 2,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": 2,
                "window_size": 8 * PATCH * MERGE,
                "fullatt_block_indexes": [2],
                "out_hidden_size": self.vision_width,
                "initializer_range": 0.06,
            },
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        set_tokens(model, tokenizer)
        return model

    def resize(self, image: Image.Image) -> Tensor:
        """The image `(3, H, W)` uint8 as the processor resizes it."""
        images = self.processor.image_processor
        return images.resize(to_tensor(image)[None], images.size, images.resample, factor=self.cell)[0]

    def see(self, model: PreTrainedModel, pixels: Tensor) -> Tensor:
        """Run the vision tower without its loop over images."""
        tower, images = model.model.visual, self.processor.image_processor
        patches, rows, columns = images.patchify(pixels, images.patch_size, images.merge_size, 1)
        # The processor repeats an image along time, so the convolution's two slices add up.
        hidden = F.linear(patches, tower.patch_embed.proj.weight.sum(2).flatten(1))
        grid = torch.tensor([[1, rows, columns]])
        index, edges = get_vision_window_index(grid, tower.spatial_merge_size, tower.window_size, tower.patch_size)
        unit = tower.spatial_merge_unit
        order = (index[:, None] * unit + torch.arange(unit)).flatten()
        cosine, sine = (
            table[order]
            for table in tower.rotary_pos_emb(hidden, get_vision_position_ids(grid, tower.spatial_merge_size))
        )
        hidden = hidden[:, order]
        whole, windows = [torch.arange(rows * columns)[None]], group_windows(edges)
        for number, block in enumerate(tower.blocks):
            groups = whole if number in tower.fullatt_block_indexes else windows
            hidden = hidden + attend_vision(block.attn, block.norm1(hidden), groups, (cosine, sine))
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged = tower.merger.mlp(tower.merger.ln_q(hidden).view(len(pixels), len(index), -1))
        return merged[:, index.argsort()]

    def positions(
        self, model: PreTrainedModel, image: Tensor, grid: tuple[int, int], answers: tuple[int, int]
    ) -> Tensor:
        """Time, row and column of every token, as the stock model counts them."""
        sizes = torch.tensor([[1, grid[0] * MERGE, grid[1] * MERGE]])
        ids = torch.where(image, self.processor.image_token_id, 0)[None]
        positions, shift = model.model.get_rope_index(ids, mm_token_type_ids=image[None].int(), image_grid_thw=sizes)
        K, S = answers
        later = (len(image) + shift + torch.arange(S)).expand(3, K, S).reshape(3, 1, K * S)
        return torch.cat([positions, later], 2)
