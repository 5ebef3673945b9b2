"""How an image becomes a grid of tokens: resized, laid on a canvas, cut into cells.

One `ImageLayout` per grid describes all that a family does to an image (padding to a square, cropping, native
resolution, tiles, newline tokens). The region of a cell in the image and the token that shows it follow from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.errors import ImageError, PromptError
from vlm_adapters.geometry import Box, Size


@dataclass(frozen=True)
class ImageLayout:
    """The layout of one image: resized, laid on a canvas, and cut into cells, one token each, row by row.

    Attributes:
        image: `(H, W)` of the upright image, in pixels.
        resized: `(height, width)` of the resized image, in pixels of the canvas.
        canvas: `(height, width)` of the canvas, in pixels.
        cells: Number of cells, `(h, w)`.
        offset: `(top, left)` of the image on the canvas, in pixels; negative where the canvas crops it.
        first: Tokens before the first cell, such as a class token.
        row_end: Tokens after every row, such as a newline.

    Example:
        >>> from vlm_adapters import ImageLayout
        >>> layout = ImageLayout(image=(100, 200), resized=(56, 112), canvas=(112, 112), cells=(8, 8), offset=(28, 0))
        >>> layout.cell, layout.box  # a square of the image's longer side, centred on it
        ((14, 14), (0.0, -50.0, 200.0, 150.0))
    """

    image: Size
    resized: tuple[float, float]
    canvas: Size
    cells: Size
    offset: tuple[float, float] = (0, 0)
    first: int = 0
    row_end: int = 0

    def __post_init__(self) -> None:
        if min(self.cells) < 1:
            raise ImageError(
                f"An image of {self.image[1]} x {self.image[0]} pixels has no cell in a grid of {self.cells[0]} "
                f"rows and {self.cells[1]} columns: it is too long and narrow for this model. Crop it."
            )

        if min(self.first, self.row_end, *self.resized, *self.canvas) < 0:
            raise ImageError(
                f"The layout of an image has a negative size or number of tokens: {self}. Use the processor that "
                "belongs to the checkpoint."
            )

    @property
    def box(self) -> Box:
        """The canvas as a region `(left, top, right, bottom)`, in pixels of the upright image."""
        down, across = (whole / part for whole, part in zip(self.image, self.resized, strict=True))
        top, left = self.offset
        return -left * across, -top * down, (self.canvas[1] - left) * across, (self.canvas[0] - top) * down

    @property
    def cell(self) -> Size:
        """Size `(height, width)` of a cell, in pixels of the canvas."""
        return self.canvas[0] // self.cells[0], self.canvas[1] // self.cells[1]

    @property
    def token_count(self) -> int:
        """Number of tokens of the layout, including those that are not cells."""
        return self.first + self.cells[0] * (self.cells[1] + self.row_end)


def square_layout(image: Size, side: int, cells: int, *, shortest: int = 1) -> ImageLayout:
    """Lay an image out on a square: its long side resized to `side`, centred.

    Args:
        image: `(H, W)` of the upright image.
        side: Side of the square, in pixels.
        cells: Number of cells along each side.
        shortest: Smallest length of the resized short side, in pixels.
    """
    scale = side / max(image)
    height, width = (max(round(length * scale), shortest) for length in image)
    return ImageLayout(
        image,
        resized=(height, width),
        canvas=(side, side),
        cells=(cells, cells),
        offset=((side - height) // 2, (side - width) // 2),
    )


def fit_square(image: Image.Image, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """Resize an image's long side to `side` (bicubic) and centre it on a square, as `square_layout` describes."""
    layout = square_layout((image.height, image.width), side, 1)
    square = Image.new("RGB", (side, side), colour)
    height, width = (int(length) for length in layout.resized)
    top, left = (int(pixels) for pixels in layout.offset)
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return square


def place_layouts(layouts: Sequence[ImageLayout], tokens: Tensor, image: int) -> list[ImageGrid]:
    """Assign its token to every cell of one image's layouts.

    Args:
        layouts: Layouts of the image, in the order of their tokens.
        tokens: `(T,)` positions of the image's tokens in the sequence, ascending.
        image: Index of the image in the prompt.

    Raises:
        PromptError: The number of tokens is not that of the layouts.
    """
    needed = sum(layout.token_count for layout in layouts)
    if len(tokens) != needed:
        raise PromptError(
            f"Image {image} has {len(tokens)} image tokens in the sequence and needs {needed}. Use the processor "
            "that belongs to the checkpoint."
        )
    grids = []
    for layout, of_layout in zip(layouts, tokens.split([layout.token_count for layout in layouts]), strict=True):
        rows = of_layout[layout.first :].view(layout.cells[0], layout.cells[1] + layout.row_end)
        grids.append(ImageGrid(rows[:, : layout.cells[1]], layout.box, image))
    return grids
