"""A decoder's folder: `config.json`, the U-Net's weights, and those of a refiner and a presence head trained with it.

`config.json` is checked where it is read: a person may have edited it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneInfo, OptionValue
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.files import whole_file, write_json
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.presence import PresenceHead
from vlm_adapters.decoder.unet import UNetConfig, check_sizes
from vlm_adapters.embedded import alias_of, embedded_checkpoints
from vlm_adapters.errors import CheckpointError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.registry.checkpoint_files import check_file
from vlm_adapters.registry.checkpoints import DECODER_TYPE
from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.load_options import NEVER_FROM_A_FILE

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
REFINER_FILE = "refiner.safetensors"
PRESENCE_FILE = "presence.safetensors"
EMBEDDED_FOLDER = "decoder"
"""Where a backbone's folder keeps the decoder that was trained on it."""


def _without_loading_options(options: dict[str, OptionValue]) -> dict[str, OptionValue]:
    if found := sorted(NEVER_FROM_A_FILE & options.keys()):
        raise ValueError(f"{found[0]} decides how a model is loaded; a file cannot set it as an option, the caller can")
    return options


OptionsFromFile = Annotated[dict[str, OptionValue], AfterValidator(_without_loading_options)]
"""Options of a family as a file may name them, such as `min_pixels`."""


class BackboneReference(BaseModel):
    """The backbone that something was made for.

    Attributes:
        checkpoint: Hub id, folder, or name of an embedded checkpoint.
        model_type: Name of its adapter.
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
        """Refer to a backbone; to an embedded one by its name, which is the same on every machine."""
        return cls(
            checkpoint=alias_of(info.checkpoint) or info.checkpoint,
            model_type=info.model_type,
            revision=info.revision,
            options=dict(info.options),
        )


class RequestConfig(BaseModel):
    """The maps that a decoder reads: the fields of `GridRequest`, the `(layer, head)` pairs, and the grids."""

    model_config = ConfigDict(extra="forbid", strict=True)

    layers: int | list[int] | None
    heads: list[int] | None
    align: Literal["token", "predictor"]
    reduce: Literal["mean", "max", "last", "none"]
    layer_heads: list[tuple[int, int]] | None = None
    grid_names: list[str] = []

    @classmethod
    def of(cls, request: FeatureRequest) -> Self:
        """Describe a request."""
        fields = {name: value for name, value in asdict(request.grids).items() if name in cls.model_fields}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        heads = None if request.heads is None else list(request.heads)
        return cls.model_validate(plain | {"layer_heads": heads, "grid_names": list(request.grid_names)})

    def to_request(self, *, hidden: bool = False, log_probabilities: bool = False) -> FeatureRequest:
        """The request that is described here, with or without hidden states and log probabilities."""
        grids = GridRequest(**self.model_dump(exclude={"layer_heads", "grid_names"}))
        heads = None if self.layer_heads is None else tuple(self.layer_heads)
        names = tuple(self.grid_names)
        return FeatureRequest(grids, heads, hidden=hidden, grid_names=names, log_probabilities=log_probabilities)


class RefinerConfig(BaseModel):
    """The Segment Anything model that a refiner was trained with, and its prompts.

    Attributes:
        image_encoder: Class and size of the image encoder, whose weights are not saved.
        use_mask: Whether the coarse mask is a prompt.
        use_box: Whether the box around it is.
        use_text: Whether the words are.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    image_encoder: str
    use_mask: bool
    use_box: bool
    use_text: bool


class PresenceConfig(BaseModel):
    """The presence head that was trained with a decoder, and its calibration.

    Attributes:
        width: Width of its hidden layers.
        scale: Factor of its logits.
        offset: What is added to them after that; their sigmoid is the presence.
        threshold: A phrase whose presence is below this is absent.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    width: Annotated[int, Field(ge=1, le=4096)]
    scale: float
    offset: float
    threshold: Annotated[float, Field(ge=0, le=1)]

    @classmethod
    def of(cls, head: PresenceHead) -> Self:
        """Describe a head."""
        return cls(width=head.width, **asdict(head.calibration))

    @property
    def calibration(self) -> Calibration:
        """How logits become probabilities."""
        return Calibration(self.scale, self.offset, self.threshold)


class DecoderConfig(BaseModel):
    """The content of a decoder's `config.json`.

    Attributes:
        backbone: The backbone that the decoder was trained on.
        unet: Sizes of the U-Net.
        request: The maps that it reads.
        refiner: The refiner that was trained with it; None where there is none.
        presence: The presence head that was trained with it; None where there is none.
        sha256: Digests of the files of weights, by name.
        model_type: Says what the file is.
        plugin: Distribution whose plugin offered the backbone's adapter, where known.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model_type: Literal["vlm_adapters_decoder"] = DECODER_TYPE
    plugin: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,99}$")] | None = None
    backbone: BackboneReference
    unet: UNetConfig
    request: RequestConfig
    refiner: RefinerConfig | None = None
    presence: PresenceConfig | None = None
    sha256: dict[Literal["model.safetensors", "refiner.safetensors", "presence.safetensors"], str] = {}

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The names of the files of weights that belong to it."""
        parts = ((WEIGHTS_FILE, True), (REFINER_FILE, self.refiner), (PRESENCE_FILE, self.presence))
        return tuple(name for name, is_there in parts if is_there)

    @classmethod
    def read(cls, path: Path, limits: Limits = DEFAULT_LIMITS) -> Self:
        """Read a file.

        Raises:
            OSError: The file cannot be read.
            CheckpointError: It is missing, or is not a decoder's config.
        """
        check_file(path, limits.max_config_bytes)
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CheckpointError(
                f"{path} is not a decoder's config: {first_mistake(error)}. Write it with GroundedVLM.save_pretrained."
            ) from error


@dataclass(frozen=True)
class DecoderCheckpoint:
    """The content of a decoder's folder.

    Attributes:
        config: Sizes, and the backbone that the decoder was trained on.
        unet: Weights of the U-Net.
        refiner: Trained weights of the refiner; empty where there is none.
        presence: Weights of the presence head; empty where there is none.
    """

    config: DecoderConfig
    unet: Mapping[str, Tensor]
    refiner: Mapping[str, Tensor]
    presence: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, limits: Limits = DEFAULT_LIMITS) -> Self:
        """Read a decoder's folder.

        Raises:
            CheckpointError: It is not a decoder's folder, or incomplete.
            DecoderError: Its sizes are not those of its weights, or are beyond the limits.
        """
        if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).exists()]:
            raise CheckpointError(_why_unreadable(folder, f"it has no {' and no '.join(missing)}"))
        config = DecoderConfig.read(folder / CONFIG_FILE, limits)
        weights = _read_weights(folder, WEIGHTS_FILE)
        check_sizes(folder, config.unet, weights, limits)
        refiner = _read_weights(folder, REFINER_FILE) if config.refiner else {}
        presence = _read_weights(folder, PRESENCE_FILE) if config.presence else {}
        _check_digests(folder, config)
        return cls(config, weights, refiner, presence)

    def write(self, folder: Path) -> None:
        """Write the files, each in one step, the config last."""
        weights = {WEIGHTS_FILE: self.unet, REFINER_FILE: self.refiner, PRESENCE_FILE: self.presence}
        contents = {name: _content(of_file) for name, of_file in weights.items() if of_file}
        for name, content in contents.items():
            with whole_file(folder / name) as temporary:
                # save_file would write a file that only its owner can read
                temporary.write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        write_json(folder / CONFIG_FILE, self.config.model_dump() | {"sha256": digests})


def plugin_of(model_type: str) -> str | None:
    """The distribution whose plugin offers the adapter of a model type; None if none is installed."""
    return next((entry.distribution for entry in list_adapters() if entry.name == model_type), None)


def write_calibration(folder: Path, head: PresenceHead) -> None:
    """Write the calibration of a decoder's presence head into the config of its folder, in one step."""
    config = DecoderConfig.read(folder / CONFIG_FILE)
    write_json(folder / CONFIG_FILE, config.model_copy(update={"presence": PresenceConfig.of(head)}).model_dump())


def sha256_of(weights: Mapping[str, Tensor]) -> str:
    """The digest of the file that tensors are written to, as `sha256sum` prints it."""
    return hashlib.sha256(_content(weights)).hexdigest()


def decoder_folder(name_or_path: Path) -> Path:
    """The decoder's folder: the one named, that in a backbone's folder, or that of an embedded backbone."""
    folder = embedded_checkpoints().get(str(name_or_path), name_or_path)
    return folder / EMBEDDED_FOLDER if (folder / EMBEDDED_FOLDER / CONFIG_FILE).is_file() else folder


def _content(weights: Mapping[str, Tensor]) -> bytes:
    return save({key: tensor.contiguous() for key, tensor in weights.items()})


def _read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    check_file(folder / name)
    try:
        return load_file(folder / name)
    except Exception as error:  # safetensors raises many kinds for a damaged file
        raise CheckpointError(_why_unreadable(folder, f"{name}: {type(error).__name__}: {error}")) from error


def _check_digests(folder: Path, config: DecoderConfig) -> None:
    """Compare the files of weights with the digests that were written with them, where there are such."""
    for name, written in config.sha256.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if written != found:
            raise CheckpointError(
                f"{folder / name} is damaged or was changed: its SHA-256 is {found}, and {CONFIG_FILE} beside it says "
                f"{shown(written)}. Copy the decoder again, or save it anew with GroundedVLM.save_pretrained."
            )


def _why_unreadable(folder: Path, reason: str) -> str:
    with_decoder = [name for name, path in embedded_checkpoints().items() if (path / EMBEDDED_FOLDER).is_dir()]
    embedded = ", ".join(with_decoder) or "none"
    if not folder.is_dir():
        return (
            f"There is no decoder {str(folder)!r}: no such folder, and no embedded model with a decoder ({embedded}). "
            "Give a folder written by GroundedVLM.save_pretrained. A backbone alone gives masks in its own words or by "
            "its heads: vlm_adapters.load_grounder, or `adapters ground`."
        )
    return (
        f"No decoder can be read from {folder}: {reason}. "
        f"Give a folder written by GroundedVLM.save_pretrained, or an embedded model that has one: {embedded}."
    )
