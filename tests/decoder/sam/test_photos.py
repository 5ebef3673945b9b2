"""Real weights on real photographs: the refiner makes coarse masks better, in place and at their edges."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LAB = Path(__file__).parents[3] / "examples" / "lab"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(find_spec, ("timm", "mobile_sam"))), reason="vlm-adapters[sam] is not installed"),
]


@pytest.fixture(scope="module")
def example() -> Any:
    """`examples/lab/refine_photos.py`; its artefacts are at hand, or the test is skipped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(LAB))
        artefacts = importlib.import_module("artefacts")
        try:
            artefacts.mobile_sam()
            artefacts.photos()
        except artefacts.UnreachableError as error:
            pytest.skip(str(error))
        return importlib.import_module("refine_photos")


@pytest.fixture(scope="module")
def found(example: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    seen = example.photos()
    sam = example.load_sam(example.mobile_sam())
    return seen, [example.find_masks(sam, photo) for photo in seen]


def test_things_that_the_grid_can_show_become_better(example: Any, found: tuple[list[Any], list[Any]]) -> None:
    results = example.measure(*found, example.LEAST)
    coarse, refined = results[example.COARSE], results[example.CANDIDATES]
    assert coarse.count == refined.count == 19
    assert refined.iou > coarse.iou + 0.05
    assert refined.iou > 0.844
    assert refined.boundary > coarse.boundary + 0.07
    assert results[example.BOX].iou == pytest.approx(0.74, abs=0.01)


def test_small_things_that_the_coarse_mask_hardly_shows_are_found(
    example: Any, found: tuple[list[Any], list[Any]]
) -> None:
    results = example.measure(*found)
    coarse, refined = results[example.COARSE], results[example.CANDIDATES]
    assert coarse.count == refined.count == 27
    assert refined.iou > 0.703
    assert refined.boundary > coarse.boundary + 0.2


def test_every_thing_is_refined_where_it_is(example: Any, found: tuple[list[Any], list[Any]]) -> None:
    for photo, by_name in zip(*found, strict=True):
        for mask, truth in zip(by_name[example.CANDIDATES], photo.masks, strict=True):
            if truth.sum() >= example.LEAST:
                (y, x), (v, u) = (np.argwhere(shape).mean(axis=0) for shape in (mask, truth))
                assert abs(y - v) < 20
                assert abs(x - u) < 20


def test_the_command_prints_every_number_and_writes_a_figure(
    example: Any,
    found: tuple[list[Any], list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos, masks = found
    next_masks = iter(masks)
    monkeypatch.setattr(example, "photos", lambda: photos)
    monkeypatch.setattr(example, "find_masks", lambda *_: next(next_masks))  # half a minute each time
    monkeypatch.setattr("sys.argv", ["refine_photos.py", "--out", str(tmp_path / "photos.png")])
    example.main()
    printed = capsys.readouterr().out
    for name in (example.COARSE, example.BOX, example.SINGLE, example.CANDIDATES):
        assert name in printed
    assert (tmp_path / "photos.png").read_bytes().startswith(b"\x89PNG")
