"""An image is turned upright once, whatever says so, and a header tells it before the pixels are read."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images.conftest import BLACK, BLUE, GREEN, RED, TURNED, corner_image, encoded, rows, with_orientation
from vlm_adapters.errors import ImageError
from vlm_adapters.images import ImageHeader, load_image, read_header


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


def palette_image() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def bmp_header(width: int, height: int) -> bytes:
    """The first 54 bytes of a 24-bit BMP without its pixels."""
    return (
        encoded(Image.new("RGB", (1, 1)), "BMP")[:18]
        + np.array([width, height], "<i4").tobytes()
        + bytes.fromhex("0100180000000000000000000000000000000000000000000000000000")
    )
