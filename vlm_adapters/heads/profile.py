"""Which heads of a checkpoint show where things are: the profile that training-free masks are made with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.data.files import write_json
from vlm_adapters.data.validated import read_model
from vlm_adapters.decoder.saved import SavedBackbone
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, DecoderError

PROFILE_FILE = "heads.json"
"""Its name beside the files of a checkpoint."""

Criterion = Literal["part-entropy", "iou", "pointing"]
"""What heads are chosen by: how scattered their maps are (label-free), their masks, or where their maps peak."""


class ProfileHead(BaseModel):
    """One head of a profile.

    Attributes:
        layer: True layer index.
        head: Head index.
        weight: Of its map in the mean.
        value: Of the criterion: for `part-entropy` in nats, lower is better; else in [0, 1], higher is better.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    value: Annotated[float, Field(allow_inf_nan=False)]


class HeadProfile(BaseModel):
    """The heads of one checkpoint that show where phrases are, how they were chosen, and how a mask is made of them.

    Attributes:
        backbone: The checkpoint, its revision and its options.
        criterion: What the heads were chosen by.
        source: What they were chosen on: `"scenes"`, or a folder of images.
        samples: How many images.
        seed: Of the scenes; None for images of one's own.
        neutral: The sentence, in the place of the prompt's own, whose maps the phrases' maps are divided by.
        heads: At least one, best first.
        others: The next best, of which no mask is made: a decoder can be trained on the maps of a few heads alone.
        smoothing: Of the maps: standard deviation of a Gaussian, in cells.
        threshold: A mask is where its map is above this height, between the map's median (0) and its peak (1).
        least_prominence: Where the map's peak stands out less (see `prominence`), nothing is found.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    backbone: SavedBackbone
    criterion: Criterion
    source: str
    samples: Annotated[int, Field(ge=1)]
    seed: int | None
    neutral: Annotated[str, Field(pattern=r"\S")]
    heads: Annotated[list[ProfileHead], Field(min_length=1)]
    others: list[ProfileHead] = []
    smoothing: Annotated[float, Field(ge=0, le=10)]
    threshold: Annotated[float, Field(ge=0, lt=1)]
    least_prominence: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a profile's file.

        Raises:
            CheckpointError: The file is missing, or is not a profile.
        """
        remedy = "Make one with `adapters calibrate`."
        return read_model(path, cls, what="head profile", error=CheckpointError, remedy=remedy)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the profile as a whole JSON file."""
        write_json(path, self.model_dump())

    def check_fits(self, info: BackboneInfo) -> None:
        """Check that the profile is of this backbone.

        Raises:
            DecoderError: It is of another family or revision, or names heads that the backbone does not have.
        """
        if info.model_type != self.backbone.model_type:
            raise DecoderError(
                f"The head profile is of {self.backbone.model_type} ({self.backbone.checkpoint}), and the backbone is "
                f"{info.model_type} ({info.checkpoint}). Make one with `adapters calibrate`."
            )
        if None not in (known := (self.backbone.revision, info.revision)) and known[0] != known[1]:
            raise DecoderError(
                f"The head profile is of revision {known[0]} of {self.backbone.checkpoint}, and the backbone is of "
                f"{known[1]}. Make one with `adapters calibrate`."
            )
        missing = [
            f"{head.layer}.{head.head}"
            for head in (*self.heads, *self.others)
            if head.layer not in info.attention_layers or head.head >= info.num_heads
        ]
        if missing:
            raise DecoderError(
                f"The head profile names heads (layer.head) that {info.checkpoint} does not have: {', '.join(missing)}."
                " Make one with `adapters calibrate`."
            )


def find_profile(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The profile's file beside an embedded checkpoint or in a checkpoint's folder, None if there is none."""
    folder = embedded_checkpoints().get(os.fspath(name_or_path), Path(name_or_path))
    return folder / PROFILE_FILE if (folder / PROFILE_FILE).is_file() else None
