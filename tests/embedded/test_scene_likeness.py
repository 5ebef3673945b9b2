"""Which images look like the scenes that embedded models know."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vlm_adapters.data.formats.hard_scenes import HELD_OUT_SEED as HARD_HELD_OUT_SEED
from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import COLOURS, HELD_OUT_SEED, Scenes
from vlm_adapters.embedded.scene_likeness import SHAPE_COLOURS, looks_like_scene

if TYPE_CHECKING:
    from collections.abc import Callable

SCENES = [sample.image for sample in Scenes(60, seed=HELD_OUT_SEED)]
SCENES += [HardScenes(60, seed=HARD_HELD_OUT_SEED).scene(index).image for index in range(60)]


def as_jpeg(image: Image.Image) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=75)
    return Image.open(file).convert("RGB")


def scaled(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)))


def page(paper: str, ink: str) -> Image.Image:
    image = Image.new("RGB", (420, 300), paper)
    for line in range(14):
        words = "A page of text, as a book has it, or a screen." * 2
        ImageDraw.Draw(image).text((10, 20 * line + 8), words, ink, ImageFont.load_default(14))
    return image


def plot() -> Image.Image:
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    for bar, colour in enumerate(SHAPE_COLOURS):
        draw.rectangle((60 * bar + 30, 250 - 30 * bar, 60 * bar + 60, 280), colour)
    return image


def gradient() -> Image.Image:
    red = np.linspace(0, 255, 200, dtype=np.uint8)
    return Image.fromarray(np.stack(np.broadcast_arrays(red[None], red[:, None], np.uint8(90)), axis=-1))


NOISE = np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8)
OTHERS = {
    "scene in grey": ImageOps.grayscale(SCENES[0]).convert("RGB"),
    "scene in other colours": Image.merge("RGB", SCENES[0].split()[::-1]),
    "black": Image.new("RGB", (320, 240)),
    "white": Image.new("RGB", (320, 240), "white"),
    "grey": Image.new("RGB", (320, 240), "grey"),
    "red": Image.new("RGB", (320, 240), "red"),
    "noise": Image.fromarray(NOISE),
    "gradient": gradient(),
    "page": page("white", "black"),
    "coloured words": page("white", "rgb(214, 40, 40)"),
    "dark screen": page("rgb(30, 30, 30)", "rgb(250, 130, 190)"),
    "bar plot": plot(),
    "one pixel": Image.new("RGB", (1, 1), "red"),
    "line": Image.new("RGB", (3000, 1), "grey"),
}


def test_the_colours_are_those_of_the_data_set() -> None:
    assert tuple(COLOURS.values()) == SHAPE_COLOURS


@pytest.mark.parametrize("change", ["as it is", "JPEG", "half", "three times", "turned"])
def test_a_scene_looks_like_one_in_whatever_file_and_size(change: str) -> None:
    changed = {
        "as it is": lambda image: image,
        "JPEG": as_jpeg,
        "half": lambda image: scaled(image, 0.5),
        "three times": lambda image: scaled(image, 3),
        "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    }[change]
    assert [index for index, image in enumerate(SCENES) if not looks_like_scene(changed(image))] == []


@pytest.mark.parametrize("name", OTHERS)
def test_another_image_does_not(name: str) -> None:
    assert not looks_like_scene(OTHERS[name])


@pytest.mark.parametrize("change", ["as it is", "grey", "pale", "JPEG"])
def test_no_photograph_looks_like_a_scene(change: str, photograph: Callable[..., Image.Image]) -> None:
    changed = {
        "as it is": lambda image: image,
        "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
        "pale": lambda image: Image.blend(image, Image.new("RGB", image.size, "grey"), 0.6),
        "JPEG": as_jpeg,
    }[change]
    photographs = [photograph(seed, (160 + 40 * seed, 200 + 50 * seed)) for seed in range(20)]
    assert [seed for seed, image in enumerate(photographs) if looks_like_scene(changed(image))] == []
