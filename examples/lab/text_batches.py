"""Texts on packed scenes as batches: ids, what follows them, and which cells the phrases in them refer to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from packed_scenes import PackedScene
from scene_texts import Look, Turn, say
from tiny_family import TinyFamily
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset

IGNORED = -100


@dataclass(frozen=True)
class EncodedText:
    """A conversation after its image.

    Attributes:
        ids: `(S,)` from the first token after the image.
        targets: `(S,)` the next token where a model answers, else `IGNORED`.
        looks: Position of a token in `ids`, and what it refers to.
    """

    ids: Tensor
    targets: Tensor
    looks: tuple[tuple[int, Look], ...]


@dataclass(frozen=True)
class TextBatch:
    """`K` texts for each of `B` images.

    Attributes:
        scenes: `(B,)` numbers of the scenes.
        ids: `(B, K, S)`, padded on the right.
        targets: `(B, K, S)` the next token, or `IGNORED`.
        at: `(M, 3)` image, text and token of everything that refers.
        cells: `(M, h * w)` how much of every cell it refers to, 0 to 1.
        anchors: `(M, h * w)` the same of the thing a relation starts from; `IGNORED` without one.
        final: `(M,)` bool, whether a phrase ends there.
        present: `(M,)` bool, whether what it refers to is there.
    """

    scenes: Tensor
    ids: Tensor
    targets: Tensor
    at: Tensor
    cells: Tensor
    anchors: Tensor
    final: Tensor
    present: Tensor


class TextEncoder:
    """Writes conversations by the chat template of a family."""

    def __init__(self, family: TinyFamily) -> None:
        self.tokenizer = family.processor.tokenizer
        self._image = family.processor.image_token_id
        self._templates = {count: family.chat_template(count) for count in (1, 2)}

    def question(self, cells: int) -> Tensor:
        """Ids up to the last token of an image of so many cells."""
        ids = self.tokenizer(self._templates[1])["input_ids"]
        before = torch.tensor(ids[: ids.index(self._image)], dtype=torch.long)
        return torch.cat([before, torch.full((cells,), self._image)])

    def encode(self, turns: Sequence[Turn]) -> EncodedText:
        """The tokens of a conversation after the image."""
        text, spans, looks = self._templates[len(turns)], [], []
        for number, turn in enumerate(turns):
            for marker, words, of_words in (("Q", turn.question, turn.in_question), ("A", turn.answer, turn.in_answer)):
                start = text.index(f"{marker}<{number}>")
                text = text.replace(f"{marker}<{number}>", words, 1)
                looks += [(start + look.end, look) for look in of_words]
            spans.append((start, start + len(turn.answer)))
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
        first = ids.index(self._image) + 1
        targets = [IGNORED] * len(ids)
        for start, end in spans:
            begin = next(index for index, value in enumerate(ends) if index >= first and value > start)
            last = next(index for index, value in enumerate(ends) if index >= first and value >= end)
            # What ends an answer is predicted, too.
            targets[begin - 1 : last + 1] = ids[begin : last + 2]
        at = tuple((ends.index(end, first) - first, look) for end, look in looks)
        return EncodedText(torch.tensor(ids[first:]), torch.tensor(targets[first:]), at)


class TextBatches(IterableDataset[TextBatch]):
    """Endless batches of scenes of one grid.

    Args:
        family: Of the model to train.
        scenes: To talk about.
        images: How many make a batch.
        texts: How many on each image.
        seed: Of the choices.
    """

    def __init__(self, family: TinyFamily, scenes: Sequence[PackedScene], images: int, texts: int, seed: int) -> None:
        self._encoder, self._scenes = TextEncoder(family), scenes
        self._images, self._texts, self._seed = images, texts, seed
        self._grids: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, scene in enumerate(scenes):
            self._grids[tuple(scene.cover.shape[1:])].append(number)

    def __iter__(self) -> Iterator[TextBatch]:
        """Draw a grid by how many scenes have it, then scenes."""
        torch.set_num_threads(1)
        rng = np.random.default_rng(self._seed)
        grids = list(self._grids.values())
        shares = np.array([len(grid) for grid in grids]) / len(self._scenes)
        while True:
            grid = grids[int(rng.choice(len(grids), p=shares))]
            yield self.batch(rng, rng.choice(grid, self._images).tolist())

    def batch(self, rng: np.random.Generator, numbers: Sequence[int]) -> TextBatch:
        """Talk about some scenes."""
        texts, at, cells, anchors, final, present = [], [], [], [], [], []
        for row, number in enumerate(numbers):
            scene = self._scenes[number]
            cover = scene.cover.flatten(1).float() / 255
            for column in range(self._texts):
                text = self._encoder.encode(say(rng, scene.things, scene.places))
                texts.append(text)
                for position, look in text.looks:
                    at.append((row, column, position))
                    cells.append(cover[list(look.things)].sum(0).clamp(max=1))
                    none = torch.full_like(cover[0], IGNORED)
                    anchors.append(none if look.anchor is None else cover[look.anchor])
                    final.append(look.final)
                    present.append(bool(look.things))
        ids = pad_sequence([text.ids for text in texts], batch_first=True, padding_value=0)
        targets = pad_sequence([text.targets for text in texts], batch_first=True, padding_value=IGNORED)
        shape = (len(numbers), self._texts, -1)
        return TextBatch(
            torch.tensor(numbers),
            ids.view(shape),
            targets.view(shape),
            torch.tensor(at),
            torch.stack(cells),
            torch.stack(anchors),
            torch.tensor(final),
            torch.tensor(present),
        )
