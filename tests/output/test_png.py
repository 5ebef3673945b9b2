"""PNG files: what PIL reads from them is what was written, whatever the mode and the size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters.output import png, write_png

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def picture(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    if mode == "1":
        return Image.fromarray(rng.random(size[::-1]) > 0.5)
    image = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    return image.quantize(200) if mode == "P" else image.convert(mode)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["1", "L", "P", "RGB"]), SIZES, st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_an_image_comes_back_as_it_was(
    tmp_path: Path, mode: str, size: tuple[int, int], seed: int, rows_at_once: int
) -> None:
    image = picture(mode, size, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "_ROWS_AT_ONCE", rows_at_once)
        write_png(image, tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as found:
        assert (found.format, found.mode, found.size, found.getpalette()) == ("PNG", mode, size, image.getpalette())
        assert found.tobytes() == image.tobytes()


def test_a_file_ends_in_whole_chunks_whose_sums_are_right(tmp_path: Path) -> None:
    write_png(picture("RGB", (300, 700), 0), tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as found:
        found.verify()
