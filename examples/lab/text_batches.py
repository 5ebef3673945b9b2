"""Texts on packed scenes as batches: ids, what follows them, and which cells the phrases in them refer to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch
from dense_labels import IGNORED, WORDS, class_indices
from packed_scenes import PackedScene, by_grid
from scene_texts import Look, Turn, say
from tiny_family import TinyFamily
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset, get_worker_info

UNKNOWN = (IGNORED,) * len(WORDS)


@dataclass(frozen=True)
class EncodedText:
    """A conversation after its image.

    Attributes:
        ids: `(S,)` from the first token after the image.
        targets: `(S,)` the next token where a model answers, else `IGNORED`.
        asked: `(S,)` bool, whether that is in the answer to a question about something.
        looks: Position of a token in `ids`, and what it refers to.
    """

    ids: Tensor
    targets: Tensor
    asked: Tensor
    looks: tuple[tuple[int, Look], ...]


@dataclass(frozen=True)
class TextGroup:
    """Texts of like length.

    Attributes:
        images: `(g,)` which of the batch's images each is on.
        ids: `(g, S)`, padded on the right.
    """

    images: Tensor
    ids: Tensor


@dataclass(frozen=True)
class TextBatch:
    """Texts on `B` images.

    Attributes:
        scenes: Numbers of the `B` scenes.
        grid: Rows and columns of their image tokens.
        groups: The texts, the shortest first; tokens count through all of them.
        answers: `(A,)` the tokens after which the model writes.
        targets: `(A,)` what it writes.
        asked: `(A,)` bool, whether that answers a question about something.
        at: `(M,)` the token of everything that refers, those to the first image first.
        counts: How many refer to each image.
        cells: `(M, h * w)` how much of every cell it refers to, 0 to 1.
        anchors: `(M, h * w)` the same of the thing a relation starts from; `IGNORED` without one.
        attributes: `(M, 4)` the classes of `dense_labels.WORDS` of the one thing it refers to, or `IGNORED`.
        final: `(M,)` bool, whether a phrase ends there.
        present: `(M,)` bool, whether what it refers to is there.
    """

    scenes: tuple[int, ...]
    grid: tuple[int, int]
    groups: tuple[TextGroup, ...]
    answers: Tensor
    targets: Tensor
    asked: Tensor
    at: Tensor
    counts: tuple[int, ...]
    cells: Tensor
    anchors: Tensor
    attributes: Tensor
    final: Tensor
    present: Tensor


class TextEncoder:
    """Writes conversations by the chat template of a family."""

    def __init__(self, family: TinyFamily) -> None:
        self.tokenizer = family.processor.tokenizer
        self._image = family.processor.image_token_id
        self._templates = {count: family.chat_template(count) for count in (1, 2)}

    def before_image(self) -> Tensor:
        """Ids up to the image."""
        ids = self.tokenizer(self._templates[1])["input_ids"]
        return torch.tensor(ids[: ids.index(self._image)], dtype=torch.long)

    def encode(self, turns: Sequence[Turn]) -> EncodedText:
        """The tokens of a conversation after the image."""
        text, spans, looks = self._templates[len(turns)], [], []
        for number, turn in enumerate(turns):
            for marker, words, of_words in (("Q", turn.question, turn.in_question), ("A", turn.answer, turn.in_answer)):
                start = text.index(f"{marker}<{number}>")
                text = text.replace(f"{marker}<{number}>", words, 1)
                looks += [(start + look.end, look) for look in of_words]
            spans.append((turn, start, start + len(turn.answer)))
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
        first = ids.index(self._image) + 1
        targets, asked = [IGNORED] * len(ids), [False] * len(ids)
        at = [(ends.index(end, first) - first, look) for end, look in looks]
        for turn, start, end in spans:
            begin = next(index for index, value in enumerate(ends) if index >= first and value > start)
            last = next(index for index, value in enumerate(ends) if index >= first and value >= end)
            # What ends an answer is predicted, too.
            targets[begin - 1 : last + 1] = ids[begin : last + 2]
            for look in turn.in_answer if turn.names_freely else ():
                word = next(index for index, value in enumerate(ends) if index >= first and value > start + look.begin)
                targets[word - 1] = IGNORED
                if look.final:
                    targets[ends.index(start + look.end, first)] = IGNORED
            if turn.in_question:
                # Where an answer begins, what was asked about is looked at.
                at.append((begin - 1 - first, turn.in_question[-1]))
                asked[begin - 1 : last + 1] = [True] * (last + 2 - begin)
        return EncodedText(
            torch.tensor(ids[first:]), torch.tensor(targets[first:]), torch.tensor(asked[first:]), tuple(at)
        )


class TextBatches(IterableDataset[TextBatch]):
    """Endless batches of scenes of one grid.

    Args:
        family: Of the model to train.
        scenes: To talk about.
        images: How many make a batch.
        texts: How many on each image.
        group: How many texts of like length are padded together.
        seed: Of the choices; every worker has its own.
    """

    def __init__(
        self, family: TinyFamily, scenes: Sequence[PackedScene], images: int, texts: int, group: int, seed: int
    ) -> None:
        self._encoder, self._scenes = TextEncoder(family), scenes
        self._images, self._texts, self._group, self._seed = images, texts, group, seed

    def __iter__(self) -> Iterator[TextBatch]:
        """Draw a grid by how many scenes have it, then scenes."""
        worker = get_worker_info()
        rng = np.random.default_rng((self._seed, worker.id if worker else 0, 1))
        for grid, numbers in by_grid(self._scenes, self._images, self._seed):
            yield self.batch(rng, grid, numbers)

    def batch(self, rng: np.random.Generator, grid: tuple[int, int], numbers: Sequence[int]) -> TextBatch:
        """Talk about some scenes of one grid."""
        texts = sorted(
            (
                (image, self._encoder.encode(say(rng, self._scenes[number].things, self._scenes[number].places)))
                for image, number in enumerate(numbers)
                for _ in range(self._texts)
            ),
            key=lambda item: len(item[1].ids),
        )
        groups, every_target, every_asked, looks, tokens = [], [], [], [], 0
        for start in range(0, len(texts), self._group):
            images, encoded = zip(*texts[start : start + self._group], strict=True)
            ids = pad_sequence([text.ids for text in encoded], batch_first=True)
            targets = pad_sequence([text.targets for text in encoded], batch_first=True, padding_value=IGNORED)
            groups.append(TextGroup(torch.tensor(images), ids))
            every_target.append(targets.flatten())
            every_asked.append(pad_sequence([text.asked for text in encoded], batch_first=True).flatten())
            for row, (image, text) in enumerate(zip(images, encoded, strict=True)):
                looks += [(image, tokens + row * ids.shape[1] + at, look) for at, look in text.looks]
            tokens += ids.numel()
        looks.sort(key=itemgetter(0))
        covers = [self._scenes[number].cover.flatten(1).float() / 255 for number in numbers]
        classes = [[class_indices(thing) for thing in self._scenes[number].things] for number in numbers]
        none = torch.full_like(covers[0][0], IGNORED)
        targets = torch.cat(every_target)
        answers = (targets != IGNORED).nonzero()[:, 0]
        return TextBatch(
            tuple(numbers),
            grid,
            tuple(groups),
            answers,
            targets[answers],
            torch.cat(every_asked)[answers],
            torch.tensor([at for _, at, _ in looks]),
            tuple(np.bincount([image for image, _, _ in looks], minlength=len(numbers)).tolist()),
            torch.stack([covers[image][list(look.things)].sum(0).clamp(max=1) for image, _, look in looks]),
            torch.stack([none if look.anchor is None else covers[image][look.anchor] for image, _, look in looks]),
            torch.tensor(
                [classes[image][look.things[0]] if len(look.things) == 1 else UNKNOWN for image, _, look in looks]
            ),
            torch.tensor([look.final for _, _, look in looks]),
            torch.tensor([bool(look.things) for _, _, look in looks]),
        )
