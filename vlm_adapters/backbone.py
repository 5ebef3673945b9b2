"""The protocol that every backbone speaks, and the data that cross it.

Words: `B` prompts of a batch, `S` positions of a sequence, `L` layers, `n` heads, `P` phrases, `D` width of the
language model; `h, w` cells of a grid, `H, W` pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.prompt import Prompt
from vlm_adapters.request import GridRequest

OptionValue = str | int | float | bool | None


@dataclass(frozen=True)
class BackboneInfo:
    """What a consumer must know of a backbone to size itself.

    Attributes:
        model_type: Hugging Face `model_type`; the adapter's name.
        checkpoint: Hub name or directory that it was loaded from.
        revision: Commit of the checkpoint, where known.
        num_layers: Layers of the language model.
        attention_layers: Indices of the layers that have attention (hybrid models lack it in some).
        num_heads: Query heads of every such layer.
        hidden_size: Width `D` of the language model.
        cell: Pixels `(height, width)` of the resized picture that one image token covers.
        grids_per_picture: Grids that every picture has.
        options: Names and values of the adapter's own options, such as `min_pixels`.
    """

    model_type: str
    checkpoint: str
    revision: str | None
    num_layers: int
    attention_layers: tuple[int, ...]
    num_heads: int
    hidden_size: int
    cell: tuple[int, int]
    grids_per_picture: int = 1
    options: tuple[tuple[str, OptionValue], ...] = ()

    @property
    def channels(self) -> int:
        """Attention maps of one phrase: layers x heads x grids. Channel = layer * n + head."""
        return len(self.attention_layers) * self.num_heads * self.grids_per_picture


@dataclass(frozen=True)
class BackboneInputs:
    """A batch of prompts as the model takes it.

    Attributes:
        prompts: The prompts, in the order of the batch.
        tensors: Keyword arguments of the model's forward, on the model's device.
        phrase_tokens: For prompt `b` and phrase `p`, the positions in the (padded) sequence of the tokens that spell
            the phrase: LongTensor, ascending, never empty.
        image_tokens: For prompt `b` and picture `i`, the positions of the image tokens that the picture became:
            LongTensor, ascending; newline tokens are among them. Empty where the adapter finds them otherwise.
    """

    prompts: tuple[Prompt, ...]
    tensors: Mapping[str, Tensor]
    phrase_tokens: tuple[tuple[Tensor, ...], ...]
    image_tokens: tuple[tuple[Tensor, ...], ...] = ()

    def __post_init__(self) -> None:
        asked = [len(prompt.phrases) for prompt in self.prompts]
        found = [len(tokens) for tokens in self.phrase_tokens]
        if asked != found:
            raise ValueError(f"phrases per prompt are {asked}, phrase_tokens has {found}")


@dataclass(frozen=True)
class ImageGrid:
    """Image tokens as a grid, and the region of the picture they cover.

    Attributes:
        tokens: `(h, w)` LongTensor: position in the sequence of the token of every cell; row 0 is the top.
        box: `(left, top, right, bottom)` in pixels of the upright picture. It reaches beyond the picture where the
            preprocessor padded, and covers less where it cropped.
        picture: Which of the prompt's pictures it shows.
    """

    tokens: Tensor = field(repr=False)
    box: tuple[float, float, float, float]
    picture: int = 0

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.dtype != torch.long:
            raise ValueError(f"tokens must be a (h, w) LongTensor, got {self.tokens.dtype} {tuple(self.tokens.shape)}")
        left, top, right, bottom = self.box
        if not (left < right and top < bottom):
            raise ValueError(f"box must be (left, top, right, bottom) with an area, got {self.box}")

    @property
    def shape(self) -> tuple[int, int]:
        """`(h, w)` cells."""
        return self.tokens.shape[0], self.tokens.shape[1]

    def cell_box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Region `(left, top, right, bottom)` of one cell, in pixels of the picture."""
        left, top, right, bottom = self.box
        height, width = (bottom - top) / self.shape[0], (right - left) / self.shape[1]
        return (
            left + column * width,
            top + row * height,
            left + (column + 1) * width,
            top + (row + 1) * height,
        )


@dataclass(frozen=True)
class Grids:
    """What one `ImageGrid` shows of the phrases of its prompt.

    Attributes:
        grid: Where the cells stand in the picture.
        attention: `(P, L, n, h, w)` float32 in [0, 1]: share of the whole row's attention that falls on each cell (a
            map does not sum to 1: text gets its share). With `reduce="none"` one entry per row instead of per phrase.
        layers: True layer index of every entry of axis `L`.
        heads: Head index of every entry of axis `n`.
        row_phrases: Phrase of every entry of the first axis: `0..P-1`, or one entry per row with `reduce="none"`.
        hidden: `(K, D, h, w)`: hidden states of the image tokens, for the K layers of `hidden_layers`.
        hidden_layers: True layer index of every entry of `hidden`.
        phrase_hidden: For every phrase `(K, T, D)`: hidden states of its T tokens.
        phrase_hidden_layers: True layer index of every entry of `phrase_hidden`.
    """

    grid: ImageGrid
    attention: Tensor = field(repr=False)
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    row_phrases: tuple[int, ...]
    hidden: Tensor = field(repr=False)
    hidden_layers: tuple[int, ...] = ()
    phrase_hidden: tuple[Tensor, ...] = field(default=(), repr=False)
    phrase_hidden_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expected = (len(self.row_phrases), len(self.layers), len(self.heads), *self.grid.shape)
        if tuple(self.attention.shape) != expected:
            raise ValueError(f"attention must be {expected} (P, L, n, h, w), got {tuple(self.attention.shape)}")
        if self.hidden.shape[:1] != (len(self.hidden_layers),) or tuple(self.hidden.shape[2:]) != self.grid.shape:
            raise ValueError(f"hidden must be (K, D, h, w) of {self.grid.shape}, got {tuple(self.hidden.shape)}")

    @property
    def channels(self) -> Tensor:
        """`(P, L * n, h, w)`: the maps as channels of an image, channel = layer * n + head."""
        return self.attention.flatten(1, 2)


@runtime_checkable
class BackboneAdapter(Protocol):
    """A frozen vision-language model that tells where its words look."""

    name: str

    @property
    def info(self) -> BackboneInfo:
        """What a consumer must know of the backbone."""
        ...

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        """Turn prompts into what the model takes. Uses no network.

        Raises:
            PromptError: A prompt cannot be encoded.
        """
        ...

    def locate_image_tokens(self, inputs: BackboneInputs) -> Sequence[Sequence[ImageGrid]]:
        """Find the grids of every prompt's pictures: one list per prompt, a picture's finest grid after its others."""
        ...

    def extract(self, inputs: BackboneInputs, request: GridRequest) -> Sequence[Sequence[Grids]]:
        """Run the model once and return, per prompt, one `Grids` per `ImageGrid`.

        Raises:
            RequestError: The request names layers or heads that do not exist.
            CaptureError: Rows cannot be computed exactly.
        """
        ...


def device_of(adapter: BackboneAdapter) -> torch.device:
    """Where an adapter's results live; where it does not say so, where its weights do, and else the CPU."""
    model = getattr(adapter, "model", None)
    return torch.device(getattr(adapter, "device", None) or getattr(model, "device", None) or "cpu")


def place_map(
    maps: Tensor, box: tuple[float, float, float, float], size: tuple[int, int], *, outside: float = 0.0
) -> Tensor:
    """Place maps over a grid into picture coordinates, bilinearly.

    A value of the map belongs to the centre of its cell, a pixel to its own centre. Beyond the outermost cell centres
    the border value continues; pixels outside the box get `outside`, since the grid says nothing of them.

    Args:
        maps: `(..., h, w)` float.
        box: `(left, top, right, bottom)` that the map covers, in pixels of the picture.
        size: `(H, W)` of the picture.
        outside: Value of the pixels outside the box.

    Returns:
        `(..., H, W)` float32.
    """
    left, top, right, bottom = box
    y = (torch.arange(size[0], device=maps.device, dtype=torch.float32) + 0.5 - top) / (bottom - top)
    x = (torch.arange(size[1], device=maps.device, dtype=torch.float32) + 0.5 - left) / (right - left)
    points = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], dim=-1)
    flat = maps.float().reshape(1, -1, *maps.shape[-2:])
    placed = functional.grid_sample(flat, points[None], mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))[None, :]
    return placed.masked_fill(~inside, outside).reshape(*maps.shape[:-2], *size)
