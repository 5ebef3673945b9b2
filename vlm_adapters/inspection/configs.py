"""Sizes, kernels and ids from the configs, the processor and the tokenizer, under names that families share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from vlm_adapters.backbone.protocol import BackboneInfo

_FIRST_ROLES = ("image", "video", "vision_start", "vision_end", "pad", "eos")
_ROLE = re.compile(r"(?P<role>\w+?)_token_(?:id|index)")
_TOWER_NAMES = {
    "depth": ("depth", "num_hidden_layers"),
    "width": ("embed_dim", "hidden_size"),
    "heads": ("num_heads", "num_attention_heads"),
    "patch": ("patch_size",),
    "merge": ("spatial_merge_size",),
}


@dataclass(frozen=True)
class SpecialToken:
    """A token with a role. Two entries of one role mean that the sources disagree.

    Attributes:
        role: Role of the token, such as `image` or `eos`.
        id: Id of the token.
        token: Text of the token; None if the tokenizer has none of this id.
        said_by: Sources that give the id this role.
    """

    role: str
    id: int
    token: str | None
    said_by: tuple[str, ...]


@dataclass(frozen=True)
class TextReport:
    """Sizes of the language model; None for what its config does not say.

    Attributes:
        model_type: Model type of the language model.
        layers: Number of layers.
        heads: Number of query heads per layer.
        key_value_heads: Number of key heads per layer.
        width: Width of the hidden states.
        vocabulary: Number of token ids.
        max_positions: Longest sequence, in tokens.
        kernel: Attention kernel.
    """

    model_type: str | None
    layers: int
    heads: int
    key_value_heads: int | None
    width: int
    vocabulary: int | None
    max_positions: int | None
    kernel: str | None


@dataclass(frozen=True)
class TowerReport:
    """A vision tower, as its config describes it.

    Attributes:
        name: Key of the tower in the model's config.
        model_type: Model type of the tower.
        sizes: Depth, width, heads, patch and merge under these names, as far as the config has them.
        more: All other whole numbers of the config, under its names.
        kernel: Attention kernel of the tower.
    """

    name: str
    model_type: str | None
    sizes: Mapping[str, int]
    more: Mapping[str, int | tuple[int, ...]]
    kernel: str | None


def special_tokens(model: Any, processor: Any) -> tuple[SpecialToken, ...]:
    """List every id to which the processor, the configs or the tokenizer give a role."""
    tokenizer = getattr(processor, "tokenizer", None)
    config = getattr(model, "config", None)
    found: dict[tuple[str, int], list[str]] = {}
    for source, values in (
        ("processor", vars(processor) if processor else {}),
        ("config", _as_dict(config)),
        ("text config", _as_dict(text_config(config))),
        ("generation", _as_dict(getattr(model, "generation_config", None))),
        ("tokenizer", {f"{name}_id": getattr(tokenizer, f"{name}_id", None) for name in _named(tokenizer)}),
    ):
        for name, value in values.items():
            if role := _ROLE.fullmatch(name):
                for identifier in value if isinstance(value, list | tuple) else [value]:
                    if type(identifier) is int:
                        said_by = found.setdefault((role["role"], identifier), [])
                        said_by += [source] if source not in said_by else []
    order = {role: rank for rank, role in enumerate(_FIRST_ROLES)}
    return tuple(
        SpecialToken(role, identifier, _token(tokenizer, identifier), tuple(said_by))
        for (role, identifier), said_by in sorted(
            found.items(), key=lambda item: (order.get(item[0][0], len(order)), item[0])
        )
    )


def text_report(config: Any, info: BackboneInfo) -> TextReport:
    """Describe the language model, from the adapter's info and the config."""
    text = text_config(config)
    return TextReport(
        model_type=getattr(text, "model_type", None),
        layers=info.num_layers,
        heads=info.num_heads,
        key_value_heads=getattr(text, "num_key_value_heads", None),
        width=info.hidden_size,
        vocabulary=getattr(text, "vocab_size", None),
        max_positions=getattr(text, "max_position_embeddings", None),
        kernel=_kernel(text),
    )


def towers(config: Any) -> Iterator[TowerReport]:
    """Describe the configs that cut images into patches: those of towers, or the model's if it has no tower."""
    text = text_config(config)
    parts = {name: getattr(config, name, None) for name in getattr(config, "sub_configs", {})}
    found = {name: part for name, part in parts.items() if part is not text and hasattr(part, "patch_size")}
    boilerplate = set(PreTrainedConfig().to_dict())
    if not found and hasattr(config, "patch_size"):
        found = {"config": config}
        boilerplate |= set(_as_dict(text))  # transformers 5.17 repeats the language model's sizes in Fuyu's config
    for name, tower in found.items():
        specific = {key: value for key, value in _as_dict(tower).items() if key not in boilerplate}
        values = {key: value for key, value in specific.items() if _is_whole(value) and not _ROLE.fullmatch(key)}
        keys = {
            ours: next((key for key in theirs if isinstance(values.get(key), int)), None)
            for ours, theirs in _TOWER_NAMES.items()
        }
        yield TowerReport(
            name=name,
            model_type=getattr(tower, "model_type", None),
            sizes={ours: values.pop(key) for ours, key in keys.items() if key is not None},
            more={key: tuple(value) if isinstance(value, list) else value for key, value in values.items()},
            kernel=_kernel(tower),
        )


def text_config(config: Any) -> Any:
    """The language model's part of a model's config; None without one."""
    return config.get_text_config(decoder=True) if isinstance(config, PreTrainedConfig) else None


def _named(tokenizer: Any) -> list[str]:
    return [name for name in getattr(tokenizer, "special_tokens_map", {}) if name.endswith("_token")]


def _token(tokenizer: Any, identifier: int) -> str | None:
    token = tokenizer.convert_ids_to_tokens(identifier) if tokenizer and 0 <= identifier < len(tokenizer) else None
    return token if isinstance(token, str) else None


def _is_whole(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(type(each) is int for each in value)
    return type(value) is int


def _kernel(config: Any) -> str | None:
    name: str | None = getattr(config, "_attn_implementation", None)
    return name


def _as_dict(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else {}
