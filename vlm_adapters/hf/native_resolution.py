"""The base of families whose images keep their shape: patches of all images in one list, positions by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters.geometry import Size
from vlm_adapters.hf.backbone import TransformersBackbone


class NativeResolutionBackbone(TransformersBackbone):
    """An adapter over a model that takes `image_grid_thw` and counts positions with `get_rope_index`.

    Qwen-VL and GLM-V are such families.
    """

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        # The patches of all images stand in one list.
        shapes, patches = features["image_grid_thw"], features["pixel_values"]
        by_image = patches.split(shapes.prod(dim=1).tolist())
        return {
            "pixel_values": torch.cat([by_image[index] for index in indices]),
            "image_grid_thw": shapes[list(indices)],
        }

    @override
    def position_ids(self, tensors: Mapping[str, Tensor]) -> Tensor:
        model: Any = self.model.base_model
        accepted = signature(model.get_rope_index).parameters
        positions: Tensor = model.get_rope_index(**{name: tensors[name] for name in accepted if name in tensors})[0]
        return positions
