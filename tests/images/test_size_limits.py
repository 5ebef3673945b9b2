"""What is too large is refused before it is decoded, and any bytes are an image or an `ImageError`."""

import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.images.conftest import encoded, noise, rows, with_orientation
from vlm_adapters.errors import ImageError
from vlm_adapters.images import FORMATS, ImageSource, load_image
from vlm_adapters.limits import Limits

SMALL = Limits(max_pixels=100_000, max_aspect=200)


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
