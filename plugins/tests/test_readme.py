"""The tables of plugins/README.md hold: the shapes of layouts, and what a processor must offer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_adapters import ImageLayout, Prompt, TransformersBackbone, list_adapters
from vlm_adapters.testing import find_case

README = Path(__file__).parents[1] / "README.md"
SIZES = ((112, 112), (84, 252), (252, 84), (133, 211), (700, 900))


def rows(first: str) -> dict[str, list[str]]:
    """The cells of the table whose head begins with a text: first cell -> the names in code of the others."""
    text = README.read_text(encoding="utf-8")
    table = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ", 1) for line in table]
    return {head: re.findall(r"`([\w-]+)`", rest) for head, rest in cells}


def shape_of(adapter: TransformersBackbone) -> str:
    """The row of the table that an adapter's layouts belong to."""
    of_sizes = [adapter.layouts([size])[0] for size in SIZES]
    every = [layout for layouts in of_sizes for layout in layouts]
    ends = any(layout.row_end for layout in every)
    if any(len(layouts) > 1 for layouts in of_sizes):
        if _beside_others(adapter) != of_sizes[0]:
            return "the same, and another layout beside other images of the prompt"
        if any(layout.tiles != (1, 1) for layout in every):
            seams = any(layout.rows or layout.columns for layout in every)
            return (
                "the same, with pixels at the ends of tiles that belong to no cell"
                if seams
                else "an overview, and tiles whose tokens come one tile after another"
            )
        return "an overview, and one fine grid with a token after every row" if ends else "unknown"
    if len({layout.cells for layout in every}) == 1:
        whole = all(_covers(layout) for layout in every)
        return (
            "one grid, the image squashed to a fixed number of cells"
            if whole
            else "one grid of a fixed number of cells, the image padded to a square"
        )
    return "one grid at the image's own aspect" + (", a token after every row" if ends else "")


def _beside_others(adapter: TransformersBackbone) -> Sequence[ImageLayout]:
    return adapter.layouts([SIZES[0], SIZES[1]])[0]


def _covers(layout: ImageLayout) -> bool:
    height, width = layout.image
    return all(abs(a - b) < 1 for a, b in zip(layout.box, (0, 0, width, height), strict=True))


ROWS = rows("shape of the layout")


@pytest.mark.parametrize(("shape", "name"), [(shape, name) for shape, names in ROWS.items() for name in names])
def test_an_adapter_has_the_shape_of_its_row(shape: str, name: str) -> None:
    adapter = find_case(name).load()
    assert isinstance(adapter, TransformersBackbone)
    assert shape_of(adapter) == shape


def test_every_adapter_to_start_from_is_ready_and_its_file_defines_one() -> None:
    ready = {entry.name for entry in list_adapters() if not entry.broken}
    assert {name for names in ROWS.values() for name in names} <= ready
    for link in re.findall(r"\]\((\w+/vlm_adapters_\w+/adapter\.py)\)", README.read_text(encoding="utf-8")):
        assert "def layouts(" in (README.parent / link).read_text(encoding="utf-8")


class Recorder:
    """A processor that records what is asked of it."""

    def __init__(self, processor: Any, asked: set[str]) -> None:
        self._processor, self._asked = processor, asked

    def __getattr__(self, name: str) -> Any:
        self._asked.add(name)
        return getattr(self._processor, name)

    def __call__(self, **arguments: Any) -> Any:
        self._asked |= set(arguments)
        return self._processor(**arguments)


def test_the_processor_must_offer_what_the_table_says_and_no_more() -> None:
    adapter: Any = find_case("llava").load()
    asked: set[str] = set()

    class Plain(TransformersBackbone):
        def layouts(self, sizes: Sequence[tuple[int, int]]) -> Any:
            return adapter.layouts(sizes)

    plain = Plain(adapter.model, Recorder(adapter.processor, asked))  # type: ignore[arg-type]
    inputs = plain.preprocess([Prompt.describe(Image.new("RGB", (64, 64)), "a red circle", ["red"])])
    plain.extract(inputs)
    names = {name for head, others in rows("name").items() for name in (*re.findall(r"`(\w+)`", head), *others)}
    assert names - {"eos_token", "forward", "input_ids", "attention_mask"} == asked
    assert {"input_ids", "attention_mask"} <= names
