"""Videos: frames that the caller chose, and when each was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from PIL import Image

from vlm_adapters.errors import ImageError
from vlm_adapters.images import load_image
from vlm_adapters.limits import shown


@dataclass(frozen=True)
class Video:
    """The frames of a video that a model sees. All of them are shown: nothing is sampled.

    Attributes:
        frames: Images of one size, in order of time; they go through `load_image`, which makes them upright and RGB.
        seconds: When each frame was seen, ascending.

    Examples:
        >>> from PIL import Image
        >>> from vlm_adapters import Video
        >>> video = Video([Image.new("RGB", (64, 48)) for _ in range(4)], seconds=[0, 0.5, 1, 1.5])
        >>> len(video.frames), video.size, video.interval
        (4, (48, 64), 0.5)
    """

    frames: Sequence[Image.Image] = field(repr=False)
    seconds: Sequence[float]

    def __post_init__(self) -> None:
        for name, values in (("frames", self.frames), ("seconds", self.seconds)):
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise ImageError(f"The {name} of a video are given as a {type(values).__name__}. Give a list.")
        if not self.frames or len(self.frames) != len(self.seconds):
            raise ImageError(
                f"A video has {len(self.frames)} frames and {len(self.seconds)} times. Give at least one frame, and "
                "for each the second in which it was seen."
            )
        if not all(isinstance(frame, Image.Image) for frame in self.frames):
            raise ImageError("A frame of a video is not an image. Open it with load_image.")
        frames = tuple(load_image(frame) for frame in self.frames)
        if len(sizes := sorted({frame.size for frame in frames})) > 1:
            raise ImageError(
                f"The frames of a video differ in size (width, height): {sizes[0]} and {sizes[1]}. Resize them to one."
            )
        times = tuple(self.seconds)
        if not all(isinstance(time, int | float) and math.isfinite(time) and time >= 0 for time in times) or any(
            later <= earlier for earlier, later in pairwise(times)
        ):
            raise ImageError(
                f"The times of a video do not ascend from 0 or later: {shown(times)}. Give the seconds of its frames "
                "in order."
            )
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "seconds", times)

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` of every frame, in pixels."""
        return self.frames[0].height, self.frames[0].width

    @property
    def interval(self) -> float:
        """Mean time between two frames, in seconds; 1 for a video of one frame."""
        return (self.seconds[-1] - self.seconds[0]) / (len(self.frames) - 1) if len(self.frames) > 1 else 1.0
