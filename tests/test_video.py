"""Videos: what is accepted, what is refused, and how they stand in a prompt."""

from __future__ import annotations

import re
from typing import Any

import pytest
from PIL import Image

from vlm_adapters import Message, Prompt, Video
from vlm_adapters.errors import ImageError, PromptError

FRAME = Image.new("RGB", (64, 48))


def test_a_video_has_the_size_of_its_frames_and_their_mean_interval() -> None:
    video = Video([FRAME] * 3, seconds=[1, 2, 4])
    assert (video.size, video.interval, len(video.frames)) == ((48, 64), 1.5, 3)


def test_frames_become_upright_rgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned = Image.new("L", (64, 48))
    turned.info["exif"] = exif.tobytes()
    (frame,) = Video([turned], seconds=[0]).frames
    assert frame.mode == "RGB"


@pytest.mark.parametrize(
    ("frames", "seconds", "message"),
    [
        ([], [], "A video has 0 frames and 0 times. Give at least one frame"),
        ([FRAME] * 2, [0], "A video has 2 frames and 1 times"),
        (FRAME, [0], "The frames of a video are given as a Image. Give a list."),
        ("a.mp4", [0], "The frames of a video are given as a str. Give a list."),
        ([FRAME], 0, "The seconds of a video are given as a int. Give a list."),
        (["a.png"], [0], "A frame of a video is not an image. Open it with load_image."),
        ([FRAME, Image.new("RGB", (48, 64))], [0, 1], "differ in size (width, height): (48, 64) and (64, 48)"),
        ([FRAME] * 2, [1, 0], "The times of a video do not ascend from 0 or later: (1, 0)"),
        ([FRAME] * 2, [0, 0], "do not ascend"),
        ([FRAME] * 2, [-1, 0], "do not ascend"),
        ([FRAME] * 2, [0, float("nan")], "do not ascend"),
        ([FRAME] * 2, [0, "1"], "do not ascend"),
    ],
)
def test_what_is_no_video_is_refused_with_the_reason(frames: Any, seconds: Any, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)):
        Video(frames, seconds)


def test_a_prompt_counts_images_and_videos_in_order() -> None:
    video = Video([FRAME], seconds=[0])
    prompt = Prompt.chat([Message("user", (FRAME, "look", video)), Message("assistant", ("a cat",))])
    assert [type(part) for part in prompt.media] == [Image.Image, Video]
    assert (len(prompt.images), prompt.videos) == (1, (video,))
    assert prompt.first_image.size == FRAME.size


def test_a_video_has_no_first_image() -> None:
    prompt = Prompt.describe(Video([FRAME], seconds=[0]), "a cat", ["a cat"])
    with pytest.raises(PromptError, match=r"begins with a video.*GroundedVLM\.ground_video"):
        _ = prompt.first_image
