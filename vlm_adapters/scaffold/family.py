"""A family as transformers knows it: its classes, and the sizes that a tiny model of it sets."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import cast

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from vlm_adapters.errors import PluginError

_TINY_TOWER = {
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "depth": 2,
    "num_attention_heads": 2,
    "num_heads": 2,
    "image_size": 64,
    "patch_size": 8,
    "initializer_range": 0.2,
}
"""Sizes of a tiny tower, by the names that configs of towers give them; weights large enough to tell cells apart."""

_LONGEST_DEFAULT = 40
"""Longest default that is shown, in characters; longer ones are chat templates and the like."""


@dataclass(frozen=True)
class Family:
    """A family as transformers knows it.

    Attributes:
        model_type: The `model_type` in the `config.json` of its checkpoints.
        config: Name of its config class.
        processor: Name of its processor class; `ProcessorMixin` if transformers leaves it to the checkpoint.
        processor_arguments: Arguments of the processor's constructor, with their defaults.
        text: Name of the language model's config within the config; `None` if it is the config itself.
        text_type: Model type of the language model.
        towers: Name of every other config within the config -> its model type and tiny sizes.
    """

    model_type: str
    config: str
    processor: str
    processor_arguments: tuple[str, ...]
    text: str | None
    text_type: str
    towers: Mapping[str, Mapping[str, object]]

    @classmethod
    def of(cls, model_type: str) -> Family:
        """Look up a family.

        Raises:
            PluginError: transformers has no model of this type that reads images and text, or
                `TransformersBackbone` cannot run it.
        """
        known = list(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
        if model_type not in known:
            close = difflib.get_close_matches(model_type, known)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(known)}."
            raise PluginError(
                f"transformers {transformers.__version__} has no model type {model_type!r} that reads images and "
                f"text. {hint} Give the model_type of a checkpoint's config.json, or install a newer transformers."
            )
        try:
            config = CONFIG_MAPPING[model_type]()
        except ValueError:  # some configs have no default sizes
            config = PreTrainedConfig()
        if not hasattr(config, "image_token_id") or config.is_encoder_decoder:
            raise PluginError(
                f"The config of {model_type} shows no image tokens in one sequence with the text, so a plugin cannot "
                "use TransformersBackbone. Write a class with the methods of BackboneAdapter instead."
            )
        text = config.get_text_config(decoder=True)
        parts = {name: getattr(config, name, None) for name in config.sub_configs}
        processor = cast("type[ProcessorMixin]", PROCESSOR_MAPPING.get(type(config), ProcessorMixin))
        return cls(
            model_type=model_type,
            config=type(config).__name__,
            processor=processor.__name__,
            processor_arguments=_arguments(processor),
            text=next((name for name, part in parts.items() if part is text), None),
            text_type=text.model_type,
            towers={
                name: {"model_type": part.model_type, **_tiny(part)}
                for name, part in parts.items()
                if isinstance(part, PreTrainedConfig) and part is not text
            },
        )


def _tiny(tower: PreTrainedConfig) -> dict[str, object]:
    """Tiny values for the fields of the tower's config that are sizes."""
    fields = tower.to_dict()
    return {
        name: [tiny] * len(fields[name]) if isinstance(fields[name], list | tuple) else tiny
        for name, tiny in _TINY_TOWER.items()
        if name in fields
    }


def _arguments(processor: type[ProcessorMixin]) -> tuple[str, ...]:
    return tuple(
        _described(parameter)
        for parameter in signature(processor).parameters.values()
        if parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    )


def _described(parameter: Parameter) -> str:
    default = repr(parameter.default)
    if parameter.default in (Parameter.empty, None) or len(default) > _LONGEST_DEFAULT:
        return parameter.name
    return f"{parameter.name}={default}"
