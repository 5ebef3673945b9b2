"""Answers of the embedded models by their tokens: as transformers generates them, and as eager attention reads them."""

from __future__ import annotations

from functools import cache
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TextIteratorStreamer, TextStreamer

from vlm_adapters import Answer, GridRequest, Message, Prompt, TransformersBackbone, load_adapter
from vlm_adapters.backbone import measure_divergence
from vlm_adapters.backbone.grids import Grids
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import BackboneError, CaptureError, OptionError, PromptError, RequestError
from vlm_adapters.prompt import DESCRIBE_QUESTION
from vlm_adapters.testing.support import continued

NAMES = sorted(embedded_checkpoints())
QUESTIONS = [Prompt((Message("user", (sample.image, DESCRIBE_QUESTION)),)) for sample in Scenes(6, seed=HELD_OUT_SEED)]
SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "top_p": 0.95}


@cache
def adapter_of(name: str, kernel: str = "sdpa") -> TransformersBackbone:
    adapter = load_adapter(name, device="cpu", attn_implementation=kernel)
    assert isinstance(adapter, TransformersBackbone)
    return adapter


@cache
def answer_of(name: str, index: int = 0) -> Answer:
    return adapter_of(name).generate(QUESTIONS[index], max_new_tokens=40)


def generated(adapter: TransformersBackbone, question: Prompt, **options: Any) -> tuple[int, ...]:
    """What transformers generates itself."""
    tensors = adapter.preprocess([question]).tensors
    model: Any = adapter.model
    ids = model.generate(**tensors, **{"do_sample": False, "max_new_tokens": 40, **options})
    return tuple(ids[0, tensors["input_ids"].shape[1] :].tolist())


def rows(grids: list[Grids]) -> Tensor:
    return torch.cat([of_grid.attention.flatten(-2) for of_grid in grids], dim=-1)


@pytest.mark.parametrize("name", NAMES)
def test_the_ids_are_those_that_transformers_generates(name: str) -> None:
    adapter = adapter_of(name)
    for index, question in enumerate(QUESTIONS[:3]):
        answer = answer_of(name, index)
        assert answer.ids == generated(adapter, question)
        assert answer.text == adapter.processor.tokenizer.decode(answer.ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    "options", [SAMPLED, {"num_beams": 3}, {"repetition_penalty": 2.0}, {"no_repeat_ngram_size": 2}], ids=str
)
def test_options_of_transformers_choose_the_tokens(options: dict[str, Any]) -> None:
    adapter = adapter_of("tiny-llava")
    torch.manual_seed(5)
    expected = generated(adapter, QUESTIONS[0], **options)
    torch.manual_seed(5)
    answer = adapter.generate(QUESTIONS[0], max_new_tokens=40, **options)
    assert answer.ids == expected
    assert adapter.preprocess([QUESTIONS[0].answered(answer)]).tensors["input_ids"][0].tolist()[-len(expected) :] == [
        *expected
    ]


def test_an_answer_ends_with_a_stop_string_and_keeps_it() -> None:
    adapter, whole = adapter_of("tiny-qwen2_5_vl"), answer_of("tiny-qwen2_5_vl")
    stop = max(whole.text.split(), key=lambda word: (whole.text.count(word) == 1, whole.text.index(word)))
    answer = adapter.generate(QUESTIONS[0], stop_strings=[stop])
    assert answer.text == whole.text[: whole.text.index(stop) + len(stop)]
    cut = Answer(answer.text.removesuffix(stop), answer.ids)  # as servers give it
    (tokens,) = adapter.preprocess([QUESTIONS[0].answered(cut, [(0, len(cut.text))])]).phrase_tokens[0]
    inputs = adapter.preprocess([QUESTIONS[0].answered(answer)])
    assert adapter.processor.tokenizer.decode(inputs.tensors["input_ids"][0, tokens]) == cut.text.rstrip()


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_read_by_the_tokens_of_its_answer(name: str) -> None:
    adapter = adapter_of(name)
    for index, question in enumerate(QUESTIONS):
        answer = answer_of(name, index)
        expected = continued(adapter, adapter.preprocess([question]), torch.tensor([answer.ids]))
        found = adapter.preprocess([question.answered(answer)]).tensors
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())


def test_the_text_alone_is_read_by_other_tokens() -> None:
    adapter, question, answer = adapter_of("tiny-llava"), QUESTIONS[0], answer_of("tiny-llava")
    assert answer.ids is not None
    exact, by_text = (
        adapter.preprocess([question.answered(given)]).tensors["input_ids"][0].tolist()
        for given in (answer, answer.text)
    )
    assert exact[-len(answer.ids) :] == [*answer.ids]
    assert by_text != exact


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_eager_attention_over_the_generated_sequence(name: str) -> None:
    adapter, eager = adapter_of(name), adapter_of(name, "eager")
    for index, question in enumerate(QUESTIONS[:3]):
        answer = answer_of(name, index)
        assert answer.ids is not None
        sequence = continued(eager, eager.preprocess([question]), torch.tensor([answer.ids]))
        with torch.no_grad():
            output = eager.model(**sequence, output_attentions=True, use_cache=False)
        inputs = adapter.preprocess([question.answered(answer, [(0, len(answer.text))])])
        grids = adapter.extract(inputs, GridRequest(reduce="none"))[0]
        columns = torch.cat([of_grid.grid.tokens.flatten() for of_grid in grids])
        (tokens,) = inputs.phrase_tokens[0]
        expected = torch.stack([layer[0][:, tokens][:, :, columns] for layer in output.attentions]).permute(2, 0, 1, 3)
        torch.testing.assert_close(rows(grids), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("align", ["token", "predictor"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_while_answering_equal_those_of_one_pass(name: str, align: Any) -> None:
    adapter, request = adapter_of(name), GridRequest(align=align, reduce="none")
    for index, question in enumerate(QUESTIONS):
        answer, grids = adapter.generate_with_grids(question, request, max_new_tokens=40)
        assert answer == answer_of(name, index)
        assert answer.ids is not None
        inputs = adapter.preprocess([question.answered(answer, [(0, len(answer.text))])])
        during, after = rows(grids), rows(adapter.extract(inputs, request)[0])
        assert len(during) == len(answer.ids) - (align == "token")
        first = inputs.tensors["input_ids"].shape[1] - len(answer.ids)
        read = inputs.phrase_tokens[0][0] - first
        read = read[read < len(during)]
        torch.testing.assert_close(during[read], after[: len(read)], atol=1e-5, rtol=0)


def test_chosen_heads_of_sampled_tokens_are_kept_while_answering() -> None:
    adapter, request = adapter_of("tiny-qwen2_5_vl"), GridRequest(layers=[-1, 0], heads=[2])
    torch.manual_seed(1)
    answer, grids = adapter.generate_with_grids(QUESTIONS[1], request, max_new_tokens=12, **SAMPLED)
    assert (grids[0].layers, grids[0].heads) == ((adapter.info.num_layers - 1, 0), (2,))
    inputs = adapter.preprocess([QUESTIONS[1].answered(answer, [(0, len(answer.text))])])
    every = rows(adapter.extract(inputs, GridRequest(layers=[-1, 0], heads=[2], reduce="none"))[0])
    torch.testing.assert_close(rows(grids), every[: len(rows(grids))], atol=1e-5, rtol=0)


def test_one_token_is_read_by_its_predictor_alone() -> None:
    adapter = adapter_of("tiny-llava")
    counts = [
        len(adapter.generate_with_grids(QUESTIONS[0], GridRequest(align=align), 1)[1][0].attention)
        for align in ("token", "predictor")
    ]
    assert counts == [0, 1]


def test_what_cannot_be_taken_while_answering_is_refused() -> None:
    adapter = adapter_of("tiny-llava")
    with pytest.raises(RequestError, match="hidden_layers cannot be taken while an answer is generated"):
        adapter.generate_with_grids(QUESTIONS[0], GridRequest(hidden_layers=1))
    with pytest.raises(CaptureError, match="beam search"):
        adapter.generate_with_grids(QUESTIONS[0], GridRequest(), 4, num_beams=2)


def test_a_streamer_gets_the_words_while_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = adapter_of("tiny-qwen2_5_vl")
    shown = TextStreamer(adapter.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    answer = adapter.generate(QUESTIONS[0], max_new_tokens=40, streamer=shown)
    assert capsys.readouterr().out.strip() == answer.text.strip()
    streamer = TextIteratorStreamer(adapter.processor.tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True)
    thread = Thread(target=adapter.generate, args=(QUESTIONS[0], 40), kwargs={"streamer": streamer})
    thread.start()
    words = list(streamer)
    thread.join()
    assert len(words) > 3
    assert "".join(words) == answer.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1.0}, "Generation has no option temprature"),
        ({"num_return_sequences": 2}, "Generation has no option num_return_sequences"),
        ({"num_beams": 2, "streamer": object()}, "Beam search cannot be streamed"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_an_option_that_cannot_be_used_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        adapter_of("tiny-llava").generate(QUESTIONS[0], **options)


def test_a_value_that_transformers_refuses_is_an_error_in_its_words() -> None:
    with pytest.raises(BackboneError, match=r"`temperature` .* has to be a strictly positive float"):
        adapter_of("tiny-llava").generate(QUESTIONS[0], do_sample=True, temperature=-1.0)


def test_an_answer_that_cannot_be_read_is_an_error() -> None:
    adapter = adapter_of("tiny-llava")
    image, (word, *_) = min(adapter.image_token_ids), answer_of("tiny-llava").ids or ()
    for answer, message in (
        (Answer("a", [word, image]), "stands for a part of an image"),
        (Answer("a", [word, 10**6]), "the token id 1000000, and llava has 495 tokens"),
        (Answer("a", []), "spell '', and its text is 'a'"),
        (Answer("something else", [word]), "spell ' a', and its text is 'something else'"),
    ):
        with pytest.raises(PromptError, match=message):
            adapter.preprocess([QUESTIONS[0].answered(answer)])


@pytest.mark.parametrize("name", NAMES)
def test_answers_beside_each_other_are_those_alone(name: str) -> None:
    adapter, question = adapter_of(name), QUESTIONS[2]
    torch.manual_seed(3)
    answers = [answer_of(name, 2), *(adapter.generate(question, 12, **SAMPLED) for _ in range(2))]
    prompts = [question.answered(answer, [(0, len(answer.text))]) for answer in answers]
    prompts.append(Prompt.describe(question.first_image, "a red circle", ["a red circle"]))
    together = adapter.extract(adapter.preprocess(prompts), GridRequest())
    for prompt, grids in zip(prompts, together, strict=True):
        alone = rows(adapter.extract(adapter.preprocess([prompt]), GridRequest())[0])
        torch.testing.assert_close(rows(grids), alone, atol=1e-5, rtol=0)


def test_an_answer_of_a_second_turn_follows_its_question() -> None:
    adapter = adapter_of("tiny-qwen2_5_vl")
    first = QUESTIONS[0].answered(answer_of("tiny-qwen2_5_vl"))
    second = Prompt.chat([*first.messages, Message("user", ("And what else?",))])
    answer = adapter.generate(second, 8)
    before, after = (
        adapter.preprocess([p]).tensors["input_ids"][0].tolist() for p in (second, second.answered(answer))
    )
    assert after == [*before, *(answer.ids or ())]


@pytest.mark.parametrize("name", NAMES)
def test_the_divergence_of_a_text_counts_tokens_that_are_not_the_likeliest(name: str) -> None:
    adapter, text = adapter_of(name), answer_of(name).text.strip()
    text = text.replace(text.split()[3], "bird")
    prompt = QUESTIONS[0].answered(text, [(0, len(text))])
    found = measure_divergence(adapter, prompt)
    inputs = adapter.preprocess([prompt])
    (tokens,) = inputs.phrase_tokens[0]
    with torch.no_grad():
        said = adapter.model(**inputs.tensors).logits[0].log_softmax(-1)[tokens - 1]
    ids = inputs.tensors["input_ids"][0, tokens]
    gaps = said.amax(-1) - said.gather(-1, ids[:, None])[:, 0]
    assert found is not None
    assert found.tokens == len(tokens)
    assert found.differing == int((said.argmax(-1) != ids).sum()) > 0
    assert found.largest_gap == pytest.approx(float(gaps.max()), abs=1e-3)
    differing = tokens[said.argmax(-1) != ids][0]
    word = text[slice(*(found.first or ()))]
    assert adapter.processor.tokenizer.decode(inputs.tensors["input_ids"][0, differing]).strip() in word


def test_a_text_that_the_model_wrote_itself_does_not_diverge() -> None:
    adapter = adapter_of("tiny-qwen2_5_vl")
    found = measure_divergence(adapter, QUESTIONS[0].answered(answer_of("tiny-qwen2_5_vl").text))
    assert found is not None
    assert (found.differing, found.first, found.largest_gap) == (0, None, 0.0)
