"""Referring expressions: sentences that each name what to find, and how they become samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import numpy as np
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.sample import Annotation
from vlm_adapters.data.stable_random import stable_hash
from vlm_adapters.data.uri import Value
from vlm_adapters.prompt import Phrase

BETWEEN = " . "
"""What stands between the sentences of a packed sample."""

Form = Literal["isolated", "packed"]
"""Whether a sample has one sentence, or all sentences about its image."""

SentenceChoice = Literal["all", "first", "random"]
"""Which sentences of a ref are read."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that distinguishes its targets from everything else.

    Attributes:
        id: Its id in the file.
        text: The sentence, without white space around it.
    """

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Ref:
    """Targets in an image, and the sentences about them.

    Attributes:
        id: Its id in the file.
        annotations: The ids of the masks of its targets; empty if nothing in the image is meant.
        image: The id of its image.
        entry: Index of its entry in the file, from 0.
        sentences: The sentences that are not blank.
    """

    id: int
    annotations: tuple[int, ...]
    image: int
    entry: int
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True, kw_only=True)
class SentencePolicy:
    """How the sentences of refs become samples.

    Attributes:
        form: `isolated`: every sentence is a sample, and all of its text is the phrase. `packed`: a sample has all
            sentences about its image in one text with `" . "` between; later ones see earlier ones.
        sentences: `all` sentences of every ref, the `first` one, or one at `random`.
        seed: Seed of a sentence at random, which depends on `seed`, `epoch` and the ref's id alone.
        epoch: Epoch of a sentence at random.
    """

    form: Form = "isolated"
    sentences: SentenceChoice = "all"
    seed: int = 0
    epoch: int = 0

    def keys(self) -> Mapping[str, Value]:
        """The keys of a data set that say this."""
        drawn = {"seed": self.seed, "epoch": self.epoch} if self.sentences == "random" else {}
        return {"form": self.form, "sentences": self.sentences, **drawn}


DEFAULT_POLICY = SentencePolicy()


class RefSentence(NamedTuple):
    """A sentence with the ref that it belongs to."""

    ref: Ref
    sentence: Sentence


class ReferringExpressions(Dataset):
    """Sentences about targets in images. Phrase ids are `"ref/sentence"`.

    Args:
        refs: The refs, in the order of their files.
        policy: How their sentences become samples.
    """

    def __init__(self, refs: Sequence[Ref], policy: SentencePolicy) -> None:
        self._refs, self._policy = refs, policy
        self._samples = _samples(refs, policy)

    @abstractmethod
    def tags(self, ref: Ref) -> tuple[str, ...]:
        """The tags of the phrases of a ref; either every ref of a set has some, or none has."""

    @override
    def at_epoch(self, epoch: int) -> Self:
        if self._policy.sentences != "random":
            return self
        dataset = copy(self)
        dataset._policy = replace(self._policy, epoch=epoch)  # noqa: SLF001 - of the same class
        dataset._samples = _samples(self._refs, dataset._policy)  # noqa: SLF001
        return dataset

    def __len__(self) -> int:
        return len(self._samples)

    def refs_of(self, index: int) -> list[Ref]:
        """The ref of every phrase of a sample."""
        return [ref for ref, _ in self._samples[index]]

    @override
    def annotation(self, index: int) -> Annotation:
        sentences = self._samples[index]
        image = str(sentences[0].ref.image)
        texts = [sentence.text for _, sentence in sentences]
        starts = np.cumsum([0, *(len(text) + len(BETWEEN) for text in texts)]).tolist()
        ids = tuple(f"{ref.id}/{sentence.id}" for ref, sentence in sentences)
        return Annotation(
            id=image if self._policy.form == "packed" else ids[0],
            image_id=image,
            text=BETWEEN.join(texts),
            phrases=tuple(
                Phrase(text, start, start + len(text)) for text, start in zip(texts, starts[:-1], strict=True)
            ),
            phrase_ids=ids,
            phrase_tags=tuple(tags for ref, _ in sentences if (tags := self.tags(ref))),
        )


def _samples(refs: Sequence[Ref], policy: SentencePolicy) -> list[tuple[RefSentence, ...]]:
    """Divide the sentences among samples."""
    if policy.form == "isolated":
        return [(RefSentence(ref, sentence),) for ref in refs for sentence in _chosen(ref, policy)]
    images: dict[int, list[RefSentence]] = {}
    for ref in refs:
        images.setdefault(ref.image, []).extend(RefSentence(ref, sentence) for sentence in _chosen(ref, policy))
    return [tuple(sentences) for sentences in images.values()]


def _chosen(ref: Ref, policy: SentencePolicy) -> Sequence[Sentence]:
    if policy.sentences == "all":
        return ref.sentences
    number = stable_hash(policy.seed, policy.epoch, ref.id) if policy.sentences == "random" else 0
    return (ref.sentences[number % len(ref.sentences)],)
