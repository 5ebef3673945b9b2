"""What people write on the command line, and what it becomes."""

from __future__ import annotations

import pytest

from vlm_adapters.cli.arguments import image_size
from vlm_adapters.errors import OptionError


def test_an_image_is_height_by_width() -> None:
    assert image_size("480x640") == (480, 640)


def test_anything_else_is_an_error_with_an_example(subtests: pytest.Subtests) -> None:
    cases = ["480", "480x", "x640", "0x640", "480x0", "-1x5", "4.5x6", "480 x 640", "480x640x3", ""]
    for text in cases:
        with subtests.test(text=text):
            with pytest.raises(OptionError) as caught:
                image_size(text)
            assert f"The image {text!r} is not of the form HEIGHTxWIDTH" in str(caught.value)
            assert "such as 480x640" in str(caught.value)
