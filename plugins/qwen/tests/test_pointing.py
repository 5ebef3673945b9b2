"""The frames in which Qwen-VL says where things are, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vlm_adapters.backbone import SupportsPointing
from vlm_adapters.geometry import CoordinateFrame
from vlm_adapters.grounding import BoxAnswer
from vlm_adapters_qwen import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlm_adapters_qwen.adapter import QwenAdapter

SIZE = (100, 150)
"""Height and width; Qwen2.5-VL makes it 112 x 140 of cells of 28 pixels, which is another aspect."""
BOX = (30.0, 25.0, 75.0, 100.0)


@pytest.mark.parametrize(
    ("build", "frame", "said"),
    [
        (tiny.qwen2_5_vl, CoordinateFrame(140, 112), [28, 28, 70, 112]),
        (tiny.qwen3_vl, CoordinateFrame(1000, 1000), [200, 250, 500, 1000]),
        (tiny.qwen3_vl_moe, CoordinateFrame(1000, 1000), [200, 250, 500, 1000]),
    ],
)
def test_a_box_is_the_same_in_the_image_and_in_the_models_frame(
    build: Callable[[], QwenAdapter], frame: CoordinateFrame, said: list[int]
) -> None:
    adapter = build()
    assert isinstance(adapter, SupportsPointing)
    found = adapter.coordinate_frame(SIZE)
    assert found == frame
    assert found.from_image(BOX, SIZE) == pytest.approx(said)
    assert found.to_image((said[0], said[1], said[2], said[3]), SIZE) == pytest.approx(BOX)
    answer = f'```json\n[{{"bbox_2d": {said}, "label": "it"}}]\n```'
    assert BoxAnswer.read(answer, found, SIZE).boxes == (pytest.approx(BOX),)


def test_the_frame_is_that_of_the_image_as_the_processor_resizes_it() -> None:
    adapter = tiny.qwen2_5_vl()
    images = adapter.processor.image_processor
    for size in ((100, 150), (300, 90), (33, 470)):
        frame = adapter.coordinate_frame(size)
        ((layout,),) = adapter.layouts([size])
        assert frame is not None
        assert (frame.height, frame.width) == (layout.cells[0] * layout.cell[0], layout.cells[1] * layout.cell[1])
        assert layout.cell == (images.patch_size * images.merge_size,) * 2


@pytest.mark.parametrize("build", [tiny.qwen2_vl, tiny.qwen3_5])
def test_the_others_are_not_declared_to_point(build: Callable[[], QwenAdapter]) -> None:
    assert build().coordinate_frame(SIZE) is None
