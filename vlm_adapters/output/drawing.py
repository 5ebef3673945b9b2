"""Drawings of grids over their image, as SVG: which token of the sequence stands for which region."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from xml.sax.saxutils import escape

from PIL import Image

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.errors import ImageError, NoGridError
from vlm_adapters.geometry import Box

_PANEL, _GAP, _LINE = 300, 24, 30
"""Longer side of a panel, the space between two, and the height of a caption, in units of the drawing."""

_SHARPEST = 200
"""Longer side of the image under the cells, in pixels: the drawing shows where cells are, not what is in them."""

_MOST_NUMBERS = 160
"""Grids of more cells show the numbers of the first and the last cell of each row alone."""

_STYLE = (
    "text{font:13px sans-serif;fill:#1e1e1e}"
    ".cells{fill:#d55e00;fill-opacity:.05;stroke:#fff;stroke-width:.8}"
    ".beyond{fill:#ccc}"
    ".numbers text{fill:#fff;stroke:#000;stroke-width:1.6;paint-order:stroke;text-anchor:middle}"
)


def grid_drawing(image: Image.Image, grids: Sequence[ImageGrid]) -> str:
    """Draw the grids of one image over it, a panel for each, with the positions of their tokens in the sequence.

    Cells beyond the image, where it was padded, are drawn on grey.

    Args:
        image: The upright image, as the prompt holds it.
        grids: The grids of this image, as `locate_image_tokens` gives them.

    Returns:
        An SVG document that loads nothing from elsewhere.

    Raises:
        ImageError: There is no grid.
        NoGridError: The tokens of a grid have no places in the image.

    Examples:
        >>> import torch
        >>> from PIL import Image
        >>> from vlm_adapters import ImageGrid
        >>> from vlm_adapters.output import grid_drawing
        >>> grid = ImageGrid(torch.arange(5, 11).reshape(2, 3), box=(0, 0, 300, 200))
        >>> grid_drawing(Image.new("RGB", (300, 200)), [grid]).count("<text")  # a caption, and a number for each cell
        7
    """
    if not grids:
        raise ImageError("There is no grid to draw. Give the grids of one image, as locate_image_tokens gives them.")
    boxes = [_box_of(grid) for grid in grids]
    left, top = (min(0.0, *(box[side] for box in boxes)) for side in (0, 1))
    right = max(float(image.width), *(box[2] for box in boxes))
    bottom = max(float(image.height), *(box[3] for box in boxes))
    scale = _PANEL / max(right - left, bottom - top)
    width, height = (right - left) * scale, (bottom - top) * scale
    background = _background(image, scale)
    panels = "".join(
        f'<g transform="translate({_short(_GAP / 2 + index * (width + _GAP))} {_LINE})">'
        f'<text y="-10">{escape(_caption(grid))}</text>'
        f'<g transform="translate({_short(-left * scale)} {_short(-top * scale)})">'
        f"{_beyond(box, scale)}{background}{_cells(grid, scale)}</g></g>"
        for index, (grid, box) in enumerate(zip(grids, boxes, strict=True))
    )
    total = len(grids) * (width + _GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_short(total)} {_short(height + _LINE + _GAP / 2)}" '
        f'width="{_short(total)}"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{panels}</svg>\n'
    )


def _box_of(grid: ImageGrid) -> Box:
    if grid.box is None:
        raise NoGridError
    return grid.box


def _caption(grid: ImageGrid) -> str:
    rows, columns = grid.shape
    return f"{grid.name}: {rows} x {columns} cells, tokens {int(grid.tokens.min())} to {int(grid.tokens.max())}"


def _background(image: Image.Image, scale: float) -> str:
    small = image.convert("RGB")
    small.thumbnail((_SHARPEST, _SHARPEST))
    file = BytesIO()
    small.save(file, "JPEG", quality=60)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<image width="{_short(image.width * scale)}" height="{_short(image.height * scale)}" '
        f'preserveAspectRatio="none" href="data:image/jpeg;base64,{data}"/>'
    )


def _beyond(box: Box, scale: float) -> str:
    left, top, right, bottom = (side * scale for side in box)
    return (
        f'<rect class="beyond" x="{_short(left)}" y="{_short(top)}" '
        f'width="{_short(right - left)}" height="{_short(bottom - top)}"/>'
    )


def _cells(grid: ImageGrid, scale: float) -> str:
    """The outlines of all cells as one path, and numbers in the cells."""
    rows, columns = grid.shape
    every = rows * columns <= _MOST_NUMBERS
    outlines, numbers = [], []
    for row in range(rows):
        for column in range(columns):
            left, top, right, bottom = (side * scale for side in grid.cell_box(row, column))
            width, height = right - left, bottom - top
            outlines.append(f"M{_short(left)} {_short(top)}h{_short(width)}v{_short(height)}h{_short(-width)}z")
            if every or column in (0, columns - 1):
                letters = min(height * 0.6, width * 0.5, 11.0)
                numbers.append(
                    f'<text x="{_short(left + width / 2)}" y="{_short(top + height / 2 + letters * 0.35)}" '
                    f'style="font-size:{_short(letters)}px">{int(grid.tokens[row, column])}</text>'
                )
    return f'<path class="cells" d="{"".join(outlines)}"/><g class="numbers">{"".join(numbers)}</g>'


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
