"""The result of grounding in a video: that of every frame, and the masks of a phrase through time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.grounding.display import Displayed, from_output
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.video import Video


@dataclass(frozen=True)
class VideoGrounding(Displayed):
    """A sentence grounded in every frame of a video.

    Attributes:
        video: The video.
        text: The sentence.
        frames: The grounding of every frame, in order; those that the model saw together share their maps.

    Examples:
        >>> from vlm_adapters import GroundedVLM, Video, open_dataset
        >>> frame = open_dataset("scenes:count=1,seed=4")[0].image
        >>> video = Video([frame] * 4, seconds=[0, 1, 2, 3])
        >>> vlm = GroundedVLM.from_pretrained("tiny-qwen2_5_vl")
        >>> vlm.ground_video(video, "a pink cross", ["a pink cross"]).masks(0).shape
        (4, 312, 282)
    """

    video: Video
    text: str
    frames: tuple[Grounding, ...]

    def masks(self, phrase: int) -> NDArray[np.bool_]:
        """The masks of a phrase, by its index, at the size of the frames: `(T, H, W)`; unpacked at every call."""
        return np.stack([grounding.phrases[phrase].mask for grounding in self.frames])

    @override
    def figure(self) -> Image.Image:
        """Draw the frames with their masks, as a sheet."""
        drawn: Image.Image = from_output("video_sheet")(self)
        return drawn
