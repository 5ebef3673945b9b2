"""COCO run lengths against pycocotools, and groundings as JSON."""

from __future__ import annotations

import json
import time
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from vlm_adapters.data.rle import decode_rle, encode_rle
from vlm_adapters.errors import DataError
from vlm_adapters.grounding.result import GroundedPhrase, Grounding, PackedMask, PhraseMap
from vlm_adapters.limits import Limits
from vlm_adapters.output.exports import grounding_to_dict
from vlm_adapters.prompt import Phrase

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.booleans())


def first_pixel() -> NDArray[np.bool_]:
    mask = np.zeros((5, 4), dtype=bool)
    mask[0, 0] = True
    return mask


def one_column() -> NDArray[np.bool_]:
    mask = np.zeros((300, 400), dtype=bool)
    mask[:, 123] = True
    return mask


def disc() -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:480, :640]
    inside: NDArray[np.bool_] = (rows - 200) ** 2 + (columns - 500) ** 2 < 190**2
    return inside


@given(MASKS, st.tuples(*[st.integers(0, 9)] * 4))
def test_a_mask_within_a_rectangle_is_encoded_as_within_the_image(
    mask: NDArray[np.bool_], around: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = around
    of_image = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_rle(mask, of_image.shape, (left, top)) == theirs(of_image)
    assert PackedMask.of(of_image).run_lengths() == theirs(of_image)


@given(MASKS, st.tuples(*[st.integers(0, 19)] * 2))
def test_a_packed_mask_is_drawn_as_it_is(mask: NDArray[np.bool_], corner: tuple[int, int]) -> None:
    of_image = np.pad(mask, ((corner[1], 2), (corner[0], 3)))
    drawn = PackedMask.of(of_image).image()
    assert drawn.mode == "1"
    assert np.array_equal(np.asarray(drawn), of_image)


NAMED = {
    "empty": np.zeros((480, 640), dtype=bool),
    "full": np.ones((480, 640), dtype=bool),
    "first pixel": first_pixel(),
    "last pixel": first_pixel()[::-1, ::-1],
    "one column": one_column(),
    "one row": one_column().T,
    "disc beyond the edge": disc(),
    "one pixel": np.ones((1, 1), dtype=bool),
    "checks": np.indices((9, 8)).sum(0) % 2 == 1,
    "stored by columns": np.asfortranarray(disc()),
}


def theirs(mask: NDArray[np.bool_]) -> dict[str, object]:
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def read_by_them(rle: Any) -> NDArray[np.uint8]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools on numpy 2
        decoded: NDArray[np.uint8] = coco.decode(rle)
    return decoded


def test_encoding_is_bit_equal_to_pycocotools() -> None:
    for name, mask in NAMED.items():
        assert encode_rle(mask) == theirs(mask), name


@given(MASKS)
def test_encoding_any_mask_is_bit_equal_to_pycocotools(mask: NDArray[np.bool_]) -> None:
    assert encode_rle(mask) == theirs(mask)


def test_decoding_what_pycocotools_wrote_gives_the_mask(subtests: pytest.Subtests) -> None:
    for name, mask in NAMED.items():
        with subtests.test(name):
            np.testing.assert_array_equal(decode_rle(theirs(mask)), mask)


@given(MASKS)
def test_decoding_undoes_encoding(mask: NDArray[np.bool_]) -> None:
    found = decode_rle(encode_rle(mask))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, mask)


@given(MASKS)
def test_pycocotools_reads_what_was_encoded(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(read_by_them(encode_rle(mask)), mask)


MALFORMED: dict[str, dict[str, object]] = {
    "nothing": {},
    "no counts": {"size": [2, 3]},
    "no size": {"counts": "6"},
    "three sides": {"size": [2, 3, 1], "counts": "6"},
    "a side that is text": {"size": ["2", 3], "counts": "6"},
    "a side that is broken": {"size": [2.5, 3], "counts": "6"},
    "negative sides": {"size": [-2, -3], "counts": "6"},
    "counts as a list": {"size": [2, 3], "counts": [6]},
    "too few pixels": {"size": [2, 3], "counts": "5"},
    "too many pixels": {"size": [2, 3], "counts": "7"},
    "no runs": {"size": [2, 3], "counts": ""},
    "a negative run": {"size": [2, 3], "counts": "8N"},
    "a letter below": {"size": [2, 3], "counts": "6 "},
    "a letter above": {"size": [2, 3], "counts": "6é"},
    "an end within a number": {"size": [2, 3], "counts": "6P"},
    "sides that are truth values": {"size": [True, True], "counts": "1"},
    "a number without an end": {"size": [2, 3], "counts": "o" * 2_000_000},
    "a number of thirteen letters": {"size": [2, 3], "counts": "oooooooooooo0"},
    "more letters than any mask has": {"size": [2, 3], "counts": "0" * 9_000_000},
    "a trillion pixels": {"size": [10**6, 10**6], "counts": "0"},
    "sides of thirty digits": {"size": [10**30, 1], "counts": "0"},
    "sides of five thousand digits": {"size": [10**5000, 1], "counts": "0"},
    "runs beyond the pixels": {"size": [2, 3], "counts": "oooooo0oooooo0"},
}


def test_malformed_run_lengths_are_a_typed_error(subtests: pytest.Subtests) -> None:
    for name, rle in MALFORMED.items():
        with subtests.test(name):
            start = time.process_time()
            with pytest.raises(DataError, match="COCO mask") as caught:
                decode_rle(rle)
            assert len(str(caught.value)) < 300
            assert time.process_time() - start < 5


def test_limits_of_run_lengths_can_be_raised() -> None:
    rle = encode_rle(NAMED["checks"])
    with pytest.raises(DataError, match="has more than 71 pixels"):
        decode_rle(rle, Limits(max_pixels=71))
    with pytest.raises(DataError, match=r"have \d+ letters, over 5\."):
        decode_rle(rle, Limits(max_run_letters=5))
    np.testing.assert_array_equal(decode_rle(rle, Limits(max_pixels=72, max_run_letters=500)), NAMED["checks"])


def test_run_lengths_of_another_image_say_both_numbers() -> None:
    with pytest.raises(DataError, match="cover 6 of 3 x 4 pixels"):
        decode_rle({"size": [3, 4], "counts": "6"})


@given(st.text(max_size=8), st.tuples(st.integers(-3, 9), st.integers(-3, 9)))
def test_any_counts_give_a_mask_or_a_typed_error(counts: str, size: tuple[int, int]) -> None:
    with suppress(DataError):
        assert decode_rle({"size": list(size), "counts": counts}).shape == size


def grounding() -> Grounding:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    heat = PhraseMap.of_pixels(np.zeros((4, 6), dtype=np.float32))
    return Grounding(
        Image.new("RGB", (6, 4)),
        "a cat, 红色",
        (
            GroundedPhrase(Phrase("cat", 2, 5), PackedMask.of(mask), 0.75, heat),
            GroundedPhrase(Phrase("红色", 7, 9), PackedMask.of(np.zeros_like(mask)), 0.0, heat),
        ),
    )


def test_a_grounding_survives_json() -> None:
    content = grounding_to_dict(grounding())
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_a_grounding_says_what_was_found() -> None:
    content: Any = grounding_to_dict(grounding())
    found, missed = content["phrases"]
    assert (content["text"], content["image_size"]) == ("a cat, 红色", [4, 6])
    assert (found["text"], found["span"], found["score"], found["box"]) == ("cat", [2, 5], 0.75, [2, 1, 5, 3])
    np.testing.assert_array_equal(read_by_them(found["mask"]), grounding().phrases[0].mask)
    assert (missed["score"], missed["box"]) == (0.0, None)
    assert not read_by_them(missed["mask"]).any()
