"""Found grids as layouts, and the rule that several sizes of image share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.discovery.structure import FoundGrid
from vlm_adapters.geometry import Box, Size

_NEAR = 0.2
"""Pixels of the canvas within which a measured length is taken for a whole number."""
_AGREES = 0.15
"""Share of a cell within which a measured side is that of a rule."""
_SEAM = 0.02
Region = Literal["image", "padded square", "cropped square"]


def layouts_of(grids: Sequence[FoundGrid], size: Size, cell: int) -> list[ImageLayout]:
    """The layouts of an image `(H, W)`, in the order of their tokens.

    Args:
        grids: Its grids, in that order.
        size: Size of the image.
        cell: Side of a cell, in pixels of the canvas.
    """
    names = grid_names(len(grids))
    coarse_first = sorted(range(len(grids)), key=lambda index: -_cell_area(grids[index]))
    return [_layout(grid, size, cell, names[coarse_first.index(index)]) for index, grid in enumerate(grids)]


def grid_names(count: int) -> tuple[str, ...]:
    """Names of the grids of an image, from coarse to fine."""
    return (*(["overview"] if count > 1 else []), *(f"middle_{index}" for index in range(2, count)), "fine")


def layout_on(box: Box, cells: Size, size: Size, cell: int, **tokens: Any) -> ImageLayout:
    """The layout of evenly divided cells `(h, w)` over a box `(left, top, right, bottom)` of an image `(H, W)`."""
    left, top, right, bottom = box
    down, across = cells[0] * cell / (bottom - top), cells[1] * cell / (right - left)
    return ImageLayout(
        size,
        resized=(_whole(size[0] * down), _whole(size[1] * across)),
        canvas=(cells[0] * cell, cells[1] * cell),
        cells=cells,
        offset=(_whole(-top * down), _whole(-left * across)),
        **tokens,
    )


def _layout(grid: FoundGrid, size: Size, cell: int, name: str) -> ImageLayout:
    h, w = grid.tokens.shape
    tokens = {"first": grid.first, "row_end": grid.row_end, "last": grid.last, "tiles": grid.tiles, "name": name}
    if _even(grid.rows) and _even(grid.columns):
        return layout_on(grid.box, (h, w), size, cell, **tokens)
    scale = [cell / float(np.median(spans[:, 1] - spans[:, 0])) for spans in (grid.rows, grid.columns)]
    spans = [
        tuple((float(start) * factor, float(end) * factor) for start, end in of_side)
        for of_side, factor in zip((grid.rows, grid.columns), scale, strict=True)
    ]
    canvas = tuple(max(round(of_side[-1][1]), length * cell) for of_side, length in zip(spans, (h, w), strict=True))
    return ImageLayout(
        size,
        resized=(size[0] * scale[0], size[1] * scale[1]),
        canvas=(canvas[0], canvas[1]),
        cells=(h, w),
        rows=spans[0],
        columns=spans[1],
        **tokens,  # type: ignore[arg-type]
    )


def _even(spans: np.ndarray) -> bool:
    width = float(np.median(spans[:, 1] - spans[:, 0]))
    return bool((np.abs(spans[1:, 0] - spans[:-1, 1]) < _SEAM * width).all())


def _whole(length: float) -> float:
    return round(length) if abs(length - round(length)) < _NEAR else length


def _cell_area(grid: FoundGrid) -> float:
    left, top, right, bottom = grid.box
    return (right - left) * (bottom - top) / grid.tokens.size


@dataclass(frozen=True)
class Rule:
    """How images of any size are laid out: one grid over a region that follows from the size.

    Attributes:
        region: What the grid covers.
        cells: `(h, w)` of every image; None where the features of the processor name them.
        feature: Name of the feature whose last two numbers are rows and columns of patches; empty for fixed cells.
        merge: Patches along each side of a cell.
        row_end: Counted tokens after every row.
    """

    region: Region
    cells: Size | None
    feature: str = ""
    merge: int = 1
    row_end: int = 0

    def cells_of(self, features: Mapping[str, Any]) -> Size:
        """Cells of an image, `(h, w)`.

        Args:
            features: What the processor gives for it; read where cells are not fixed.
        """
        if self.cells is not None:
            return self.cells
        rows, columns = (int(number) for number in features[self.feature][0][-2:])
        return rows // self.merge, columns // self.merge

    def box(self, size: Size) -> Box:
        """The region of an image `(H, W)`."""
        height, width = size
        side = {"image": 0, "padded square": max(size), "cropped square": min(size)}[self.region]
        across, down = ((side - length) / 2 if side else 0 for length in (width, height))
        return -across, -down, width + across, height + down


def find_rule(found: Mapping[Size, tuple[Sequence[FoundGrid], Mapping[str, Any]]]) -> Rule | None:
    """The rule that all sizes follow; None where there is none.

    Args:
        found: Size of an image -> its grids, and the features that the processor gives for it.
    """
    grids = [grids[0] for grids, _ in found.values()]
    plain = all(len(of_size) == 1 for of_size, _ in found.values()) and all(
        grid.tiles == (1, 1) and not grid.first and not grid.last and _even(grid.rows) and _even(grid.columns)
        for grid in grids
    )
    if len(found) < 3 or not plain or len({grid.row_end for grid in grids}) > 1:
        return None
    shapes = {(grid.tokens.shape[0], grid.tokens.shape[1]) for grid in grids}
    sources = [("", 1)] if len(shapes) == 1 else [*_grid_features(found)]
    regions: tuple[Region, ...] = ("image", "padded square", "cropped square")
    for region in regions:
        for feature, merge in sources:
            rule = Rule(region, shapes.copy().pop() if not feature else None, feature, merge, grids[0].row_end)
            if all(_follows(rule, size, of_size[0], features) for size, (of_size, features) in found.items()):
                return rule
    return None


def _grid_features(found: Mapping[Size, tuple[Sequence[FoundGrid], Mapping[str, Any]]]) -> list[tuple[str, int]]:
    """Features that may name the grid, with the number of patches per cell."""
    (of_size, features), *_ = found.values()
    candidates = []
    for name, value in features.items():
        if isinstance(value, Tensor) and not value.is_floating_point() and value.ndim == 2 and value.shape[1] in (2, 3):
            merge, rest = divmod(int(value[0][-1]), of_size[0].tokens.shape[1])
            candidates += [(name, merge)] if merge and not rest else []
    return candidates


def _follows(rule: Rule, size: Size, grid: FoundGrid, features: Mapping[str, Any]) -> bool:
    left, top, right, bottom = grid.box
    h, w = grid.tokens.shape
    cell = (right - left) / w, (bottom - top) / h
    sides = zip(rule.box(size), grid.box, (*cell, *cell), strict=True)
    return rule.cells_of(features) == (h, w) and all(abs(a - b) < _AGREES * unit for a, b, unit in sides)
