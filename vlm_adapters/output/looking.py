"""`look`: from an image, a sentence and a model to where the sentence's phrases look, in one call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.conversion import as_described
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.display import Displayed
from vlm_adapters.heads.attention import AttentionMaps, Reliability, attention_maps
from vlm_adapters.images import ImageSource
from vlm_adapters.limits import shown
from vlm_adapters.output.attention import attention_sheet, leading_heads_sheet, peak_scaled
from vlm_adapters.prompt import Phrase, PhraseLike, Prompt
from vlm_adapters.registry.loading import load_adapter

SHOWN_HEADS = 5
"""How many of the heads that follow a phrase best are shown."""

SHOWN_PHRASES = 20
"""How many phrases the figure of an attention has; each phrase has its own, too."""


@dataclass(frozen=True, eq=False)
class PhraseAttention(Displayed):
    """Where a phrase looks in the image. Its figure is the sheet of `adapters attend`.

    Attributes:
        prompt: What was shown to the model.
        maps: The maps of all phrases on the image's finest grid: of every layer and head, their ranking, the sinks.
        index: Index of the phrase.
    """

    prompt: Prompt = field(repr=False)
    maps: AttentionMaps = field(repr=False)
    index: int

    @property
    def phrase(self) -> Phrase:
        """The phrase."""
        return self.maps.phrases[self.index]

    @property
    def reliability(self) -> Reliability:
        """How far the map can be trusted."""
        return self.maps.reliability[self.index]

    @property
    def map(self) -> NDArray[np.float32]:
        """Where the leading heads look, at the image's size: `(H, W)` float32 in [0, 1], 1 at its peak."""
        image = self.prompt.first_image
        return peak_scaled(self.maps.grid, self.maps.together(self.index), (image.height, image.width))

    @override
    def figure(self) -> Image.Image:
        """Draw the map of the leading heads, the heads one by one, and a map per layer."""
        return attention_sheet(self.prompt, self.maps, self.index, SHOWN_HEADS)

    @override
    def __repr__(self) -> str:
        best = ", ".join(map(str, self.maps.ranking[self.index][:SHOWN_HEADS]))
        return f"PhraseAttention({shown(self.phrase.text)}: reliability {self.reliability}, heads {best})"


@dataclass(frozen=True, eq=False)
class Attention(Displayed):
    """Where the phrases of a sentence look in an image: a sequence of `PhraseAttention`. A notebook shows it.

    Attributes:
        prompt: What was shown to the model.
        grids: The maps on every grid of the image, as `attention_maps` gives them.
        model: Name of the model.
    """

    prompt: Prompt
    grids: tuple[AttentionMaps, ...] = field(repr=False)
    model: str

    @property
    def finest(self) -> AttentionMaps:
        """The maps on the grid with the most cells."""
        return max(self.grids, key=lambda maps: maps.grid.tokens.numel())

    def __len__(self) -> int:
        return len(self.prompt.phrases)

    def __getitem__(self, index: int) -> PhraseAttention:
        return PhraseAttention(self.prompt, self.finest, range(len(self))[index])

    def __iter__(self) -> Iterator[PhraseAttention]:
        return (self[index] for index in range(len(self)))

    @override
    def figure(self) -> Image.Image:
        """Draw a row for each of the first `SHOWN_PHRASES`: where the leading heads look, together and each."""
        return leading_heads_sheet(self.prompt, self.finest, range(len(self))[:SHOWN_PHRASES], SHOWN_HEADS)

    @override
    def __repr__(self) -> str:
        found = ", ".join(f"{shown(one.phrase.text, 40)} {one.reliability.level}" for one in self)
        height, width = self.finest.grid.shape
        return f"Attention({shown(self.prompt.text)} by {self.model} on {height} x {width} cells; reliability: {found})"


def look(
    image: ImageSource,
    text: str,
    phrases: Sequence[PhraseLike] | None = None,
    *,
    model: str | os.PathLike[str] | BackboneAdapter | Grounder,
    **options: Any,
) -> Attention:
    """Find where the phrases of a sentence look in an image: what each adds to a neutral sentence, without sinks.

    No decoder is needed. docs/attention.md says how the maps are made and what their reliability means.

    Args:
        image: An image in any form that `load_image` takes.
        text: The sentence.
        phrases: Strings that occur once in it, or spans `(start, end)` of its characters. None makes one phrase of
            the whole text.
        model: An embedded model, a checkpoint's folder or a hub id, which is loaded at every call; or what
            `load_adapter` or `load_grounder` gave.
        options: Options of `load_adapter`, such as `dtype`, `device_map` and `quantization_config`.

    Raises:
        ImageError: The image cannot be used.
        PromptError: The text or a phrase cannot be used.
        CheckpointError: There is no such model.
        OptionError: An option is unknown, or comes with a model that is loaded already.
        NoGridError: The image tokens of the model have no places in the image.

    Examples:
        >>> from vlm_adapters import look, open_dataset
        >>> scene = open_dataset("scenes:count=1,seed=6")[0]
        >>> attention = look(scene.image, scene.text, ["a pink star", "a pink square"], model="tiny-llava")
        >>> for found in attention:
        ...     print(found.phrase.text, found.map.shape, found.reliability.value > 0)
        a pink star (255, 242) True
        a pink square (255, 242) True
    """
    prompt = as_described(image, text, phrases)  # before the model: mistakes show at once
    loaded = model.adapter if isinstance(model, Grounder) else model
    if not isinstance(loaded, BackboneAdapter):
        loaded = load_adapter(loaded, **options)
    elif options:
        raise OptionError(f"The model given is loaded already. Leave {', '.join(options)} out.")
    (grids,) = attention_maps(loaded, [prompt])
    name = loaded.info.checkpoint
    return Attention(prompt, tuple(grids), alias_of(name) or name)
