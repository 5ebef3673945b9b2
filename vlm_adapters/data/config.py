"""The keys of every kind of data set that `open_dataset` opens, as models that check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.dataset_config import DatasetConfig, FileDatasetConfig
from vlm_adapters.data.formats.categories import CocoCategories
from vlm_adapters.data.formats.cvat import Cvat
from vlm_adapters.data.formats.folder import Folder
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.instances import CaptionedInstances
from vlm_adapters.data.formats.labelme import Labelme
from vlm_adapters.data.formats.mask_folder import MaskFolder
from vlm_adapters.data.formats.png import Png, PngFiles
from vlm_adapters.data.formats.reasonseg import ReasonSeg, TextChoice
from vlm_adapters.data.formats.refcoco import GRefCoco, RefCoco
from vlm_adapters.data.formats.refcoco_m import RefCocoM
from vlm_adapters.data.formats.referring import Form, SentenceChoice, SentencePolicy
from vlm_adapters.data.formats.scenes import COLOURS, SHAPES, Scenes

MOST_SCENES = 10**12
"""Largest number of scenes, far above what any run draws; beyond it Python has no length for a set."""


class ScenesConfig(DatasetConfig):
    """`scenes`: synthetic scenes (`vlm_adapters.data.formats.scenes`).

    Attributes:
        count: Number of scenes.
        seed: Seed of the stream of scenes.
        first: Position in the stream of the first scene.
        fewest: Smallest number of shapes in a scene.
        most: Largest number of shapes in a scene.
    """

    count: Annotated[PositiveInt, Field(le=MOST_SCENES)]
    seed: NonNegativeInt = 0
    first: int = Field(default=0, ge=0, le=MOST_SCENES)
    fewest: PositiveInt = 2
    most: int = Field(default=4, ge=1, le=len(COLOURS) * len(SHAPES))

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest}, more than most, which is {self.most}")
        return self

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return Scenes(self.count, seed=self.seed, first=self.first, objects=(self.fewest, self.most))


class HardScenesConfig(DatasetConfig):
    """`hard_scenes`: scenes with relations, counts, overlaps and absent things (`data.formats.hard_scenes`).

    Attributes:
        count: Number of scenes.
        seed: Seed of the stream of scenes.
        first: Position in the stream of the first scene.
    """

    count: Annotated[PositiveInt, Field(le=MOST_SCENES)]
    seed: NonNegativeInt = 0
    first: int = Field(default=0, ge=0, le=MOST_SCENES)

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return HardScenes(self.count, seed=self.seed, first=self.first)


class FolderConfig(FileDatasetConfig):
    """`folder`: the plain form (`vlm_adapters.data.formats.folder`).

    Attributes:
        path: The folder.
    """

    path: Path

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return Folder(self.path, access)


class ReferringConfig(FileDatasetConfig):
    """The keys that all kinds of referring expressions have in common.

    Attributes:
        form: A sample per sentence (`isolated`), or per image (`packed`).
        sentences: `all` sentences of every ref, the `first`, or one at `random` by `seed`, another in every epoch.
        epoch: The epoch whose sentences are drawn at random.
    """

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
    @override
    def draws(self) -> bool:
        return super().draws or self.sentences == "random"

    @property
    def policy(self) -> SentencePolicy:
        """How sentences become samples."""
        return SentencePolicy(form=self.form, sentences=self.sentences, seed=self.seed or 0, epoch=self.epoch)


class RefCocoConfig(ReferringConfig):
    """`refcoco`: RefCOCO, RefCOCO+ or RefCOCOg (`vlm_adapters.data.formats.refcoco`).

    Attributes:
        annotations: Folder with `instances.json` and `refs(*.p)`.
        images: Folder of COCO's train2014 images.
        split: The split, such as `val` or `testA`.
        split_by: Who made the splits: `unc`, `umd` or `google`; needed where there are several files of refs.
    """

    reader: ClassVar[type[RefCoco]] = RefCoco

    annotations: Path
    images: Path
    split: str
    split_by: str | None = None

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return self.reader(
            self.annotations, self.images, split=self.split, split_by=self.split_by, policy=self.policy, access=access
        )


class GRefCocoConfig(RefCocoConfig):
    """`grefcoco`: gRefCOCO, with the keys of `refcoco`; `annotations` has `instances.json` and `grefs(*).json`."""

    reader = GRefCoco


class RefCocoMConfig(ReferringConfig):
    """`refcoco_m`: RefCOCO-M (`vlm_adapters.data.formats.refcoco_m`).

    Attributes:
        path: Folder with the parquet files, or with a folder `data` of them.
    """

    path: Path

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return RefCocoM(self.path, self.policy, access)


class ReasonSegConfig(FileDatasetConfig):
    """`reasonseg`: ReasonSeg (`vlm_adapters.data.formats.reasonseg`).

    Attributes:
        path: The folder of a split, such as `ReasonSeg/val`.
        sentences: The `first` text of every image, as published, or `all`.
    """

    path: Path
    sentences: TextChoice = "first"

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return ReasonSeg(self.path, self.sentences, access)


class PngConfig(FileDatasetConfig):
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

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        files = PngFiles(narratives=self.narratives, panoptic=self.panoptic, segments=self.segments, images=self.images)
        return Png(files, access)


class InstancesConfig(FileDatasetConfig):
    """`instances`: your own captions for an instances file of COCO (`vlm_adapters.data.formats.instances`).

    Attributes:
        annotations: The instances file.
        captions: The JSONL file with a caption per line.
        images: The folder of the images.
    """

    annotations: Path
    captions: Path
    images: Path

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return CaptionedInstances(self.annotations, self.captions, self.images, access)


class LabelmeConfig(FileDatasetConfig):
    """`labelme`: a folder of labelme (`vlm_adapters.data.formats.labelme`).

    Attributes:
        path: The folder of the JSON files.
        images: The folder of the images, if it is another one.
    """

    path: Path
    images: Path | None = None

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return Labelme(self.path, self.images, access)


class CocoConfig(FileDatasetConfig):
    """`coco`: the categories of an instances file as phrases (`vlm_adapters.data.formats.categories`).

    Attributes:
        annotations: The instances file.
        images: The folder of the images.
    """

    reader: ClassVar[type[CocoCategories | Cvat]] = CocoCategories

    annotations: Path
    images: Path

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return self.reader(self.annotations, self.images, access)


class CvatConfig(CocoConfig):
    """`cvat`: an XML file of CVAT (`vlm_adapters.data.formats.cvat`), with the keys of `coco`."""

    reader = Cvat


class MasksConfig(FileDatasetConfig):
    """`masks`: a folder with `images/NAME.jpg` and `masks/NAME/LABEL.png` (`vlm_adapters.data.formats.mask_folder`).

    Attributes:
        path: The folder.
    """

    path: Path

    @override
    def open(self, access: Access = DEFAULT_ACCESS) -> Dataset:
        return MaskFolder(self.path, access)


DATASET_CONFIGS: dict[str, type[DatasetConfig]] = {
    "scenes": ScenesConfig,
    "hard_scenes": HardScenesConfig,
    "folder": FolderConfig,
    "refcoco": RefCocoConfig,
    "grefcoco": GRefCocoConfig,
    "refcoco_m": RefCocoMConfig,
    "reasonseg": ReasonSegConfig,
    "png": PngConfig,
    "instances": InstancesConfig,
    "coco": CocoConfig,
    "cvat": CvatConfig,
    "labelme": LabelmeConfig,
    "masks": MasksConfig,
}
"""The keys of each kind of data set, by the name of the kind."""
