"""Draw the pictures of docs/index.md and docs/concepts.md with the library itself; `make pages` runs this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vlm_adapters import GroundedVLM, Grounding, load_adapter, open_dataset
from vlm_adapters.heads import AttentionMaps, attention_maps
from vlm_adapters.output import grid_drawing, grounding_figure, heat_sheet

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SCENE = open_dataset("scenes:count=1,seed=1")[0]
PHRASE = "a yellow triangle with a black dot"
QUALITY = 80
"""Of WebP: a few tens of kilobytes for a picture instead of hundreds."""


def draw() -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    adapter = load_adapter("tiny-qwen2_5_vl")
    (grids,) = adapter.locate_image_tokens(adapter.preprocess([SCENE.prompt]))
    (IMAGES / "grid.svg").write_text(grid_drawing(SCENE.image, grids), encoding="utf-8")
    _save(_maps(), "maps.webp")
    vlm = GroundedVLM.from_pretrained("tiny-qwen2_5_vl")
    grounding = vlm.ground(SCENE.image, SCENE.text, [phrase.text for phrase in SCENE.phrases])
    _save(grounding_figure(grounding, list(SCENE.masks)), "grounding.webp")
    _save(grounding_figure(_with_an_absent_phrase(vlm)), "absent.webp")


def _maps() -> Image.Image:
    """One phrase's attention as it was extracted, beside a neutral sentence, and of the heads that follow it."""
    adapter = load_adapter("tiny-deepseek_vl")
    ((extracted,),) = attention_maps(adapter, [SCENE.prompt], raw=True)
    ((shown,),) = attention_maps(adapter, [SCENE.prompt])
    index = [phrase.text for phrase in shown.phrases].index(PHRASE)
    panels = [
        ("all heads, as extracted", _placed(extracted, extracted.maps[index].mean((0, 1)))),
        ("beside a neutral text", _placed(shown, shown.maps[index].mean((0, 1)))),
        ("heads that follow it", _placed(shown, shown.together(index))),
    ]
    return heat_sheet(SCENE.image, [(PHRASE, panels)])


def _placed(maps: AttentionMaps, on_grid: Tensor) -> NDArray[np.float32]:
    heat: NDArray[np.float32] = maps.grid.place(on_grid, (SCENE.image.height, SCENE.image.width)).numpy()
    return heat / heat.max()


def _with_an_absent_phrase(vlm: GroundedVLM) -> Grounding:
    """A sentence of which only a part is in the image."""
    return vlm.ground(SCENE.image, "a green square and a pink star", ["a green square", "a pink star"])


def _save(figure: Image.Image, name: str) -> None:
    figure.crop(ImageOps.invert(figure).getbbox()).save(IMAGES / name, quality=QUALITY, method=6)


if __name__ == "__main__":
    draw()
