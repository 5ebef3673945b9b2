"""Every mode of an image file becomes RGB by its own rule: transparency, palettes, deep grey, floats."""

import numpy as np
import pytest
from PIL import Image

from tests.images.conftest import BLACK, BLUE, GREEN, RED, WHITE, corner_image, encoded, rows
from vlm_adapters.errors import ImageError
from vlm_adapters.images import load_image


def test_a_mode_without_transparency_is_converted() -> None:
    cases: list[tuple[str, float | tuple[int, ...], tuple[int, ...]]] = [
        ("1", 1, WHITE),
        ("L", 7, (7, 7, 7)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), RED),
        ("YCbCr", (255, 128, 128), WHITE),
        ("HSV", (85, 255, 255), GREEN),
        ("LAB", (255, 128, 128), WHITE),
    ]
    for mode, colour, expected in cases:
        assert load_image(Image.new(mode, (2, 2), colour)).getpixel((1, 1)) == pytest.approx(expected, abs=1), mode


def test_an_alpha_channel_is_laid_on_white() -> None:
    cases: list[tuple[str, float | tuple[int, ...], tuple[int, ...]]] = [
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 51), (204, 204, 204)),
        ("La", (0, 51), (204, 204, 204)),
        ("RGBa", (0, 0, 0, 51), (204, 204, 204)),
    ]
    for mode, colour, expected in cases:
        assert load_image(Image.new(mode, (2, 2), colour)).getpixel((0, 0)) == expected, (mode, colour)


def test_a_palette_with_alpha_is_laid_on_white() -> None:
    image = Image.new("PA", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((0, 0), (1, 255))
    image.putpixel((1, 0), (1, 0))
    assert rows(load_image(image)) == [[GREEN, WHITE]]


def palette_image() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def test_a_palette_becomes_its_colours() -> None:
    assert rows(load_image(encoded(palette_image()))) == [[RED, GREEN, BLUE]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_a_transparent_palette_entry_becomes_white(transparency: int | bytes) -> None:
    assert rows(load_image(encoded(palette_image(), transparency=transparency))) == [[RED, WHITE, BLUE]]


def test_a_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    data = encoded(corner_image(), transparency=BLACK)
    assert rows(load_image(data)) == [[RED, GREEN, BLUE], [WHITE, WHITE, RED]]


def test_a_transparent_grey_of_an_8_bit_png_becomes_white() -> None:
    image = Image.fromarray(np.array([[0, 9]], np.uint8))
    assert rows(load_image(encoded(image, transparency=0))) == [[WHITE, (9, 9, 9)]]


def test_a_transparent_grey_of_a_16_bit_png_becomes_white() -> None:
    image = Image.fromarray(np.array([[0, 257 * 9]], np.uint16))
    assert rows(load_image(encoded(image, transparency=0))) == [[WHITE, (9, 9, 9)]]


def test_deep_grey_is_scaled_from_65535_to_255() -> None:
    for mode in ["I;16", "I;16B", "I;16L", "I"]:
        image = Image.new(mode, (3, 1))
        for x, value in enumerate((0, 257 * 100, 65535)):
            image.putpixel((x, 0), value)
        assert rows(load_image(image)) == [[BLACK, (100, 100, 100), WHITE]], mode


def test_a_16_bit_png_is_scaled_and_not_saturated() -> None:
    data = encoded(Image.fromarray(np.array([[257 * 10, 257 * 200]], np.uint16)))
    assert rows(load_image(data)) == [[(10, 10, 10), (200, 200, 200)]]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_8_bit_values_in_a_wider_mode_keep_their_grey(mode: str) -> None:
    image = Image.fromarray(np.array([[0, 100, 254]], np.uint8)).convert(mode)
    assert rows(load_image(image)) == [[BLACK, (100, 100, 100), (254, 254, 254)]]


def test_a_float_image_of_values_up_to_1_has_white_at_1() -> None:
    image = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    assert rows(load_image(image)) == [[BLACK, (51, 51, 51), WHITE]]


@pytest.mark.parametrize("values", [[-1.0, 100.0], [0.0, 256.0], [0.0, 1.01]])
def test_a_float_image_of_unclear_range_is_refused(values: list[float]) -> None:
    with pytest.raises(ImageError, match=r"has values from .* clip or scale them"):
        load_image(Image.fromarray(np.array([values], np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_image_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match="not finite"):
        load_image(Image.fromarray(np.array([[0.5, value]], np.float32)))


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_16_bits_are_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"not in \[0, 65535\]. Scale them"):
        load_image(Image.new("I", (2, 2), value))


def test_an_animation_gives_its_first_frame(subtests: pytest.Subtests) -> None:
    for kind in ["GIF", "PNG", "WEBP", "TIFF"]:
        with subtests.test(kind=kind):
            options = {"lossless": True} if kind == "WEBP" else {}
            first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
            data = encoded(first, kind, save_all=True, append_images=[second], **options)
            assert load_image(data).getpixel((0, 0)) == RED
