"""What people write on the command line, and what it becomes."""

from __future__ import annotations

import pytest

from vlm_adapters.cli.arguments import byte_count, image_size
from vlm_adapters.errors import OptionError


def test_an_image_is_width_by_height() -> None:
    assert image_size("640x480") == (480, 640)


def test_anything_else_is_an_error_with_an_example(subtests: pytest.Subtests) -> None:
    cases = ["480", "480x", "x640", "0x640", "480x0", "-1x5", "4.5x6", "480 x 640", "480x640x3", ""]
    for text in cases:
        with subtests.test(text=text):
            with pytest.raises(OptionError) as caught:
                image_size(text)
            assert f"The image {text!r} is not of the form WIDTHxHEIGHT" in str(caught.value)
            assert "such as 640x480" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("24GiB", 24 * 2**30),
        ("24 gib", 24 * 2**30),
        ("24G", 24 * 2**30),
        ("24GB", 24 * 10**9),
        ("1.5TiB", 1536 * 2**30),
        ("512M", 2**29),
    ],
)
def test_memory_has_a_number_and_a_unit(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["24", "GiB", "-1GiB", "0GiB", "24 apples", "", "1e3GB", "٢٤GiB"])
def test_any_other_memory_is_an_error_that_names_the_units(text: str) -> None:
    with pytest.raises(OptionError, match=r"is not a size\. Give a number and a unit: 24GiB or 24G are 24 x 2\^30"):
        byte_count(text)
