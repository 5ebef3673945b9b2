"""Attention maps for people: where a phrase looks in an image, by layer and by head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.files import write_json
from vlm_adapters.embedded.unlike_scenes import warnings_about
from vlm_adapters.errors import NoGridError
from vlm_adapters.geometry import Size, resize_box
from vlm_adapters.heads.ranking import RankedHead, rank_heads
from vlm_adapters.output.figures import heat_sheet
from vlm_adapters.output.files import set_of_files
from vlm_adapters.output.render import shrunk, write_png
from vlm_adapters.prompt import Prompt
from vlm_adapters.video import Video

ATTENTION_FILE = "attention.json"
"""Written last, with the names of the sheets."""

_SHEETS = re.compile(r"phrase_\d{2,}_\d+x\d+\.png", re.ASCII)


class ShownPhrase(TypedDict):
    """A phrase, the file of its sheet, and the heads that look most sharply."""

    phrase: str
    file: str
    sharpest: list[dict[str, object]]


class AttentionReport(TypedDict):
    """A sentence, and a sheet for every phrase and grid."""

    text: str
    warnings: list[str]
    phrases: list[ShownPhrase]


def write_attention(adapter: BackboneAdapter, prompt: Prompt, out: Path, *, heads: int) -> AttentionReport:
    """Run a backbone, and write a sheet for every phrase and grid, and `attention.json`.

    Args:
        adapter: The backbone.
        prompt: What is shown to it.
        out: Folder of the files; sheets of an earlier run in it are removed.
        heads: How many of the sharpest heads to show.

    Returns:
        What is in `attention.json`.

    Raises:
        OutputError: A file cannot be written.
    """
    phrases: list[ShownPhrase] = []
    extracted = adapter.extract(adapter.preprocess([prompt]), GridRequest())[0]
    with set_of_files(out, ATTENTION_FILE, _SHEETS):
        for grids in extracted:
            for index, words in enumerate(prompt.phrases):
                sharpest = rank_heads(grids, index, heads)
                file = out / f"phrase_{index:02d}_{grids.grid.shape[0]}x{grids.grid.shape[1]}.png"
                write_png(attention_sheet(prompt, grids, index, sharpest), file)
                heads_of_phrase = [asdict(head) for head in sharpest]
                phrases.append({"phrase": words.text, "file": str(file), "sharpest": heads_of_phrase})
        said = warnings_about(adapter.info.checkpoint, prompt.images)
        report: AttentionReport = {"text": prompt.text, "warnings": list(said), "phrases": phrases}
        write_json(out / ATTENTION_FILE, report)
    return report


def attention_sheet(prompt: Prompt, grids: Grids, phrase: int, sharpest: Sequence[RankedHead]) -> Image.Image:
    """Draw the attention of a phrase: a heat map per layer, and one per head of those that look most sharply.

    Args:
        prompt: The prompt.
        grids: What was extracted for it on one grid, one map per phrase.
        phrase: Index of the phrase.
        sharpest: The heads to show, as `rank_heads` returns them.
    """
    shown, words = prompt.media[grids.grid.image], prompt.phrases[phrase].text
    image = shown.frames[grids.grid.frames[0]] if isinstance(shown, Video) else shown
    small = shrunk(image)
    size = small.height, small.width
    seen = _on_image(grids, (image.height, image.width), size)  # as it is painted
    by_layer = [(f"layer {layer}", attention_map(seen, phrase, size, layer)) for layer in grids.layers]
    by_head = [
        (f"layer {ranked.layer} head {ranked.head}", attention_map(seen, phrase, size, ranked.layer, ranked.head))
        for ranked in sharpest
    ]
    return heat_sheet(
        small, [(f"{words}: mean of all heads, by layer", by_layer), (f"{words}: sharpest heads", by_head)]
    )


def _on_image(grids: Grids, before: Size, after: Size) -> Grids:
    """The maps on cells that divide their box evenly, on the image at another size."""
    grid = grids.grid
    if grid.box is None:
        raise NoGridError
    even = replace(grid, box=resize_box(grid.box, before, after), rows=(), columns=())
    return replace(grids, grid=even, attention=grid.evenly(grids.attention))


def attention_map(
    grids: Grids, phrase: int, size: tuple[int, int], layer: int, head: int | None = None
) -> NDArray[np.float32]:
    """Place the attention map of a phrase over its image, scaled to a peak of 1.

    Args:
        grids: What was extracted, one map per phrase.
        phrase: Index of the phrase.
        size: `(H, W)` of the image.
        layer: True layer index.
        head: Head index; None averages all heads of the layer.

    Returns:
        `(H, W)` float32 in [0, 1].
    """
    maps = grids.attention[phrase, grids.layers.index(layer)]
    chosen = maps.mean(0) if head is None else maps[grids.heads.index(head)]
    placed: NDArray[np.float32] = grids.grid.place(chosen, size).cpu().numpy()
    return placed / max(float(placed.max()), 1e-12)
