"""How an image becomes a grid of tokens: resized, laid on a canvas, cut into cells.

All that families do to an image (padding to a square, cropping, native resolution, tiles, newline tokens) is said by
one `ImageLayout` per grid; where a cell stands in the image, and which token shows it, follows.
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
    """How one image was resized and laid on a canvas that is cut into cells, one token each, row by row.

    Attributes:
        image: `(H, W)` of the upright image, in pixels.
        resized: `(height, width)` of the image on the canvas, in pixels of the canvas.
        canvas: `(height, width)` that is cut into cells, in pixels.
        cells: `(h, w)`.
        offset: `(top, left)` of the image on the canvas, in pixels; negative where the canvas crops it.
        first: Tokens before the first cell, such as a class token.
        row_end: Tokens after every row, such as a newline.
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

    @property
    def box(self) -> Box:
        """Region `(left, top, right, bottom)` of the canvas, in pixels of the upright image."""
        down, across = (whole / part for whole, part in zip(self.image, self.resized, strict=True))
        top, left = self.offset
        return -left * across, -top * down, (self.canvas[1] - left) * across, (self.canvas[0] - top) * down

    @property
    def cell(self) -> Size:
        """Pixels `(height, width)` of the canvas that one token covers."""
        return self.canvas[0] // self.cells[0], self.canvas[1] // self.cells[1]

    @property
    def token_count(self) -> int:
        """Tokens that the layout takes, those that are no cells included."""
        return self.first + self.cells[0] * (self.cells[1] + self.row_end)


def square_layout(image: Size, side: int, cells: int, *, shortest: int = 1) -> ImageLayout:
    """The layout of an image whose long side is resized to `side`, centred on a square.

    Args:
        image: `(H, W)` of the upright image.
        side: Of the square, in pixels.
        cells: Along each side.
        shortest: Pixels that the short side keeps at least.
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
    """Resize an image's long side to `side` (bicubic) and centre it on a square of one colour: see `square_layout`."""
    layout = square_layout((image.height, image.width), side, 1)
    square = Image.new("RGB", (side, side), colour)
    height, width = (int(length) for length in layout.resized)
    top, left = (int(pixels) for pixels in layout.offset)
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return square


def place_layouts(layouts: Sequence[ImageLayout], tokens: Tensor, image: int) -> list[ImageGrid]:
    """Give every cell of one image's layouts its token.

    Args:
        layouts: In the order of their tokens.
        tokens: `(T,)` positions in the sequence of the image's tokens, ascending.
        image: Which of the prompt's images it is.

    Raises:
        PromptError: The layouts need another number of tokens.
    """
    needed = sum(layout.token_count for layout in layouts)
    if len(tokens) != needed:
        raise PromptError(
            f"Image {image} has {len(tokens)} image tokens in the sequence and needs {needed}. Use the processor "
            "that belongs to the checkpoint."
        )
    grids = []
    for layout, own in zip(layouts, tokens.split([layout.token_count for layout in layouts]), strict=True):
        rows = own[layout.first :].view(layout.cells[0], layout.cells[1] + layout.row_end)
        grids.append(ImageGrid(rows[:, : layout.cells[1]], layout.box, image))
    return grids
