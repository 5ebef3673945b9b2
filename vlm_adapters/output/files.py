"""The files of a grounding: images for people, JSON for other tools."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from vlm_adapters.data.files import write_json
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.output.exports import coco_results, grounding_to_dict, indexed_image
from vlm_adapters.output.figures import grounding_figure
from vlm_adapters.output.render import grounding_overlay, write_png


def write_grounding(grounding: Grounding, out: str | os.PathLike[str], *, image_id: int | str) -> list[Path]:
    """Write overlay, figure, masks and JSON.

    Args:
        grounding: What to write.
        out: Folder: `overlay.png`, `figure.png`, one `mask_..png` per phrase, `masks.png` (all masks, indexed),
            `grounding.json` (COCO RLE, box, score) and `coco.json` (COCO results).
        image_id: Id of the image in `coco.json`.

    Returns:
        The paths of the files.

    Raises:
        OutputError: A file cannot be written.
        OptionError: There are more phrases than an indexed image can hold.
    """
    images = {"overlay.png": grounding_overlay(grounding), "figure.png": grounding_figure(grounding)}
    for index, grounded in enumerate(grounding.phrases):
        images[f"mask_{index:02d}.png"] = Image.fromarray(grounded.mask)
    images["masks.png"] = indexed_image(grounding)
    for name, image in images.items():
        write_png(image, Path(out) / name)
    write_json(Path(out) / "grounding.json", grounding_to_dict(grounding))
    write_json(Path(out) / "coco.json", coco_results(grounding, image_id))
    return [Path(out) / name for name in (*images, "grounding.json", "coco.json")]
