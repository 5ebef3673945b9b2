"""The cases of the Gemma family for the conformance suite, and the published rules of their grids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters import Prompt
from vlm_adapters.backbone import BackboneAdapter
from vlm_adapters.testing import AdapterCase, ExpectedGrid, TransformersReference
from vlm_adapters_gemma.tiny import CELLS, PATCH, SIDE, gemma3, gemma4, gemma4_unified, paligemma


def square_grids(size: tuple[int, int], *, cells: int = CELLS) -> list[ExpectedGrid]:
    """The whole image squashed to a square."""
    return [ExpectedGrid((cells, cells), (0, 0, size[1], size[0]))]


def budget_grids(size: tuple[int, int], *, cell: int = 12, most: int = 70) -> list[ExpectedGrid]:
    """The whole image in as many square cells as fit the budget at its own aspect, both sides rounded down.

    A side that is shorter than a cell becomes one cell, and then the other has as many cells as the image is long.
    """
    height, width = size
    scale = math.sqrt(most * cell**2 / (height * width))
    rows, columns = int(height * scale / cell), int(width * scale / cell)
    if rows == 0:
        rows, columns = 1, min(width // height, most)
    elif columns == 0:
        rows, columns = min(height // width, most), 1
    return [ExpectedGrid((rows, columns), (0, 0, width, height))]


class _PrefixReference(TransformersReference):
    """PaliGemma's processor takes the question as text and the answer as suffix."""

    @override
    def stock_inputs(self, adapter: BackboneAdapter, prompt: Prompt) -> Mapping[str, Tensor]:
        processor: Any = cast("Any", adapter).processor
        question, *answers = prompt.messages
        parts = [part if isinstance(part, str) else processor.image_token for part in question.content]
        suffix = [answer.text for answer in answers]
        inputs = processor(images=[list(prompt.images)], text=["".join(parts)], suffix=suffix or None)
        return {
            "input_ids": torch.tensor(inputs["input_ids"]),
            "pixel_values": torch.stack([torch.as_tensor(pixels) for pixels in inputs["pixel_values"]]),
        }


GEMMA3 = AdapterCase("gemma3", load=gemma3, expected_grids=square_grids)
GEMMA4 = AdapterCase("gemma4", load=gemma4, expected_grids=budget_grids)
GEMMA4_UNIFIED = AdapterCase("gemma4_unified", load=gemma4_unified, expected_grids=budget_grids)
PALIGEMMA = AdapterCase(
    "paligemma",
    load=paligemma,
    expected_grids=partial(square_grids, cells=SIDE // PATCH),
    reference=_PrefixReference(),
)
