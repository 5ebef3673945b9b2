"""Proof of grids on cells that had no part in finding them: within the image, at its borders and in its padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vlm_adapters.discovery.places import TokenPlaces
from vlm_adapters.discovery.structure import FoundGrid
from vlm_adapters.discovery.vision import VisionSide
from vlm_adapters.geometry import Size

_INNER = 0.2
"""Share of a cell left as it is along each of its sides: resizing spreads a change by about two pixels."""
_FEWEST_PIXELS = 1
_SMALL_CELL = 4
"""Pixels below which a cell is tried up to its sides."""
_CELLS = 12
"""Most cells of a grid that are tried."""


@dataclass(frozen=True)
class Proof:
    """What held-out cells showed.

    Attributes:
        cells: Number of cells that were changed, one at a time.
        alone: Share of them whose token changed most while every patch saw itself only.
        in_model: Share of them whose token changed most, for its usual change, in the model as it is.
        padding: Share of the cells that answer to a new image if and only if they show some of it.
    """

    cells: int
    alone: float
    in_model: float
    padding: float


def prove(
    vision: VisionSide,
    process: Callable[[Image.Image], dict[str, Any]],
    grids: Sequence[FoundGrid],
    places: TokenPlaces,
    size: Size,
    *,
    seed: int = 1,
) -> Proof:
    """Change single cells of a texture, and look which token changes; in the model also cells of one colour.

    Args:
        vision: The vision side of the model.
        process: Function from an image to the processor's features.
        grids: The grids to prove.
        places: The tokens, for their ids.
        size: `(H, W)` of the image.
        seed: Seed of textures and cells.
    """
    random = np.random.default_rng(seed)
    counted = np.flatnonzero(np.isin(places.ids, np.unique(places.ids[places.is_cell])))
    jobs = [(grid, cell) for grid in grids for cell in _held_out(grid, size, random)]

    def changes(base: np.ndarray, other: np.ndarray, *, quiet: bool) -> list[np.ndarray]:
        images = [base, other, *(_with_cell(base, other, grid, cell) for grid, cell in jobs)]
        found = [vision.embeddings(process(Image.fromarray(image)), quiet=quiet)[counted] for image in images]
        return [_norms(after - found[0]) for after in found[1:]]

    textures = _texture(size, random), _texture(size, random)
    whole, *single = changes(*textures, quiet=True)
    alone = _share([_largest(change, grid, cell) for change, (grid, cell) in zip(single, jobs, strict=True)])
    in_model = 0.0
    for base, other in (textures, (_shade(size, random), _shade(size, random))):
        if in_model < 1 and jobs:
            whole_image, *single = changes(base, other, quiet=False)
            usual = np.maximum(np.median(single, axis=0), 1e-6 * whole_image.max())
            right = [_largest(change / usual, grid, cell) for change, (grid, cell) in zip(single, jobs, strict=True)]
            in_model = max(in_model, _share(right))
    return Proof(len(jobs), alone, in_model, _padding(whole, grids, size))


def _held_out(grid: FoundGrid, size: Size, random: np.random.Generator) -> list[tuple[int, int]]:
    """Cells with enough of the image in them: the corners of those, the least visible ones, and some by chance."""
    visible = {
        cell: _visible(grid, cell, size)
        for cell in np.ndindex(*grid.tokens.shape)
        if _pixels(grid, cell, size) is not None
    }
    inside = sorted(visible)
    if not inside:
        return []
    rows, columns = [r for r, _ in inside], [c for _, c in inside]
    corners = {(r, c) for r in (min(rows), max(rows)) for c in (min(columns), max(columns))} & visible.keys()
    partly = sorted((share, cell) for cell, share in visible.items() if share < 0.9)[:3]
    chosen = corners | {cell for _, cell in partly}
    others = [cell for cell in inside if cell not in chosen]
    more = min(len(others), max(_CELLS - len(chosen), 0))
    return sorted(chosen | {others[i] for i in random.choice(len(others), more, replace=False)})


def _visible(grid: FoundGrid, cell: tuple[int, int], size: Size) -> float:
    """Share of a cell that is image."""
    (top, bottom), (left, right) = grid.rows[cell[0]], grid.columns[cell[1]]
    down = max(min(bottom, size[0]) - max(top, 0), 0) / (bottom - top)
    across = max(min(right, size[1]) - max(left, 0), 0) / (right - left)
    return float(down * across)


def _pixels(grid: FoundGrid, cell: tuple[int, int], size: Size) -> tuple[slice, slice] | None:
    """The pixels well within a cell; None where there are too few."""
    slices = []
    for (start, end), length in ((grid.rows[cell[0]], size[0]), (grid.columns[cell[1]], size[1])):
        margin = _INNER * (end - start) if end - start > _SMALL_CELL else 0
        first, last = math.ceil(max(start + margin, 0)), math.floor(min(end - margin, length))
        if last - first < _FEWEST_PIXELS:
            return None
        slices.append(slice(first, last))
    return slices[0], slices[1]


def _with_cell(base: np.ndarray, other: np.ndarray, grid: FoundGrid, cell: tuple[int, int]) -> np.ndarray:
    """The image with another in one cell."""
    image = base.copy()
    if place := _pixels(grid, cell, base.shape[:2]):
        image[place] = other[place]
    return image


def _texture(size: Size, random: np.random.Generator) -> np.ndarray:
    """Random colours in blocks of a few pixels, `(H, W, 3)`."""
    block = max(min(size) // 40, 1)
    colours = random.integers(0, 256, (math.ceil(size[0] / block), math.ceil(size[1] / block), 3), dtype=np.uint8)
    return colours.repeat(block, axis=0).repeat(block, axis=1)[: size[0], : size[1]]


def _shade(size: Size, random: np.random.Generator) -> np.ndarray:
    """One random colour, `(H, W, 3)`."""
    return np.broadcast_to(random.integers(0, 256, 3, dtype=np.uint8), (*size, 3)).copy()


def _norms(change: Tensor) -> np.ndarray:
    return np.asarray(change.norm(dim=-1).numpy())


def _largest(change: np.ndarray, grid: FoundGrid, cell: tuple[int, int]) -> bool:
    of_grid = change[grid.tokens]
    return bool(of_grid[cell] > 0) and np.unravel_index(of_grid.argmax(), of_grid.shape) == cell


def _padding(change: np.ndarray, grids: Sequence[FoundGrid], size: Size) -> float:
    """Share of cells that change with the whole image if they show it, and do not if they lie beyond it."""
    right = []
    for grid in grids:
        of_grid = change[grid.tokens]
        usual = float(np.median(of_grid[of_grid > 0])) if (of_grid > 0).any() else 1.0
        for cell in np.ndindex(*of_grid.shape):
            visible = _visible(grid, cell, size)
            if visible > 0.3:
                right.append(of_grid[cell] > 0.05 * usual)
            elif visible == 0 and _beyond(grid, cell, size) > 0.1:
                right.append(of_grid[cell] < 0.05 * usual)
    return _share(right)


def _beyond(grid: FoundGrid, cell: tuple[int, int], size: Size) -> float:
    """How far a cell lies beyond the image, in cells."""
    (top, bottom), (left, right) = grid.rows[cell[0]], grid.columns[cell[1]]
    down = max(-bottom, top - size[0]) / (bottom - top)
    return float(max(down, max(-right, left - size[1]) / (right - left)))


def _share(right: Sequence[bool]) -> float:
    return sum(map(bool, right)) / len(right) if right else 0.0
