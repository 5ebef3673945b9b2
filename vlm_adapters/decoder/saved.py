"""What `config.json` beside a decoder's weights holds, checked where it is read: a person may have edited it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from vlm_adapters.backbone.protocol import BackboneInfo, OptionValue
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.unet import UNetConfig
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import CheckpointError
from vlm_adapters.registry.load_options import NEVER_FROM_A_FILE


def _own_options(options: dict[str, OptionValue]) -> dict[str, OptionValue]:
    if found := sorted(NEVER_FROM_A_FILE & options.keys()):
        raise ValueError(f"{found[0]} decides how a model is loaded; a file cannot set it as an option, the caller can")
    return options


OptionsFromFile = Annotated[dict[str, OptionValue], AfterValidator(_own_options)]
"""Options of a family as a file may name them, such as `min_pixels`."""


class SavedBackbone(BaseModel):
    """The backbone that a decoder was trained on.

    Attributes:
        checkpoint: Hub id, folder, or name of an embedded checkpoint.
        model_type: Its adapter.
        revision: Its commit, where known.
        options: Options of the adapter; they set how fine the grid is.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    checkpoint: str
    model_type: str
    revision: str | None
    options: OptionsFromFile = {}

    @classmethod
    def of(cls, info: BackboneInfo) -> Self:
        """Describe a backbone; an embedded one by its name, which is the same on other machines."""
        return cls(
            checkpoint=alias_of(info.checkpoint) or info.checkpoint,
            model_type=info.model_type,
            revision=info.revision,
            options=dict(info.options),
        )


class SavedRequest(BaseModel):
    """Which maps the decoder reads: fields of `GridRequest`, and the `(layer, head)` that it takes of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    layers: int | list[int] | None
    heads: list[int] | None
    align: Literal["token", "predictor"]
    reduce: Literal["mean", "max", "none"]
    chosen: list[tuple[int, int]] | None = None

    @classmethod
    def of(cls, request: FeatureRequest) -> Self:
        """Describe a request."""
        fields = {name: value for name, value in asdict(request.grids).items() if name in cls.model_fields}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return cls.model_validate(plain | {"chosen": None if request.heads is None else list(request.heads)})

    def features(self, *, hidden: bool) -> FeatureRequest:
        """The request; of a decoder whose refiner is prompted with words, with hidden states."""
        grids = GridRequest(**self.model_dump(exclude={"chosen"}))
        return FeatureRequest(grids, None if self.chosen is None else tuple(self.chosen), hidden=hidden)


class SavedRefiner(BaseModel):
    """The Segment Anything model that a refiner was trained with, and what it is prompted with.

    Attributes:
        encoder: Class of the image encoder, whose weights are not saved, and how many it has.
        use_mask: See `SAMRefiner`.
        use_box: See `SAMRefiner`.
        use_text: See `SAMRefiner`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    encoder: str
    use_mask: bool
    use_box: bool
    use_text: bool


class SavedDecoder(BaseModel):
    """A whole `config.json`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    backbone: SavedBackbone
    decoder: UNetConfig
    request: SavedRequest
    refiner: SavedRefiner | None = None

    @classmethod
    def of(cls, info: BackboneInfo, decoder: UNetConfig, request: FeatureRequest) -> Self:
        """Describe a decoder and the backbone that it stands on."""
        return cls(backbone=SavedBackbone.of(info), decoder=decoder, request=SavedRequest.of(request))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            OSError: It cannot be read.
            CheckpointError: It is not a decoder's config.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CheckpointError(
                f"{path} is not a decoder's config: {first_mistake(error)}. Write it with GroundedVLM.save_pretrained."
            ) from error

    def features(self) -> FeatureRequest:
        """What the decoder reads."""
        return self.request.features(hidden=self.refiner is not None and self.refiner.use_text)
