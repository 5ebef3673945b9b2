"""One dataset pipeline, written for separate image processors, over every family.

    python examples/separate_pipeline.py [IMAGE]

The pipeline calls `preprocess(image)` and reads `pixel_values`, `meta_datas` and `image_sizes`; it knows no family.
`wrap_image_processor` gives every processor that interface. The processors here are those of the plugins' tiny models;
with checkpoints it would be `AutoProcessor.from_pretrained(...)`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlm_adapters import list_adapters, load_image
from vlm_adapters.hf import wrap_image_processor
from vlm_adapters.testing import find_case

SCENE = Path(__file__).parent / "demo_scene.png"


@dataclass(frozen=True)
class Sample:
    """What the pipeline hands to a trainer: an image, and its mask resized and padded like the image."""

    pixel_values: Tensor
    mask: Tensor


def prepare(image_processor: Any, image: Image.Image, mask: Tensor) -> Sample:
    """Process an image, and move its mask `(H, W)` bool to where the image's pixels went."""
    processed = image_processor.preprocess(image)
    meta = processed["meta_datas"][0]
    height, width = meta["image_shape"]
    padding = meta["padding"]
    resized = torch.nn.functional.interpolate(mask[None, None].float(), (height, width), mode="nearest")[0, 0]
    padded = torch.zeros(meta["padded_shape"], dtype=torch.bool)
    top, left = padding["before_height"], padding["before_width"]
    padded[top : top + height, left : left + width] = resized > 0
    return Sample(processed["pixel_values"][0], padded)


def main() -> None:
    """Run the pipeline over the processors of all families that have an adapter."""
    image = load_image(sys.argv[1] if len(sys.argv) > 1 else SCENE)
    mask = torch.zeros(image.height, image.width, dtype=torch.bool)
    mask[: image.height // 2, : image.width // 2] = True
    for entry in list_adapters():
        if entry.name and entry.spec and entry.spec.image_processors:
            adapter: Any = find_case(entry.name).load()
            sample = prepare(wrap_image_processor(adapter.processor), image, mask)
            size = "x".join(map(str, sample.pixel_values.shape[1:]))
            print(f"{entry.name:14} {type(adapter.processor).__name__:22} pixels {size:>9}  mask {sample.mask.sum()}")


if __name__ == "__main__":
    main()
