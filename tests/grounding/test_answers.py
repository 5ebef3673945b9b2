"""Results of grounding say by which tokens an answer was read, or how far its text is from what the model says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_adapters import Answer, GroundedVLM, Grounder, Message, Prompt, load_grounder
from vlm_adapters.backbone import measure_divergence
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.errors import PromptError
from vlm_adapters.output.exports import grounding_to_dict
from vlm_adapters.output.files import write_grounding
from vlm_adapters.prompt import DESCRIBE_QUESTION
from vlm_adapters.testing.fakes import FakeAdapter

SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]
QUESTION = Prompt((Message("user", (SCENE.image, DESCRIBE_QUESTION)),))
PHRASE = SCENE.phrases[0].text


@pytest.fixture(scope="module", params=["decoder", "heads"])
def grounder(request: pytest.FixtureRequest) -> Grounder:
    return load_grounder("tiny-llava", method=request.param)


def letter_by_letter(grounder: Grounder) -> Answer:
    tokenizer = grounder.adapter.processor.tokenizer  # type: ignore[attr-defined]
    ids = [id_ for letter in SCENE.text for id_ in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    return Answer(SCENE.text, ids)


def test_an_answer_with_ids_is_kept_and_has_no_divergence(grounder: Grounder) -> None:
    answer = letter_by_letter(grounder)
    (found,) = grounder.ground_all([QUESTION.answered(answer, [PHRASE])])
    assert (found.answer, found.divergence) == (answer, None)
    report = grounding_to_dict(found)["answer"]
    assert report == {"text": SCENE.text, "ids": [*(answer.ids or ())], "divergence": None}


def test_the_ids_decide_what_is_found(grounder: Grounder) -> None:
    answers = SCENE.text, letter_by_letter(grounder)
    by_text, by_ids = grounder.ground_all([QUESTION.answered(answer, [PHRASE]) for answer in answers])
    assert (by_text.phrases[0].map != by_ids.phrases[0].map).any()


def test_an_answer_without_ids_has_its_divergence(grounder: Grounder) -> None:
    prompt = QUESTION.answered(f"{PHRASE} in the fog", [PHRASE])
    (found,) = grounder.ground_all([prompt])
    assert found.divergence == measure_divergence(grounder.adapter, prompt)
    assert found.divergence is not None
    assert found.divergence.differing > 0
    report = grounding_to_dict(found)["answer"]
    assert report["divergence"]["first"] == [*(found.divergence.first or ())]  # type: ignore[index]


def test_a_caption_is_not_an_answer(grounder: Grounder) -> None:
    found = grounder.ground(SCENE.image, SCENE.text, [PHRASE])
    assert (found.answer, found.divergence) == (None, None)
    assert grounding_to_dict(found)["answer"] is None


def test_the_file_of_a_grounding_holds_its_answer(tmp_path: Path) -> None:
    vlm = GroundedVLM.from_pretrained("tiny-llava")
    answer = letter_by_letter(vlm)
    write_grounding(vlm.ground_all([QUESTION.answered(answer, [PHRASE])])[0], tmp_path, image_id=1)
    report = json.loads((tmp_path / "grounding.json").read_text(encoding="utf-8"))
    assert report["answer"] == {"text": answer.text, "ids": [*(answer.ids or ())], "divergence": None}


def test_an_adapter_that_gives_no_gaps_has_no_divergence() -> None:
    assert measure_divergence(FakeAdapter(), QUESTION.answered("a cat")) is None


def test_a_blank_answer_has_no_divergence() -> None:
    with pytest.raises(PromptError, match="The answer is blank"):
        measure_divergence(FakeAdapter(), QUESTION.answered(" \n"))
