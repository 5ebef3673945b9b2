"""The data that cross the protocol: the inputs of a batch, image tokens as grids, and what is seen on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters.errors import NoGridError
from vlm_adapters.geometry import Box, Size, Span, place_map, resample_evenly
from vlm_adapters.prompt import Prompt


@dataclass(frozen=True, repr=False)
class BackboneInputs:
    """A batch of prompts as the model takes it.

    Attributes:
        prompts: The prompts, in the order of the batch.
        tensors: Keyword arguments of the model's forward, on the model's device.
        phrase_tokens: For prompt `b` and phrase `p`, the positions in the (padded) sequence of the tokens that spell
            the phrase: LongTensor, ascending, never empty.
        image_tokens: For prompt `b` and image `i`, the positions of the image tokens that the image became:
            LongTensor, ascending; newline tokens are among them. Empty where the adapter finds them otherwise.
    """

    prompts: tuple[Prompt, ...]
    tensors: Mapping[str, Tensor]
    phrase_tokens: tuple[tuple[Tensor, ...], ...]
    image_tokens: tuple[tuple[Tensor, ...], ...] = ()

    @override
    def __repr__(self) -> str:
        phrases = sum(map(len, self.phrase_tokens))
        tensors = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.tensors.items())
        return f"BackboneInputs(prompts: {len(self.prompts)}, phrases: {phrases}; {tensors or 'no tensors'})"

    def __post_init__(self) -> None:
        asked = [len(prompt.phrases) for prompt in self.prompts]
        found = [len(tokens) for tokens in self.phrase_tokens]
        if asked != found:
            raise ValueError(f"phrases per prompt are {asked}, phrase_tokens has {found}")


@dataclass(frozen=True)
class ImageGrid:
    """Image tokens as a grid, and the region of the image they cover.

    Attributes:
        tokens: `(h, w)` LongTensor: position in the sequence of the token of every cell; row 0 is the top.
        box: `(left, top, right, bottom)` in pixels of the upright image. It reaches beyond the image where the
            preprocessor padded, and covers less where it cropped. None where the tokens have no places in the image
            (a resampler mixes it); they stand in one row then.
        image: Which of the prompt's images it shows.
        name: Which of `BackboneInfo.grids` it is.
        rows: `(top, bottom)` of every row of cells, in pixels of the image; empty where rows divide the box evenly.
        columns: `(left, right)` of every column of cells, likewise.
        frames: The first frame that it shows, and the one after the last; a still image has one.

    Examples:
        >>> import torch
        >>> from vlm_adapters import ImageGrid
        >>> grid = ImageGrid(torch.arange(5, 11).reshape(2, 3), box=(0, 0, 300, 200))
        >>> grid.shape, int(grid.tokens[1, 0])
        ((2, 3), 8)
    """

    tokens: Tensor = field(repr=False)
    box: Box | None
    image: int = 0
    name: str = "fine"
    rows: tuple[Span, ...] = field(default=(), repr=False)
    columns: tuple[Span, ...] = field(default=(), repr=False)
    frames: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.dtype != torch.long:
            raise ValueError(f"tokens must be a (h, w) LongTensor, got {self.tokens.dtype} {tuple(self.tokens.shape)}")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError(f"box must be (left, top, right, bottom) with an area, got {self.box}")
        for name, spans, cells in (("rows", self.rows, self.shape[0]), ("columns", self.columns, self.shape[1])):
            if spans and len(spans) != cells:
                raise ValueError(f"{name} must have a span for each of {cells} {name} of cells, got {len(spans)}")

    @property
    def shape(self) -> tuple[int, int]:
        """`(h, w)` cells."""
        return self.tokens.shape[0], self.tokens.shape[1]

    def cell_box(self, row: int, column: int) -> Box:
        """Region `(left, top, right, bottom)` of one cell, in pixels of the image.

        Raises:
            NoGridError: The tokens have no places in the image.
        """
        if self.box is None:
            raise NoGridError
        left, top, right, bottom = self.box
        height, width = (bottom - top) / self.shape[0], (right - left) / self.shape[1]
        above, below = self.rows[row] if self.rows else (top + row * height, top + (row + 1) * height)
        before, behind = self.columns[column] if self.columns else (left + column * width, left + (column + 1) * width)
        return before, above, behind, below

    def evenly(self, maps: Tensor) -> Tensor:
        """Resample maps `(..., h, w)` over the cells to as many cells that divide the box evenly."""
        if self.box is None:
            raise NoGridError
        left, top, right, bottom = self.box
        for axis, spans, start, end in ((-2, self.rows, top, bottom), (-1, self.columns, left, right)):
            maps = resample_evenly(maps, axis, spans, (start, end)) if spans else maps
        return maps

    def place(self, maps: Tensor, size: Size, *, outside: float = 0.0) -> Tensor:
        """Resample maps `(..., h, w)` over the cells to the pixels `(..., H, W)` of the image, as `place_map` does."""
        return place_map(self.evenly(maps), self.box, size, outside=outside)


@dataclass(frozen=True, repr=False)
class Grids:
    """What one `ImageGrid` shows of the phrases of its prompt.

    Attributes:
        grid: Where the cells stand in the image.
        attention: `(P, L, n, h, w)` float32 in [0, 1]: share of the whole row's attention that falls on each cell (a
            map does not sum to 1: text gets its share). With `reduce="none"` one entry per row instead of per phrase.
        layers: True layer index of every entry of axis `L`.
        heads: Head index of every entry of axis `n`.
        row_phrases: Phrase of every entry of the first axis: `0..P-1`, or one entry per row with `reduce="none"`.
        hidden: `(K, D, h, w)`: hidden states of the image tokens, for the K layers of `hidden_layers`.
        hidden_layers: True layer index of every entry of `hidden`.
        phrase_hidden: For every phrase `(K, T, D)`: hidden states of its T tokens.
        phrase_hidden_layers: True layer index of every entry of `phrase_hidden`.
        phrase_log_probabilities: For every phrase `(T,)` float32, at most 0: the log probabilities that the model gives
            to its tokens after all that stands before each; 0 for the first token of a sequence. Empty where they
            were not requested, or where the model has no head over the vocabulary.
        phrase_gaps: With them, for every phrase `(T,)` float32, at least 0: by how much the log probability of the
            likeliest token exceeds that of the phrase's; 0 where its token is the likeliest.

    Examples:
        >>> from vlm_adapters import GridRequest, Prompt, load_adapter, open_dataset
        >>> adapter, scene = load_adapter("tiny-llava"), open_dataset("scenes:count=1,seed=4")[0]
        >>> prompt = Prompt.describe(scene.image, scene.text, [scene.phrases[0].text])
        >>> (grids,) = adapter.extract(adapter.preprocess([prompt]), GridRequest(layers=[-1]))[0]
        >>> tuple(grids.attention.shape), grids.layers  # phrases, layers, heads, h, w
        ((1, 1, 8, 16, 16), (5,))
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
    phrase_log_probabilities: tuple[Tensor, ...] = field(default=(), repr=False)
    phrase_gaps: tuple[Tensor, ...] = field(default=(), repr=False)

    @override
    def __repr__(self) -> str:
        kept = f"attention {tuple(self.attention.shape)} of phrases, layers, heads, h, w"
        if self.hidden_layers:
            kept += f"; hidden {tuple(self.hidden.shape)} of layers {list(self.hidden_layers)}"
        height, width = self.grid.shape
        return f"Grids('{self.grid.name}' {height} x {width} cells, {kept}; on {self.attention.device})"

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
