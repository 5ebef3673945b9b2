"""What a person may say about a data set, kind by kind: the keys of `open_dataset`, checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.folder import Folder
from vlm_adapters.data.formats.instances import CaptionedInstances
from vlm_adapters.data.formats.png import Png, PngFiles
from vlm_adapters.data.formats.refcoco import Form, Reading, RefCoco, SentenceChoice
from vlm_adapters.data.formats.scenes import COLOURS, SHAPES, Scenes


class Keys(BaseModel, ABC):
    """The keys of one kind of data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def open(self) -> Dataset:
        """Open the set, whole."""


class ScenesKeys(Keys):
    """`scenes`: synthetic scenes (`vlm_adapters.data.formats.scenes`).

    Attributes:
        count: How many.
        seed: Names the stream of scenes.
        first: Where in the stream to begin.
        fewest: Fewest shapes in a scene.
        most: Most shapes in a scene.
    """

    count: PositiveInt
    seed: NonNegativeInt = 0
    first: NonNegativeInt = 0
    fewest: PositiveInt = 2
    most: int = Field(default=4, ge=1, le=len(COLOURS) * len(SHAPES))

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest}, more than most, which is {self.most}")
        return self

    def open(self) -> Dataset:
        """See `Keys`."""
        return Scenes(self.count, seed=self.seed, first=self.first, objects=(self.fewest, self.most))


class FileKeys(Keys):
    """What may be said about every set that is read from files.

    Attributes:
        limit: Most samples to take of those that `without` leaves: the first ones, or by `seed`.
        seed: Draws which samples `limit` takes; they keep their order.
        without: Data sets in any form that `open_dataset` takes; samples whose image occurs in one are dropped.
        broken: What becomes of entries and samples that cannot be used: an `error`, or `skip` and count them.
    """

    limit: PositiveInt | None = None
    seed: NonNegativeInt | None = None
    without: tuple[str | dict[str, object], ...] = ()
    broken: Literal["error", "skip"] = "error"

    @field_validator("without", mode="before")
    @classmethod
    def _several(cls, named: object) -> object:
        return (named,) if isinstance(named, str | dict) else named

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if self.seed is not None and not self.draws:
            raise ValueError("seed draws samples for limit, and there is no limit: give both, or neither")
        return self

    @property
    def draws(self) -> bool:
        """Whether something is drawn by `seed`."""
        return self.limit is not None


class FolderKeys(FileKeys):
    """`folder`: the plain form (`vlm_adapters.data.formats.folder`).

    Attributes:
        path: The folder.
    """

    path: Path

    def open(self) -> Dataset:
        """See `Keys`."""
        return Folder(self.path)


class RefCocoKeys(FileKeys):
    """`refcoco`: RefCOCO, RefCOCO+ or RefCOCOg (`vlm_adapters.data.formats.refcoco`).

    Attributes:
        annotations: Folder with `instances.json` and `refs(*.p)`.
        images: Folder of COCO's train2014 images.
        split: Such as `val`, `testA`.
        split_by: Whose splits: `unc`, `umd`, `google`; needed where there are several.
        form: A sample per sentence (`isolated`), or per image (`packed`).
        sentences: Of every object `all`, the `first`, or one at `random` by `seed`, another in every epoch.
        epoch: Of the sentences drawn at random.
    """

    annotations: Path
    images: Path
    split: str
    split_by: str | None = None
    form: Form = "isolated"
    sentences: SentenceChoice = "all"
    epoch: NonNegativeInt = 0

    @model_validator(mode="after")
    def _drawn_by_seed(self) -> Self:
        if self.sentences == "random" and self.seed is None:
            raise ValueError("sentences=random draws by seed: give seed, such as seed=0")
        if self.epoch and self.sentences != "random":
            raise ValueError("epoch draws other sentences, and none are drawn: give sentences=random, or no epoch")
        return self

    @property
    def draws(self) -> bool:
        """Whether something is drawn by `seed`."""
        return super().draws or self.sentences == "random"

    def open(self) -> Dataset:
        """See `Keys`."""
        reading = Reading(form=self.form, sentences=self.sentences, seed=self.seed or 0, epoch=self.epoch)
        return RefCoco(self.annotations, self.images, split=self.split, split_by=self.split_by, reading=reading)


class PngKeys(FileKeys):
    """`png`: Panoptic Narrative Grounding (`vlm_adapters.data.formats.png`).

    Attributes:
        narratives: The file `png_coco_val2017.json`, or that of train.
        panoptic: The file `panoptic_val2017.json`, of the same images.
        segments: The folder of its PNGs.
        images: The folder of the images.
    """

    narratives: Path
    panoptic: Path
    segments: Path
    images: Path

    def open(self) -> Dataset:
        """See `Keys`."""
        return Png(
            PngFiles(narratives=self.narratives, panoptic=self.panoptic, segments=self.segments, images=self.images)
        )


class InstancesKeys(FileKeys):
    """`instances`: captions of one's own on an instances file of COCO (`vlm_adapters.data.formats.instances`).

    Attributes:
        annotations: The instances file.
        captions: The JSONL file with a caption per line.
        images: The folder of the images.
    """

    annotations: Path
    captions: Path
    images: Path

    def open(self) -> Dataset:
        """See `Keys`."""
        return CaptionedInstances(self.annotations, self.captions, self.images)


KINDS: dict[str, type[Keys]] = {
    "scenes": ScenesKeys,
    "folder": FolderKeys,
    "refcoco": RefCocoKeys,
    "png": PngKeys,
    "instances": InstancesKeys,
}
"""Every kind of data set by its name."""
