"""What is no image is an `ImageError` that says what to do."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images.conftest import corner_image, encoded, noise
from vlm_adapters.errors import AdapterError, ImageError
from vlm_adapters.images import ImageSource, load_image


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
