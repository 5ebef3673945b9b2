"""Animations of a grounded video."""

from __future__ import annotations

import os
from itertools import pairwise

from vlm_adapters.data.files import whole_file
from vlm_adapters.grounding.video import VideoGrounding
from vlm_adapters.output.render import grounding_overlay, shrunk


def write_animation(grounding: VideoGrounding, path: str | os.PathLike[str]) -> None:
    """Write a GIF of the frames with the masks of all phrases, each shown as long as in the video; it repeats.

    Args:
        grounding: What to show.
        path: Of the file; its folder is created.
    """
    frames = [shrunk(grounding_overlay(of_frame)) for of_frame in grounding.frames]
    seconds = grounding.video.seconds
    shown = [later - earlier for earlier, later in pairwise(seconds)]
    durations = [round(1000 * each) for each in (*shown, grounding.video.interval)]
    with whole_file(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False
        )
