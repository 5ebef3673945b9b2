"""Videos for a processor of transformers: all frames that the caller gave, at the times that the caller gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature
from transformers.video_utils import VideoMetadata

from vlm_adapters.hf.chat import Expansion
from vlm_adapters.video import Video

VIDEO_TYPE = 2
"""What transformers writes into `mm_token_type_ids` at the tokens of a video."""


def process_videos(processor: Any, videos: Sequence[Video], options: Mapping[str, Any]) -> BatchFeature:
    """Run a processor over videos without text: a line of tokens for each, and the model's tensors.

    Args:
        processor: A processor of transformers with a `video_token`.
        videos: At least one.
        options: Passed to the processor.
    """
    features: BatchFeature = processor(
        text=[processor.video_token] * len(videos),
        videos=[list(video.frames) for video in videos],
        video_metadata=[_metadata(video) for video in videos],
        padding=True,
        add_special_tokens=False,
        return_tensors="pt",
        **{"do_sample_frames": False, "return_mm_token_type_ids": False, **options},
    )
    return features


def take_expansions(features: dict[str, Any], video_token_ids: Collection[int]) -> list[Expansion]:
    """Take the tokens of every video out of a processor's features."""
    ids, mask = features.pop("input_ids"), features.pop("attention_mask").bool()
    shown = torch.isin(ids, torch.tensor(sorted(video_token_ids))).long() * VIDEO_TYPE
    return [(ids[video][keep].tolist(), shown[video][keep].tolist()) for video, keep in enumerate(mask)]


def _metadata(video: Video) -> VideoMetadata:
    """The times of the frames, as processors read them: the frame's index over the frames per second."""
    frames: Any = list(map(float, video.seconds))  # in a video of one frame per second the index is the time
    height, width = video.size
    duration = video.interval * len(frames)
    return VideoMetadata(len(frames), fps=1.0, width=width, height=height, duration=duration, frames_indices=frames)
