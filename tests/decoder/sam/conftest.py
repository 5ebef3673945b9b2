"""A Segment Anything model that is real in every part and small in every size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

SIDE, PATCH, WIDTH = 96, 16, 16

TinySam = Callable[[], Sam]


@pytest.fixture
def tiny_sam() -> TinySam:
    """Builds one with the same random weights every time: canvas 96, features 6 x 6, masks 24 x 24, width 16."""

    def build() -> Sam:
        cells = SIDE // PATCH
        torch.manual_seed(0)
        encoder = ImageEncoderViT(
            img_size=SIDE, patch_size=PATCH, embed_dim=16, depth=1, num_heads=2, out_chans=WIDTH, use_rel_pos=True
        )
        transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=32)
        decoder = MaskDecoder(transformer_dim=WIDTH, transformer=transformer, iou_head_hidden_dim=16)
        sam = Sam(encoder, PromptEncoder(WIDTH, (cells, cells), (SIDE, SIDE), 16), decoder)
        for parameter in sam.parameters():
            if parameter.ndim > 1:  # as initialised, a small model's masks hardly depend on its prompts
                torch.nn.init.normal_(parameter, std=0.5)
        return sam.eval()

    return build
