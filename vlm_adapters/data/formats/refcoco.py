"""RefCOCO, RefCOCO+ and RefCOCOg, in their published files `instances.json` and `refs(*.p)`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.coco_files import Instances, image_path, open_image
from vlm_adapters.data.formats.refs import Ref, Refs, Sentence
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.stable_random import stable_hash
from vlm_adapters.data.uri import Value, format_uri
from vlm_adapters.prompt import Phrase

BETWEEN = " . "
"""What stands between the sentences of a packed sample."""

Form = Literal["isolated", "packed"]
"""Whether a sample has one sentence, or all sentences about its image."""

SentenceChoice = Literal["all", "first", "random"]
"""Which sentences of a ref are read."""


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


class _RefSentence(NamedTuple):
    ref: Ref
    sentence: Sentence


class RefCoco(Dataset):
    """A split of RefCOCO, RefCOCO+ or RefCOCOg. Phrase ids are `"ref_id/sent_id"`.

    Args:
        annotations: Folder with `instances.json` and `refs(*.p)`.
        images: Folder of COCO's train2014 images.
        split: The split, such as `val` or `testA`.
        split_by: Who made the splits: `unc`, `umd` or `google`; None if there is only one file of refs.
        policy: How the sentences of refs become samples.
        access: How far the files may reach.

    Raises:
        DataError: A folder, file or split is missing, or a file is malformed.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        split: str,
        split_by: str | None = None,
        policy: SentencePolicy = SentencePolicy(),
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        self.access = access
        self._annotations = ImageFolder.existing(annotations, access).path
        self._images = ImageFolder.existing(images, access)
        self._split, self._policy = split, policy
        self._instances = Instances.read(self._annotations / "instances.json", access)
        self._refs = Refs.read(self._annotations, split, split_by, self._instances, self._images)
        # of the set's 196,771 annotations a split needs some thousands
        self._instances.images.keep({ref.image for ref in self._refs.refs})
        self._instances.annotations.keep({ref.annotation for ref in self._refs.refs})
        self.problems = self._refs.problems
        self._samples = _samples(self._refs.refs, policy)

    @property
    @override
    def source(self) -> str:
        keys: dict[str, Value | None] = {
            "annotations": str(self._annotations),
            "images": str(self._images.path),
            "split": self._split,
            "split_by": self._refs.split_by,
            "form": self._policy.form,
            "sentences": self._policy.sentences,
        }
        if self._policy.sentences == "random":
            keys |= {"seed": self._policy.seed, "epoch": self._policy.epoch}
        return format_uri("refcoco", keys)

    @override
    def at_epoch(self, epoch: int) -> Self:
        if self._policy.sentences != "random":
            return self
        dataset = copy(self)
        dataset._policy = replace(self._policy, epoch=epoch)  # noqa: SLF001 - of the same class
        dataset._samples = _samples(self._refs.refs, dataset._policy)  # noqa: SLF001
        return dataset

    def __len__(self) -> int:
        return len(self._samples)

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
        )

    @override
    def place(self, index: int) -> str:
        entries = dict.fromkeys(str(ref.entry) for ref, _ in self._samples[index])
        return f"{self._refs.path}[{', '.join(entries)}]"

    @override
    def files(self) -> tuple[Path, ...]:
        return (self._annotations / "instances.json", self._refs.path)

    @override
    def image_file(self, index: int) -> Path:
        return image_path(self._images, self._instances.images, self._samples[index][0].ref.image)

    @override
    def sample(self, index: int) -> Sample:
        annotations = [ref.annotation for ref, _ in self._samples[index]]
        entry = self._instances.images[self._samples[index][0].ref.image]
        size = (entry.height, entry.width)
        image = open_image(self._images.check_inside(self.image_file(index)), size, self.access.limits)
        masks = self._instances.masks([(annotation,) for annotation in annotations], size)
        return Sample(**vars(self.annotation(index)), image=image, masks=masks)


def _samples(refs: Sequence[Ref], policy: SentencePolicy) -> list[tuple[_RefSentence, ...]]:
    """Divide the sentences among samples."""
    if policy.form == "isolated":
        return [(_RefSentence(ref, sentence),) for ref in refs for sentence in _chosen(ref, policy)]
    images: dict[int, list[_RefSentence]] = {}
    for ref in refs:
        images.setdefault(ref.image, []).extend(_RefSentence(ref, sentence) for sentence in _chosen(ref, policy))
    return [tuple(sentences) for sentences in images.values()]


def _chosen(ref: Ref, policy: SentencePolicy) -> Sequence[Sentence]:
    if policy.sentences == "all":
        return ref.sentences
    number = stable_hash(policy.seed, policy.epoch, ref.id) if policy.sentences == "random" else 0
    return (ref.sentences[number % len(ref.sentences)],)
