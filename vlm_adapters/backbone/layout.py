"""How an image becomes a grid of tokens: resized, laid on a canvas, cut into cells.

One `ImageLayout` per grid describes all that a family does to an image (padding to a square, cropping, native
resolution, tiles, seams between them, newline tokens). The region of a cell in the image and the token that shows it
follow from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.errors import BackboneError, ImageError, PromptError
from vlm_adapters.geometry import Box, Size, Span


@dataclass(frozen=True)
class ImageLayout:
    """The layout of one grid of an image: resized, laid on a canvas, and cut into cells, one token each, row by row.

    Attributes:
        image: `(H, W)` of the upright image, in pixels.
        resized: `(height, width)` of the resized image, in pixels of the canvas.
        canvas: `(height, width)` of the canvas, in pixels.
        cells: Number of cells, `(h, w)`.
        offset: `(top, left)` of the image on the canvas, in pixels; negative where the canvas crops it.
        first: Tokens before the first cell, such as a class token.
        row_end: Tokens after every row (of a tile), such as a newline.
        last: Tokens after the last row.
        name: Which of the adapter's `grid_names` it is.
        tiles: Tiles `(down, across)` whose tokens come one tile after another, each row by row.
        rows: `(start, end)` of every row of cells, in pixels of the canvas; empty where rows divide it evenly.
        columns: The same of every column of cells.
        frames: The first frame of a video that it shows, and the one after the last.
        placed: Whether cells have places in the image; else the tokens are a row of cells without places.

    Examples:
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
    last: int = 0
    name: str = "fine"
    tiles: Size = (1, 1)
    rows: tuple[Span, ...] = ()
    columns: tuple[Span, ...] = ()
    frames: tuple[int, int] = (0, 1)
    placed: bool = True

    def __post_init__(self) -> None:
        if min(self.cells) < 1:
            raise ImageError(
                f"An image of {self.image[1]} x {self.image[0]} pixels has no cell in a grid of {self.cells[0]} "
                f"rows and {self.cells[1]} columns: it is too long and narrow for this model. Crop it."
            )

        if min(self.first, self.row_end, self.last, *self.resized, *self.canvas) < 0:
            raise ImageError(
                f"The layout of an image has a negative size or number of tokens: {self}. Use the processor that "
                "belongs to the checkpoint."
            )
        if min(self.tiles) < 1 or any(cells % tiles for cells, tiles in zip(self.cells, self.tiles, strict=True)):
            raise ValueError(f"{self.cells} cells (h, w) do not divide among {self.tiles} tiles (down, across)")
        for name, spans, cells in (("rows", self.rows, self.cells[0]), ("columns", self.columns, self.cells[1])):
            if spans and len(spans) != cells:
                raise ValueError(f"{name} must have a span for each of {cells} {name} of cells, got {len(spans)}")

    @classmethod
    def without_places(cls, image: Size, tokens: int) -> ImageLayout:
        """The layout of a family that mixes the image into tokens without places, such as a resampler.

        Args:
            image: `(H, W)` of the upright image.
            tokens: Number of tokens.
        """
        return cls(image, image, image, (1, tokens), placed=False)

    @property
    def box(self) -> Box:
        """The part of the canvas that has cells `(left, top, right, bottom)`, in pixels of the upright image."""
        rows, columns = self.rows or ((0, self.canvas[0]),), self.columns or ((0, self.canvas[1]),)
        (top, bottom), (left, right) = (
            self._in_image((spans[0][0], spans[-1][1]), side) for side, spans in enumerate((rows, columns))
        )
        return left, top, right, bottom

    @property
    def cell(self) -> Size:
        """Size `(height, width)` of a cell, in pixels of the canvas."""
        height, width = (
            spans[0][1] - spans[0][0] if spans else length // cells
            for spans, length, cells in zip((self.rows, self.columns), self.canvas, self.cells, strict=True)
        )
        return round(height), round(width)

    @property
    def token_count(self) -> int:
        """Number of tokens of the layout, including those that are not cells."""
        return self.first + self.cells[0] * (self.cells[1] + self.tiles[1] * self.row_end) + self.last

    def grid(self, tokens: Tensor, image: int) -> ImageGrid:
        """The cells with their tokens.

        Args:
            tokens: `(T,)` positions of the layout's tokens in the sequence.
            image: Index of the image in the prompt.
        """
        (down, across), (height, width) = self.tiles, self.cells
        of_rows = tokens[self.first : len(tokens) - self.last]
        by_tile = of_rows.view(down, across, height // down, width // across + self.row_end)
        cells = by_tile[..., : width // across].transpose(1, 2).reshape(height, width)
        rows, columns = (
            tuple(self._in_image(span, side) for span in spans) for side, spans in enumerate((self.rows, self.columns))
        )
        return ImageGrid(cells, self.box if self.placed else None, image, self.name, rows, columns, self.frames)

    def _in_image(self, span: Span, side: int) -> Span:
        """A span of the canvas along a side (0 down, 1 across), in pixels of the image."""
        scale, offset = self.image[side] / self.resized[side], self.offset[side]
        return (span[0] - offset) * scale, (span[1] - offset) * scale


def tile_spans(tiles: int, cells: int, pixels: float, cell: float) -> tuple[Span, ...]:
    """Where cells stand along one side of tiles whose cells do not reach their ends.

    Args:
        tiles: Number of tiles.
        cells: Number of cells of each.
        pixels: Length of a tile.
        cell: Length of a cell; what is left at the end of each tile belongs to none.

    Examples:
        >>> from vlm_adapters.backbone import tile_spans
        >>> tile_spans(tiles=2, cells=2, pixels=10, cell=4)
        ((0, 4), (4, 8), (10, 14), (14, 18))
    """
    starts = [tile * pixels + index * cell for tile in range(tiles) for index in range(cells)]
    return tuple((start, start + cell) for start in starts)


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


def place_layouts(
    layouts: Sequence[ImageLayout], tokens: Tensor, image: int, names: Sequence[str] = ("fine",)
) -> list[ImageGrid]:
    """Assign its token to every cell of one image's layouts, or of one video's.

    Args:
        layouts: Layouts of the image, in the order of their tokens.
        tokens: `(T,)` positions of the image's tokens in the sequence, ascending.
        image: Index of the image in the prompt.
        names: Names that grids may have, in the order of the result; the grids of a video come in order of time.

    Raises:
        PromptError: The number of tokens is not that of the layouts.
        BackboneError: A layout has another name, or two have the same.
    """
    found = [layout.name for layout in layouts]
    distinct = {(layout.frames, layout.name) for layout in layouts}
    if len(distinct) < len(layouts) or not set(found) <= set(names):
        raise BackboneError(
            f"The layouts of an image are named {', '.join(found)}; the adapter's grid_names are {', '.join(names)}. "
            "Give each layout of an image another one of these names."
        )
    needed = sum(layout.token_count for layout in layouts)
    if len(tokens) != needed:
        raise PromptError(
            f"Image {image} has {len(tokens)} image tokens in the sequence and needs {needed}. Use the processor "
            "that belongs to the checkpoint."
        )
    grids = []
    for layout, of_layout in zip(layouts, tokens.split([layout.token_count for layout in layouts]), strict=True):
        grids.append(layout.grid(of_layout, image))
    return sorted(grids, key=lambda grid: (grid.frames, names.index(grid.name)))
