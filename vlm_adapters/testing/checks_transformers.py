"""Checks of the transformers model behind an adapter: unchanged outputs, and rows with a KV cache."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import (
    CheckSkipped,
    cells,
    continued,
    different_prompts,
    hidden,
    maps,
    prompt,
    require,
    require_agrees,
    require_equal,
    require_identical,
    transformers_model_of,
    two_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

_NEW_TOKENS = 6


def check_capture_changes_no_logits(case: AdapterCase) -> None:
    """Logits after extraction, and while rows are captured, equal those of a new model, bit for bit."""
    from vlm_adapters.hf.capture import capture_rows  # noqa: PLC0415 (imports transformers)
    from vlm_adapters.hf.row_blocks import RowPlan  # noqa: PLC0415 (imports transformers)

    adapter = case.load()
    model = transformers_model_of(adapter)
    inputs = adapter.preprocess([prompt()])
    fresh = _logits(transformers_model_of(case.load()), inputs)
    grids = adapter.extract(inputs, GridRequest(hidden_layers=None, phrase_hidden_layers=None))[0]
    require_identical(_logits(model, inputs), fresh, "logits after extraction")
    rows = torch.cat(list(inputs.phrase_tokens[0]))
    plan = RowPlan(rows, torch.arange(len(rows)), cells(grids))
    with capture_rows(model, [plan], adapter.info.attention_layers):
        during = _logits(model, inputs)
    require_identical(during, fresh, "logits while rows are captured")


def check_phrase_log_probabilities(case: AdapterCase) -> None:
    """`phrase_log_probabilities` and `phrase_gaps` are those of the model's own logits, for every token of a phrase."""
    adapter = case.load()
    model = transformers_model_of(adapter)
    if model.get_output_embeddings() is None:
        raise CheckSkipped(f"{type(model).__name__} has no head over the vocabulary")
    inputs = adapter.preprocess(different_prompts())
    found = adapter.extract(inputs, GridRequest(layers=(), phrase_log_probabilities=True))
    expected = _logits(model, inputs).float().log_softmax(-1)
    for index, grids in enumerate(found):
        for phrase, tokens in enumerate(inputs.phrase_tokens[index]):
            ids = inputs.tensors["input_ids"][index, tokens]
            of_phrase = expected[index, tokens - 1].gather(1, ids[:, None])[:, 0]
            what = f"(T,) of phrase {phrase} of prompt {index}"
            require_agrees(
                case, grids[0].phrase_log_probabilities[phrase], of_phrase, 1e-3, f"log probabilities {what}"
            )
            gaps = expected[index, tokens - 1].amax(1) - of_phrase
            require_agrees(case, grids[0].phrase_gaps[phrase], gaps, 1e-3, f"gaps to the likeliest token {what}")


def check_extract_asks_for_no_outputs(case: AdapterCase) -> None:
    """`extract` runs the model without `output_hidden_states` and `output_attentions`, whose meaning changes."""
    adapter = case.load()
    model = transformers_model_of(adapter)
    inputs = adapter.preprocess([prompt()])
    requested: set[str] = set()

    def watch(_: nn.Module, __: tuple[object, ...], kwargs: dict[str, object]) -> None:
        requested.update(name for name in ("output_hidden_states", "output_attentions") if kwargs.get(name))

    hooks = [module.register_forward_pre_hook(watch, with_kwargs=True) for module in (model, model.base_model)]
    try:
        adapter.extract(inputs, GridRequest(hidden_layers=None, phrase_hidden_layers=None))
    finally:
        for hook in hooks:
            hook.remove()
    require(not requested, f"arguments of the model in `extract`: expected no request for outputs, found {requested}")


def check_batched_windows_change_no_states(case: AdapterCase) -> None:
    """With windows of images batched, states are those of the model run alone; without, they are bit for bit."""
    adapter: Any = case.load()
    model = transformers_model_of(adapter)
    if not hasattr(adapter, "batch_windows"):
        raise CheckSkipped(f"{type(adapter).__name__} has no batch_windows")
    sizes = (230, 170), (96, 150)
    several = [two_images(sizes)] if case.several_images else [prompt(size) for size in sizes]
    inputs = adapter.preprocess(several)
    alone = _last_states(model, inputs)[0]
    last = GridRequest(layers=(), hidden_layers=1)
    for batched in (False, True):
        adapter.batch_windows = batched
        grids = adapter.extract(inputs, last)[0]
        found, expected = hidden(grids)[0], alone[cells(grids)].T
        if batched:
            scale = max(1.0, float(expected.abs().max()))
            require_agrees(case, found, expected, 1e-5 * scale, "last hidden states (D, cell) with batched windows")
        else:
            require_identical(found, expected, "last hidden states (D, cell) with batch_windows=False")


def check_generation_equals_one_pass(case: AdapterCase) -> None:
    """Rows captured during generation with a KV cache equal `extract` over the full sequence."""
    from vlm_adapters.hf.capture import capture_rows  # noqa: PLC0415 (imports transformers)
    from vlm_adapters.hf.row_blocks import RowPlan  # noqa: PLC0415 (imports transformers)

    adapter = case.load()
    model = transformers_model_of(adapter)
    question = Prompt(prompt().messages[:1])
    inputs = adapter.preprocess([question])
    columns = torch.cat([grid.tokens.flatten() for grid in adapter.locate_image_tokens(inputs)[0]])
    length = inputs.tensors["input_ids"].shape[1]
    # From the last token of the prefill on; the last token generated is never fed to the model.
    rows = torch.arange(length - 1, length + _NEW_TOKENS - 1)
    with (
        torch.no_grad(),
        capture_rows(
            model, [RowPlan(rows, torch.arange(len(rows)), columns)], adapter.info.attention_layers, "none"
        ) as recorder,
    ):
        generate = cast("Callable[..., Tensor]", model.generate)
        sequence = generate(**inputs.tensors, max_new_tokens=_NEW_TOKENS, min_new_tokens=_NEW_TOKENS, do_sample=False)
    found = torch.stack([recorder.maps[layer][0] for layer in adapter.info.attention_layers], dim=1)
    full = _with_rows(adapter, inputs, sequence[:, -_NEW_TOKENS:], rows)
    expected = maps(adapter.extract(full, GridRequest(reduce="none"))[0])
    require_agrees(case, found, expected, 1e-5, "rows captured during generation (R, L, n, cell), against one pass")


def check_attention_pattern(case: AdapterCase) -> None:
    """Tokens see each other as the family declares: a change of one changes earlier ones only if these see it."""
    from vlm_adapters.hf.backbone import TransformersBackbone  # noqa: PLC0415 (imports transformers)

    adapter = case.load()
    model = transformers_model_of(adapter)
    pattern = adapter.attention_pattern if isinstance(adapter, TransformersBackbone) else "undeclared"
    if pattern == "undeclared":
        raise CheckSkipped(f"{type(adapter).__name__} declares no `attention_pattern`")
    inputs = adapter.preprocess([prompt()])
    image = inputs.image_tokens[0][0].tolist()
    run_start = next(p for p in image if set(range(p, image[-1])) <= set(image))
    changes = {
        "the last image token": _first_changed(model, inputs, image[-1]),
        "the token after the image": _first_changed(model, inputs, image[-1] + 1),
        "the last token": _first_changed(model, inputs, inputs.tensors["input_ids"].shape[1] - 1),
    }
    allowed = {"the last image token": image[-1], "the token after the image": image[-1] + 1}
    allowed["the last token"] = inputs.tensors["input_ids"].shape[1] - 1
    if pattern == "bidirectional images":
        allowed["the last image token"] = run_start
    if pattern == "bidirectional prefix":
        changed = changes.pop("the token after the image")
        require(
            changed <= image[0],
            f'attention_pattern="{pattern}": a change of the token after the image changes no state of the image',
        )
        # The image, the token after it and all else before the answer see each other; the answer is causal.
        changes.pop("the last image token")
        answer = int(inputs.phrase_tokens[0][0][0])
        changes["the first token of the answer's phrase"] = _first_changed(model, inputs, answer)
        allowed = {"the last token": allowed["the last token"], "the first token of the answer's phrase": answer}
    require_equal(changes, allowed, f'attention_pattern="{pattern}": the first state that changes with each token')


def _with_rows(adapter: BackboneAdapter, inputs: BackboneInputs, new: Tensor, rows: Tensor) -> BackboneInputs:
    """The inputs with the new tokens `(1, T)` at their end, and the given rows as the tokens of one phrase."""
    text = inputs.prompts[0].text
    with_phrase = Prompt.chat(inputs.prompts[0].messages, [(0, len(text))])
    return replace(inputs, prompts=(with_phrase,), tensors=continued(adapter, inputs, new), phrase_tokens=((rows,),))


def _last_states(model: PreTrainedModel, inputs: BackboneInputs) -> Tensor:
    """States `(B, S, D)` after the final norm of the language model, in a plain pass."""
    from vlm_adapters.hf.language_model import language_model_of  # noqa: PLC0415 (imports transformers)

    found: list[Tensor] = []
    body = language_model_of(model).body
    hook = body.register_forward_hook(lambda _module, _arguments, output: found.append(output[0]))
    try:
        with torch.no_grad():
            model.base_model(**inputs.tensors, use_cache=False)
    finally:
        hook.remove()
    return found[0]


def _logits(model: PreTrainedModel, inputs: BackboneInputs) -> Tensor:
    with torch.no_grad():
        return cast("Tensor", model(**inputs.tensors, use_cache=False).logits)


def _first_changed(model: PreTrainedModel, inputs: BackboneInputs, position: int) -> int:
    """The first position whose last state changes when that of one token changes before the first layer."""
    from vlm_adapters.hf.language_model import language_model_of  # noqa: PLC0415 (imports transformers)

    def change(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = args[0].clone()
        states[:, position] = -states[:, position] + 1
        return states, *args[1:]

    def states() -> Tensor:
        with torch.no_grad():
            return cast("Tensor", model.base_model(**inputs.tensors, use_cache=False)[0])

    before = states()
    hook = language_model_of(model).layers[0].register_forward_pre_hook(change)
    try:
        after = states()
    finally:
        hook.remove()
    differences = (after - before).abs().amax(dim=(0, 2))
    return int((differences > 1e-3 * differences.max()).nonzero()[0])
