"""The only door for images: every kind of source becomes an RGB image, and is left as it was."""

import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.conftest import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    TURNED,
    WHITE,
    corner_image,
    encoded,
    noise,
    rows,
    with_orientation,
)
from vlm_adapters.errors import ImageError
from vlm_adapters.images import FORMATS, load_image


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
