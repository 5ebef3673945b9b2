"""A recipe: everything that decides what a training run does, as a person writes it in YAML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vlm_adapters.data.documents import parse_yaml, read_yaml
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.decoder.checkpoint import OptionsFromFile
from vlm_adapters.errors import RecipeError
from vlm_adapters.hf.placement import device_named, resolve_dtype
from vlm_adapters.limits import did_you_mean, shown
from vlm_adapters.registry.load_options import dtype_name
from vlm_adapters.training.cache.fingerprint import Precision
from vlm_adapters.training.trackers import Tracker

Data = str | dict[str, object]
"""A data set as `open_dataset` takes it."""

_AtLeastOne = Annotated[int, Field(ge=1, strict=True)]
_BelowOne = Annotated[float, Field(ge=0, lt=1)]
_RECIPES = files("vlm_adapters.training") / "recipes"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DecoderRecipe(_Part):
    """Sizes of the U-Net, as `UNetConfig` takes them."""

    base_width: _AtLeastOne = 64
    depth: _AtLeastOne = 4
    canvas: _AtLeastOne = 64


class RefinerRecipe(_Part):
    """A refiner that is trained with the U-Net.

    Attributes:
        sam: Checkpoint file of Segment Anything.
        use_mask: Prompt with the coarse mask.
        use_box: Prompt with the box around it.
        use_text: Prompt with the words.
    """

    sam: str
    use_mask: bool = True
    use_box: bool = True
    use_text: bool = True


class Recipe(_Part):
    """What a training run does.

    Attributes:
        model: Backbone: embedded name, folder or hub id.
        options: Options of its adapter, such as `min_pixels`.
        dtype: Precision of the backbone: `auto`, `float32`, `bfloat16` (`bf16`), `float16` (`fp16`).
        device: Where everything runs: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ...
        attn_implementation: Kernel of the backbone's attention; None leaves it to transformers.
        quantization: Quantization of the backbone's weights: `nf4` or `int8`; None takes them as they are.
        train: Data to learn from, one set or a list of them, which are joined.
        validation: Data to choose the best by; None chooses the last.
        cache: Folder of the caches, which are built there if they are not; None runs the backbone all along.
        cache_dtype: Precision in which features are kept.
        head_profile: File of a head profile: only its heads are read; None reads all.
        top_heads: How many heads of the profile are read, the best ones; None reads all of it.
        reduce: How the rows of a phrase's tokens become one map: `mean`, `max` or `last`.
        decoder: Sizes of the U-Net.
        refiner: What refines its masks; None trains the U-Net alone.
        presence: Whether to learn, too, which phrases are in the image; None does where the data tag some as absent.
        epochs: How often every sample is seen.
        batch_size: Samples of one step, over all processes.
        micro_batch_size: Samples whose gradient is computed at once, per process.
        learning_rate: Peak of the learning rate.
        weight_decay: Weight decay of AdamW.
        betas: Betas of AdamW.
        warmup_ratio: Share of the steps over which the rate grows; after it, it falls to 0 as a cosine.
        max_grad_norm: Norm to which a larger gradient is clipped.
        precision: Precision in which the decoder computes.
        seed: Seed of the weights and of the order of samples.
        validate_every: Steps between validations and checkpoints; None does so after every epoch.
        keep_checkpoints: How many checkpoints stay; the best one stays in any case.
        sheet_samples: How many validation samples the contact sheet shows.
        workers: Threads that read and prepare samples ahead, per process; None takes up to 4, as the machine has
            cores. It changes no result, and may differ when a run is resumed.
        tracker: Where the numbers of `log.jsonl` are sent, too: `tensorboard` (files in the folder of the run),
            `wandb`, `trackio` or `none`. It changes no result either.

    Examples:
        >>> from vlm_adapters import Recipe
        >>> recipe = Recipe.read("flmm", ["model=Qwen/Qwen2.5-VL-7B-Instruct", "batch_size=16"])
        >>> recipe.model, recipe.batch_size, recipe.epochs
        ('Qwen/Qwen2.5-VL-7B-Instruct', 16, 8)
    """

    model: str
    options: OptionsFromFile = {}
    dtype: str = "auto"
    device: str = "auto"
    attn_implementation: Annotated[str | None, Field(pattern=r"^[a-z0-9_]+$")] = None
    quantization: Literal["nf4", "int8"] | None = None
    train: Annotated[list[Data], Field(min_length=1)]
    validation: Data | None = None
    cache: str | None = None
    cache_dtype: Precision = "float16"
    head_profile: str | None = None
    top_heads: _AtLeastOne | None = None
    reduce: Literal["mean", "max", "last"] = "mean"
    decoder: DecoderRecipe = DecoderRecipe()
    refiner: RefinerRecipe | None = None
    presence: bool | None = None
    epochs: _AtLeastOne = 8
    batch_size: _AtLeastOne = 8
    micro_batch_size: _AtLeastOne = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[_BelowOne, _BelowOne] = (0.9, 0.999)
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    validate_every: _AtLeastOne | None = None
    keep_checkpoints: _AtLeastOne = 2
    sheet_samples: Annotated[int, Field(ge=0, strict=True)] = 8
    workers: Annotated[int, Field(ge=0, le=64, strict=True)] | None = None
    tracker: Tracker = "tensorboard"

    @field_validator("train", mode="before")
    @classmethod
    def _one_or_several(cls, named: object) -> object:
        return [named] if isinstance(named, str | dict) else named

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, dtype: str) -> str:
        resolve_dtype(dtype, on_cpu=True)
        return dtype_name(dtype)

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if device != "auto":
            device_named(device)  # whether it is there shows when it is needed
        return device

    @model_validator(mode="after")
    def _heads_belong_together(self) -> Self:
        if self.top_heads is not None and self.head_profile is None:
            raise ValueError("top_heads chooses among the heads of a profile; name it with head_profile")
        return self

    @classmethod
    def read(cls, name_or_path: str, changes: Sequence[str] = ()) -> Self:
        """Read a recipe that comes with the library, by name, or a file, and change some of its keys.

        Args:
            name_or_path: `"scenes"`, or the path of a YAML file.
            changes: `key=value`, the value as YAML; a key within a part is `decoder.base_width`.

        Raises:
            RecipeError: There is no such recipe, it is not YAML, or a key or a value is wrong.
        """
        content = _content(name_or_path)
        for change in changes:
            _apply(content, change)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise RecipeError(_mistake_message(name_or_path, error)) from error


_PARTS: dict[str, type[BaseModel]] = {"decoder": DecoderRecipe, "refiner": RefinerRecipe}


def recipe_names() -> dict[str, str]:
    """The recipes that come with the library, by name, with the first line of each."""
    found = sorted((path for path in _RECIPES.iterdir() if path.name.endswith(".yaml")), key=lambda path: path.name)
    return {
        path.name.removesuffix(".yaml"): path.read_text("utf-8").splitlines()[0].removeprefix("# ") for path in found
    }


def _content(name_or_path: str) -> dict[str, object]:
    names = list(recipe_names())
    if name_or_path in names:
        text = (_RECIPES / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        content = parse_yaml(text, f"The recipe {name_or_path}", error=RecipeError)
    elif os.path.exists(name_or_path):  # noqa: PTH110 - `Path.exists` raises where a name is too long
        content = read_yaml(name_or_path, error=RecipeError)
    else:
        raise RecipeError(
            f"There is no recipe {shown(name_or_path, 200)}: no such file.{did_you_mean(name_or_path, names)} "
            f"Give a YAML file, or one of {', '.join(names)}."
        )
    if not isinstance(content, dict):
        raise RecipeError(f"The recipe {name_or_path} holds a {type(content).__name__}. Give keys and values.")
    return content


def _apply(content: dict[str, object], change: str) -> None:
    path, equals, text = change.partition("=")
    if not (path and equals):
        raise RecipeError(f"The change {shown(change)} is not of the form key=value, such as epochs=2.")
    *parents, last = path.split(".")
    place = content
    for key in parents:
        inner = place.get(key)
        inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise RecipeError(f"The change {shown(change)} goes into {shown(key)}, which has no keys.")
        place[key] = inner
        place = cast("dict[str, object]", inner)
    place[last] = parse_yaml(text, f"The change {shown(change)}", error=RecipeError)


def _mistake_message(name: str, error: ValidationError) -> str:
    mistake = first_mistake(error)
    if mistake.kind == "extra_forbidden":
        part, _, key = mistake.key.rpartition(".")
        known = list(_PARTS.get(part, Recipe).model_fields)
        remedy = did_you_mean(key, known) or f" Use {', '.join(known)}."
        return f"The recipe {name} has an unknown key {shown(mistake.key)}.{remedy}"
    found = "" if isinstance(mistake.value, dict) else f", found {shown(mistake.value)}"
    return f"The recipe {name} cannot be used: {mistake}{found}."
