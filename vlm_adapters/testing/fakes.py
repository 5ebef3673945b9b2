"""A backbone without transformers: small, deterministic and fast, which passes every check.

Images are cut into cells of 16 pixels (larger where a side would get more than 12), padded at the right and at the
bottom; a cell's token is the mean colour of its four quarters. Text is one token per character. Layer 1 of 3 has no
attention, so that the index among the layers with attention differs from the layer's index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from vlm_adapters.backbone.fingerprint import weights_fingerprint
from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo
from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.errors import PromptError, RequestError
from vlm_adapters.geometry import Size
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase, ExpectedGrid
from vlm_adapters.testing.fake_model import (
    ATTENTION_LAYERS,
    CHARACTERS,
    HEADS,
    IMAGE,
    LAYERS,
    PADDING,
    WIDTH,
    FakeModel,
    FakePass,
)
from vlm_adapters.testing.reference import Reference, ReferencePass
from vlm_adapters.testing.support import by_phrase

CELL, MOST_CELLS = 16, 12


@dataclass(frozen=True)
class FakeChoice:
    """The layers and heads of a request, as indices, named as in `GridRequest`."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    hidden_layers: tuple[int, ...]
    phrase_layers: tuple[int, ...]

    @classmethod
    def of(cls, request: GridRequest) -> Self:
        """Resolve a request against the layers and heads of the fake model."""
        return cls(
            resolve_layers(request.layers, ATTENTION_LAYERS),
            resolve_heads(request.heads, HEADS),
            resolve_layers(request.hidden_layers, range(LAYERS)),
            resolve_layers(request.phrase_hidden_layers, range(LAYERS)),
        )


class FakeAdapter:
    """Adapter of the fake model.

    Args:
        dtype: Dtype of the weights.
        attention: `"sdpa"` or `"eager"`.
        coarse: Whether every image also has a first grid of cells twice as large.
    """

    def __init__(self, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa", coarse: bool = False) -> None:
        self.model = FakeModel(attention).to(dtype).eval().requires_grad_(requires_grad=False)
        self.padding_side: Literal["left", "right"] = "left"
        self.scales = (2, 1) if coarse else (1,)
        self.name = "fake"
        self.info = BackboneInfo(
            model_type="fake",
            checkpoint="fake",
            revision=None,
            num_layers=LAYERS,
            attention_layers=ATTENTION_LAYERS,
            num_heads=HEADS,
            hidden_size=WIDTH,
            cell=(CELL, CELL),
            grids=("overview", "fine")[-len(self.scales) :],
            dtype=str(dtype).removeprefix("torch."),
            fingerprint=weights_fingerprint(self.model.state_dict()),
        )

    @classmethod
    def from_pretrained(cls, _: str, **__: object) -> Self:
        """Build the adapter; it has no checkpoint to load."""
        return cls()

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        """Encode prompts as characters and cells."""
        if not prompts:
            raise PromptError("The list of prompts is empty. Give at least one Prompt.")
        if any(prompt.videos for prompt in prompts):
            raise PromptError("The fake takes no video. Give its frames as images.")
        encoded = [self._encode(prompt) for prompt in prompts]
        longest = max(len(ids) for ids, _ in encoded)
        shifts = [longest - len(ids) if self.padding_side == "left" else 0 for ids, _ in encoded]
        input_ids = torch.full((len(prompts), longest), PADDING)
        for row, shift, (ids, _) in zip(input_ids, shifts, encoded, strict=True):
            row[shift : shift + len(ids)] = torch.tensor(ids)
        colours = [
            _colours(image, scale).flatten(0, 1)
            for prompt in prompts
            for image in prompt.images
            for scale in self.scales
        ]
        return BackboneInputs(
            prompts=tuple(prompts),
            tensors={
                "input_ids": input_ids,
                "attention_mask": (input_ids != PADDING).long(),
                "cells": torch.cat(colours),
            },
            phrase_tokens=tuple(
                tuple(torch.arange(*phrase.span) + start + shift for phrase in prompt.phrases)
                for prompt, (_, start), shift in zip(prompts, encoded, shifts, strict=True)
            ),
        )

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        """Find the grids of every prompt's images."""
        found = []
        for prompt, ids in zip(inputs.prompts, inputs.tensors["input_ids"], strict=True):
            positions = (ids == IMAGE).nonzero().flatten()
            grids = []
            for index, image in enumerate(prompt.images):
                for scale in self.scales:
                    side, rows, columns = _cut(image.height, image.width, scale)
                    tokens, positions = positions[: rows * columns], positions[rows * columns :]
                    box = (0.0, 0.0, float(columns * side), float(rows * side))
                    grids.append(
                        ImageGrid(tokens.view(rows, columns), box, index, "fine" if scale == 1 else "overview")
                    )
            found.append(grids)
        return found

    def extract(self, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
        """Run the fake model once and return its grids."""
        choice = FakeChoice.of(request)
        rows = [torch.cat([torch.empty(0, dtype=torch.long), *tokens]) for tokens in inputs.phrase_tokens]
        if request.align == "predictor":
            rows = [positions - 1 for positions in rows]
            if any(bool((positions < 0).any()) for positions in rows):
                raise RequestError('align="predictor" has no row for the first token of a sequence.')
        with torch.set_grad_enabled(request.gradient and torch.is_grad_enabled()):
            output = cast("FakePass", self.model(**inputs.tensors, row_positions=rows))
        found = []
        for b, of_prompt in enumerate(self.locate_image_tokens(inputs)):
            full = torch.zeros(len(rows[b]), 0, len(choice.heads), inputs.tensors["input_ids"].shape[1])
            if choice.layers:
                chosen = [output.rows[layer][b][list(choice.heads)].transpose(0, 1) for layer in choice.layers]
                full = torch.stack(chosen, dim=1)
            reduced, phrases = _reduced(full, inputs.phrase_tokens[b], request.reduce)
            states = torch.stack([output.states[layer][b] for layer in range(LAYERS)])
            of_phrases = [states[list(choice.phrase_layers)][:, tokens] for tokens in inputs.phrase_tokens[b]]
            likelihood: tuple[Tensor, ...] = ()
            if request.phrase_log_probabilities:
                likelihood = tuple(_likelihood(output, inputs, b, tokens) for tokens in inputs.phrase_tokens[b])
            found.append(
                [
                    Grids(
                        grid=grid,
                        attention=reduced[..., grid.tokens],
                        layers=choice.layers,
                        heads=choice.heads,
                        row_phrases=phrases,
                        hidden=states[list(choice.hidden_layers)][:, grid.tokens].permute(0, 3, 1, 2),
                        hidden_layers=choice.hidden_layers,
                        phrase_hidden=tuple(of_phrases) if choice.phrase_layers else (),
                        phrase_hidden_layers=choice.phrase_layers,
                        phrase_log_probabilities=likelihood,
                    )
                    for grid in of_prompt
                ]
            )
        return found

    def _encode(self, prompt: Prompt) -> tuple[list[int], int]:
        """Token ids of a prompt, and the position at which the last message's text starts."""
        ids: list[int] = []
        start = 0
        for message in prompt.messages:
            ids += map(ord, f"{message.role}: ")
            for image in message.images:
                for scale in self.scales:
                    _, rows, columns = _cut(image.height, image.width, scale)
                    ids += [IMAGE] * (rows * columns)
            start = len(ids)
            ids += map(ord, message.text)
        return ids, start


def _likelihood(output: FakePass, inputs: BackboneInputs, b: int, tokens: Tensor) -> Tensor:
    """Log probabilities `(T,)` of tokens; no phrase begins a sequence, in which a role stands first."""
    said = inputs.tensors["input_ids"][b, tokens].clamp(0, CHARACTERS - 1)
    return output.logits[b, tokens - 1].float().log_softmax(-1).gather(1, said[:, None])[:, 0]


class FakeReference(Reference):
    """The reference of the fake adapter."""

    @override
    def run(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> ReferencePass:
        fake = cast("FakeAdapter", adapter)
        batch, length = inputs.tensors["input_ids"].shape
        output = fake.model(**inputs.tensors, row_positions=[torch.arange(length)] * batch)
        return ReferencePass({layer: torch.stack(rows) for layer, rows in output.rows.items()}, output.states)

    @override
    def image_positions(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> Tensor:
        return inputs.tensors["input_ids"] == IMAGE

    @override
    def spell(self, adapter: BackboneAdapter, inputs: BackboneInputs, index: int, positions: Tensor) -> str:
        return "".join(chr(code) for code in inputs.tensors["input_ids"][index, positions].tolist())

    @override
    def special_tokens(self, adapter: BackboneAdapter) -> Sequence[str]:
        return ("user: ", "assistant: ", chr(0))

    @override
    def set_padding_side(self, adapter: BackboneAdapter, side: Literal["left", "right"]) -> None:
        cast("FakeAdapter", adapter).padding_side = side

    @override
    def stock_inputs(self, adapter: BackboneAdapter, prompt: Prompt) -> dict[str, Tensor]:
        scales = cast("FakeAdapter", adapter).scales
        rule = expected_coarse_fake_grids if len(scales) > 1 else expected_fake_grids
        ids: list[int] = []
        cells = []
        for message in prompt.messages:
            ids += map(ord, f"{message.role}: ")
            grids = [(shown, grid) for shown in message.images for grid in rule((shown.height, shown.width))]
            for shown, grid in grids:
                (rows, columns), (_, _, right, bottom) = grid.shape, grid.box
                ids += [IMAGE] * rows * columns
                pixels = np.full((round(bottom), round(right), 3), 0.5, np.float32)
                pixels[: shown.height, : shown.width] = np.asarray(shown, np.float32) / 255
                side = round(right) // columns // 2
                quarters = pixels.reshape(rows, 2, side, columns, 2, side, 3).mean(axis=(2, 5))
                cells.append(quarters.transpose(0, 2, 4, 1, 3).reshape(-1, 12))
            ids += map(ord, message.text)
        return {"input_ids": torch.tensor([ids]), "cells": torch.from_numpy(np.concatenate(cells))}


def load_fake(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> FakeAdapter:
    """Build the fake with one grid per image."""
    return FakeAdapter(dtype=dtype, attention=attention)


def load_coarse_fake(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> FakeAdapter:
    """Build the fake with a coarse and a fine grid per image."""
    return FakeAdapter(dtype=dtype, attention=attention, coarse=True)


def expected_fake_grids(size: Size) -> list[ExpectedGrid]:
    """The rule of the grid: cells of the smallest multiple of 16 pixels with at most 12 a side; full cells."""
    height, width = size
    side = 16
    while max(height, width) > 12 * side:
        side += 16
    rows, columns = -(-height // side), -(-width // side)
    return [ExpectedGrid((rows, columns), (0, 0, columns * side, rows * side))]


def expected_coarse_fake_grids(size: Size) -> list[ExpectedGrid]:
    """The rule of both grids: one of cells twice as large over the padded image, then the fine one."""
    (fine,) = expected_fake_grids(size)
    side = 2 * (fine.box[3] / fine.shape[0])
    rows, columns = math.ceil(size[0] / side), math.ceil(size[1] / side)
    return [ExpectedGrid((rows, columns), (0, 0, columns * side, rows * side), "overview"), fine]


FAKE_CASE = AdapterCase("fake", load_fake, expected_fake_grids, reference=FakeReference())
COARSE_FAKE_CASE = replace(
    FAKE_CASE, name="fake-coarse", load=load_coarse_fake, expected_grids=expected_coarse_fake_grids
)


def _cut(height: int, width: int, scale: int) -> tuple[int, int, int]:
    """Side of a cell in pixels, and the numbers of rows and columns."""
    side = CELL * math.ceil(max(height, width) / (CELL * MOST_CELLS)) * scale
    return side, math.ceil(height / side), math.ceil(width / side)


def _colours(image: Image.Image, scale: int) -> Tensor:
    """Mean colours `(h, w, 12)` in [0, 1] of the quarters of every cell, grey beyond the image."""
    side, rows, columns = _cut(image.height, image.width, scale)
    padded = torch.full((rows * side, columns * side, 3), 0.5)
    padded[: image.height, : image.width] = torch.from_numpy(np.array(image)).float() / 255
    quarters = functional.avg_pool2d(padded.permute(2, 0, 1), side // 2)
    colours: Tensor = functional.pixel_unshuffle(quarters, 2)
    return colours.permute(1, 2, 0)


def _reduced(rows: Tensor, phrase_tokens: Sequence[Tensor], reduce: str) -> tuple[Tensor, tuple[int, ...]]:
    """Reduce `rows (R, ...)` to one map per phrase, or keep one per row; also return the phrase of every map."""
    each = [1 if reduce != "none" else len(tokens) for tokens in phrase_tokens]
    return by_phrase(rows, phrase_tokens, reduce), tuple(
        phrase for phrase, maps in enumerate(each) for _ in range(maps)
    )
