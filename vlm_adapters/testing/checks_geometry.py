"""Checks of grids: their shapes, and the regions of their cells in the image."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.geometry import Box, Size
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase, ExpectedGrid
from vlm_adapters.testing.support import (
    PHRASES,
    TEXT,
    CheckSkipped,
    before_first_layer,
    hidden,
    image,
    maps,
    prompt,
    require,
    require_equal,
    run,
    transformers_model_of,
    two_images,
)

_SMALL: Size = (30, 40)
"""`(H, W)` of an image below one tile of families that cut images into tiles."""

_MIN_PIXELS = 3
"""Smallest side of a cell that `check_orientation` tests; fewer pixels, enlarged, change its neighbours as much."""


def check_image_reaches_the_model(case: AdapterCase) -> None:
    """A different image of the same size gives different hidden states of the image tokens, and different maps."""
    adapter = case.load()
    request = GridRequest(hidden_layers=1)
    (_, first), (_, second) = (run(adapter, prompt(seed=seed), request) for seed in (0, 1))
    remedy = (
        "Either the adapter's `preprocess` drops the pixels, or the model of the case ignores them: some families "
        "start with a projection of zeros, which `vlm_adapters.testing.tiny.random_model` fills"
    )
    for what, found in (("hidden states of the image tokens", hidden), ("attention maps", maps)):
        moved = (found(first) - found(second)).abs().max().item()
        require(moved > 0, f"{what} with another image: expected different ones, found identical ones. {remedy}")


def check_grid_names(case: AdapterCase) -> None:
    """Every image, small ones too, has the finest of `info.grids`, and others in the order and with names of these."""
    adapter = _load_with_places(case)
    names = adapter.info.grids
    for size in (*case.sizes, _SMALL):
        found = [grid.name for grid in _grids(adapter, size)]
        in_order = [name for name in names if name in found]
        require(
            found == in_order and found[-1:] == list(names[-1:]),
            f"names of the grids of a {size} image: expected some of {names} in this order, {names[-1]!r} among them, "
            f"found {found}. Give every ImageLayout one of `grid_names`; an image of one tile has the finest alone",
        )


def check_grid_shapes(case: AdapterCase) -> None:
    """Grids have the shapes `(h, w)` of the oracle, for every size of image."""
    adapter = _load_with_places(case)
    for size in (*case.sizes, _SMALL):
        found = [(grid.name, grid.shape) for grid in _grids(adapter, size)]
        expected = [(grid.name, grid.shape) for grid in case.expected_grids(size)]
        require_equal(found, expected, f"grid names and shapes (h, w) of a {size} image")


def check_cell_boxes(case: AdapterCase) -> None:
    """Every cell covers the region that the oracle gives it, for every size of image."""
    adapter = _load_with_places(case)
    for size in case.sizes:
        for index, (found, expected) in enumerate(zip(_grids(adapter, size), case.expected_grids(size), strict=True)):
            rows, columns = expected.shape
            for cell in ((row, column) for row in range(rows) for column in range(columns)):
                what = f"{cell} of grid {index} of a {size} image"
                require_box(found.cell_box(*cell), expected.cell_box(*cell), what)


def check_cells_are_image_tokens(case: AdapterCase) -> None:
    """Cells are distinct positions of the sequence, all of them image tokens of the model's input."""
    adapter = case.load()
    for size in case.sizes:
        inputs = adapter.preprocess([prompt(size)])
        tokens = torch.cat([grid.tokens.flatten() for grid in adapter.locate_image_tokens(inputs)[0]])
        require_equal(len(tokens.unique()), len(tokens), f"number of distinct image tokens of a {size} image")
        image = case.reference.image_positions(adapter, inputs)[0].cpu()
        inside = bool(((tokens >= 0) & (tokens < len(image))).all())
        require(
            inside, f"image tokens of a {size} image: expected positions below {len(image)}, found {tokens.tolist()}"
        )
        others = tokens[~image[tokens]].tolist()
        require(
            not others,
            f"cells of a {size} image: expected image tokens of the model's input, found other tokens at {others}",
        )


def check_orientation(case: AdapterCase) -> None:
    """Changing the pixels of a corner cell changes the image token of that cell most, of those in the image.

    The changed region is the oracle's, and the image is not square. Padding is left out: in a trained tower it tells of
    what is beside it, and changes more than that itself.
    """
    adapter = _load_with_places(case)
    tested = 0
    for size in case.sizes:
        if size[0] == size[1]:
            continue
        before = _first_states(adapter, image(size))
        for index, expected in enumerate(case.expected_grids(size)):
            cells = outermost_cells(expected, size)
            for cell in cells:
                tested += 1
                after = _first_states(adapter, changed_in(image(size), expected.cell_box(*cell)))
                (top, left), (bottom, right) = cells[0], cells[-1]
                change = (after[index] - before[index]).norm(dim=0)[top : bottom + 1, left : right + 1]
                row, column = divmod(int(change.argmax()), change.shape[1])
                found = row + top, column + left
                require_equal(found, cell, f"cell of grid {index} {expected.shape} that changes most in a {size} image")
    require(tested > 0, "AdapterCase.sizes has no image that is not square and has cells of three pixels")


def check_several_images(case: AdapterCase) -> None:
    """Two images in a prompt have their grids in order, with the oracle's shapes and boxes."""
    adapter = _load_with_places(case)
    sizes = ((84, 200), (160, 90))
    prompt_of_two = _two_images(case, sizes)
    found = adapter.locate_image_tokens(adapter.preprocess([prompt_of_two]))[0]
    rule = case.expected_beside_others or case.expected_grids
    expected = [(index, grid) for index, size in enumerate(sizes) for grid in rule(size)]
    require_equal(
        [(grid.image, grid.name, grid.shape) for grid in found],
        [(index, grid.name, grid.shape) for index, grid in expected],
        "image, name and shape (h, w) of the grids of two images",
    )
    for grid, (index, of_rule) in zip(found, expected, strict=True):
        last = grid.shape[0] - 1, grid.shape[1] - 1
        for cell in ((0, 0), last):
            require_box(grid.cell_box(*cell), of_rule.cell_box(*cell), f"{cell} of grid {grid.name!r} of image {index}")
    tokens = torch.cat([grid.tokens.flatten() for grid in found])
    require_equal(len(tokens.unique()), len(tokens), "number of distinct image tokens of two images")


def check_several_images_are_not_mixed(case: AdapterCase) -> None:
    """Changing the second of two images of one size changes its image tokens, and none of the first image."""
    adapter = case.load()
    sizes = ((112, 112), (112, 112))
    before = _states_of_images(adapter, _two_images(case, sizes))
    first, second = _two_images(case, sizes).images
    changed = two_images(sizes)
    content = first, changed_in(second, (0, 0, 112, 112)), changed.messages[0].text
    question = type(changed.messages[0])("user", content)
    after = _states_of_images(adapter, Prompt((question, *changed.messages[1:]), changed.phrases))
    for (index, found), (_, expected) in zip(after, before, strict=True):
        change = (found - expected).abs().max().item()
        is_changed = index == 1
        require(
            (change > 1e-3) == is_changed,
            f"hidden states of image {index} when image 1 changes: expected {'a' if is_changed else 'no'} "
            f"change, found {change:.3g}",
        )


def _load_with_places(case: AdapterCase) -> BackboneAdapter:
    adapter = case.load()
    if not adapter.info.grids:
        raise CheckSkipped(f"the image tokens of {case.name} have no places in the image")
    return adapter


def _states_of_images(adapter: BackboneAdapter, of: Prompt) -> list[tuple[int, Tensor]]:
    """For every grid the index of its image, and its hidden states after the last layer.

    Where images see each other both ways, those before the first layer, in which they have not seen each other yet.
    """
    inputs, grids = run(adapter, of, GridRequest(hidden_layers=1))
    if not getattr(adapter, "attention_pattern", "undeclared").startswith("bidirectional"):
        return [(grid.grid.image, grid.hidden) for grid in grids]
    embedded = before_first_layer(transformers_model_of(adapter), inputs)[0]
    return [(grid.grid.image, embedded[grid.grid.tokens.to(embedded.device)]) for grid in grids]


def require_box(found: Box, expected: Box, cell: str) -> None:
    """Raise an `AssertionError` unless the boxes of a cell agree within a hundredth of a pixel."""
    require(
        all(math.isclose(a, b, abs_tol=1e-2) for a, b in zip(found, expected, strict=True)),
        f"box (left, top, right, bottom) of cell {cell}: expected {expected}, found {found}",
    )


def _two_images(case: AdapterCase, sizes: tuple[Size, Size]) -> Prompt:
    if not case.several_images:
        raise CheckSkipped(f"{case.name} takes one image per prompt (AdapterCase.several_images)")
    return two_images(sizes)


def _grids(adapter: BackboneAdapter, size: Size) -> list[ImageGrid]:
    return list(adapter.locate_image_tokens(adapter.preprocess([prompt(size)]))[0])


def _first_states(adapter: BackboneAdapter, image: Image.Image) -> list[Tensor]:
    """Hidden states `(D, h, w)` after the first layer, per grid."""
    grids = run(adapter, Prompt.describe(image, TEXT, PHRASES), GridRequest(layers=(), hidden_layers=[0]))[1]
    return [grid.hidden[0].float() for grid in grids]


def outermost_cells(grid: ExpectedGrid, size: Size) -> list[tuple[int, int]]:
    """The outermost cells `(row, column)` that lie mostly in the image and cover enough of its pixels."""
    rows = [row for row in range(grid.shape[0]) if _inside(grid.cell_box(row, 0)[1::2], size[0])]
    columns = [column for column in range(grid.shape[1]) if _inside(grid.cell_box(0, column)[::2], size[1])]
    if not rows or not columns:
        return []
    return sorted({(row, column) for row in (rows[0], rows[-1]) for column in (columns[0], columns[-1])})


def _inside(side: tuple[float, ...], length: int) -> bool:
    start, end = side
    covered = min(end, length) - max(start, 0)
    return covered >= _MIN_PIXELS and covered >= (end - start) / 2


def changed_in(image: Image.Image, box: Box) -> Image.Image:
    """The image with the pixels of a region inverted."""
    pixels = np.array(image)
    left, top, right, bottom = (max(round(side), 0) for side in box)
    pixels[top:bottom, left:right] = 255 - pixels[top:bottom, left:right]
    return Image.fromarray(pixels)
