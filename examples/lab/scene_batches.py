"""Scenes as batches for training: images of one grid, several captions for each, and classes for every cell."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tiny_family import TinyFamily
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset

from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES, Scenes, caption, place_words
from vlm_adapters.data.sample import Sample

CAPTIONS = 4
REACH = 3
IGNORED = -100
COLOUR_WORDS, DOT_WORDS = tuple(COLOURS), ("", *DOTS)


@dataclass(frozen=True)
class Batch:
    """Scenes whose images have one grid of `h x w` cells; `K` captions for each of `B` images.

    Attributes:
        pixels: `(B, 3, H, W)` uint8, as the model sees them before they are normalised.
        question: `(Q,)` ids of the chat up to the last token before the answer, the same for all.
        answers: `(B, K, S)` ids of that last token and the caption, padded on the right.
        targets: `(B, K, S)` the next token, or `IGNORED`.
        shapes: `(B, K, S)` bit `k` is set where `SHAPES[k]` may come next after a colour; 0 elsewhere.
        cells: `(B, 3, h * w)` class of colour, shape and dot at every cell, or `IGNORED`; the last class is "none".
        around: `(B, h * w, (2 * REACH + 1) ** 2)` how much of the cells around a cell its object covers, 0 to 1;
            all `IGNORED` where there is no object.
    """

    pixels: Tensor
    question: Tensor
    answers: Tensor
    targets: Tensor
    shapes: Tensor
    cells: Tensor
    around: Tensor


class SceneBatches(IterableDataset[Batch]):
    """Endless batches of scenes, grouped by grid, from the scene numbered `first` on.

    Args:
        family: Of the model to train.
        seed: Of the scenes.
        images: How many make a batch.
        first: Where in the stream to begin.
        objects: Fewest and most shapes in a scene.
    """

    def __init__(
        self,
        family: TinyFamily,
        seed: int,
        images: int,
        first: int = 0,
        objects: tuple[int, int] = (2, 4),
    ) -> None:
        self._family = family
        self._seed = seed
        self._images = images
        self._scenes = Scenes(sys.maxsize // 2, seed=seed, first=first, objects=objects)

    def __iter__(self) -> Iterator[Batch]:
        """Wait for each grid until enough scenes of it are drawn."""
        waiting: dict[tuple[int, ...], list[tuple[Sample, Tensor]]] = defaultdict(list)
        for number in range(len(self._scenes)):
            sample = self._scenes[number]
            pixels = self._family.resize(sample.image)
            rows = waiting[tuple(pixels.shape)]
            rows.append((sample, pixels))
            if len(rows) == self._images:
                yield self.collate(rows, np.random.default_rng((self._seed, number)))
                rows.clear()

    def collate(self, rows: list[tuple[Sample, Tensor]], rng: np.random.Generator) -> Batch:
        """Write captions for scenes with resized images of one size, and put all into one batch."""
        grid = self._family.grid(rows[0][1])
        columns: list[list[Tensor]] = [[], [], []]
        for sample, _ in rows:
            names, places = [phrase.text for phrase in sample.phrases], [place_words(mask) for mask in sample.masks]
            for _ in range(CAPTIONS):
                question, *answer = tokenize(self._family, *caption(rng, names, places), grid[0] * grid[1])
                for column, part in zip(columns, answer, strict=True):
                    column.append(part)
        paddings = (self._family.processor.tokenizer.pad_token_id, IGNORED, 0)
        texts = (
            pad_sequence(column, batch_first=True, padding_value=value).unflatten(0, (len(rows), CAPTIONS))
            for column, value in zip(columns, paddings, strict=True)
        )
        dense = zip(*(dense_labels(self._family, sample, grid) for sample, _ in rows), strict=True)
        return Batch(torch.stack([pixels for _, pixels in rows]), question, *texts, *map(torch.stack, dense))


def tokenize(family: TinyFamily, text: str, phrases: tuple, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields `question`, `answers`, `targets` and `shapes` of a `Batch` for one caption."""
    tokenizer, chat = family.processor.tokenizer, family.chat(text)
    encoded = tokenizer(chat, return_offsets_mapping=True)
    begin = chat.rindex(text)
    first = next(index for index, (_, end) in enumerate(encoded["offset_mapping"]) if end > begin)
    # The end of the answer is predicted, too.
    last = encoded["input_ids"].index(tokenizer.eos_token_id, first)
    ids = torch.tensor(encoded["input_ids"])
    question, answer, targets = ids[: first - 1], ids[first - 1 : last], ids[first : last + 1]
    question = question.repeat_interleave(torch.where(question == family.processor.image_token_id, cells, 1))
    shapes = torch.zeros_like(answer)
    colour_ids = torch.tensor(tokenizer.convert_tokens_to_ids([f"Ġ{word}" for word in COLOUR_WORDS]))
    places = torch.isin(answer, colour_ids).nonzero()[:, 0].tolist()
    names = [phrase.text.split()[1:3] for phrase in sorted(phrases, key=lambda phrase: phrase.start)]
    for index, (place, (colour, _)) in enumerate(zip(places, names, strict=True)):
        shapes[place] = sum(1 << SHAPES.index(shape) for other, shape in names[index:] if other == colour)
    return question, answer, targets, shapes


def dense_labels(family: TinyFamily, sample: Sample, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The fields `cells` and `around` of a `Batch` for one scene; classes of cells on an edge are ignored."""
    names = [phrase.text.split() for phrase in sample.phrases]
    dots = [words[words.index("dot") - 1] if "dot" in words else "" for words in names]
    classes = torch.tensor(
        [
            [*(COLOUR_WORDS.index(words[1]) for words in names), len(COLOUR_WORDS)],
            [*(SHAPES.index(words[2]) for words in names), len(SHAPES)],
            [*(DOT_WORDS.index(dot) for dot in dots), len(DOT_WORDS)],
        ]
    )
    cover = F.adaptive_avg_pool2d(family.frame(torch.from_numpy(sample.masks).float()), grid)
    share, owner = torch.cat([cover.flatten(1), 1 - cover.sum(0).view(1, -1)]).max(0)
    around = F.unfold(cover[:, None], 2 * REACH + 1, padding=REACH)
    around = torch.cat([around, torch.full_like(around[:1], IGNORED)])[owner, :, torch.arange(len(owner))]
    return torch.where(share > 0.6, classes[:, owner], IGNORED), around
