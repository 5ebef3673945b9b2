"""Crops around what was grounded, and grounding again in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from typing_extensions import override

from vlm_adapters import Answer, GroundedChat, Grounder, Message, Prompt, load_grounder
from vlm_adapters.errors import NothingFoundError, OptionError, PromptError
from vlm_adapters.geometry import Region
from vlm_adapters.grounding import CloserLook, Crop, Grounding, PhraseMap, crop_from, grounded_phrase
from vlm_adapters.testing.fakes import FakeAdapter

CELLS = 8
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class CoarseEyes(Grounder):
    """Finds the colours that phrases name, in cells of an eighth of the image's sides."""

    def __init__(self, least: float = 0.0) -> None:
        self.adapter = FakeAdapter()
        self.least = least
        self.shown: list[Prompt] = []

    @property
    @override
    def description(self) -> str:
        return "coarse eyes"

    @override
    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        self.shown += prompts
        return [self._found(prompt, prompt.first_image) for prompt in prompts]

    @override
    def ground_images(self, prompt: Prompt) -> list[Grounding]:
        self.shown.append(prompt)
        return [self._found(prompt, image) for image in prompt.images]

    def _found(self, prompt: Prompt, image: Image.Image) -> Grounding:
        phrases = []
        for phrase in prompt.phrases:
            share = coarse(image, COLOURS[next(word for word in COLOURS if word in phrase.text)])
            found = np.where(share > self.least, share, 0).astype(np.float32)
            phrases.append(grounded_phrase(phrase, found, PhraseMap.of_pixels(found), 1e-6))
        return Grounding(image, prompt.text, tuple(phrases), answer=prompt.answer)


def coarse(image: Image.Image, colour: tuple[int, int, int]) -> NDArray[np.float32]:
    """`(H, W)`: how much of every cell has a colour."""
    pixels = (np.asarray(image) == colour).all(axis=2).astype(np.float32)
    for ends in (np.linspace(0, side, CELLS + 1).astype(int) for side in pixels.shape):
        pixels = np.swapaxes(pixels, 0, 1)
        for start, end in pairwise(ends):
            pixels[:, start:end] = pixels[:, start:end].mean(axis=1, keepdims=True) if end > start else 0
    return pixels


def drawn(size: tuple[int, int], **things: Region) -> Image.Image:
    image = Image.new("RGB", size, "white")
    for colour, (left, top, right, bottom) in things.items():
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), COLOURS[colour])
    return image


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def found_at(size: tuple[int, int], *boxes: Region | None) -> Grounding:
    """What was grounded, by its boxes; `size` is (W, H)."""
    text = " ".join(f"thing{number}" for number in range(len(boxes)))
    prompt, phrases = Prompt.describe(Image.new("RGB", size), text, text.split()), []
    for phrase, box in zip(prompt.phrases, boxes, strict=True):
        mask = np.zeros((size[1], size[0]), np.float32)
        if box:
            mask[box[1] : box[3], box[0] : box[2]] = 1
        phrases.append(grounded_phrase(phrase, mask, PhraseMap.of_pixels(mask)))
    return Grounding(prompt.first_image, text, tuple(phrases))


def test_a_crop_has_a_margin_of_a_share_of_the_longer_side() -> None:
    crop = crop_from(found_at((200, 100), (50, 40, 90, 60)), margin=0.25)
    assert crop.box == (40, 30, 100, 70)
    assert crop.image.size == (60, 40)


def test_a_crop_ends_where_the_image_does() -> None:
    assert crop_from(found_at((200, 100), (10, 5, 190, 95)), margin=1).is_all


def test_a_crop_is_around_all_phrases_that_were_found() -> None:
    found = found_at((200, 100), (50, 40, 60, 50), None, (100, 20, 110, 30))
    assert crop_from(found, margin=0).box == (50, 20, 110, 50)


def test_nothing_found_is_an_error_that_names_the_words() -> None:
    with pytest.raises(NothingFoundError, match=re.escape("Nothing was found of 'thing0', 'thing1', so there is")):
        crop_from(found_at((20, 10), None, None))


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_no_share_is_refused(margin: float) -> None:
    with pytest.raises(OptionError, match=f"The margin of a crop is {margin}"):
        crop_from(found_at((20, 10), (1, 1, 2, 2)), margin)
    with pytest.raises(OptionError, match="The margin of a crop"):
        CloserLook(CoarseEyes(), margin=margin)


def test_a_closer_look_has_the_mask_at_its_place_in_the_original_image() -> None:
    image = drawn((800, 640), red=(330, 250, 370, 290))  # 40 pixels in cells of 100 x 80
    truth = np.asarray(image)[..., 1] == 0
    once = CoarseEyes().ground(image, "a red thing", ["a red thing"]).phrases[0]
    twice = CloserLook(CoarseEyes(), rounds=2).ground(image, "a red thing", ["a red thing"]).phrases[0]
    assert once.box == (300, 240, 400, 320)
    assert iou(once.mask, truth) == pytest.approx(0.2)
    assert twice.mask.shape == truth.shape
    assert iou(twice.mask, truth) > 0.35
    assert truth[np.unravel_index(twice.map.argmax(), truth.shape)]
    assert not twice.map[:, :200].any()


def test_what_is_placed_back_is_what_the_crop_shows_and_nothing_beyond() -> None:
    image = drawn((120, 90), green=(40, 30, 56, 46))
    crop = Crop(image, (32, 22, 64, 54))
    in_crop = CoarseEyes().ground(crop.image, "a green thing", ["a green thing"])
    (back,) = crop.placed_back(in_crop).phrases
    expected = np.zeros((90, 120), np.bool_)
    expected[22:54, 32:64] = in_crop.phrases[0].mask
    assert (back.mask == expected).all()
    assert (back.map[22:54, 32:64] == in_crop.phrases[0].map).all()
    assert not back.map[~np.pad(np.ones((32, 32), bool), ((22, 36), (32, 56)))].any()
    assert back.run_lengths["size"] == [90, 120]


def test_a_grounding_of_another_image_is_not_placed_back() -> None:
    with pytest.raises(ValueError, match="the crop is of"):
        Crop(Image.new("RGB", (20, 10)), (0, 0, 4, 4)).placed_back(found_at((20, 10), None))


def test_every_phrase_has_a_crop_of_its_own_and_the_whole_sentence_with_it() -> None:
    eyes, text = CoarseEyes(), "a red thing and a blue thing"
    image = drawn((400, 400), red=(20, 20, 30, 30), blue=(345, 350, 355, 360))
    CloserLook(eyes, margin=0).ground(image, text, ["a red thing", "a blue thing"])
    whole, *crops = eyes.shown
    assert whole.first_image.size == (400, 400)
    assert [[phrase.text for phrase in prompt.phrases] for prompt in crops] == [["a red thing"], ["a blue thing"]]
    assert [prompt.first_image.size for prompt in crops] == [(50, 50), (100, 50)]
    assert {prompt.text for prompt in crops} == {text}


def test_a_phrase_keeps_its_mask_where_the_crop_shows_nothing() -> None:
    class OneLook(CoarseEyes):
        @override
        def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
            self.least = 1.0 if self.shown else 0.0
            return super().ground_all(prompts)

    image = drawn((400, 400), red=(20, 20, 30, 30))
    (kept,) = CloserLook(OneLook()).ground(image, "a red thing", ["a red thing"]).phrases
    assert kept.box == (0, 0, 50, 50)


def test_a_crop_that_is_the_whole_image_costs_no_second_look() -> None:
    eyes = CoarseEyes()
    CloserLook(eyes).ground(drawn((80, 80), red=(10, 10, 70, 70)), "a red thing", ["a red thing"])
    assert len(eyes.shown) == 1


def test_an_answer_is_read_by_its_tokens_in_the_crop_too() -> None:
    eyes, answer = CoarseEyes(), Answer("a red thing", [5, 6, 7])
    question = Prompt.chat([Message("user", (drawn((400, 400), red=(20, 20, 30, 30)), "What is it?"))])
    (found,) = CloserLook(eyes).ground_all([question.answered(answer, ["a red thing"])])
    assert [prompt.answer for prompt in eyes.shown] == [answer, answer]
    assert eyes.shown[1].first_image.size == (75, 75)
    assert found.answer == answer


def test_every_image_of_a_prompt_is_looked_at_again_and_the_others_stay() -> None:
    eyes = CoarseEyes()
    images = drawn((400, 400), red=(20, 20, 30, 30)), drawn((240, 240), red=(200, 200, 210, 210))
    prompt = Prompt.chat(
        [Message("user", (*images, "Which?")), Message("assistant", ("a red thing",))], ["a red thing"]
    )
    found = CloserLook(eyes).ground_images(prompt)
    assert [[image.size for image in seen.images] for seen in eyes.shown] == [
        [(400, 400), (240, 240)],
        [(75, 75), (240, 240)],
        [(400, 400), (60, 60)],
    ]
    for image, grounding in zip(images, found, strict=True):
        assert grounding.image.size == image.size
        assert iou(grounding.phrases[0].mask, np.asarray(image)[..., 1] == 0) > 0.25


def test_it_says_what_it_does_and_its_settings_are_part_of_its_fingerprint() -> None:
    once, twice = (CloserLook(CoarseEyes(), rounds=rounds) for rounds in (1, 2))
    assert once.description == "coarse eyes; looks again once, in crops with a margin of 0.5"
    assert twice.description == "coarse eyes; looks again 2 times, in crops with a margin of 0.5"
    assert once.fingerprint() != twice.fingerprint()


def test_absent_masks_are_kept_or_not_by_the_grounder_itself() -> None:
    eyes = CoarseEyes()
    CloserLook(eyes).keeps_absent_masks = True
    assert eyes.keeps_absent_masks
    assert CloserLook(eyes).keeps_absent_masks


def test_no_round_is_refused() -> None:
    with pytest.raises(OptionError, match="Give 1 or more rounds"):
        CloserLook(CoarseEyes(), rounds=0)
    with pytest.raises(OptionError, match="Looking again -1 times cannot be done"):
        load_grounder("tiny-llava", look_again=-1)


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
def test_a_model_finds_a_small_thing_better_when_it_looks_again() -> None:
    image = Image.new("RGB", (1000, 1000), (150, 150, 140))
    ImageDraw.Draw(image).ellipse((700, 300, 790, 390), (214, 40, 40))
    truth = np.asarray(image)[..., 0] > 200
    once, again = (
        load_grounder("tiny-llava", look_again=rounds).ground(image, "a red circle", ["a red circle"]).phrases[0].mask
        for rounds in (0, 1)
    )
    assert iou(again, truth) > iou(once, truth) + 0.1


def test_a_conversation_looks_again_at_what_its_answer_names() -> None:
    image = drawn((400, 400), red=(20, 20, 30, 30))
    chat = GroundedChat(CoarseEyes(), phrases=lambda answer: [answer])
    chat.ask("What is small?", [image], answer="a red thing")
    with pytest.raises(OptionError, match="does not answer"):
        chat.look_again()
    assert len(chat.turns) == 1


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
def test_the_crop_is_shown_beside_the_image_with_the_same_question() -> None:
    image = Image.new("RGB", (1000, 1000), (150, 150, 140))
    ImageDraw.Draw(image).ellipse((700, 300, 790, 390), (214, 40, 40))
    chat = GroundedChat(load_grounder("tiny-llava"), max_new_tokens=8)
    chat.ask("What is the red circle like?", [image], answer="a red circle")
    by_answer = chat.look_again().prompt.images
    by_question = chat.look_again("the red circle", image=0).prompt.images
    assert [turn.question for turn in chat.turns] == ["What is the red circle like?"] * 3
    assert [len(by_answer), len(by_question)] == [2, 3]
    for crop in (by_answer[1], by_question[2]):
        assert crop.width < 500
        assert (np.asarray(crop)[..., 0] > 200).sum() > 5000  # of 6,400 pixels of the circle


def test_a_conversation_without_a_question_or_an_image_cannot_look_again() -> None:
    chat = GroundedChat(CoarseEyes(), phrases=lambda _: [])
    with pytest.raises(PromptError, match="Nothing was asked yet"):
        chat.look_again()
    chat.ask("What is small?", [drawn((40, 40))], answer="nothing")
    with pytest.raises(PromptError, match="There is no image 3: the conversation has 1"):
        chat.look_again(image=3)
    with pytest.raises(NothingFoundError, match="Nothing was found of no phrase"):
        chat.look_again()
