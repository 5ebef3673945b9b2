"""Masks from a head that looks at what is named, and the profile that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import CheckpointError, DecoderError, OutputError
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.heads.extraction import neutral_prompt, phrase_heights
from vlm_adapters.heads.profile import HeadProfile, find_profile
from vlm_adapters.prompt import Message, Prompt

if TYPE_CHECKING:
    from vlm_adapters.backbone.protocol import BackboneAdapter

CONTENT: dict[str, Any] = {
    "backbone": {"checkpoint": "acme/planted", "model_type": "planted", "revision": "abc123", "options": {}},
    "criterion": "iou",
    "source": "scenes",
    "samples": 4,
    "seed": 5,
    "neutral": "an image",
    "heads": [{"layer": 2, "head": 1, "weight": 0.5, "value": 0.5}, {"layer": 0, "head": 0, "weight": 0.1, "value": 0}],
    "others": [],
    "smoothing": 0.5,
    "threshold": 0.5,
    "least_prominence": 8.0,
}


def profile(**changes: object) -> HeadProfile:
    return HeadProfile.model_validate({**CONTENT, **changes})


def test_a_mask_lies_on_what_its_phrase_names(planted: BackboneAdapter, squares: list[Sample]) -> None:
    prompts = [sample.prompt for sample in squares]
    groundings = HeadGrounder(planted, profile()).ground_all(prompts)
    for grounding, sample in zip(groundings, squares, strict=True):
        assert grounding.method == "heads"
        assert [found.phrase.text for found in grounding.phrases] == ["a red square", "a green square"]
        for found, mask in zip(grounding.phrases, sample.masks, strict=True):
            assert mask_iou(found.mask, mask) > 0.7
            assert found.box is not None
            assert 0.5 < found.score <= 1
            assert found.map.max() == pytest.approx(1)


def test_where_no_peak_stands_out_nothing_is_found(planted: BackboneAdapter, squares: list[Sample]) -> None:
    grounder = HeadGrounder(planted, profile())
    (found,) = grounder.ground(squares[0].image, "a blue square", ["a blue square"]).phrases
    assert (found.box, found.score, bool(found.mask.any()), float(found.map.max())) == (None, 0.0, False, 0.0)
    grey = Image.new("RGB", (160, 110), "grey")
    assert grounder.ground(grey, "a red square", ["a red square"]).phrases[0].box is None


def test_an_even_map_is_never_found() -> None:
    even = phrase_heights(torch.ones(2, 2, 4, 5), profile(least_prominence=0.0))
    assert torch.equal(even, torch.zeros(2, 4, 5))


def test_of_several_images_the_first_is_grounded(planted: BackboneAdapter, squares: list[Sample]) -> None:
    other = Image.new("RGB", (50, 50), "red")
    prompt = Prompt.chat([Message("user", (squares[0].image, other, "a red square"))], ["a red square"])
    (grounding,) = HeadGrounder(planted, profile()).ground_all([prompt])
    assert grounding.image.size == (160, 110)
    assert mask_iou(grounding.phrases[0].mask, squares[0].masks[0]) > 0.7


def test_only_the_heads_of_the_profile_are_asked_for(planted: Any, squares: list[Sample]) -> None:
    HeadGrounder(planted, profile()).ground_all([squares[0].prompt])
    assert planted.requests == [GridRequest(layers=[0, 2], heads=[0, 1], phrase_log_probabilities=True)]
    assert planted.texts == [squares[0].text, "an image"]


def test_a_neutral_prompt_keeps_images_and_turns() -> None:
    red, blue = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (30, 20), "blue")
    chat = [Message("user", (red, "What?")), Message("user", (blue, "the blue one", " here"))]
    neutral = neutral_prompt(Prompt.chat(chat, ["blue"]), "an image")
    assert [message.text for message in neutral.messages] == ["What?", "an image"]
    assert [image.size for image in neutral.images] == [(20, 20), (30, 20)]
    assert [phrase.span for phrase in neutral.phrases] == [(0, 8)]


def test_no_phrases_give_no_masks(planted: BackboneAdapter, squares: list[Sample]) -> None:
    assert HeadGrounder(planted, profile()).ground(squares[0].image, "a red square", []).phrases == ()


def test_the_description_names_heads_and_calibration(planted: BackboneAdapter) -> None:
    description = HeadGrounder(planted, profile()).description
    assert description == "heads, without training: 2.1, 0.0 (layer.head), chosen by iou on 4 images from scenes"


def test_a_profile_of_another_backbone_is_refused(planted: BackboneAdapter) -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"backbone": {**CONTENT["backbone"], "model_type": "llava"}}, "is of llava"),
        ({"backbone": {**CONTENT["backbone"], "revision": "def456"}}, "is of revision def456"),
        ({"heads": [{"layer": 1, "head": 0, "weight": 1.0, "value": 0.5}]}, r"does not have: 1\.0"),
        ({"heads": [{"layer": 2, "head": 7, "weight": 1.0, "value": 0.5}]}, r"does not have: 2\.7"),
    ]
    for changes, message in mistakes:
        with pytest.raises(DecoderError, match=message) as error:
            HeadGrounder(planted, profile(**changes))
        assert "adapters calibrate" in str(error.value)


def test_a_profile_that_says_that_no_head_follows_is_read_and_refused(planted: BackboneAdapter, tmp_path: Path) -> None:
    profile(heads=[]).write(tmp_path / "head_profile.json")
    none = HeadProfile.read(tmp_path / "head_profile.json")
    assert none.heads == []
    with pytest.raises(DecoderError, match=r"acme/planted says that none of its heads follows phrases") as error:
        HeadGrounder(planted, none)
    assert "Train a decoder with `adapters train`" in str(error.value)


def test_a_profile_of_a_folder_has_no_revision_to_compare(planted: BackboneAdapter) -> None:
    HeadGrounder(planted, profile(backbone={**CONTENT["backbone"], "revision": None}))


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile().write(tmp_path / "deep" / "head_profile.json")
    assert HeadProfile.read(tmp_path / "deep" / "head_profile.json") == profile()
    assert json.loads((tmp_path / "deep" / "head_profile.json").read_text()) == CONTENT
    with pytest.raises(OutputError):
        profile().write(tmp_path / "deep" / "head_profile.json" / "more")


def test_a_malformed_profile_is_refused(tmp_path: Path) -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"heads": None}, "heads: Input should be a valid array"),
        ({"heads": [{"layer": 0, "head": 0, "weight": 0, "value": 0}]}, r"heads\.0\.weight"),
        ({"threshold": 1.0}, "threshold: Input should be less than 1"),
        ({"neutral": " "}, "neutral"),
        ({"criterion": "taste"}, "criterion"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ]
    for changes, message in mistakes:
        (tmp_path / "head_profile.json").write_text(json.dumps({**CONTENT, **changes}))
        with pytest.raises(CheckpointError, match=message) as error:
            HeadProfile.read(tmp_path / "head_profile.json")
        assert "adapters calibrate" in str(error.value)


def test_a_missing_profile_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No such file.*adapters calibrate"):
        HeadProfile.read(tmp_path / "head_profile.json")


def test_a_profile_is_found_beside_its_checkpoint(tmp_path: Path) -> None:
    assert find_profile(tmp_path) is None
    profile().write(tmp_path / "head_profile.json")
    assert find_profile(str(tmp_path)) == tmp_path / "head_profile.json"


def test_every_embedded_model_has_a_profile() -> None:
    for name in ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl"):
        embedded = find_profile(name)
        assert embedded is not None
        assert HeadProfile.read(embedded).backbone.checkpoint == name


def test_beside_a_name_that_no_file_can_have_there_is_no_profile() -> None:
    assert find_profile("n" * 300) is None
