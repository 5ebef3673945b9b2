"""Checks of prompts that carry an answer by its tokens; skipped for adapters that do not answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import BackboneAdapter, SupportsGeneration
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import PromptError
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import (
    TEXT,
    CheckSkipped,
    continued,
    maps,
    prompt,
    require_agrees,
    require_equal,
    require_identical,
)

_NEW_TOKENS = 6


def check_answer_is_read_by_its_tokens(case: AdapterCase) -> None:
    """A prompt with an answer is the question's tokens and the answer's, whatever a tokenizer makes of its text."""
    adapter, tokenizer = _answering(case)
    answer, question = _letter_by_letter(tokenizer), Prompt(prompt().messages[:1])
    before = adapter.preprocess([question])
    words = answer.text.strip().split()[1]
    inputs = adapter.preprocess([question.answered(answer, [words])])
    device = inputs.tensors["input_ids"].device
    expected = continued(adapter, before, torch.tensor([answer.ids], device=device))
    for name, tensor in inputs.tensors.items():
        require_identical(tensor, expected[name], f"{name} with an answer by its tokens")
    ids = inputs.tensors["input_ids"][0, inputs.phrase_tokens[0][0].to(device)]
    spelled = tokenizer.decode(ids, skip_special_tokens=True)
    require_equal(spelled.strip(), words, "the tokens of a phrase of the answer, decoded")


def check_earlier_answer_is_read_by_its_tokens(case: AdapterCase) -> None:
    """In the next turn the model reads its answer by its tokens, where the template writes the same before it.

    Nothing is checked of a family that takes no second question.
    """
    adapter, tokenizer = _answering(case)
    answer, question = _letter_by_letter(tokenizer), Prompt(prompt().messages[:1])
    try:
        following, as_text = (question.answered(given).asked("And then?") for given in (answer, answer.text))
        found, by_text = (adapter.preprocess([each]).tensors["input_ids"][0] for each in (following, as_text))
    except PromptError:
        return
    before = adapter.preprocess([question]).tensors["input_ids"][0]
    if not torch.equal(by_text[: len(before)], before):
        return
    expected = torch.cat([before, torch.tensor(answer.ids, device=before.device)])
    require_identical(found[: len(expected)], expected, "the beginning of the next turn's tokens")


def check_rows_while_answering(case: AdapterCase) -> None:
    """Rows taken while an answer is written equal those of one pass over the question and the answer."""
    adapter, tokenizer = _answering(case)
    if not hasattr(adapter, "generate_with_grids"):
        raise CheckSkipped(f"{type(adapter).__name__} takes no rows while it answers (generate_with_grids)")
    question = Prompt(prompt().messages[:1])
    suppressed = sorted(set(tokenizer.all_special_ids) | set(getattr(adapter, "image_token_ids", ())))
    options = {"suppress_tokens": suppressed, "max_new_tokens": _NEW_TOKENS, "min_new_tokens": _NEW_TOKENS}
    for align in ("token", "predictor"):
        request = GridRequest(align=align, reduce="none")
        answer, during = cast("Any", adapter).generate_with_grids(question, request, **options)
        require_equal(len(answer.ids), _NEW_TOKENS, "number of tokens of the answer")
        inputs = _with_rows(adapter.preprocess([question.answered(answer)]), _NEW_TOKENS)
        after = maps(adapter.extract(inputs, request)[0])
        count = _NEW_TOKENS - (align == "token")  # the last token is never read while answering
        what = f'rows while answering (R, L, n, cell), align="{align}", against one pass'
        require_agrees(case, maps(during), after[:count], 1e-5, what)


def _with_rows(inputs: BackboneInputs, count: int) -> BackboneInputs:
    """The inputs of one prompt with its last tokens as those of a phrase."""
    length = inputs.tensors["input_ids"].shape[1]
    with_phrase = Prompt.chat(prompt().messages, [(0, len(TEXT))])
    return replace(inputs, prompts=(with_phrase,), phrase_tokens=((torch.arange(length - count, length),),))


def _letter_by_letter(tokenizer: Any) -> Answer:
    """A text by the tokens of its letters, which are not those of its words wherever a vocabulary has words."""
    ids = [id_ for letter in TEXT for id_ in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    return Answer(tokenizer.decode(ids, skip_special_tokens=True), ids)


def _answering(case: AdapterCase) -> tuple[BackboneAdapter, Any]:
    """The adapter and its tokenizer.

    Raises:
        CheckSkipped: It does not answer, or has no tokenizer that is known here.
    """
    adapter = case.load()
    if not isinstance(adapter, SupportsGeneration):
        raise CheckSkipped("the adapter does not answer (no SupportsGeneration)")
    tokenizer = getattr(getattr(adapter, "processor", None), "tokenizer", None)
    if tokenizer is None:
        raise CheckSkipped(f"{type(adapter).__name__} has no `processor.tokenizer`")
    return cast("BackboneAdapter", adapter), tokenizer
