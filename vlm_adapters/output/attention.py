"""Sheets of attention maps: where a phrase looks in an image, by the heads that follow it and by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from typing_extensions import TypedDict  # pydantic reads no other below Python 3.12

from vlm_adapters.backbone.divergence import answer_divergence
from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.files import write_json
from vlm_adapters.embedded.unlike_scenes import warnings_about
from vlm_adapters.errors import NoGridError
from vlm_adapters.geometry import Size, resize_box
from vlm_adapters.heads.attention import LEADING_HEADS, AttentionMaps, attention_maps
from vlm_adapters.output.blocks import LARGEST_PANEL
from vlm_adapters.output.exports import ShownAnswer, answer_to_dict
from vlm_adapters.output.figures import heat_sheet
from vlm_adapters.output.files import set_of_files
from vlm_adapters.output.render import shrunk, write_png
from vlm_adapters.prompt import Prompt
from vlm_adapters.video import Video

ATTENTION_FILE = "attention.json"
"""Written last, with the names of the sheets."""

_SHEETS = re.compile(r"phrase_\d{2,}_\d+x\d+\.png", re.ASCII)


class ShownReliability(TypedDict):
    """How far a map can be trusted, in numbers and in a word."""

    level: str
    value: float
    agreement: float
    on_sinks: float
    difference: float


class ShownPhrase(TypedDict):
    """A phrase, the file of its sheet, how far its maps can be trusted, and the heads that follow it best."""

    phrase: str
    file: str
    reliability: ShownReliability
    sinks: list[tuple[int, int]]
    heads: list[dict[str, object]]


class AttentionReport(TypedDict):
    """A sentence, whether the maps are raw, and a sheet for every phrase and grid; of an answer, its tokens too."""

    text: str
    answer: ShownAnswer | None
    raw: bool
    warnings: list[str]
    phrases: list[ShownPhrase]


def write_attention(
    adapter: BackboneAdapter, prompt: Prompt, out: Path, *, heads: int, raw: bool = False
) -> AttentionReport:
    """Run a backbone, and write a sheet for every phrase and grid, and `attention.json`.

    Args:
        adapter: The backbone.
        prompt: What is shown to it.
        out: Folder of the files; sheets of an earlier run in it are removed.
        heads: How many of the heads that follow a phrase best to show.
        raw: Show the attention as it was extracted.

    Returns:
        What is in `attention.json`.

    Raises:
        OutputError: A file cannot be written.
    """
    phrases: list[ShownPhrase] = []
    (of_grids,) = attention_maps(adapter, [prompt], raw=raw)
    with set_of_files(out, ATTENTION_FILE, _SHEETS):
        for maps in of_grids:
            for index in range(len(maps.phrases)):
                file = out / f"phrase_{index:02d}_{maps.grid.shape[0]}x{maps.grid.shape[1]}.png"
                write_png(attention_sheet(prompt, maps, index, heads), file)
                phrases.append(_shown(maps, index, file, heads))
        said = warnings_about(adapter.info.checkpoint, prompt.images)
        report: AttentionReport = {
            "text": prompt.text,
            "answer": answer_to_dict(prompt.answer, answer_divergence(adapter, prompt)),
            "raw": raw,
            "warnings": list(said),
            "phrases": phrases,
        }
        write_json(out / ATTENTION_FILE, report)
    return report


def _shown(maps: AttentionMaps, phrase: int, file: Path, heads: int) -> ShownPhrase:
    found = maps.reliability[phrase]
    return {
        "phrase": maps.phrases[phrase].text,
        "file": str(file),
        "reliability": {
            "level": found.level,
            "value": found.value,
            "agreement": found.agreement,
            "on_sinks": found.on_sinks,
            "difference": found.difference,
        },
        "sinks": [(row, column) for row, column in maps.sinks.nonzero().tolist()],
        "heads": [asdict(head) for head in maps.ranking[phrase][:heads]],
    }


def attention_sheet(prompt: Prompt, maps: AttentionMaps, phrase: int, heads: int) -> Image.Image:
    """Draw where a phrase looks: the heads that follow it best, together and each, and a heat map per layer.

    Args:
        prompt: The prompt.
        maps: Its maps on one grid.
        phrase: Index of the phrase.
        heads: How many of the heads that follow it best to show.
    """
    canvas = _Canvas.of(prompt, maps)
    layers = enumerate(maps.layers)
    by_layer = [(f"layer {layer}", canvas.painted(maps.maps[phrase, i].mean(0))) for i, layer in layers]
    title, by_head = canvas.leading_heads(phrase, heads)
    if len(maps.phrases) > 1:
        every = torch.stack([maps.together(index) for index in range(len(maps.phrases))]).mean(dim=0)
        by_head.insert(1, ("mean over all phrases", canvas.painted(every)))
    return canvas.sheet([(title, by_head), (f"{maps.phrases[phrase].text}: mean of all heads, by layer", by_layer)])


def leading_heads_sheet(prompt: Prompt, maps: AttentionMaps, phrases: Sequence[int], heads: int) -> Image.Image:
    """Draw where phrases look: a row for each, with the heads that follow it best, together and each.

    Args:
        prompt: The prompt.
        maps: Its maps on one grid.
        phrases: Indices of the phrases.
        heads: How many of the heads that follow a phrase best to show.
    """
    canvas = _Canvas.of(prompt, maps)
    return canvas.sheet([canvas.leading_heads(phrase, heads) for phrase in phrases])


Row = tuple[str, list[tuple[str, NDArray[np.float32]]]]
"""Of a sheet: its title, and the maps with their captions."""


@dataclass(frozen=True)
class _Canvas:
    """The image that maps are painted over, shrunk, and their grid on it."""

    prompt: Prompt
    image: Image.Image
    grid: ImageGrid
    maps: AttentionMaps

    @classmethod
    def of(cls, prompt: Prompt, maps: AttentionMaps) -> Self:
        shown = prompt.media[maps.grid.image]
        image = shown.frames[maps.grid.frames[0]] if isinstance(shown, Video) else shown
        small = shrunk(image, LARGEST_PANEL)
        grid = _on_image(maps.grid, (image.height, image.width), (small.height, small.width))
        return cls(prompt, small, grid, maps)

    def painted(self, on_grid: Tensor) -> NDArray[np.float32]:
        return peak_scaled(self.grid, self.maps.grid.evenly(on_grid), (self.image.height, self.image.width))

    def leading_heads(self, phrase: int, heads: int) -> Row:
        """The heads that follow a phrase best, together and each."""
        maps = self.maps
        together = (f"the {LEADING_HEADS} leading heads together", self.painted(maps.together(phrase)))
        by_head = [
            (
                f"layer {head.layer} head {head.head}: {head.mass:.1%} on the image",
                self.painted(maps.of_head(phrase, head)),
            )
            for head in maps.ranking[phrase][:heads]
        ]
        return f"{maps.phrases[phrase].text}: reliability {maps.reliability[phrase]}", [together, *by_head]

    def sheet(self, rows: Sequence[Row]) -> Image.Image:
        sentence = self.prompt.text, [phrase.span for phrase in self.maps.phrases]
        return heat_sheet(self.image, rows, sentence=sentence, caption=_caption(self.maps))


def _caption(maps: AttentionMaps) -> str:
    kind, sinks = "Attention of the phrase's tokens on the image", int(maps.sinks.sum())
    if maps.raw:
        kind += ", as the model computed it"
    else:
        kind += ", divided by that of a neutral sentence and an even share"
        kind += f"; {sinks} sinks, which attract it whatever is asked, have their neighbours' mean" if sinks else ""
    return (
        f"{kind}. Together: the mean by geometry of the heads that follow the phrase best. Each scale is in multiples "
        "of the map's mean over the image, and its brightest colour at least four: a map that is dark everywhere is "
        "spread evenly. Percentages: how much of a head's attention falls on the image."
    )


def _on_image(grid: ImageGrid, before: Size, after: Size) -> ImageGrid:
    """A grid of cells that divide its box evenly, on the image at another size."""
    if grid.box is None:
        raise NoGridError
    return replace(grid, box=resize_box(grid.box, before, after), rows=(), columns=())


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
    return peak_scaled(grids.grid, maps.mean(0) if head is None else maps[grids.heads.index(head)], size)


def peak_scaled(grid: ImageGrid, on_grid: Tensor, size: Size) -> NDArray[np.float32]:
    """Place a map `(h, w)` over an image, scaled to a peak of 1: `(H, W)` float32."""
    placed: NDArray[np.float32] = grid.place(on_grid, size).cpu().numpy()
    return placed / max(float(placed.max()), 1e-12)
