"""One grounding as the page shows it: plain data, and the pictures of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Self, TypedDict

import numpy as np
from PIL import Image

from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.result import Grounding, PackedMask, PhraseMap
from vlm_adapters.heads.attention import attention_maps
from vlm_adapters.output.render import Colour, colour_of, heat_overlay, mask_overlay, shrunk, shrunk_mask
from vlm_adapters.prompt import Prompt
from vlm_adapters.web.limits import RefusedError, WebLimits
from vlm_adapters.web.maps import KeptMaps


class WordAtPixel(TypedDict):
    """A phrase at a pixel: its index, how high its map is there, in [0, 1], and whether its mask covers the pixel."""

    phrase: int
    height: float
    inside: bool


@dataclass(frozen=True)
class PageResult:
    """A grounding, and the maps of its phrases.

    Attributes:
        grounding: The phrases with their masks.
        maps: Where they look.
        masks: The masks of all phrases by name; the last are those of the grounding. With a refiner `"coarse"` and
            `"refined"`, else `"mask"`.
        small: The image as it is painted, at most `PAINTED_SIDE` pixels long.
    """

    grounding: Grounding
    maps: KeptMaps
    masks: dict[str, tuple[PackedMask, ...]] = field(repr=False)
    small: Image.Image = field(repr=False)

    @classmethod
    def of(cls, grounder: Grounder, prompt: Prompt, grounding: Grounding) -> Self:
        """Compute what there is to see of a grounding: the maps, and the coarse masks where a refiner made better ones.

        Args:
            grounder: What found the masks.
            prompt: The prompt, with its phrases.
            grounding: What was found.

        Raises:
            NoGridError: The image tokens of the backbone have no places in the image.
        """
        (of_grids,) = attention_maps(grounder.adapter, [prompt])
        maps = KeptMaps.of([of_grid for of_grid in of_grids if of_grid.grid.image == 0][-1])
        found = tuple(grounded.packed for grounded in grounding.phrases)
        masks = {"mask": found}
        if isinstance(grounder, GroundedVLM) and grounder.decoder.refiner is not None:
            coarse = grounder.masks([prompt])[0]["coarse"]
            masks = {"coarse": tuple(map(PackedMask.of, coarse)), "refined": found}
        return cls(grounding, maps, masks, shrunk(grounding.image))

    @property
    def nbytes(self) -> int:
        """Memory that it takes, nearly: pixels, maps and masks."""
        packed = sum(mask.bits.nbytes for of_name in self.masks.values() for mask in of_name)
        return 3 * self.grounding.image.width * self.grounding.image.height + self.maps.nbytes + packed

    def description(self) -> dict[str, object]:
        """Everything about it but its pictures, as JSON."""
        grounding, maps = self.grounding, self.maps
        return {
            "text": grounding.text,
            "is_answer": grounding.answer is not None,
            "warnings": list(grounding.warnings),
            "size": [grounding.image.height, grounding.image.width],
            "cell": list(maps.cell),
            "masks": list(self.masks),
            "layers": list(maps.layers),
            "heads": list(maps.heads),
            "phrases": [
                {
                    "text": grounded.phrase.text,
                    "span": list(grounded.phrase.span),
                    "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(index)),
                    "ink": ink_on(colour_of(index)),
                    "state": grounded.state,
                    "score": grounded.score,
                    "presence": grounded.presence,
                    "reliability": str(maps.reliability[index]),
                    "level": maps.reliability[index].level,
                    "best": [
                        {"layer": head.layer, "head": head.head, "following": head.following}
                        for head in maps.best[index]
                    ],
                }
                for index, grounded in enumerate(grounding.phrases)
            ],
        }

    def mask_image(self, phrase: int | None, name: str) -> Image.Image:
        """Draw the mask of a phrase, or of all.

        Args:
            phrase: Its index; None for all.
            name: Which masks: one of `masks`.

        Raises:
            LookupError: There is no such phrase, or no such masks.
        """
        chosen = range(len(self.masks[name])) if phrase is None else [phrase]
        size = self.small.height, self.small.width
        masks = [shrunk_mask(self.masks[name][index], size) for index in chosen]
        return mask_overlay(self.small, masks, [colour_of(index) for index in chosen])

    def map_image(self, phrase: int, layer: int | None, head: int | None) -> Image.Image:
        """Draw a map of a phrase; see `KeptMaps.of_phrase`.

        Raises:
            LookupError: There is no such phrase.
            ValueError: There is no such layer or head.
        """
        image = self.grounding.image
        on_image = PhraseMap(self.maps.of_phrase(phrase, layer, head), self.maps.box, (image.height, image.width))
        return heat_overlay(self.small, on_image.placed((self.small.height, self.small.width)))

    def words_at(self, x: float, y: float) -> list[WordAtPixel]:
        """Which phrases look at a pixel, the one that does so most first.

        Args:
            x: Column, in pixels of the image.
            y: Row.
        """
        heights = self.maps.at_pixel(x, y)
        order = np.argsort(-heights, kind="stable").tolist()
        masks = [grounded.packed for grounded in self.grounding.phrases]
        return [
            {"phrase": index, "height": float(heights[index]), "inside": _covers(masks[index], x, y)} for index in order
        ]


class Results:
    """The results that pages may still ask for, by ids that nobody can guess."""

    def __init__(self, limits: WebLimits) -> None:
        self._limits = limits
        self._results: OrderedDict[str, PageResult] = OrderedDict()

    def __len__(self) -> int:
        return len(self._results)

    def keep(self, result: PageResult) -> str:
        """Keep a result, in the place of the oldest if there are too many; gives its id."""
        name = token_urlsafe(16)
        self._results[name] = result
        limits, total = self._limits, sum(kept.nbytes for kept in self._results.values())
        while len(self._results) > 1 and (len(self._results) > limits.most_results or total > limits.most_result_bytes):
            total -= self._results.popitem(last=False)[1].nbytes
        return name

    def get(self, name: str) -> PageResult:
        """Find a result.

        Raises:
            RefusedError: It is not kept, or there was none.
        """
        try:
            return self._results[name]
        except KeyError:
            raise RefusedError("This result is no longer kept. Ground the sentence again.", 404) from None


def ink_on(colour: Colour) -> str:
    """Black or white, whichever is easier to read on a colour (by the contrast of WCAG)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in np.array(colour) / 255]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _covers(mask: PackedMask, x: float, y: float) -> bool:
    if mask.box is None:
        return False
    left, top, right, bottom = mask.box
    column, row = int(x), int(y)
    return left <= column < right and top <= row < bottom and bool(mask.in_box()[row - top, column - left])
