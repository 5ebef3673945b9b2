"""A conversation: what the model reads in every turn, which phrases are grounded where, and what errors leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from typing_extensions import override

from vlm_adapters import Answer, GroundedChat, GroundedVLM, Grounder, Grounding, Message, Prompt, load_grounder
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes, shape_names
from vlm_adapters.errors import OptionError, PhraseError, PromptError
from vlm_adapters.grounding import noun_phrases
from vlm_adapters.prompt import DESCRIBE_QUESTION
from vlm_adapters.testing.fakes import FakeAdapter

FIRST, SECOND = Scenes(2, seed=HELD_OUT_SEED)
MODELS = "tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl"


@pytest.fixture(scope="module", params=MODELS)
def grounder(request: pytest.FixtureRequest) -> Grounder:
    return load_grounder(request.param)


@pytest.fixture(scope="module")
def llava() -> Grounder:
    return load_grounder("tiny-llava")


def ids(grounder: Grounder, prompt: Prompt) -> list[int]:
    found: list[int] = grounder.adapter.preprocess([prompt]).tensors["input_ids"][0].tolist()
    return found


def letter_by_letter(grounder: Grounder, text: str) -> Answer:
    tokenizer: Any = grounder.adapter.processor.tokenizer  # type: ignore[attr-defined]
    made = [id_ for letter in text for id_ in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    return Answer(tokenizer.decode(made), [*made, tokenizer.eos_token_id])


def test_a_turn_is_what_asking_and_grounding_by_hand_give(grounder: Grounder) -> None:
    turn = GroundedChat(grounder).ask(DESCRIBE_QUESTION, [FIRST.image])
    question = Prompt.chat([Message("user", (FIRST.image, DESCRIBE_QUESTION))])
    answer = grounder.adapter.generate(question)  # type: ignore[attr-defined]
    assert (turn.question, turn.answer) == (DESCRIBE_QUESTION, answer)
    spans = shape_names(answer.text)
    assert spans
    (expected,) = grounder.ground_all([question.answered(answer, spans)])
    (found,) = turn.groundings
    assert [phrase.phrase.span for phrase in found.phrases] == spans
    assert found.answer == answer
    for one, other in zip(found.phrases, expected.phrases, strict=True):
        assert (one.mask == other.mask).all()


def test_the_second_turn_reads_what_the_first_one_wrote(grounder: Grounder) -> None:
    chat = GroundedChat(grounder)
    answer = letter_by_letter(grounder, "a red star")
    first = chat.ask(DESCRIBE_QUESTION, [FIRST.image], answer=answer)
    second = chat.ask("And now?", answer="a blue cross")
    read_first, read_second = ids(grounder, first.prompt), ids(grounder, second.prompt)
    before = read_first[:-1]  # the end of the turn is never read while answering, and the template writes its own
    assert before[-len(answer.ids or ()) + 1 :] == [*(answer.ids or ())][:-1]
    assert read_second[: len(before)] == before
    assert len(read_second) > len(read_first)


def test_keys_and_values_of_the_first_turn_are_those_of_the_second(llava: Grounder) -> None:
    chat = GroundedChat(llava)
    first = chat.ask(DESCRIBE_QUESTION, [FIRST.image], answer=letter_by_letter(llava, "a red star"))
    second = chat.ask("And now?", answer="a blue cross")
    caches = []
    for turn in (first, second):
        tensors = llava.adapter.preprocess([turn.prompt]).tensors
        model: Any = llava.adapter.model  # type: ignore[attr-defined]
        with torch.no_grad():
            caches.append(model(**tensors, use_cache=True).past_key_values)
    length = len(ids(llava, first.prompt)) - 1
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        torch.testing.assert_close(one.keys[:, :, :length], other.keys[:, :, :length], rtol=1e-4, atol=1e-4)


def test_phrases_are_grounded_in_every_image_so_far(grounder: Grounder) -> None:
    chat = GroundedChat(grounder)
    assert len(chat.ask("What?", [FIRST.image], answer="a red star").groundings) == 1
    turn = chat.ask("And here?", [SECOND.image], answer="a blue cross and a red star")
    assert [found.image.size for found in turn.groundings] == [FIRST.image.size, SECOND.image.size]
    assert [[phrase.phrase.text for phrase in found.phrases] for found in turn.groundings] == [
        ["a blue cross", "a red star"]
    ] * 2
    assert chat.ask("Which?", answer="a red star").prompt.images == (FIRST.image, SECOND.image)


@pytest.mark.parametrize("method", ["decoder", "heads"])
def test_the_masks_of_an_image_are_those_of_its_own_grid(method: str) -> None:
    grounder = load_grounder("tiny-qwen2_5_vl", method=method)
    wide = SECOND.image.resize((448, 224))
    question = Message("user", (FIRST.image, wide, DESCRIBE_QUESTION))
    prompt = Prompt.chat([question]).answered(SECOND.text, [SECOND.phrases[0].text])
    found = [grounding.phrases[0].attention for grounding in grounder.ground_images(prompt)]
    (grids,) = grounder.adapter.locate_image_tokens(grounder.adapter.preprocess([prompt]))
    shapes = [grid.tokens.shape for grid in grids]
    assert shapes[0] != shapes[1]
    assert [one.values.shape for one in found] == shapes  # type: ignore[union-attr]
    assert [one.size for one in found] == [(FIRST.image.height, FIRST.image.width), (224, 448)]
    (expected,) = grounder.ground_all([prompt])
    assert (found[0].placed() == expected.phrases[0].map).all()


def test_a_callers_spans_and_a_callers_function_come_first(llava: Grounder) -> None:
    chat = GroundedChat(llava, phrases=noun_phrases)
    answer = "a red star and the sky"
    shown = {"answer": answer, "images": [FIRST.image]}
    for given, expected in (
        (None, ["a red star", "the sky"]),
        ([(2, 10)], ["red star"]),
        (lambda text: [text.split()[-1]], ["sky"]),
        ([], []),
    ):
        turn = chat.ask("What?", **shown, phrases=given)
        assert [phrase.text for phrase in turn.prompt.phrases] == expected
    assert turn.groundings == ()


def test_an_embedded_model_gets_the_phrases_of_its_scenes(llava: Grounder) -> None:
    assert GroundedChat(llava).phrases is shape_names
    fake = GroundedVLM.untrained(FakeAdapter(), base_width=2)
    assert GroundedChat(fake).phrases is noun_phrases


def test_the_answer_is_streamed(grounder: Grounder) -> None:
    pieces: list[str] = []
    turn = GroundedChat(grounder).ask(DESCRIBE_QUESTION, [FIRST.image], stream=pieces.append)
    assert len(pieces) > 3
    assert "".join(pieces) == turn.answer.text
    beams: list[str] = []
    turn = GroundedChat(grounder, max_new_tokens=8).ask("What?", [FIRST.image], stream=beams.append, num_beams=2)
    assert beams == [turn.answer.text]


def test_an_error_leaves_the_conversation_as_it_was(llava: Grounder) -> None:
    chat = GroundedChat(llava)
    with pytest.raises(PromptError, match="no image"):
        chat.ask("What?", answer="a red star")
    with pytest.raises(PromptError, match="The question is blank"):
        chat.ask(" \n", [FIRST.image])
    chat.ask("What?", [FIRST.image], answer="a red star")
    before = chat.turns
    with pytest.raises(PhraseError, match="'a dog' is not in the text"):
        chat.ask("And?", answer="a red star", phrases=["a dog"])
    assert chat.turns is before
    assert [message.role for message in chat.messages] == ["user", "assistant"]


def test_the_system_speaks_first(llava: Grounder) -> None:
    chat = GroundedChat(llava, system="Be brief.")
    assert [(message.role, message.text) for message in chat.messages] == [("system", "Be brief.")]


class OneByOne(Grounder):
    """A grounder that knows `ground_all` alone, over an adapter that does not answer."""

    def __init__(self) -> None:
        self.adapter = FakeAdapter()

    @property
    @override
    def description(self) -> str:
        return "nothing"

    @override
    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        return [self.result(prompt, prompt.first_image, (), "heads") for prompt in prompts]


def test_a_grounder_of_another_kind_is_asked_about_every_image() -> None:
    chat = GroundedChat(OneByOne())
    answer = Answer("a red star", [1, 2])
    turn = chat.ask("What?", [FIRST.image, SECOND.image], answer=answer)
    assert [found.image.size for found in turn.groundings] == [FIRST.image.size, SECOND.image.size]
    assert {found.answer for found in turn.groundings} == {answer}


def test_an_adapter_that_does_not_answer_is_refused() -> None:
    with pytest.raises(OptionError, match=r"fake does not answer\. Give the answer of another engine"):
        GroundedChat(OneByOne()).ask("What?", [FIRST.image])


def test_one_image_needs_no_list(llava: Grounder) -> None:
    alone, listed = (
        GroundedChat(llava).ask("What is it?", images, answer="a red star", phrases=[])
        for images in (FIRST.image, [FIRST.image])
    )
    assert alone == listed
