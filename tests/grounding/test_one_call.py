"""`ground` in one call, and what else people hand to a grounder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from vlm_adapters import ground, load_adapter, open_dataset
from vlm_adapters.conversion import PromptsLike
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import CheckpointError, NoDecoderWarning, OptionError, PromptError
from vlm_adapters.grounding import load
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.load import load_grounder
from vlm_adapters.grounding.result import Grounding

TINY = "tiny-llava"


@pytest.fixture(scope="module")
def scene() -> Sample:
    return open_dataset("scenes:count=1,seed=4")[0]


@pytest.fixture(scope="module")
def vlm() -> GroundedVLM:
    return GroundedVLM.from_pretrained(TINY)


def test_a_name_an_adapter_and_a_grounder_give_the_same(scene: Sample, vlm: GroundedVLM) -> None:
    words = [phrase.text for phrase in scene.phrases]
    expected = vlm.ground(scene.image, scene.text, words)
    for model in (TINY, load_adapter(TINY), vlm):
        assert ground(scene.image, scene.text, words, model=model) == expected


def test_a_loaded_model_is_not_loaded_again(scene: Sample, vlm: GroundedVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(load, "load_adapter", refuse)
    monkeypatch.setattr("vlm_adapters.grounding.stored.load_adapter", refuse)
    for model in (vlm, vlm.adapter):
        assert ground(scene.image, scene.text, model=model).method == "decoder"


def test_without_phrases_the_whole_text_is_one(scene: Sample, vlm: GroundedVLM) -> None:
    assert [found.phrase.text for found in ground(scene.image, " a pink star", model=vlm)] == ["a pink star"]
    assert vlm.ground(scene.image, "a pink star") == ground(scene.image, "a pink star", model=vlm)


def test_a_model_without_a_decoder_says_what_it_does_unless_it_was_chosen(
    scene: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = load_adapter(TINY)
    monkeypatch.setattr(load, "has_decoder", lambda _: False)
    with pytest.warns(NoDecoderWarning, match=r"has no decoder\. What finds the masks: .*Choose it with method="):
        found = ground(scene.image, "a pink star", model=adapter)
    assert found.method in {"box", "heads"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoDecoderWarning)
        assert ground(scene.image, "a pink star", model=adapter, method="heads").method == "heads"


def test_options_of_loading_do_not_go_with_a_loaded_model(scene: Sample, vlm: GroundedVLM) -> None:
    for model in (vlm, vlm.adapter):
        with pytest.raises(OptionError, match=r"is loaded already\. Leave dtype out"):
            ground(scene.image, "a pink star", model=model, dtype="float32")


def test_mistakes_show_before_a_model_is_loaded(scene: Sample) -> None:
    with pytest.raises(PromptError, match="The text is 5"):
        ground(scene.image, 5, model="nowhere")  # type: ignore[arg-type]
    with pytest.raises(
        CheckpointError, match=r"^The name of a model is None, of type NoneType\. Give an embedded model"
    ):
        ground(scene.image, "a pink star", model=None)  # type: ignore[arg-type]


def test_a_hub_id_that_is_no_decoder_is_sent_to_load_grounder() -> None:
    with pytest.raises(CheckpointError, match=r"There is no decoder 'Qwen/.*vlm_adapters\.load_grounder"):
        GroundedVLM.from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct")


@pytest.mark.parametrize("method", ["decoder", "heads"])
def test_a_grounder_takes_prompts_in_any_form(scene: Sample, method: str) -> None:
    grounder = load_grounder(TINY, method=method)
    content = [{"type": "image", "image": scene.image}, {"type": "text", "text": "What is it?"}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "a pink star"}]
    (expected,) = grounder.ground_all([scene.prompt])
    triple = (scene.image, scene.text, [phrase.span for phrase in scene.prompt.phrases])
    forms: list[PromptsLike] = [scene.prompt, triple, (one for one in [triple])]
    assert [grounder.ground_all(form) for form in forms] == [[expected]] * 3
    (of_chat,) = grounder.ground_images(chat)
    assert [found.phrase.text for found in of_chat] == ["a pink star"]


def test_results_come_batch_by_batch_while_prompts_are_still_being_made(scene: Sample, vlm: GroundedVLM) -> None:
    made: list[int] = []

    def prompts() -> Iterator[tuple[object, str]]:
        for index in range(3):
            made.append(index)
            yield scene.image, "a pink star"

    results = vlm.ground_each(prompts(), batch_size=2)  # type: ignore[arg-type]
    first = next(results)
    assert isinstance(first, Grounding)
    assert made == [0, 1]
    assert [repr(result) for result in results] == [repr(first)] * 2


def test_a_grounder_and_an_adapter_print_one_line(vlm: GroundedVLM) -> None:
    adapter = "LlavaAdapter('tiny-llava': LlavaForConditionalGeneration, torch.float32 on cpu)"
    assert repr(vlm.adapter) == adapter
    assert repr(vlm) == f"GroundedVLM({adapter}: decoder, trained on llava)"


def test_inputs_and_grids_print_their_shapes(scene: Sample, vlm: GroundedVLM) -> None:
    inputs = vlm.adapter.preprocess([scene.prompt])
    assert repr(inputs).startswith("BackboneInputs(prompts: 1, phrases: 3; input_ids (1, ")
    (grids,) = vlm.adapter.extract(inputs, vlm.decoder.request.grids)[0]
    assert (
        repr(grids)
        == "Grids('fine' 16 x 16 cells, attention (3, 6, 8, 16, 16) of phrases, layers, heads, h, w; on cpu)"
    )
