"""Drawings of grids: numbers stand in the middle of their cells, on the image, and nothing else is loaded."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from xml.etree import ElementTree as ET

import pytest
import torch
from PIL import Image

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.errors import ImageError, NoGridError
from vlm_adapters.output import grid_drawing

SVG = "{http://www.w3.org/2000/svg}"
IMAGE = Image.new("RGB", (300, 150), "red")


def drawn(*grids: ImageGrid) -> ET.Element:
    return ET.fromstring(grid_drawing(IMAGE, grids))  # noqa: S314 - our own document


def numbers(drawing: ET.Element) -> dict[str, tuple[float, float]]:
    texts = [text for group in drawing.iter(f"{SVG}g") if group.get("class") == "numbers" for text in group]
    return {str(text.text): (float(text.attrib["x"]), float(text.attrib["y"])) for text in texts}


def test_the_number_of_a_token_stands_in_the_middle_of_its_cell() -> None:
    found = numbers(drawn(ImageGrid(torch.tensor([[7, 8, 9], [11, 12, 13]]), box=(0, 0, 300, 150))))
    assert list(found) == ["7", "8", "9", "11", "12", "13"]  # 10 ends the row: it is no cell
    assert found["12"][0] == pytest.approx(150)  # a panel is 300 wide, as the image is
    assert found["12"][1] == pytest.approx(112.5, abs=5)  # the baseline is a little below the middle


def test_cells_of_uneven_rows_are_drawn_where_they_are() -> None:
    grid = ImageGrid(torch.tensor([[0], [1]]), box=(0, 0, 300, 150), rows=((0, 30), (90, 150)))
    (path,) = drawn(grid).iter(f"{SVG}path")
    assert path.attrib["d"] == "M0 0h300v30h-300zM0 90h300v60h-300z"


def test_a_grid_that_reaches_beyond_the_image_is_drawn_on_grey() -> None:
    drawing = drawn(ImageGrid(torch.tensor([[0]]), box=(0, -75, 300, 225)))
    (grey,) = (box for box in drawing.iter(f"{SVG}rect") if box.get("class") == "beyond")
    assert (grey.get("y"), grey.get("height")) == ("-75", "300")
    (image,) = drawing.iter(f"{SVG}image")
    assert (image.get("width"), image.get("height")) == ("300", "150")


def test_every_grid_has_a_panel_with_its_name() -> None:
    text = grid_drawing(IMAGE, [ImageGrid(torch.tensor([[3, 4]]), (0, 0, 300, 150), name=name) for name in ("a<", "b")])
    assert "a&lt;: 1 x 2 cells, tokens 3 to 4" in text
    assert "b: 1 x 2 cells" in text


def test_of_a_large_grid_the_ends_of_rows_alone_are_numbered() -> None:
    found = numbers(drawn(ImageGrid(torch.arange(400).reshape(20, 20), (0, 0, 300, 150))))
    assert list(found)[:4] == ["0", "19", "20", "39"]
    assert len(found) == 40


def test_the_drawing_holds_a_small_copy_of_the_image_and_loads_nothing() -> None:
    (image,) = drawn(ImageGrid(torch.tensor([[0]]), (0, 0, 300, 150))).iter(f"{SVG}image")
    kind, data = image.attrib["href"].split(",", 1)
    assert kind == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(data))).size == (200, 100)
    assert IMAGE.size == (300, 150)  # the caller's is as it was
    links = re.findall(r"https?://[^\"]+", grid_drawing(IMAGE, [ImageGrid(torch.tensor([[0]]), (0, 0, 300, 150))]))
    assert links == ["http://www.w3.org/2000/svg"]


def test_a_grid_without_places_is_refused() -> None:
    with pytest.raises(NoGridError):
        drawn(ImageGrid(torch.tensor([[0, 1]]), None))


def test_no_grids_are_an_error_that_says_what_to_give() -> None:
    with pytest.raises(ImageError, match=r"There is no grid to draw\. Give the grids of one image"):
        drawn()
