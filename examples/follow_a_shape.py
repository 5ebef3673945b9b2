"""A tiny model that was trained on still images follows a moving shape through a video.

    python examples/follow_a_shape.py [MODEL] [FOLDER]

The frames are drawn here, so that the true mask of every frame is known. It writes a contact sheet and an animation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vlm_adapters import GroundedVLM, Video
from vlm_adapters.output import video_sheet, write_animation, write_png

WIDTH, HEIGHT, RADIUS = 280, 220, 38
TEXT = "a red circle , a blue square and a green square ."


def draw(step: int, steps: int) -> tuple[Image.Image, np.ndarray]:
    """A red circle on its way from left to right, above two squares that rest; and its mask.

    As in every scene that the model knows, the background is a blend of two muted colours.
    """
    top, bottom = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((110, 115, 108), (130, 135, 128)))
    frame = Image.composite(bottom, top, Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    canvas = ImageDraw.Draw(frame)
    canvas.rectangle((30, 140, 90, 200), (38, 84, 214))
    canvas.rectangle((190, 140, 250, 200), (44, 160, 60))
    across = 50 + (WIDTH - 100) * step / (steps - 1)
    place = (across - RADIUS, 65 - RADIUS, across + RADIUS, 65 + RADIUS)
    canvas.ellipse(place, (214, 40, 40))
    mask = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).ellipse(place, 1)
    return frame, np.array(mask)


def iou(mask: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((mask & true).sum() / (mask | true).sum())


def main(model: str = "tiny-qwen2_5_vl", folder: str = "runs/follow_a_shape", steps: int = 8) -> None:
    """Ground the circle in every frame, and print how well each mask agrees with the true one."""
    frames, truth = zip(*(draw(step, steps) for step in range(steps)), strict=True)
    video = Video(frames, seconds=[step / 4 for step in range(steps)])
    vlm = GroundedVLM.from_pretrained(model)
    grounding = vlm.ground_video(video, TEXT, ["a red circle"])
    found = grounding.masks(0)
    alone = [vlm.ground(frame, TEXT, ["a red circle"]).phrases[0].mask for frame in frames]
    # so that no two different frames share a grid
    twice = Video([frame for frame in frames for _ in range(2)], seconds=[step / 8 for step in range(2 * steps)])
    apart = vlm.ground_video(twice, TEXT, ["a red circle"]).masks(0)[::2]
    by_frame = [iou(mask, true) for mask, true in zip(found, truth, strict=True)]
    print("IoU of every frame", " ".join(f"{each:.2f}" for each in by_frame))
    masks = {"in the video": found, "if the first mask stayed": [found[0]] * steps}
    masks |= {"with every frame twice": apart, "of frames alone": alone}
    for name, of_frames in masks.items():
        print(f"mean IoU {name} {np.mean([iou(mask, true) for mask, true in zip(of_frames, truth, strict=True)]):.3f}")
    write_png(video_sheet(grounding), Path(folder) / "sheet.png")
    write_animation(grounding, Path(folder) / "animation.gif")


if __name__ == "__main__":
    main(*sys.argv[1:])
