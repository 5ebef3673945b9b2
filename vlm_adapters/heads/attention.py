"""Attention maps to be trusted: what a phrase adds to a neutral sentence, without sinks, and how reliable that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.unet import normalise
from vlm_adapters.errors import NoGridError
from vlm_adapters.heads.extraction import NEUTRAL_TEXT, listed_prompt, neutral_prompt
from vlm_adapters.heads.maps import find_sinks, heights, relative_maps, smooth
from vlm_adapters.heads.ranking import (
    FULL_DIFFERENCE,
    SMOOTHING,
    RankedHead,
    agreement,
    best_first,
    contrast,
    difference,
    following,
    following_weights,
)
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Phrase, Prompt

LEADING_HEADS = 4
"""How many of the heads that follow a phrase best are compared with each other."""

HIGH, FAIR = 0.5, 0.25
"""Reliability from which a map's is called high and fair."""


@dataclass(frozen=True)
class Reliability:
    """How far the map of a phrase can be trusted, from its attention alone.

    Attributes:
        agreement: Agreement of the leading heads about where the phrase is, in [0, 1].
        on_sinks: Share of all heads' attention on the image that falls on sinks, in [0, 1].
        difference: Share of the leading heads' attention that is elsewhere than for the neutral sentence, in [0, 1].
    """

    agreement: float
    on_sinks: float
    difference: float

    @property
    def value(self) -> float:
        """All in one, in [0, 1]: the agreement, less where the attention is on sinks or does not depend on the text."""
        return self.agreement * (1 - self.on_sinks) * min(1.0, self.difference / FULL_DIFFERENCE)

    @property
    def level(self) -> Literal["high", "fair", "low"]:
        """The value in a word."""
        return "high" if self.value >= HIGH else "fair" if self.value >= FAIR else "low"

    def __str__(self) -> str:
        return (
            f"{self.level} ({self.value:.2f}: agreement {self.agreement:.2f}, on sinks {self.on_sinks:.0%}, "
            f"difference {self.difference:.2f})"
        )


_FLOOR = 0.1
"""Height that a cell keeps where a head does not look, so that no head rules it out alone."""


@dataclass(frozen=True, repr=False)
class AttentionMaps:
    """Where the phrases of a prompt look on one grid, in maps for people.

    Attributes:
        grid: The grid.
        phrases: The phrases.
        maps: `(P, L, n, h, w)` float32, not negative. Relative maps: the share of every cell, divided by its share for
            the neutral sentence plus an even one; a sink has the mean of its neighbours. Raw maps: the attention as
            it was extracted.
        raw: Whether the maps are raw.
        layers: True layer index of every entry of axis `L`.
        heads: Head index of every entry of axis `n`.
        sinks: `(h, w)` bool: the cells that attract attention whatever is asked.
        ranking: For every phrase all heads, from the one that follows it best.
        reliability: For every phrase, how far its map can be trusted.
    """

    grid: ImageGrid
    phrases: tuple[Phrase, ...]
    maps: Tensor = field(repr=False)
    raw: bool
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    sinks: Tensor = field(repr=False)
    ranking: tuple[tuple[RankedHead, ...], ...] = field(repr=False)
    reliability: tuple[Reliability, ...]

    @override
    def __repr__(self) -> str:
        kind = "raw maps" if self.raw else "maps beside a neutral sentence"
        phrases = ", ".join(shown(phrase.text, 40) for phrase in self.phrases[:5])
        shape = tuple(self.maps.shape)
        return f"AttentionMaps({kind} {shape} of phrases, layers, heads, h, w; {len(self.phrases)} phrases: {phrases})"

    def of_head(self, phrase: int, head: RankedHead) -> Tensor:
        """The map `(h, w)` of one head for a phrase."""
        return self.maps[phrase, self.layers.index(head.layer), self.heads.index(head.head)]

    def together(self, phrase: int) -> Tensor:
        """The map `(h, w)` in [0, 1] of where all heads look that follow a phrase best: their mean by geometry."""
        leading = self.ranking[phrase][:LEADING_HEADS]
        weights = torch.tensor(following_weights(head.following for head in leading), device=self.maps.device)
        tall = heights(smooth(torch.stack([self.of_head(phrase, head) for head in leading]), SMOOTHING)) + _FLOOR
        logarithms = tall.log() * (weights / weights.sum())[:, None, None]
        return (logarithms.sum(dim=0).exp() - _FLOOR).clamp(0, 1)


def attention_maps(
    adapter: BackboneAdapter, prompts: Sequence[Prompt], *, neutral: str = NEUTRAL_TEXT, raw: bool = False
) -> list[list[AttentionMaps]]:
    """Find where the phrases of prompts look, with what a neutral sentence looks at and the sinks taken out.

    Every prompt is run with two more texts on the same images: the neutral sentence, and the same phrases in another
    sentence. They share the images' prefix, so the images pass the vision tower once.

    Args:
        adapter: The backbone.
        prompts: A batch of prompts.
        neutral: A sentence that says nothing about the images.
        raw: Give the maps as extracted; sinks, ranking and reliability are the same.

    Returns:
        For every prompt its grids, in the adapter's order.

    Raises:
        NoGridError: The image tokens have no places in the image.

    Examples:
        >>> from vlm_adapters import Prompt, load_adapter, open_dataset
        >>> from vlm_adapters.heads import attention_maps
        >>> adapter, scene = load_adapter("tiny-llava"), open_dataset("scenes:count=1,seed=4")[0]
        >>> ((maps,),) = attention_maps(adapter, [scene.prompt])
        >>> [phrase.text for phrase in maps.phrases], tuple(maps.maps.shape)  # phrases, layers, heads, h, w
        (['a pink cross', 'a pink triangle', 'a pink star'], (3, 6, 8, 16, 16))
    """
    asked = [
        *prompts,
        *(listed_prompt(prompt, neutral) for prompt in prompts),
        *(neutral_prompt(prompt, neutral) for prompt in prompts),
    ]
    extracted = adapter.extract(adapter.preprocess(asked), GridRequest())
    thirds = (extracted[start : start + len(prompts)] for start in range(0, len(asked), max(len(prompts), 1)))
    return [
        [_of_grid(prompt, *of_grid, raw=raw) for of_grid in zip(*of_prompt, strict=True)]
        for prompt, *of_prompt in zip(prompts, *thirds, strict=True)
    ]


def _of_grid(prompt: Prompt, grids: Grids, again: Grids, neutral: Grids, *, raw: bool) -> AttentionMaps:
    if grids.grid.box is None:
        raise NoGridError
    shares, of_neutral = normalise(grids.channels), normalise(neutral.channels)
    sinks = find_sinks(of_neutral[0])
    relative, beside_itself = (relative_maps(maps, of_neutral[0]) for maps in (shares, of_neutral))
    asked_again = relative_maps(again.channels, of_neutral[0])
    differences = difference(shares, of_neutral[0])
    agreements = [  # layer by layer: contrasts are copies, and a large model has a thousand heads
        agreement(contrast(one, neither[0]), contrast(other, neither[0]))
        for one, other, neither in zip(
            *(maps.split(len(grids.heads), dim=1) for maps in (relative, asked_again, beside_itself)), strict=True
        )
    ]
    scores = following(torch.cat(agreements, dim=1), differences)
    mass, on_sinks = grids.channels.sum(dim=(2, 3)), (shares * sinks).sum(dim=(2, 3))
    ranking, reliability = [], []
    for phrase, of_phrase in enumerate(scores):
        order = best_first(of_phrase)
        values = [values[phrase].tolist() for values in (scores, mass, on_sinks)]
        ranking.append(tuple(_ranked(grids, index, *(of_head[index] for of_head in values)) for index in order))
        leading = order[:LEADING_HEADS]
        agreeing = _agreement(contrast(relative[:, leading], beside_itself[0, leading])[phrase])
        elsewhere = float(differences[phrase, leading].mean())
        reliability.append(Reliability(agreeing, float(on_sinks[phrase].mean()), elsewhere))
    shown = grids.attention.float() if raw else relative.view(grids.attention.shape)
    return AttentionMaps(
        grids.grid, prompt.phrases, shown, raw, grids.layers, grids.heads, sinks, tuple(ranking), tuple(reliability)
    )


def _ranked(grids: Grids, index: int, score: float, mass: float, on_sinks: float) -> RankedHead:
    layer, head = divmod(index, len(grids.heads))
    return RankedHead(grids.layers[layer], grids.heads[head], score, mass, on_sinks)


def _agreement(added: Tensor) -> float:
    """Mean correlation of what a phrase adds to each map `(C, h, w)` with the mean of the other maps; at least 0."""
    if len(added) == 1:
        return 1.0
    unit = added / added.flatten(1).std(dim=1).clamp(min=1e-9)[:, None, None]
    others = unit.sum(dim=0) - unit
    return float(agreement(unit[None], others[None]).mean().clamp(min=0))
