"""The head profile of a checkpoint: which heads show where things are, and how masks are made of their maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import Head
from vlm_adapters.data.files import write_json
from vlm_adapters.data.validated import read_model
from vlm_adapters.decoder.checkpoint import BackboneReference
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, DecoderError

PROFILE_FILE = "head_profile.json"
"""Name of a profile's file beside the files of a checkpoint."""

Criterion = Literal["following", "iou", "pointing"]
"""How heads are chosen: by how well they follow phrases (label-free), by their masks, or by where their maps peak."""


class ProfileHead(BaseModel):
    """One head of a profile.

    Attributes:
        layer: True layer index.
        head: Head index.
        weight: Weight of its map in the mean.
        value: Value of the criterion, higher is better: in [-1, 1] for `following`, otherwise in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    value: Annotated[float, Field(allow_inf_nan=False)]

    @property
    def index(self) -> Head:
        """`(layer, head)`."""
        return self.layer, self.head

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


class HeadProfile(BaseModel):
    """The heads of one checkpoint that show where phrases are, how they were chosen, and how a mask is made of them.

    Attributes:
        backbone: The checkpoint, its revision and its options.
        criterion: How the heads were chosen.
        source: What they were chosen on: `"scenes"`, or a folder of images.
        samples: Number of images.
        seed: Seed of the scenes; None for a folder of images.
        neutral: The sentence, in place of the prompt's text, whose maps the phrases' maps are divided by.
        heads: The heads that make the masks, best first; empty if no head of the checkpoint follows phrases.
        others: The next best heads, which make no masks: a decoder can be trained on the maps of the best heads alone.
        smoothing: Standard deviation of the Gaussian that smooths the maps, in cells.
        threshold: A mask is where its map is above this height, between the map's median (0) and its peak (1).
        least_prominence: If the peak of a map stands out less than this (see `prominence`), nothing is found.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    backbone: BackboneReference
    criterion: Criterion
    source: str
    samples: Annotated[int, Field(ge=1)]
    seed: int | None
    neutral: Annotated[str, Field(pattern=r"\S")]
    heads: list[ProfileHead]
    others: list[ProfileHead] = []
    smoothing: Annotated[float, Field(ge=0, le=10)]
    threshold: Annotated[float, Field(ge=0, lt=1)]
    least_prominence: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def indices(self) -> list[Head]:
        """The heads that make the masks as `(layer, head)`, best first."""
        return [head.index for head in self.heads]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read the file of a profile.

        Raises:
            CheckpointError: The file is missing, or is not a profile.
        """
        remedy = "Make one with `adapters calibrate`."
        return read_model(path, cls, what="head profile", error=CheckpointError, remedy=remedy)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the profile as JSON."""
        write_json(path, self.model_dump())

    def check_fits(self, info: BackboneInfo) -> None:
        """Check that the profile belongs to a backbone.

        Raises:
            DecoderError: It belongs to another family or revision, or names heads that the backbone does not have.
        """
        if info.model_type != self.backbone.model_type:
            raise DecoderError(
                f"The head profile is of {self.backbone.model_type} ({self.backbone.checkpoint}), and the backbone is "
                f"{info.model_type} ({info.checkpoint}). Make one for it with `adapters calibrate`."
            )
        if None not in (known := (self.backbone.revision, info.revision)) and known[0] != known[1]:
            raise DecoderError(
                f"The head profile is of revision {known[0]} of {self.backbone.checkpoint}, and the backbone is of "
                f"revision {known[1]}. Make one for it with `adapters calibrate`."
            )
        missing = [
            str(head)
            for head in (*self.heads, *self.others)
            if head.layer not in info.attention_layers or head.head >= info.num_heads
        ]
        if missing:
            raise DecoderError(
                f"The head profile names heads (layer.head) that {info.checkpoint} does not have: {', '.join(missing)}."
                " Make one for it with `adapters calibrate`."
            )

    def check_has_heads(self) -> None:
        """Check that there are heads to make masks of.

        Raises:
            DecoderError: The profile says that no head of the checkpoint follows phrases.
        """
        if not self.heads:
            raise DecoderError(
                f"The head profile of {self.backbone.checkpoint} says that none of its heads follows phrases (by "
                f"{self.criterion} on {self.samples} images from {self.source}), so there is nothing to make masks of. "
                "Train a decoder with `adapters train`, use the method box if the model can point, or calibrate on "
                "images that the model knows: `adapters calibrate --images`."
            )


def find_profile(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Find the profile of an embedded checkpoint or in a checkpoint's folder; None if there is none."""
    file = embedded_checkpoints().get(os.fspath(name_or_path), Path(name_or_path)) / PROFILE_FILE
    return file if os.path.isfile(file) else None  # noqa: PTH113 - `Path.is_file` raises where a name is too long
