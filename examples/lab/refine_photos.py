"""Refine coarse masks of things in real photographs with MobileSAM, and measure how much better they become.

    pip install "vlm-adapters[sam]"
    python examples/lab/refine_photos.py [--out demo_output/photos.png] [--least 1000] [--report FILE]

The coarse masks are the best that a U-Net on a grid of 24 x 24 cells could give: the truth, pooled over the cells. No
part was trained on the photographs or for coarse masks. The weights and photographs are fetched once (45 MB).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from artefacts import Photo, mobile_sam, photos
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from report import write_report
from torch import Tensor
from torch.nn import functional

from vlm_adapters import place_map
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner, refine_untrained
from vlm_adapters.evaluation.metrics import boundary_f_score, mask_iou
from vlm_adapters.output.render import colour_of, mask_overlay, write_png

Masks = NDArray[np.bool_]

CELLS = 24
SUREST = 0.99
"""Probability of a cell that lies wholly inside a thing."""
LEAST = 1000
"""Pixels of a thing that a grid of such cells can show: three to four cells."""

COARSE, BOX, SINGLE, CANDIDATES = (
    "coarse mask, 24 x 24",
    "SAM, box of the truth",
    "SAM, coarse box + mask, one output",
    "SAM, best candidate and coarse mask",
)


@dataclass(frozen=True)
class Result:
    """What a way of finding masks comes to.

    Attributes:
        count: Things.
        iou: Mean IoU.
        boundary: Mean boundary F-score at 2 pixels.
    """

    count: int
    iou: float
    boundary: float


def coarse_logits(masks: Masks) -> Tensor:
    """Pool masks `(N, H, W)` over the cells of a grid: logits `(N, 24, 24)`."""
    pooled = functional.adaptive_avg_pool2d(torch.from_numpy(masks).float()[:, None], (CELLS, CELLS))[:, 0]
    return pooled.clamp(1 - SUREST, SUREST).logit()


@torch.no_grad()
def find_masks(sam: SegmentAnything, photo: Photo) -> dict[str, Masks]:
    """Masks `(N, H, W)` of all things of a photograph, by the name of the way in which they were found."""
    size = photo.image.height, photo.image.width
    box = (0.0, 0.0, float(size[1]), float(size[0]))
    image, logits = sam.encode(photo.image), coarse_logits(photo.masks)
    truth = torch.where(torch.from_numpy(photo.masks), 1.0, -1.0)
    found = {
        COARSE: place_map(logits, box, size),
        BOX: SAMRefiner(sam, use_mask=False, use_text=False)(image, truth, box),
        SINGLE: SAMRefiner(sam, use_text=False)(image, logits, box),
        CANDIDATES: refine_untrained(sam, image, logits, box).at_image_size(),
    }
    return {name: (masks > 0).numpy() for name, masks in found.items()}


def measure(seen: Sequence[Photo], found: Sequence[Mapping[str, Masks]], least: int = 0) -> dict[str, Result]:
    """Compare the masks of every way with the truth, over all things of at least so many pixels."""
    results = {}
    for name in found[0]:
        pairs = [
            (mask, truth)
            for photo, by_name in zip(seen, found, strict=True)
            for mask, truth in zip(by_name[name], photo.masks, strict=True)
            if truth.sum() >= least
        ]
        results[name] = Result(
            len(pairs),
            float(np.mean([mask_iou(mask, truth) for mask, truth in pairs])),
            float(np.mean([boundary_f_score(mask, truth) for mask, truth in pairs])),
        )
    return results


def figure(seen: Sequence[Photo], found: Sequence[Mapping[str, Masks]]) -> Image.Image:
    """A row per photograph: as it is, with the true masks, with coarse ones and with refined ones."""
    gap, line, height = 10, 26, 400
    rows = []
    for photo, by_name in zip(seen, found, strict=True):
        colours = [colour_of(index) for index in range(len(photo.masks))]
        shown = {"truth": photo.masks, COARSE: by_name[COARSE], CANDIDATES: by_name[CANDIDATES]}
        panels = {"photograph": photo.image} | {
            name: mask_overlay(photo.image, list(masks), colours) for name, masks in shown.items()
        }
        width = round(photo.image.width * height / photo.image.height)
        row = Image.new("RGB", (len(panels) * (width + gap) - gap, line + height), "white")
        for index, (title, panel) in enumerate(panels.items()):
            left = index * (width + gap)
            ImageDraw.Draw(row).text((left, 2), title, "black", ImageFont.load_default(18))
            row.paste(panel.resize((width, height)), (left, line))
        rows.append(row)
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + gap for row in rows) - gap), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + gap
    return sheet


def main() -> None:
    """Print a table of all numbers, and write a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo_output/photos.png"), help="where the figure goes")
    parser.add_argument("--least", type=int, default=LEAST, help="pixels of the smallest thing of the first columns")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    sam, seen = load_sam(mobile_sam()), photos()
    found = [find_masks(sam, photo) for photo in seen]
    large, everything = measure(seen, found, arguments.least), measure(seen, found)
    some, every = large[COARSE].count, everything[COARSE].count
    print(f"| | {some} things of {arguments.least} pixels or more: IoU | boundary F | all {every}: IoU | boundary F |")
    print("|---|---|---|---|---|")
    for name, result in large.items():
        both = (result.iou, result.boundary, everything[name].iou, everything[name].boundary)
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in both)} |")
    if arguments.report:
        numbers = {name: {"large": asdict(result), "all": asdict(everything[name])} for name, result in large.items()}
        write_report(arguments.report, {"least pixels of a large thing": arguments.least, **numbers})
    write_png(figure(seen, found), arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
