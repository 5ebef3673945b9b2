"""Bounds on what a checkpoint's files make transformers build: modules, weights, and texts.

A config decides how large a model is built before any weight is read. No size of a model is forbidden: what is built
is compared with the files of weights that are there.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.errors import BackboneError, CheckpointError, ImageError
from vlm_adapters.geometry import Size
from vlm_adapters.limits import Limits, shown

_WEIGHTS_PER_BYTE = 16
"""No more weights are built than 16 per byte of the files: 1 bit each would be 8, and tied weights are built twice."""
_MODULES_PER_BYTE, _FEWEST_MODULES, _FEWEST_WEIGHTS = 1 / 64, 20_000, 30_000_000
"""The header of a file of weights takes more than 64 bytes a tensor, and a module has a tensor or stands among some."""


class _Count:
    """What one build has registered so far, against what the files can hold."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._thread = folder, threading.get_ident()
        self._modules = self._weights = 0

    @cached_property
    def _bytes(self) -> int:
        """Bytes of the weights; of a hub's repository they are there when the model is built."""
        return sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))

    def module(self, *_: object) -> None:
        """Count a module."""
        if threading.get_ident() == self._thread:
            self._modules += 1
            if self._modules > _FEWEST_MODULES + self._bytes * _MODULES_PER_BYTE:
                raise self._error(f"more than {self._modules - 1:,} modules")

    def parameter(self, _: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        """Count a parameter's weights."""
        self.module()
        if parameter is not None and threading.get_ident() == self._thread:
            self._weights += parameter.numel()
            if self._weights > _FEWEST_WEIGHTS + self._bytes * _WEIGHTS_PER_BYTE:
                raise self._error(f"more than {self._weights - parameter.numel():,} weights")

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"The config in {self._folder} asks for {what}, and its *.safetensors hold {self._bytes:,} bytes: they are "
            "incomplete, or belong to another config. Download the checkpoint again."
        )


@contextmanager
def no_larger_than_its_files(folder: Path) -> Iterator[None]:
    """Stop a build of this thread, with a `CheckpointError`, as soon as it exceeds the weights in a folder."""
    count = _Count(folder)
    hooks = [
        register_module_module_registration_hook(count.module),
        register_module_parameter_registration_hook(count.parameter),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_layouts(
    layouts: Sequence[Sequence[ImageLayout]], sizes: Sequence[Size], limits: Limits
) -> Sequence[Sequence[ImageLayout]]:
    """Return the layouts of images if a processor does not enlarge one beyond the limits, before it makes a pixel.

    Args:
        layouts: What an adapter gives for the images of a prompt.
        sizes: `(H, W)` of the images.
        limits: The limits.

    Raises:
        BackboneError: They are not a list per image.
        ImageError: An image would become larger.
    """
    if len(layouts) != len(sizes) or not all(isinstance(of_image, Sequence) and of_image for of_image in layouts):
        raise BackboneError(
            f"layouts() must give a list of at least one ImageLayout for each of {len(sizes)} images; found "
            f"{shown(layouts)}. Return `[[ImageLayout(...)] for size in sizes]`."
        )
    for of_image, (height, width) in zip(layouts, sizes, strict=True):
        most = max(max(prod(layout.resized), prod(layout.canvas)) for layout in of_image)
        if not most <= limits.max_resized_pixels:
            raise ImageError(
                f"The processor makes {most:,.0f} pixels of an image of {width} x {height}; at most "
                f"{limits.max_resized_pixels:,} are allowed. Give a smaller min_pixels or image, or load with "
                "limits=Limits(max_resized_pixels=...)."
            )
    return layouts


def check_normaliser(tokenizer: Any, limits: Limits) -> None:
    """Make sure that a tokenizer's normaliser does not turn a short text into a very long one.

    Raises:
        CheckpointError: It may make more characters of one than the limits allow.
    """
    normaliser = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    growth = _growth(json.loads(normaliser.__getstate__())) if normaliser is not None else 1
    if growth > limits.max_text_growth:
        raise CheckpointError(
            f"The normaliser of the tokenizer may make {growth:,} characters of one; at most {limits.max_text_growth} "
            "are allowed. Use the tokenizer of the checkpoint, or pass limits=Limits(max_text_growth=...)."
        )


def _growth(normaliser: dict[str, Any]) -> int:
    """Most characters that a normaliser, as tokenizers writes it, makes of one; those of Unicode aside."""
    kind = normaliser.get("type")
    if kind == "Sequence":
        product = 1
        for part in normaliser["normalizers"]:
            product *= _growth(part)
        return product
    if kind == "Replace":
        searched = normaliser["pattern"].get("String", " ")  # a regular expression may match a single character
        return max(1, -(-len(normaliser["content"]) // max(len(searched), 1)))
    if kind == "Precompiled" and normaliser["precompiled_charsmap"]:
        content = base64.b64decode(normaliser["precompiled_charsmap"])
        texts = content[4 + int.from_bytes(content[:4], "little") :]  # behind the trie, each ends with a zero
        return max(1, *(len(text) for text in texts.split(b"\0")))
    return 1
