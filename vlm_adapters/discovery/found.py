"""What discovery found of a model, as data: proven layouts by size of image, and the rule that they share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.discovery.layouts import Rule
from vlm_adapters.errors import PluginError
from vlm_adapters.geometry import Size


@dataclass(frozen=True)
class FoundLayouts:
    """The layouts of a model.

    Attributes:
        model_type: The `model_type` of its config.
        placeholder: The text in place of an image that its processor takes.
        image_token_ids: Ids of the tokens that layouts count.
        grid_names: Names of the grids that an image may have, from coarse to fine.
        cell: Side of a cell, in pixels of the canvas.
        layouts: Size `(H, W)` of an image -> its layouts, in the order of their tokens.
        rule: The rule that all of them follow; None where other sizes have to be probed.
        scores: Size of an image -> the weakest part of the evidence, 0 to 1.
    """

    model_type: str
    placeholder: str
    image_token_ids: tuple[int, ...]
    grid_names: tuple[str, ...]
    cell: int
    layouts: Mapping[Size, tuple[ImageLayout, ...]]
    rule: Rule | None = None
    scores: Mapping[Size, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The data as JSON."""
        content = {
            name: getattr(self, name) for name in ("model_type", "placeholder", "image_token_ids", "grid_names", "cell")
        }
        content["rule"] = asdict(self.rule) if self.rule else None
        content["images"] = [
            {"size": size, "score": self.scores.get(size), "layouts": [asdict(layout) for layout in of_size]}
            for size, of_size in self.layouts.items()
        ]
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the data of a plugin.

        Raises:
            PluginError: The file is missing or malformed.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            images = {_pair(image["size"]): image for image in content["images"]}
            rule = content["rule"]
            return cls(
                model_type=content["model_type"],
                placeholder=content["placeholder"],
                image_token_ids=tuple(content["image_token_ids"]),
                grid_names=tuple(content["grid_names"]),
                cell=content["cell"],
                layouts={size: tuple(map(_layout, image["layouts"])) for size, image in images.items()},
                rule=Rule(**{**rule, "cells": rule["cells"] and _pair(rule["cells"])}) if rule else None,
                scores={size: image["score"] for size, image in images.items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PluginError(
                f"{path} holds no layouts as `adapters discover` writes them ({type(error).__name__}: {error}). "
                "Run it again."
            ) from error


def _layout(content: dict[str, Any]) -> ImageLayout:
    pairs = [name for name, value in content.items() if isinstance(value, list) and name not in ("rows", "columns")]
    spans = {name: tuple(tuple(span) for span in content[name]) for name in ("rows", "columns")}
    return ImageLayout(**{**content, **{name: tuple(content[name]) for name in pairs}, **spans})


def _pair(numbers: list[int]) -> Size:
    first, second = numbers
    return int(first), int(second)
