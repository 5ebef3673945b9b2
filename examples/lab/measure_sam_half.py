"""Measure what masks lose where the image encoder of Segment Anything computes in half precision.

    pip install "vlm-adapters[sam]"
    python examples/lab/measure_sam_half.py [--model tiny-qwen2_5_vl] [--count 60] [--dtypes bfloat16] [--report FILE]

The coarse masks of an embedded model on held-out scenes, and those of things in two photographs, refined by MobileSAM
as it is: with its image encoder in float32, and under autocast to half precision. All else is in float32. A CPU takes
minutes for an image in float16.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from artefacts import mobile_sam, photos
from numpy.typing import NDArray
from PIL import Image
from refine_photos import coarse_logits
from report import write_report
from torch import Tensor

from vlm_adapters import GroundedVLM, open_dataset
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED
from vlm_adapters.decoder import SegmentAnything, load_sam
from vlm_adapters.decoder.sam.refiner import refine_untrained
from vlm_adapters.evaluation.metrics import mask_iou

Box = tuple[float, float, float, float]
Masks = NDArray[np.bool_]


@dataclass
class Comparison:
    """What is found of a half precision on some images.

    Attributes:
        agreement: IoU of every mask with that of float32.
        change: By how much its IoU with the truth is higher than that of float32.
        distance: Relative distance of the features of every image.
        ratio: Time of the encoder, as a share of that in float32.
    """

    agreement: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    ratio: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, float]:
        """The numbers that are reported."""
        return {
            "masks": len(self.agreement),
            "mean IoU with float32": round(float(np.mean(self.agreement)), 5),
            "least IoU with float32": round(min(self.agreement), 4),
            "change of the mean IoU with the truth": round(float(np.mean(self.change)), 5),
            "largest loss of a mask": round(-min(self.change), 4),
            "distance of features": round(float(np.median(self.distance)), 5),
            "time of the encoder": round(float(np.median(self.ratio)), 3),
        }


@torch.no_grad()
def compare(
    sam: SegmentAnything, image: Image.Image, coarse: tuple[Tensor, Box], dtypes: Sequence[str]
) -> Iterator[tuple[str, float, Tensor, Masks]]:
    """Refine the coarse masks of an image in every precision: its name, seconds, features and masks."""
    logits, box = coarse
    for name in ("float32", *dtypes):
        started = perf_counter()
        half = None if name == "float32" else getattr(torch, name)
        with torch.autocast("cpu", half, enabled=half is not None):
            encoded = sam.encode(image)
        seconds = perf_counter() - started
        found = refine_untrained(sam, encoded, logits, box).at_image_size()
        yield name, seconds, encoded.features.float(), (found > 0).numpy()


def measure(
    sam: SegmentAnything, seen: Sequence[tuple[Image.Image, tuple[Tensor, Box], Masks]], dtypes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Compare half precisions with float32 on some images."""
    comparisons = {name: Comparison() for name in dtypes}
    for number, (image, coarse, truth) in enumerate(seen, 1):
        (_, exact_seconds, exact, expected), *others = compare(sam, image, coarse, dtypes)
        for name, seconds, features, masks in others:
            of = comparisons[name]
            of.ratio.append(seconds / exact_seconds)
            of.distance.append(float((features - exact).norm() / exact.norm()))
            for found, wanted, true in zip(masks, expected, truth, strict=True):
                of.agreement.append(mask_iou(found, wanted))
                of.change.append(mask_iou(found, true) - mask_iou(wanted, true))
        if number % 20 == 0:
            print(number, {name: of.as_dict() for name, of in comparisons.items()}, flush=True)
    return {name: of.as_dict() for name, of in comparisons.items()}


@torch.no_grad()
def scenes(model: str, count: int) -> Iterator[tuple[Image.Image, tuple[Tensor, Box], Masks]]:
    """Held-out scenes with the coarse logits of an embedded model, and the truth."""
    vlm = GroundedVLM.from_pretrained(model, device="cpu")
    for sample in open_dataset(f"scenes:count={count},seed={HELD_OUT_SEED}"):
        if sample.phrases:
            (logits,) = vlm.mask_logits([sample.prompt])
            yield sample.image, (logits.coarse, logits.box), sample.masks


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint with a decoder")
    parser.add_argument("--count", type=int, default=60, help="number of scenes")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"], choices=("bfloat16", "float16"))
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    sam = load_sam(mobile_sam())
    of_photos = [
        (
            photo.image,
            (coarse_logits(photo.masks), (0.0, 0.0, float(photo.image.width), float(photo.image.height))),
            photo.masks,
        )
        for photo in photos()
    ]
    found = {
        "photographs": measure(sam, of_photos, arguments.dtypes),
        "scenes": measure(sam, list(scenes(arguments.model, arguments.count)), arguments.dtypes),
    }
    for images, by_dtype in found.items():
        for dtype, numbers in by_dtype.items():
            print(images, dtype, "  ".join(f"{name} {value}" for name, value in numbers.items()))
    if arguments.report:
        write_report(arguments.report, {"model": arguments.model, "scenes": arguments.count, "found": found})


if __name__ == "__main__":
    main()
