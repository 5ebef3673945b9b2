"""Follow the shapes of held-out scenes through videos in which the camera moves: mean IoU with the true masks.

    python examples/lab/measure_video.py --report examples/lab/results/video.json

A window moves over a scene, so that every shape moves and its true mask is known in every frame. The model and its
decoder were trained on still images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import write_report

from vlm_adapters import GroundedVLM, Video, open_dataset
from vlm_adapters.data import Sample

Mask = NDArray[np.bool_]
SHARE, FRAMES, INTERVAL = 0.8, 8, 0.25
"""Share of the scene's sides in the window, number of frames, seconds between them."""


def windows(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """The window `(left, top, right, bottom)` of every frame, on its way from the top left to the bottom right."""
    across, down = int(SHARE * width), int(SHARE * height)
    for step in np.linspace(0, 1, FRAMES):
        left, top = round(step * (width - across)), round(step * (height - down))
        yield left, top, left + across, top + down


def iou(mask: Mask, true: Mask) -> float:
    """Intersection over union of two masks."""
    return float((mask & true).sum() / (mask | true).sum())


def of_scene(vlm: GroundedVLM, scene: Sample) -> list[dict[str, float]]:
    """The mean IoU over the frames, for every phrase of which half stays in the window."""
    places = list(windows(*scene.image.size))
    frames = [scene.image.crop(place) for place in places]
    words, truth = [], []
    for phrase, mask in zip(scene.phrases, scene.masks, strict=True):
        seen = [mask[top:bottom, left:right] for left, top, right, bottom in places]
        if min(part.sum() for part in seen) >= mask.sum() / 2:
            words.append(phrase)
            truth.append(seen)
    if not words:
        return []
    video = Video(frames, [INTERVAL * index for index in range(FRAMES)])
    twice = Video([frame for frame in frames for _ in range(2)], [INTERVAL / 2 * index for index in range(2 * FRAMES)])
    in_video, apart = vlm.ground_video(video, scene.text, words), vlm.ground_video(twice, scene.text, words)
    alone = [vlm.ground(frame, scene.text, words) for frame in frames]

    def mean(masks: Sequence[Mask], index: int) -> float:
        return float(np.mean([iou(mask, true) for mask, true in zip(masks, truth[index], strict=True)]))

    return [
        {
            "in the video": mean(list(in_video.masks(index)), index),
            "in the video, every frame twice": mean(list(apart.masks(index)[::2]), index),
            "frames alone": mean([grounding.phrases[index].mask for grounding in alone], index),
            "the first mask kept": mean([in_video.masks(index)[0]] * FRAMES, index),
        }
        for index in range(len(words))
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    vlm = GroundedVLM.from_pretrained("tiny-qwen2_5_vl", device="cpu")
    found = [one for scene in open_dataset(f"scenes:count={chosen.scenes},seed=4") for one in of_scene(vlm, scene)]
    numbers = {"scenes": chosen.scenes, "phrases": len(found), "frames": FRAMES} | {
        name: round(float(np.mean([one[name] for one in found])), 3) for name in found[0]
    }
    print(json.dumps(numbers, indent=2))
    if chosen.report:
        write_report(chosen.report, numbers)


if __name__ == "__main__":
    main()
