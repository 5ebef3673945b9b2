"""Videos of Qwen-VL: the checks fail on adapters that are broken on purpose, and times reach the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from vlm_adapters import Prompt, Video
from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.errors import PromptError
from vlm_adapters.testing import ALL_CHECKS, AdapterCase, checks_video
from vlm_adapters.testing.breaking import break_arguments, break_result
from vlm_adapters.testing.support import image
from vlm_adapters_qwen.case import QWEN2_5_OMNI, QWEN2_5_VL, QWEN3_VL
from vlm_adapters_qwen.tiny import qwen2_5_omni_thinker, qwen2_5_vl, qwen3_vl

CHECKS = {check.__name__: check for check in ALL_CHECKS}


def one_frame_later(layouts: Sequence[Any], *_: object) -> list[Any]:
    return [replace(layout, frames=(layout.frames[0] + 1, layout.frames[1] + 1)) for layout in layouts]


def backwards(found: list[list[ImageGrid]], *_: object) -> list[list[ImageGrid]]:
    """The tokens of every group of frames at the place of the group as far from the end."""
    return [
        [replace(grid, tokens=other.tokens) for grid, other in zip(grids, grids[::-1], strict=True)] for grids in found
    ]


def all_first(found: list[list[ImageGrid]], *_: object) -> list[list[ImageGrid]]:
    return [[replace(grid, image=0) for grid in grids] for grids in found]


def mixed(features: Any, videos: Sequence[Video]) -> Any:
    return features | {"pixel_values_videos": features["pixel_values_videos"].flip(0)} if len(videos) > 1 else features


def slower(videos: Sequence[Video]) -> tuple[list[Video]]:
    return ([replace(video, seconds=[2 * second for second in video.seconds]) for video in videos],)


def lighter(features: Any, *_: object) -> Any:
    return features | {"pixel_values_videos": features["pixel_values_videos"] + 0.1}


BROKEN = [
    ("check_video_is_taken_or_refused", "taken unsaid", replace(QWEN2_5_VL, expected_video=None)),
    ("check_video_grids", "other frames", break_result(QWEN2_5_VL, "video_layouts", one_frame_later)),
    ("check_video_place_and_time", "backwards", break_result(QWEN2_5_VL, "locate_image_tokens", backwards)),
    ("check_video_beside_an_image", "one image", break_result(QWEN2_5_VL, "locate_image_tokens", all_first)),
    ("check_video_batch_equals_samples", "mixed", break_result(QWEN2_5_VL, "process_videos", mixed)),
    ("check_video_ids_equal_stock", "other times", break_arguments(QWEN3_VL, "process_videos", slower)),
    ("check_video_pixels_equal_stock", "other pixels", break_result(QWEN2_5_VL, "process_videos", lighter)),
]


@pytest.mark.parametrize(("check", "case"), [pytest.param(c, of, id=f"{c}: {how}") for c, how, of in BROKEN])
def test_check_fails_on_broken_videos(check: str, case: AdapterCase) -> None:
    with pytest.raises(AssertionError, match="expected"):
        CHECKS[check](case)


def test_every_check_of_videos_is_shown_to_fail() -> None:
    assert {check for check, _, _ in BROKEN} == {name for name in CHECKS if hasattr(checks_video, name)}


@pytest.mark.parametrize("check", [name for name in CHECKS if hasattr(checks_video, name)])
def test_qwen3_vl_passes_every_check_of_videos(check: str) -> None:
    CHECKS[check](QWEN3_VL)


def about(seconds: Sequence[float]) -> Prompt:
    return Prompt.describe(Video([image((84, 112), seed) for seed in range(4)], seconds), "a cat", ["a cat"])


def test_times_move_the_positions_of_qwen2_5_vl() -> None:
    adapter = qwen2_5_vl()
    slow, fast = (adapter.preprocess([about(seconds)]).tensors for seconds in ([0, 2, 4, 6], [0, 1, 2, 3]))
    assert slow["second_per_grid_ts"].tolist() == [4]
    of_slow, of_fast = (adapter.position_ids(tensors)[0, 0] for tensors in (slow, fast))
    pads = slow["input_ids"][0] == adapter.processor.video_token_id
    rate = adapter.model.config.vision_config.tokens_per_second
    assert (of_slow - of_fast)[pads].unique().tolist() == [0, 2 * rate]  # the second group begins 2 s later


def test_stamps_of_qwen3_vl_are_the_callers_times() -> None:
    adapter = qwen3_vl()
    ids = adapter.preprocess([about([0.2, 0.4, 3, 5])]).tensors["input_ids"][0]
    text = adapter.processor.tokenizer.decode(ids)
    assert "<0.3 seconds>" in text
    assert "<4.0 seconds>" in text


def test_seconds_keep_their_precision_beside_pixels_in_bfloat16() -> None:
    tensors = qwen2_5_vl(dtype=torch.bfloat16).preprocess([about([0, 0.3, 0.6, 0.9])]).tensors
    assert tensors["second_per_grid_ts"].dtype == torch.float32
    assert tensors["pixel_values_videos"].dtype == torch.bfloat16


def test_an_omni_model_refuses_a_video_with_the_reason() -> None:
    with pytest.raises(PromptError, match=r"qwen2_5_omni_thinker takes no video, such as this of 4 frames of 112 x 84"):
        qwen2_5_omni_thinker().preprocess([about([0, 1, 2, 3])])
    CHECKS["check_video_is_taken_or_refused"](QWEN2_5_OMNI)
