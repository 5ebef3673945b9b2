"""The case of a discovered adapter: its oracle measures layouts anew, with other patterns."""

from __future__ import annotations

from typing import cast

import torch

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.discovery.discover import Discoverer
from vlm_adapters.discovery.found import FoundLayouts
from vlm_adapters.discovery.layouts import layouts_of
from vlm_adapters.geometry import Box, Size, Span
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.testing.case import AdapterCase, ExpectedGrid, LoadAdapter

_SEED = 7
_SAME = 0.1
"""Share of a cell by which two measurements of a side differ."""


def held_out_case(name: str, load: LoadAdapter, found: FoundLayouts) -> AdapterCase:
    """The case of an adapter whose layouts were discovered.

    A side of a grid is measured to about a twentieth of a cell; one within a tenth of a cell of the adapter's passes.

    Args:
        name: Name in reports.
        load: Loads the adapter; a function at the top level of a module.
        found: What was discovered.
    """
    return AdapterCase(name, load=load, expected_grids=_MeasuredAnew(load, found), sizes=tuple(found.layouts))


class _MeasuredAnew:
    """The rule of the case; a class, so that a spawned process finds it."""

    def __init__(self, load: LoadAdapter, found: FoundLayouts) -> None:
        self._load, self._found = load, found
        self._measured: dict[Size, tuple[ExpectedGrid, ...]] = {}

    def __call__(self, size: Size) -> tuple[ExpectedGrid, ...]:
        if size not in self._measured:
            adapter = cast("TransformersBackbone", self._load(dtype=torch.float32))
            discovery = Discoverer(adapter.model, adapter.processor).discover(size, seed=_SEED)
            measured = layouts_of(discovery.grids, size, self._found.cell)
            given = {layout.name: layout for layout in adapter.layouts([size])[0]}
            grids = {layout.name: _expected(layout, given.get(layout.name)) for layout in measured}
            self._measured[size] = tuple(grids[name] for name in self._found.grid_names if name in grids)
        return self._measured[size]


def _expected(measured: ImageLayout, given: ImageLayout | None) -> ExpectedGrid:
    """The measured grid; the adapter's numbers for its sides where both agree."""
    if given is not None and given.cells == measured.cells:
        cell = [(b - a) / n for a, b, n in zip(given.box[:2], given.box[2:], reversed(given.cells), strict=True)]
        apart = [abs(a - b) / unit for a, b, unit in zip(measured.box, given.box, (*cell, *cell), strict=True)]
        if max(apart) < _SAME:
            return _grid(given)
    return _grid(measured)


def _grid(layout: ImageLayout) -> ExpectedGrid:
    sides = ((layout.rows, 0), (layout.columns, 1))
    rows, columns = (tuple(_in_image(layout, span, side) for span in spans) for spans, side in sides)
    box: Box = layout.box
    return ExpectedGrid(layout.cells, box, layout.name, rows, columns)


def _in_image(layout: ImageLayout, span: Span, side: int) -> Span:
    scale = layout.image[side] / layout.resized[side]
    return (span[0] - layout.offset[side]) * scale, (span[1] - layout.offset[side]) * scale
