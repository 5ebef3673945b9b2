"""Grounding in videos with the embedded model that was trained on still images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_adapters import GroundedVLM, Prompt, Video, open_dataset
from vlm_adapters.errors import DecoderError, PromptError
from vlm_adapters.output import video_sheet, write_animation

SCENE = open_dataset("scenes:count=1,seed=4")[0]
WORDS = [SCENE.phrases[0].text]


@pytest.fixture(scope="module")
def vlm() -> GroundedVLM:
    return GroundedVLM.from_pretrained("tiny-qwen2_5_vl")


def test_a_still_video_is_grounded_as_well_as_its_image(vlm: GroundedVLM) -> None:
    masks = vlm.ground_video(Video([SCENE.image] * 4, [0, 0.5, 1, 1.5]), SCENE.text, WORDS).masks(0)
    assert masks.shape == (4, SCENE.image.height, SCENE.image.width)
    of_image = vlm.ground(SCENE.image, SCENE.text, WORDS).phrases[0].mask
    for mask in masks:
        assert (mask & of_image).sum() / (mask | of_image).sum() > 0.9


def test_frames_that_are_seen_together_share_a_mask_and_others_do_not(vlm: GroundedVLM) -> None:
    turned = [SCENE.image, SCENE.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    video = Video([each for each in turned for _ in range(2)], [0, 1, 2, 3])
    masks = vlm.ground_video(video, SCENE.text, WORDS).masks(0)
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[2], masks[3])
    assert (masks[1] != masks[2]).mean() > 0.02


def test_an_image_grounder_says_how_videos_are_grounded(vlm: GroundedVLM) -> None:
    prompt = Prompt.describe(Video([SCENE.image] * 4, [0, 1, 2, 3]), SCENE.text, WORDS)
    with pytest.raises(DecoderError, match=r"those of a video.*GroundedVLM\.ground_video"):
        vlm.ground_all([prompt])
    with pytest.raises(PromptError, match="takes no video"):
        GroundedVLM.from_pretrained("tiny-llava").ground_video(prompt.videos[0], SCENE.text, WORDS)


def test_the_sheet_shows_every_frame_and_the_animation_lasts_as_long_as_the_video(
    vlm: GroundedVLM, tmp_path: Path
) -> None:
    grounding = vlm.ground_video(Video([SCENE.image] * 3, [0, 0.25, 0.7]), SCENE.text, WORDS)
    assert video_sheet(grounding).width > 3 * 200
    write_animation(grounding, tmp_path / "new" / "animation.gif")
    with Image.open(tmp_path / "new" / "animation.gif") as animation:
        durations = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            durations.append(animation.info["duration"])
    assert sum(durations) == 250 + 450 + 350  # the last frame as long as the mean
