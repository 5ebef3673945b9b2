"""Found grids as layouts and rules, and the data of a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlm_adapters.discovery import FoundLayouts
from vlm_adapters.discovery.layouts import Rule, find_rule, grid_names, layouts_of
from vlm_adapters.discovery.structure import FoundGrid
from vlm_adapters.errors import PluginError
from vlm_adapters.geometry import Box, Size

Sizes = tuple[Size, ...]
SIZES: Sizes = ((100, 100), (60, 120), (150, 90))


def even(start: float, end: float, count: int) -> np.ndarray:
    edges = np.linspace(start, end, count + 1)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def grid(shape: Size, box: Box, **fields: Any) -> FoundGrid:
    tokens = np.arange(shape[0] * shape[1]).reshape(shape)
    left, top, right, bottom = box
    given = {"tiles": (1, 1), "first": 0, "row_end": 0, "last": 0, "explained": 1.0, **fields}
    return FoundGrid(tokens, even(left, right, shape[1]), even(top, bottom, shape[0]), **given)


def test_a_layout_has_the_box_that_was_found() -> None:
    (layout,) = layouts_of([grid((8, 8), (0, -50, 200, 150))], (100, 200), 14)
    assert layout.canvas == (112, 112)
    assert (layout.resized, layout.offset) == ((56, 112), (28, 0))
    assert layout.box == pytest.approx((0, -50, 200, 150))


def test_the_coarser_of_two_grids_is_the_overview_wherever_its_tokens_stand() -> None:
    fine, coarse = grid((8, 8), (0, 0, 100, 100)), grid((4, 4), (0, 0, 100, 100))
    assert [layout.name for layout in layouts_of([fine, coarse], (100, 100), 14)] == ["fine", "overview"]
    assert grid_names(3) == ("overview", "middle_2", "fine")


def test_seams_become_spans() -> None:
    found = grid((2, 4), (0, 0, 100, 50))
    found.columns[2:] += 10
    (layout,) = layouts_of([found], (50, 110), 10)
    assert [end - start for start, end in layout.columns] == pytest.approx([10] * 4)
    assert layout.columns[2][0] - layout.columns[1][1] == pytest.approx(4)


def padded(size: Size) -> Box:
    side = max(size)
    top, left = (side - size[0]) / 2, (side - size[1]) / 2
    return -left, -top, size[1] + left, size[0] + top


def test_a_rule_for_fixed_cells_on_a_padded_square() -> None:
    rule = find_rule({size: ([grid((8, 8), padded(size))], {}) for size in SIZES})
    assert rule == Rule("padded square", (8, 8))
    assert rule is not None
    assert rule.box((40, 80)) == padded((40, 80))


def test_a_rule_by_the_feature_that_names_the_grid() -> None:
    def found(size: Size) -> tuple[list[FoundGrid], dict[str, Any]]:
        shape = size[0] // 10, size[1] // 10
        return [grid(shape, (0, 0, size[1], size[0]))], {"image_grid_thw": torch.tensor([[1, *(2 * n for n in shape)]])}

    rule = find_rule({size: found(size) for size in SIZES})
    assert rule == Rule("image", None, "image_grid_thw", 2)
    assert rule is not None
    assert rule.cells_of({"image_grid_thw": torch.tensor([[1, 8, 12]])}) == (4, 6)


def test_no_rule_where_the_sizes_share_none() -> None:
    shapes = ((4, 4), (5, 3), (2, 7))
    found = {size: ([grid(shape, (0, 0, 50, 50))], {}) for size, shape in zip(SIZES, shapes, strict=True)}
    assert find_rule(found) is None


def test_data_are_read_as_they_were_written(tmp_path: Path) -> None:
    seams = grid((2, 4), (0, 0, 100, 50), tiles=(1, 2), row_end=1)
    seams.columns[2:] += 10
    layouts = tuple(layouts_of([seams, grid((2, 2), (0, 0, 110, 50))], (50, 110), 10))
    rule = Rule("image", None, "image_grid_thw", 2)
    found = FoundLayouts("toy", "<image>", (5,), ("overview", "fine"), 10, {(50, 110): layouts}, rule, {(50, 110): 1.0})
    (tmp_path / "layouts.json").write_text(found.to_json(), encoding="utf-8")
    assert FoundLayouts.read(tmp_path / "layouts.json") == found


@pytest.mark.parametrize("content", ["", "{}", '{"images": 3}'])
def test_malformed_data_are_one_typed_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "layouts.json").write_text(content, encoding="utf-8")
    with pytest.raises(PluginError, match="holds no layouts as `adapters discover` writes them"):
        FoundLayouts.read(tmp_path / "layouts.json")
