"""Published checkpoints at full size, without their weights and vocabularies.

A plugin keeps one small JSON file per checkpoint: what its files on the hub say beyond the defaults of transformers'
classes. From it the plugin builds the adapter on the meta device, where tensors have sizes and no values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from vlm_adapters.errors import PluginError
from vlm_adapters.hf.byte_tokenizer import byte_tokenizer
from vlm_adapters.registry.versions import typed_errors

AdapterT = TypeVar("AdapterT")


@dataclass(frozen=True)
class PublishedCheckpoint:
    """The settings in the files of a checkpoint.

    Attributes:
        name: Hub id of the checkpoint.
        config: Config of the model.
        processor: Arguments of the processor; `image_processor` holds those of the image processor.
        tokens: Ids of the control tokens, by their text.
    """

    name: str
    config: PreTrainedConfig
    processor: Mapping[str, Any]
    tokens: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self | None:
        """Read the file `owner--name.json` of a checkpoint; None if the folder has none.

        Args:
            folder: Folder of the plugin's files.
            name: Hub id `owner/name`.

        Raises:
            PluginError: The file does not say what transformers' config takes.
        """
        path = folder / f"{name.replace('/', '--')}.json"
        if not path.is_file():
            return None
        with typed_errors(f"Reading the config of {name} in {path}", PluginError):
            facts = json.loads(path.read_text(encoding="utf-8"))
            return cls(name, AutoConfig.for_model(**facts["config"]), facts["processor"], facts["tokens"])

    def model(self, attention: str | None = "sdpa") -> PreTrainedModel:
        """Build the model in bfloat16 on the meta device, with sizes and without values.

        Args:
            attention: Kernel of the model, for families that cannot take the usual one; None leaves it to transformers,
                which chooses for each part of the model.
        """
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForImageTextToText.from_config(
                self.config, dtype=torch.bfloat16, attn_implementation=attention
            )
        return model

    def tokenizer(self, *, end: str, padding: str, **options: Any) -> PreTrainedTokenizerFast:
        """Build a stand-in for the tokenizer: control tokens at their true ids, and one token per byte.

        Args:
            end: The token that ends a text.
            padding: The token that pads.
            options: Passed to `PreTrainedTokenizerFast`.
        """
        return byte_tokenizer(self.tokens, end=end, padding=padding, **options)


Build = Callable[[PublishedCheckpoint, PreTrainedTokenizerBase | None], AdapterT]
"""Builds an adapter from the settings of a checkpoint and its tokenizer; a stand-in replaces a missing tokenizer."""


def published_in(folder: Path) -> Callable[[Build[AdapterT]], Callable[..., AdapterT | None]]:
    """Decorate a function that builds adapters from settings, to make it the one that `AdapterSpec.published` names.

    The decorated function takes the hub id of a checkpoint and, optionally, its tokenizer. It returns None if the
    folder has no file of the checkpoint.

    Args:
        folder: Folder of the plugin's files, one per checkpoint.
    """

    def decorate(build: Build[AdapterT]) -> Callable[..., AdapterT | None]:
        @wraps(build)
        def of_checkpoint(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> AdapterT | None:
            facts = PublishedCheckpoint.read(folder, checkpoint)
            return None if facts is None else build(facts, tokenizer)

        return of_checkpoint

    return decorate
