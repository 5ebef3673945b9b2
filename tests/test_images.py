"""The only door for images: every source becomes an upright RGB image or an `ImageError` that says what to do."""

import io
import os
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vlm_adapters.errors import AdapterError, ImageError
from vlm_adapters.images import FORMATS, ImageHeader, ImageSource, load_image, read_header
from vlm_adapters.limits import Limits

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
SMALL = Limits(max_pixels=100_000, max_aspect=200)


def corner_image() -> Image.Image:
    """3 wide, 2 high: red, green, blue / white, black, red. No turn or flip leaves it as it is."""
    return Image.fromarray(np.array([[RED, GREEN, BLUE], [WHITE, BLACK, RED]], np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(value: float) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def rows(image: Image.Image) -> list[list[tuple[int, ...]]]:
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def noise(width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


# Sources


def test_a_path_as_string_or_object_and_bytes_and_pil_and_array_give_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    image = corner_image()
    image.save(path)
    expected = [[RED, GREEN, BLUE], [WHITE, BLACK, RED]]
    for source in (str(path), path, path.read_bytes(), image, np.asarray(image)):
        loaded = load_image(source)
        assert (loaded.mode, loaded.size, rows(loaded)) == ("RGB", (3, 2), expected)


def test_a_path_like_object_of_any_class_is_a_path(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "image.png")

    class Place(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(tmp_path / "image.png")

    assert load_image(Place()).size == (3, 2)


def test_a_file_that_pil_opened_but_did_not_read_yet_is_taken(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert rows(load_image(image)) == [[RED, GREEN, BLUE], [WHITE, BLACK, RED]]


def test_every_format_of_the_list_is_read() -> None:
    for kind in FORMATS:
        assert load_image(encoded(noise(), kind)).size == (60, 40), kind


def test_many_threads_read_the_same_bytes_in_the_same_way() -> None:
    data = encoded(noise(), "JPEG")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: load_image(data).tobytes(), range(16)))
    assert len(set(results)) == 1


# Orientation

TURNED = {
    1: [[RED, GREEN, BLUE], [WHITE, BLACK, RED]],
    2: [[BLUE, GREEN, RED], [RED, BLACK, WHITE]],
    3: [[RED, BLACK, WHITE], [BLUE, GREEN, RED]],
    4: [[WHITE, BLACK, RED], [RED, GREEN, BLUE]],
    5: [[RED, WHITE], [GREEN, BLACK], [BLUE, RED]],
    6: [[WHITE, RED], [BLACK, GREEN], [RED, BLUE]],
    7: [[RED, BLUE], [BLACK, GREEN], [WHITE, RED]],
    8: [[BLUE, RED], [GREEN, BLACK], [RED, WHITE]],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_file_is_turned_upright_once(kind: str) -> None:
    for orientation, expected in TURNED.items():
        data = encoded(corner_image(), kind, exif=with_orientation(orientation))
        assert rows(load_image(data)) == expected, orientation


def test_a_compressed_tiff_is_turned_upright_once() -> None:
    data = encoded(corner_image(), "TIFF", compression="tiff_lzw", exif=with_orientation(6))
    assert rows(load_image(data)) == TURNED[6]


def test_a_jpeg_on_its_side_is_turned_upright() -> None:
    data = encoded(Image.new("RGB", (120, 60)), "JPEG", exif=with_orientation(6))
    assert load_image(data).size == (60, 120)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_pil_image_opened_by_the_user_is_turned_like_its_file(kind: str) -> None:
    with Image.open(io.BytesIO(encoded(corner_image(), kind, exif=with_orientation(6)))) as image:
        assert rows(load_image(image)) == TURNED[6]


def test_a_pil_image_that_kept_its_exif_through_a_conversion_is_turned() -> None:
    with Image.open(io.BytesIO(encoded(corner_image(), exif=with_orientation(8)))) as image:
        assert rows(load_image(image.convert("RGBA"))) == TURNED[8]


def test_an_orientation_set_in_memory_is_applied() -> None:
    image = corner_image()
    image.getexif()[0x0112] = 3
    assert rows(load_image(image)) == TURNED[3]


def test_an_orientation_in_xmp_is_applied() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert load_image(encoded(Image.new("RGB", (120, 60)), "JPEG", xmp=xmp)).size == (60, 120)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_leaves_the_image_as_it_is(value: float) -> None:
    assert rows(load_image(encoded(corner_image(), exif=with_orientation(value)))) == TURNED[1]


def test_damaged_exif_does_not_cost_the_image() -> None:
    image = corner_image()
    image.info["exif"] = b"Exif\0\0II*\0garbage"
    assert rows(load_image(image)) == TURNED[1]


def test_loading_a_loaded_image_changes_nothing() -> None:
    for orientation in TURNED:
        once = load_image(encoded(corner_image(), exif=with_orientation(orientation)))
        assert rows(load_image(once)) == rows(once), orientation


def test_a_loaded_image_carries_no_metadata() -> None:
    loaded = load_image(encoded(corner_image(), exif=with_orientation(6), icc_profile=b"profile"))
    assert loaded.info == {}
    assert 0x0112 not in loaded.getexif()


# Headers


def header_of(folder: Path, data: bytes) -> ImageHeader:
    (folder / "image").write_bytes(data)
    return read_header(folder / "image")


def test_a_header_has_the_size_as_stored_and_the_orientation(tmp_path: Path) -> None:
    header = header_of(tmp_path, encoded(corner_image(), exif=with_orientation(6)))
    assert (header.size, header.orientation) == ((2, 3), 6)


def test_a_file_without_an_orientation_is_upright(tmp_path: Path) -> None:
    header = header_of(tmp_path, encoded(corner_image(), "JPEG"))
    assert header == ImageHeader((2, 3), 1, opaque_rgb=True)
    assert header.is_upright_rgb


def test_a_file_that_another_program_may_show_differently_is_not_upright_rgb(tmp_path: Path) -> None:
    files = {
        "turned": encoded(corner_image(), exif=with_orientation(3)),
        "grey": encoded(corner_image().convert("L")),
        "palette": encoded(palette_image()),
        "alpha": encoded(corner_image().convert("RGBA")),
        "transparent colour": encoded(corner_image(), transparency=BLACK),
    }
    for name, data in files.items():
        assert not header_of(tmp_path, data).is_upright_rgb, name


def test_a_header_is_read_where_the_pixels_are_missing(tmp_path: Path) -> None:
    assert header_of(tmp_path, bmp_header(300, 200)).size == (200, 300)


def test_a_header_that_cannot_be_read_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_header(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="opens no URL"):
        read_header("http://example.org/cat.png")
    with pytest.raises(ImageError, match="not an image in a format"):
        header_of(tmp_path, b"hello" * 100)
    with pytest.raises(ImageError, match="at most 100000000 are allowed"):
        header_of(tmp_path, bmp_header(20_000, 20_000))


# Modes


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


# Arrays


def test_an_array_becomes_an_image() -> None:
    cases: list[tuple[np.ndarray[Any, Any], list[list[tuple[int, ...]]]]] = [
        (np.array([[0, 7]], np.uint8), [[BLACK, (7, 7, 7)]]),
        (np.array([[[0], [7]]], np.uint8), [[BLACK, (7, 7, 7)]]),
        (np.array([[[1, 2, 3]]], np.uint8), [[(1, 2, 3)]]),
        (np.array([[[0, 0, 0, 51]]], np.uint8), [[(204, 204, 204)]]),
        (np.array([[False, True]]), [[BLACK, WHITE]]),
        (np.array([[0, 257 * 5, 65535]], np.uint16), [[BLACK, (5, 5, 5), WHITE]]),
        (np.array([[0, 257 * 5, 65535]], ">u2"), [[BLACK, (5, 5, 5), WHITE]]),
        (np.array([[0, 200]], np.uint16), [[BLACK, (200, 200, 200)]]),
        (np.array([[0.0, 0.2, 1.0]], np.float64), [[BLACK, (51, 51, 51), WHITE]]),
        (np.array([[0.0, 1.0]], np.float16), [[BLACK, WHITE]]),
        (np.array([[0.001, 0.999]], np.float32), [[BLACK, WHITE]]),
    ]
    for array, expected in cases:
        assert rows(load_image(array)) == expected, array


def test_an_array_that_is_not_contiguous_keeps_its_pixels() -> None:
    array = np.asarray(corner_image())[:, ::-1]
    assert rows(load_image(array)) == TURNED[2]


@pytest.mark.parametrize("values", [[0.0, 255.0], [-0.1, 1.0], [0.0, 1.001]])
def test_an_array_of_floats_outside_0_to_1_is_refused(values: list[float]) -> None:
    with pytest.raises(ImageError, match=r"floats must lie in \[0, 1\]. Divide by the value of white"):
        load_image(np.array([values]))


def test_an_array_with_nan_is_refused() -> None:
    with pytest.raises(ImageError, match=r"not finite .* numpy.nan_to_num"):
        load_image(np.array([[0.5, np.nan]]))


def test_an_array_of_a_type_without_a_rule_is_refused(subtests: pytest.Subtests) -> None:
    for dtype in ["int64", "int8", "uint32", "complex64", "object"]:
        with subtests.test(dtype=dtype), pytest.raises(ImageError, match="Give bool, uint8, uint16 or floats"):
            load_image(np.zeros((2, 2), dtype))


def test_an_array_of_a_wrong_shape_is_refused_with_a_hint_about_channels_first(subtests: pytest.Subtests) -> None:
    cases: list[tuple[int, ...]] = [(3,), (2, 2, 2), (3, 8, 8), (1, 2, 2, 3), ()]
    for shape in cases:
        with (
            subtests.test(shape=shape),
            pytest.raises(ImageError, match=rf"shape {re.escape(str(shape))}.*array.transpose\(1, 2, 0\)"),
        ):
            load_image(np.zeros(shape, np.uint8))


# Inputs are left alone


def test_a_pil_image_is_left_as_it_was(subtests: pytest.Subtests) -> None:
    for mode in ["RGB", "L", "P", "RGBA"]:
        with subtests.test(mode=mode):
            image = corner_image().convert(mode)
            image.info["exif"] = with_orientation(6).tobytes()
            before = (image.tobytes(), image.mode, image.size, dict(image.info))
            load_image(image).putpixel((0, 0), BLUE)
            assert (image.tobytes(), image.mode, image.size, dict(image.info)) == before


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3), (2, 3, 4)])
def test_an_array_shares_no_memory_with_its_image(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, np.uint8)
    load_image(array).putpixel((0, 0), RED)
    assert not array.any()


# Errors


def test_an_image_error_is_an_adapter_error() -> None:
    assert issubclass(ImageError, AdapterError)


def test_empty_bytes_are_refused() -> None:
    with pytest.raises(ImageError, match=r"of 0 bytes is empty. Check how it was written"):
        load_image(b"")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty.png' is empty"):
        load_image(tmp_path / "empty.png")


def test_bytes_that_are_not_an_image_are_refused_with_the_formats_that_are_read() -> None:
    with pytest.raises(ImageError, match=r"not an image in a format .* JPEG, PNG, WEBP"):
        load_image(b"hello" * 100)


def test_a_postscript_file_is_not_handed_to_another_program() -> None:
    with pytest.raises(ImageError, match="not an image in a format"):
        load_image(encoded(corner_image(), "EPS"))


def test_a_truncated_file_is_refused(subtests: pytest.Subtests) -> None:
    for kind in ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"]:
        with subtests.test(kind=kind):
            data = encoded(noise(200, 150), kind)
            with pytest.raises(
                ImageError, match=r"(truncated or damaged|damaged header).* Download or export it again"
            ):
                load_image(data[: len(data) // 3])


def test_a_missing_file_is_refused_with_the_folder_it_was_looked_for() -> None:
    with pytest.raises(
        ImageError, match=r"'no/such/image.png' does not exist \(seen from the folder .*\). Check the path"
    ):
        load_image("no/such/image.png")


def test_a_name_that_no_file_can_have_is_refused(subtests: pytest.Subtests) -> None:
    for name in ["", "a\0b.png", "x" * 5000, "\ud800.png"]:
        with subtests.test(name=name), pytest.raises(ImageError, match=r"does not exist|cannot be read"):
            load_image(name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"is a folder. Give the path of an image file"):
        load_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="is not a regular file"):
        load_image(tmp_path / "pipe.png")


def test_a_url_is_refused_with_the_reason(subtests: pytest.Subtests) -> None:
    cases = [
        "http://127.0.0.1:9/cat.png",
        "HTTPS://example.org/cat.png",
        "ftp://example.org/cat.png",
        "file:///secret.png",
        "file:/secret.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "s3://bucket/cat.png",
        " http://example.org/cat.png",
    ]
    for address in cases:
        with (
            subtests.test(address=address),
            pytest.raises(
                ImageError, match=r"opens no URL and does no network access .* download it first and pass a path"
            ),
        ):
            load_image(address)


def test_a_path_object_made_of_a_url_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="opens no URL"):
        load_image(type(tmp_path)("http://example.org/cat.png"))


def test_a_long_data_url_is_shortened_in_the_error() -> None:
    with pytest.raises(ImageError) as caught:
        load_image("data:image/png;base64," + "A" * 100_000)
    assert len(str(caught.value)) < 500


def test_a_file_name_with_a_colon_is_a_path(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "time 12:30.png")
    assert load_image(tmp_path / "time 12:30.png").size == (3, 2)


def test_another_type_is_refused_with_those_that_are_taken(subtests: pytest.Subtests) -> None:
    cases: list[Any] = [None, 3, [1, 2], {"bytes": b"x"}, {"bytes": None, "path": None}]
    for source in cases:
        with (
            subtests.test(source=source),
            pytest.raises(
                ImageError, match=r"is not an image. Give a path, the bytes of a file, an open file, a PIL image"
            ),
        ):
            load_image(source)


@pytest.mark.parametrize("source", [np.zeros((0, 10, 3), np.uint8), np.zeros((10, 0)), Image.new("RGB", (0, 5))])
def test_a_zero_sized_image_is_refused(source: ImageSource) -> None:
    with pytest.raises(ImageError, match=r"so it shows nothing. Give one of at least 1 x 1"):
        load_image(source)


def test_a_closed_pil_image_is_refused(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "image.png")
    image = Image.open(tmp_path / "image.png")
    image.close()
    with pytest.raises(ImageError, match="truncated or damaged"):
        load_image(image)


# Limits


def bmp_header(width: int, height: int) -> bytes:
    """The first 54 bytes of a 24-bit BMP without its pixels."""
    return (
        encoded(Image.new("RGB", (1, 1)), "BMP")[:18]
        + np.array([width, height], "<i4").tobytes()
        + bytes.fromhex("0100180000000000000000000000000000000000000000000000000000")
    )


@pytest.mark.parametrize(
    "source", [Image.new("1", (20_000, 20_000)), bmp_header(20_000, 20_000), bmp_header(90_000, 90_000)]
)
def test_a_bomb_is_refused_before_it_is_decoded(source: ImageSource) -> None:
    with pytest.raises(ImageError, match=r"at most 100000000 are allowed. Shrink it"):
        load_image(source)


def many(count: int, part: bytes, start: bytes = b"", end: bytes = b"") -> bytes:
    return start + part * count + end


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


PNG_START = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", bytes((0, 0, 0, 4, 0, 0, 0, 3, 8, 2, 0, 0, 0)))
GIF_START = b"GIF89a\4\0\3\0\x80\0\0" + b"\0" * 6 + b"!\xfe"
ENDLESS: dict[str, bytes] = {
    "a PPM with a long comment": many(10_000_000, b"x", b"P6\n#", b"\n4 3\n255\n" + b"\0" * 36),
    "a PPM with much white space": many(10_000_000, b"\n", b"P6", b"4 3\n255\n" + b"\0" * 36),
    "a PPM with its pixels as text": many(20_000_000, b"1 ", b"P3\n4000 1600\n255\n"),
    "a PNG with many chunks": many(500_000, png_chunk(b"teSt"), PNG_START),
    "a PNG with many texts": many(500_000, png_chunk(b"tEXt", b"a\0b"), PNG_START),
    "a PNG with many chunks of pixels": many(500_000, png_chunk(b"IDAT", b""), PNG_START, png_chunk(b"IEND")),
    "a GIF with a long comment": many(120_000, b"\xff" + b"x" * 255, GIF_START, b"\0;"),
    "a GIF with many comments": many(500_000, b"!\xfe\1x\0", GIF_START[:-2], b";"),
    "a JPEG with many blocks of EXIF": many(500_000, b"\xff\xe1\0\x0cExif\0\0abcd", b"\xff\xd8"),
    "a JPEG with large blocks of EXIF": many(1_500, b"\xff\xe1\xff\xffExif\0\0" + b"x" * 65527, b"\xff\xd8"),
}


def test_an_endless_header_is_refused_soon(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for name, content in ENDLESS.items():
        (tmp_path / "image").write_bytes(content)
        for source in (content, tmp_path / "image"):
            start = time.process_time()
            with subtests.test(name), pytest.raises(ImageError) as caught:
                load_image(source)
            assert time.process_time() - start < 5
            assert len(str(caught.value)) < 500


def test_comments_and_blocks_of_people_are_read() -> None:
    image = noise()
    for content in (
        encoded(image, "PPM").replace(b"P6\n", b"P6\n#" + b"made by hand " * 100 + b"\n"),
        encoded(image, "PNG", pnginfo=_texts(200)),
        encoded(image, "JPEG", comment=b"x" * 60_000, exif=with_orientation(1), icc_profile=b"x" * 1_000_000),
    ):
        assert load_image(content).size == image.size


def _texts(count: int) -> PngInfo:
    info = PngInfo()
    for number in range(count):
        info.add_text(f"key {number}", "value")
    return info


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I", "F"])
def test_an_image_of_many_strips_is_that_of_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image: Image.Image
    if mode in ("RGBA", "LA"):
        image = Image.fromarray(rng.integers(0, 256, (41, 30, len(mode)), dtype=np.uint8))
    elif mode == "P":
        image = noise(30, 41).quantize(16)
        image.info["transparency"] = 3
    else:
        values = rng.integers(256, 65536, (41, 30)) / (65536 if mode == "F" else 1)
        image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    assert image.mode == mode
    expected = rows(load_image(image))
    monkeypatch.setattr("vlm_adapters.pixels._STRIP", 100)  # three rows
    assert rows(load_image(image)) == expected


def test_the_limit_given_decides_and_not_that_of_pil(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert load_image(data).size == (60, 40)


def test_an_image_at_the_limits_is_taken_and_one_beyond_is_not() -> None:
    assert load_image(np.zeros((10, 20), np.uint8), Limits(max_pixels=200, max_aspect=2)).size == (20, 10)
    with pytest.raises(ImageError, match="20 x 10 = 200 pixels; at most 199"):
        load_image(np.zeros((10, 20), np.uint8), Limits(max_pixels=199))
    with pytest.raises(ImageError, match=r"21 x 10 pixels, an aspect of 2.1:1; at most 2:1"):
        load_image(np.zeros((10, 21), np.uint8), Limits(max_aspect=2))


@pytest.mark.parametrize("size", [(4000, 1), (1, 201)])
def test_an_image_that_is_too_long_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"at most 200:1 is allowed. Crop it"):
        load_image(Image.new("RGB", size))


# Properties


def is_image_or_image_error(data: bytes) -> bool:
    try:
        loaded = load_image(data, SMALL)
    except ImageError:
        return True
    return loaded.mode == "RGB" and min(loaded.size) >= 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_an_image_error(data: bytes) -> None:
    assert is_image_or_image_error(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_any_file_with_some_bytes_changed_is_an_image_or_an_image_error(kind: str, data: st.DataObject) -> None:
    content = bytearray(
        encoded(noise(12, 8), kind, exif=with_orientation(6)) if kind == "TIFF" else encoded(noise(12, 8), kind)
    )
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, min(len(content), 600) - 1))
        content[place] = data.draw(st.integers(0, 255))
    assert is_image_or_image_error(bytes(content[: data.draw(st.integers(1, len(content)))]))


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([(), (1,), (3,), (4,)])).flatmap(
        lambda s: st.sampled_from([np.bool_, np.uint8, np.uint16, np.float16, np.float32, np.float64]).flatmap(
            lambda dtype: arrays.arrays(
                dtype,
                (s[0], s[1], *s[2]),
                elements={"min_value": 0, "max_value": 1} if dtype(0).dtype.kind == "f" else None,
            )
        )
    )
)
def test_any_array_of_an_allowed_type_and_shape_is_an_rgb_image_of_its_size(array: np.ndarray[Any, Any]) -> None:
    loaded = load_image(array)
    assert (loaded.mode, loaded.size) == ("RGB", (array.shape[1], array.shape[0]))


def colours() -> np.ndarray[Any, Any]:
    """`(2, 3, 3)`: two rows of three pixels, each of another colour."""
    return np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_a_tensor_has_its_channels_first_and_the_range_of_its_type(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(colours()).permute(2, 0, 1)
    given = tensor if dtype == torch.uint8 else (tensor.double() / 255).to(dtype)
    most = 1 if dtype == torch.bfloat16 else 0  # eight bits of precision
    assert np.abs(np.asarray(load_image(given)).astype(int) - colours()).max() <= most


def test_a_tensor_that_learns_is_read_and_not_changed() -> None:
    tensor = torch.full((3, 2, 2), 0.5, requires_grad=True)
    assert load_image(tensor).getpixel((0, 0)) == (128, 128, 128)
    assert tensor.requires_grad


def test_a_tensor_of_grey_needs_no_channel() -> None:
    assert load_image(torch.zeros(2, 5)).size == load_image(torch.zeros(1, 2, 5)).size == (5, 2)


@pytest.mark.parametrize("shape", [(5, 6, 3), (2, 3, 8, 8), (8,)])
def test_a_tensor_of_another_shape_is_refused_with_what_to_do(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"tensor of shape .* is not an image.*\(3, H, W\).*permute\(2, 0, 1\)"):
        load_image(torch.zeros(shape))


def test_a_normalised_tensor_is_refused_and_the_cause_is_named() -> None:
    with pytest.raises(ImageError, match=r"values from -2 to 2.*undo a normalisation"):
        load_image(torch.tensor([-2.0, 2.0]).expand(3, 2, 2))


def test_an_open_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "image.png")
    expected = load_image(tmp_path / "image.png")
    with (tmp_path / "image.png").open("rb") as file:
        assert load_image(file) == expected
        with pytest.raises(ImageError, match=r"An open file gave b'' for an image.*file\.seek\(0\)"):
            load_image(file)
    with pytest.raises(ImageError, match=r"cannot be read: .*closed"):
        load_image(file)
    with pytest.raises(ImageError, match=r"gave 'text' for an image. Open it with mode 'rb'"):
        load_image(io.StringIO("text"))  # type: ignore[arg-type]


def test_an_undecoded_image_of_datasets_is_its_bytes_or_else_its_path(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    corner_image().save(path)
    expected = load_image(path)
    assert load_image({"bytes": path.read_bytes(), "path": "elsewhere.png"}) == expected
    assert load_image({"bytes": None, "path": str(path)}) == expected
