"""The template of a data set in the plain form: two images with a mask in every form, to write on."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vlm_adapters.data.convert import IMAGES, is_free
from vlm_adapters.data.files import whole_folder
from vlm_adapters.data.formats.folder import SAMPLES_FILE
from vlm_adapters.data.locks import locked_name
from vlm_adapters.data.rle import encode_rle
from vlm_adapters.errors import OutputError

MASKS = "masks"
"""The folder of the PNG masks within the folder of the set."""

README_FILE = "README.md"

WIDTH, HEIGHT = 320, 240
_BACKGROUND = (225, 225, 225)
_TRIANGLE = [60, 200, 120, 90, 180, 200]
_SQUARE = [200, 40, 280, 120]
_CIRCLE = [40, 50, 140, 150]
_STAR = [230, 60, 245, 100, 290, 100, 255, 125, 270, 170, 230, 142, 190, 170, 205, 125, 170, 100, 215, 100]
_STRIPE = (300, 320)
"""First column of the stripe, and the first one after it."""

_README = """\
# A data set in the plain form

A line of `samples.jsonl` is a sample: a JSON object with

* `id`: its own, of your choice
* `image`: an image within this folder
* `text`: a sentence about it
* `phrases`: words of the sentence (`text`, or `span` `[start, end)` where they occur more than once), each with its
  `mask`

A mask has one of these forms. Pixels are counted from the top left of the upright image:

* `{{"png": "masks/a.png"}}`: an image of the same size; what is neither black nor transparent is inside
* `{{"polygons": [[x, y, x, y, ...], ...]}}`: outlines, three points or more; the mask is their union
* `{{"box": [x0, y0, x1, y1]}}`: filled; x1 and y1 are the first column and row outside
* `{{"size": [height, width], "counts": ...}}`: COCO's run lengths, as a string (compressed) or a list of numbers: how
  many pixels are outside, then inside, then outside, ..., column by column

Replace the two images and their lines by yours, then:

    adapters data check {name}
    adapters train scenes train={name} validation={name} epochs=10 --out run

`scenes` is a recipe for a small model that knows coloured shapes only; `model=...` names another one. Keep some images
out of `train`, in a folder of their own for `validation`.
"""


def write_template(out: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write a small data set in the plain form, with a mask in every form and a README that explains them.

    Args:
        out: A folder that is new or empty; it appears when everything is written.

    Returns:
        The files, by their paths.

    Raises:
        OutputError: The folder is not empty, cannot be written to, or another process is about to write it.
    """
    with locked_name(out):
        if not is_free(out):
            raise OutputError(f"{os.fspath(out)} already exists and is not an empty folder. Choose another path.")
        with whole_folder(out) as folder:
            (folder / IMAGES).mkdir()
            (folder / MASKS).mkdir()
            _first().save(folder / IMAGES / "first.png")
            _second().save(folder / IMAGES / "second.png")
            _circle().save(folder / MASKS / "red circle.png")
            lines = "".join(json.dumps(line) + "\n" for line in _lines())
            (folder / SAMPLES_FILE).write_text(lines, encoding="utf-8", newline="\n")
            readme = _README.format(name=shlex.quote(os.fspath(out)))
            (folder / README_FILE).write_text(readme, encoding="utf-8", newline="\n")
    return tuple(path for path in sorted(Path(out).rglob("*")) if path.is_file())


def _first() -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.polygon(_TRIANGLE, fill=(40, 160, 60))
    draw.rectangle([*_SQUARE[:2], _SQUARE[2] - 1, _SQUARE[3] - 1], fill=(50, 80, 200))
    return image


def _second() -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.ellipse(_CIRCLE, fill=(210, 40, 40))
    draw.polygon(_STAR, fill=(240, 210, 40))
    draw.rectangle([_STRIPE[0], 0, _STRIPE[1] - 1, HEIGHT - 1], fill=(130, 60, 160))
    return image


def _circle() -> Image.Image:
    mask = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).ellipse(_CIRCLE, fill=255)
    return mask


def _lines() -> list[dict[str, object]]:
    star = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(star).polygon(_STAR, fill=1)
    stripe = {"size": [HEIGHT, WIDTH], "counts": [edge * HEIGHT for edge in (_STRIPE[0], _STRIPE[1] - _STRIPE[0])]}
    return [
        {
            "id": "first",
            "image": f"{IMAGES}/first.png",
            "text": "A green triangle and a blue square.",
            "phrases": [
                {"text": "A green triangle", "mask": {"polygons": [_TRIANGLE]}},
                {"text": "a blue square", "mask": {"box": _SQUARE}},
            ],
        },
        {
            "id": "second",
            "image": f"{IMAGES}/second.png",
            "text": "A red circle, a yellow star and a purple stripe.",
            "phrases": [
                {"text": "A red circle", "mask": {"png": f"{MASKS}/red circle.png"}},
                {"text": "a yellow star", "mask": encode_rle(np.asarray(star, np.bool_))},
                {"span": [32, 47], "mask": stripe},
            ],
        },
    ]
