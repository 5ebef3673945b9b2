"""RefCOCO, RefCOCO+ and RefCOCOg as published: `instances.json` and `refs(*.p)`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.coco_files import Instances, folder_of, open_image
from vlm_adapters.data.formats.refs import Ref, Refs, Sentence
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.stable_random import draw
from vlm_adapters.data.uri import Value, write_named
from vlm_adapters.prompt import Phrase

BETWEEN = " . "
"""What stands between the sentences of a packed sample."""

Form = Literal["isolated", "packed"]
"""How many sentences a sample has."""

SentenceChoice = Literal["all", "first", "random"]
"""Which sentences of a ref."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How refs become samples.

    Attributes:
        form: `isolated`: every sentence is a sample, and all of its text is the phrase. `packed`: a sample has all
            sentences about its image in one text with `" . "` between; later ones see earlier ones.
        sentences: Of every ref `all` sentences, the `first` one, or one at `random`.
        seed: For `random`: the sentence depends on `seed`, `epoch` and the ref's id alone.
        epoch: See `seed`.
    """

    form: Form = "isolated"
    sentences: SentenceChoice = "all"
    seed: int = 0
    epoch: int = 0


class _Said(NamedTuple):
    ref: Ref
    sentence: Sentence


class RefCoco(Dataset):
    """A split of RefCOCO, RefCOCO+ or RefCOCOg. Phrase ids are `"ref_id/sent_id"`.

    Args:
        annotations: Folder with `instances.json` and `refs(*.p)`.
        images: Folder of COCO's train2014 images.
        split: Such as `val`, `testA`.
        split_by: Whose splits: `unc`, `umd`, `google`; None if there is only one file of refs.
        reading: How refs become samples.

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
        reading: Reading = Reading(),
    ) -> None:
        self._annotations, self._images = folder_of(annotations), folder_of(images)
        self._split, self._reading = split, reading
        whole = Instances.read(self._annotations / "instances.json")
        self._refs = Refs.read(self._annotations, split, split_by, whole)
        # of the set's 196,771 annotations a split needs some thousands
        self._instances = replace(
            whole,
            images={ref.image: whole.images[ref.image] for ref in self._refs.refs},
            annotations={ref.annotation: whole.annotations[ref.annotation] for ref in self._refs.refs},
        )
        self.problems = self._refs.problems
        self._samples = _samples(self._refs.refs, reading)

    @property
    def source(self) -> str:
        """See `Dataset`."""
        keys: dict[str, Value | None] = {
            "annotations": str(self._annotations),
            "images": str(self._images),
            "split": self._split,
            "split_by": self._refs.split_by,
            "form": self._reading.form,
            "sentences": self._reading.sentences,
        }
        if self._reading.sentences == "random":
            keys |= {"seed": self._reading.seed, "epoch": self._reading.epoch}
        return write_named("refcoco", keys)

    def at_epoch(self, epoch: int) -> Self:
        """See `Dataset`; other sentences where one is drawn at random."""
        if self._reading.sentences != "random":
            return self
        there = copy(self)
        there._reading = replace(self._reading, epoch=epoch)  # noqa: SLF001 - its own class
        there._samples = _samples(self._refs.refs, there._reading)  # noqa: SLF001
        return there

    def __len__(self) -> int:
        return len(self._samples)

    def annotation(self, index: int) -> Annotation:
        """See `Dataset`."""
        said = self._samples[index]
        image = str(said[0].ref.image)
        texts = [one.sentence.text for one in said]
        starts = np.cumsum([0, *(len(text) + len(BETWEEN) for text in texts)]).tolist()
        ids = tuple(f"{one.ref.id}/{one.sentence.id}" for one in said)
        return Annotation(
            id=image if self._reading.form == "packed" else ids[0],
            image_id=image,
            text=BETWEEN.join(texts),
            phrases=tuple(
                Phrase(text, start, start + len(text)) for text, start in zip(texts, starts[:-1], strict=True)
            ),
            phrase_ids=ids,
        )

    def place(self, index: int) -> str:
        """See `Dataset`."""
        entries = dict.fromkeys(str(one.ref.entry) for one in self._samples[index])
        return f"{self._refs.path}[{', '.join(entries)}]"

    def files(self) -> tuple[Path, ...]:
        """See `Dataset`."""
        return (self._annotations / "instances.json", self._refs.path)

    def image_file(self, index: int) -> Path:
        """See `Dataset`."""
        return self._images / self._instances.images[self._samples[index][0].ref.image].file_name

    def sample(self, index: int) -> Sample:
        """See `Dataset`."""
        said = self._samples[index]
        entry = self._instances.images[said[0].ref.image]
        image = open_image(self.image_file(index), (entry.height, entry.width))
        masks = {one.ref.annotation: self._instances.mask(one.ref.annotation) for one in said}
        return Sample(
            **vars(self.annotation(index)), image=image, masks=np.stack([masks[one.ref.annotation] for one in said])
        )


def _samples(refs: Sequence[Ref], reading: Reading) -> list[tuple[_Said, ...]]:
    """What is said in every sample."""
    if reading.form == "isolated":
        return [(_Said(ref, sentence),) for ref in refs for sentence in _chosen(ref, reading)]
    images: dict[int, list[_Said]] = {}
    for ref in refs:
        images.setdefault(ref.image, []).extend(_Said(ref, sentence) for sentence in _chosen(ref, reading))
    return [tuple(said) for said in images.values()]


def _chosen(ref: Ref, reading: Reading) -> Sequence[Sentence]:
    if reading.sentences == "all":
        return ref.sentences
    number = draw(reading.seed, reading.epoch, ref.id) if reading.sentences == "random" else 0
    return (ref.sentences[number % len(ref.sentences)],)
