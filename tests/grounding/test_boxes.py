"""Boxes in a model's words, read and filled, from given answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters.answer import Answer
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OptionError
from vlm_adapters.evaluation import EvaluationSettings, evaluate
from vlm_adapters.geometry import THOUSANDTHS, CoordinateFrame
from vlm_adapters.grounding.boxes import BoxAnswer, BoxGrounder, can_point, question_about
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from pathlib import Path

    from vlm_adapters.geometry import Box

IMAGE = Image.new("RGB", (640, 480))
SIZE = (480, 640)
BOX = (160.0, 240.0, 320.0, 480.0)
"""Of `[250, 500, 500, 1000]` in thousandths."""


class Pointer(FakeAdapter):
    """A fake that can answer: the same words to every question."""

    def __init__(self, answer: str, frame: CoordinateFrame | None = THOUSANDTHS) -> None:
        super().__init__()
        self.answer, self.frame = answer, frame
        self.asked: list[Prompt] = []

    def generate(self, prompt: Prompt, max_new_tokens: int = 256, **_: object) -> Answer:
        assert max_new_tokens > 0
        self.asked.append(prompt)
        return Answer(self.answer)

    def coordinate_frame(self, size: tuple[int, int]) -> CoordinateFrame | None:
        assert min(size) > 0
        return self.frame


class OneSample(Dataset):
    """A data set of one sample."""

    source = "one"

    def __init__(self, only: Sample) -> None:
        self.only = only

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        assert index == 0
        return self.only


def test_a_box_is_read_from_whatever_is_around_it() -> None:
    for answer in (
        '[{"bbox_2d": [250, 500, 500, 1000], "label": "a dog"}]',
        '```json\n[\n\t{"bbox_2d": [250, 500, 500, 1000], "label": "a dog"}\n]\n```',
        '{"bbox": [250.0, 500.0, 500.0, 1000.0]}',
        '[{"bbox_2d": [250, 500, 500, 1000], "label": "a dog"}, {"bbox_2d": [1, 2, 3',
        "The dog is at [250,500,500,1000].",
        "<|box_start|>(250,500),(500,1000)<|box_end|>",
        "[[250, 500], [500, 1000]]",
        "[500, 1000, 250, 500]",
        "[250, 500, 500, 1400]",
        "[250, 500, 500, 1000] and again [250, 500, 500, 1000]",
    ):
        found = BoxAnswer.read(answer, THOUSANDTHS, SIZE)
        assert found.boxes == (pytest.approx(BOX),), answer
        assert found.text == answer


def test_nothing_found_is_an_answer() -> None:
    for answer in (
        "",
        "[]",
        "```json\n[]\n```",
        "There is none.",
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "[250, 500, 250, 1000]",
        "[1200, 500, 1300, 1000]",
        "[-90, -90, -10, -10]",
        '{"point_2d": [250, 500]}',
        "[9999999999, 1, 99999999999, 5]",
        "[nan, 1, 2, 3]",
    ):
        found = BoxAnswer.read(answer, THOUSANDTHS, SIZE)
        assert found.boxes == (), answer
        assert not found.mask(SIZE).any()


def test_several_boxes_are_kept_and_filled_together() -> None:
    found = BoxAnswer.read("[0, 0, 100, 100], [500, 500, 1000, 1000]", THOUSANDTHS, (100, 200))
    assert found.boxes == ((0, 0, 20, 10), (100, 50, 200, 100))
    mask = found.mask((100, 200))
    assert mask.sum() == 20 * 10 + 100 * 50
    assert mask[9, 19]
    assert not mask[10, 19]
    assert not mask[9, 20]


@given(
    st.sampled_from([CoordinateFrame(1000, 1000), CoordinateFrame(644, 476), CoordinateFrame(2044, 1540)]),
    st.lists(st.integers(0, 40), min_size=4, max_size=4),
)
def test_boxes_in_a_frame_are_read_as_pixels(frame: CoordinateFrame, corners: list[int]) -> None:
    left, right = sorted((corners[0], corners[1] + 41))
    top, bottom = sorted((corners[2], corners[3] + 41))
    box: Box = (left * 5.0, top * 5.0, right * 5.0, bottom * 5.0)
    written = [round(side) for side in frame.from_image(box, SIZE)]
    (read,) = BoxAnswer.read(json.dumps([{"bbox_2d": written}]), frame, SIZE).boxes
    # a whole number of the frame is off by half of one at most
    assert np.abs(np.subtract(read, box)).max() <= 0.5 * max(640 / frame.width, 480 / frame.height) + 1e-6


def test_every_phrase_is_asked_for_and_its_box_is_its_mask() -> None:
    adapter = Pointer('[{"bbox_2d": [250, 500, 500, 1000]}]')
    grounding = BoxGrounder(adapter).ground(IMAGE, "a dog and a cat", ["a dog", "a cat"])
    assert grounding.method == "box"
    assert [found.box for found in grounding.phrases] == [(160, 240, 320, 480)] * 2
    assert [found.score for found in grounding.phrases] == [1.0, 1.0]
    assert grounding.phrases[0].mask.sum() == 160 * 240
    assert ['"a dog"' in prompt.text for prompt in adapter.asked] == [True, False]
    assert [prompt.messages[-1].role for prompt in adapter.asked] == ["user", "user"]
    assert adapter.asked[0].images[0].size == (640, 480)


def test_where_the_model_says_none_nothing_is_found() -> None:
    (found,) = BoxGrounder(Pointer("[]")).ground(IMAGE, "a dog", ["a dog"]).phrases
    assert (found.box, found.score, bool(found.mask.any())) == (None, 0.0, False)


def test_the_question_quotes_the_sentence_if_it_is_more_than_the_phrase() -> None:
    assert 'from the sentence "the left dog ."' in question_about(
        "the left dog .", Phrase.find("the left dog .", "dog")
    )
    assert "sentence" not in question_about("a dog", Phrase.find("a dog", "a dog"))


@pytest.mark.parametrize("adapter", [FakeAdapter(), Pointer("[]", frame=None)], ids=["mute", "cannot point"])
def test_a_model_that_cannot_point_is_refused(adapter: FakeAdapter) -> None:
    assert not can_point(adapter)
    with pytest.raises(OptionError, match=r'does not declare that fake can say where things are.*"heads"'):
        BoxGrounder(adapter)


PIXELS_OF_THE_MODEL = CoordinateFrame(320, 240)
"""What a model sees of an image of twice as many pixels."""


@pytest.mark.parametrize(
    ("declared", "boxes"),
    [
        # The same numbers: thousandths of 640 x 480 pixels, and pixels of the image as the model sees it, or as it is.
        (PIXELS_OF_THE_MODEL, {"box, 0 to 1000": (64, 48, 128, 96), "box, pixels": (200, 200, 400, 400)}),
        (THOUSANDTHS, {"box, pixels": (100, 100, 200, 200), "box, 0 to 1000": (64, 48, 128, 96)}),
    ],
    ids=["pixels", "thousandths"],
)
def test_an_answer_is_read_in_pixels_and_in_thousandths_and_the_declared_reading_is_the_last(
    declared: CoordinateFrame, boxes: dict[str, tuple[int, int, int, int]]
) -> None:
    adapter = Pointer("[100, 100, 200, 200]", declared)
    (found,) = BoxGrounder(adapter).masks([Prompt.describe(IMAGE, "a dog", ["a dog"])])
    assert list(found) == list(boxes)
    for name, (left, top, right, bottom) in boxes.items():
        expected = np.zeros(SIZE, np.bool_)
        expected[top:bottom, left:right] = True
        assert np.array_equal(found[name], expected[None]), name
    assert len(adapter.asked) == 1


def test_the_better_reading_is_not_chosen() -> None:
    adapter = Pointer("[100, 100, 200, 200]", PIXELS_OF_THE_MODEL)
    prompt = Prompt.describe(IMAGE, "a dog", ["a dog"])
    (declared,) = BoxGrounder(adapter).ground_all([prompt])[0].phrases
    assert declared.box == (200, 200, 400, 400)


def test_an_evaluation_reports_both_readings_as_two_numbers(tmp_path: Path) -> None:
    # The truth is the box in thousandths; the adapter declares pixels.
    truth = np.zeros((1, *SIZE), np.bool_)
    truth[0, 48:96, 64:128] = True
    words = Phrase.find("a dog", "a dog")
    sample = Sample(id="one", image_id="one", text="a dog", phrases=(words,), image=IMAGE, masks=truth)
    grounder = BoxGrounder(Pointer("[100, 100, 200, 200]", PIXELS_OF_THE_MODEL))
    card = evaluate(grounder, OneSample(sample), EvaluationSettings(protocol="isolated"), tmp_path / "out")
    assert list(card.masks) == ["box, 0 to 1000", "box, pixels"]
    assert [card.number("all", name, "mIoU").value for name in card.masks] == [1.0, 0.0]
