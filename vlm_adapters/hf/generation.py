"""Answers of a transformers model, and the rows of their tokens as they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from typing_extensions import Unpack

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneInfo, GenerationOptions
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.conversion import PromptLike, as_prompt
from vlm_adapters.errors import BackboneError, OptionError, PromptError, RequestError
from vlm_adapters.hf.answers import decode
from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.extraction import Captured, ResolvedRequest, recorded_attention
from vlm_adapters.hf.language_model import without_compiled_code
from vlm_adapters.hf.row_blocks import RowPlan
from vlm_adapters.prompt import Prompt
from vlm_adapters.registry.versions import typed_errors

_GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1,
    "return_dict_in_generate": False,
    "num_return_sequences": 1,
}
"""Generation settings of a checkpoint may sample and penalise repetition."""
_OBJECTS = ("stopping_criteria", "streamer")
"""Options that are objects, and not settings."""
_NOT_WHILE_GENERATING = ("hidden_layers", "phrase_hidden_layers", "phrase_log_probabilities", "gradient")
"""What else a request can name."""


class _Backbone(Protocol):
    """What is read of an adapter."""

    processor: Any

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def info(self) -> BackboneInfo: ...

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs: ...

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]: ...


class AnsweringBackbone:
    """How an adapter over a model of transformers answers."""

    def generate(
        self: _Backbone, prompt: PromptLike, max_new_tokens: int = 256, **options: Unpack[GenerationOptions]
    ) -> Answer:
        """Let the model answer a prompt, or a chat, that ends with the user's turn; see `SupportsGeneration`."""
        return _answer(self, _question(self, prompt, max_new_tokens, options), max_new_tokens, options)

    def generate_with_grids(
        self: _Backbone,
        prompt: PromptLike,
        request: GridRequest | None = None,
        max_new_tokens: int = 256,
        **options: Unpack[GenerationOptions],
    ) -> tuple[Answer, list[Grids]]:
        """Let the model answer, and keep the rows of its tokens as they are written: one `Grids` per `ImageGrid`.

        There is a row for every id of the answer, in order. The last token, which the model does not read, has one only
        with `align="predictor"`.

        Args:
            prompt: The chat, which ends with the user's turn.
            request: The layers, heads and rows to keep; rows are not reduced.
            max_new_tokens: Where the answer is cut off; memory for as many rows is held.
            options: As `generate` takes them; no beams.

        Raises:
            RequestError: The request names something else than rows, or layers or heads that do not exist.
            CaptureError: Rows cannot be computed exactly.
        """
        inputs = _question(self, prompt, max_new_tokens, options)
        return _answer_with_grids(self, inputs, request or GridRequest(), max_new_tokens, options)


def _answer(backbone: _Backbone, inputs: BackboneInputs, max_new_tokens: int, options: GenerationOptions) -> Answer:
    """Let a model continue one sequence; see `AnsweringBackbone.generate`."""
    tokenizer = backbone.processor.tokenizer
    given: dict[str, Any] = {**_GREEDY, **options, "max_new_tokens": max_new_tokens}
    if "stop_strings" in options:
        given["tokenizer"] = tokenizer
    generative: Any = backbone.model
    with torch.no_grad(), typed_errors(f"Generation with {backbone.model.config.model_type}", BackboneError):
        ids: Tensor = generative.generate(**inputs.tensors, **given)
    new = ids[0, inputs.tensors["input_ids"].shape[1] :].tolist()
    return Answer(decode(tokenizer, new), new)


def _question(
    backbone: _Backbone, given: PromptLike, max_new_tokens: int, options: GenerationOptions
) -> BackboneInputs:
    """The inputs of a prompt that is to be answered.

    Raises:
        PromptError: The prompt cannot be encoded, or does not end with the user's turn.
        OptionError: There is no such option, or it cannot be used.
    """
    _check_options(options, max_new_tokens)
    prompt = as_prompt(given)
    if (role := prompt.messages[-1].role) != "user":
        raise PromptError(f"The prompt ends with the turn of the {role}. End it with the user's turn.")
    return backbone.preprocess([prompt])


def _check_options(options: Mapping[str, Any], max_new_tokens: int) -> None:
    """Make sure that options of generation exist and can be used.

    Raises:
        OptionError: One does not, or cannot.
    """
    known = sorted(GenerationOptions.__annotations__)
    if unknown := sorted(set(options) - set(known)):
        raise OptionError(f"Generation has no option {unknown[0]}. Its options are: {', '.join(known)}.")
    if options.get("streamer") is not None and options.get("num_beams", 1) != 1:
        raise OptionError("Beam search cannot be streamed: no token is certain before the end. Leave one of them out.")
    settings = {name: value for name, value in options.items() if name not in _OBJECTS}
    with typed_errors("Checking the options of generation", OptionError):
        GenerationConfig(max_new_tokens=max_new_tokens, **settings)


def _answer_with_grids(
    backbone: _Backbone, inputs: BackboneInputs, request: GridRequest, max_new_tokens: int, options: GenerationOptions
) -> tuple[Answer, list[Grids]]:
    """Let a model continue one sequence, and take the rows of its tokens; see `generate_with_grids`."""
    if other := [name for name in _NOT_WHILE_GENERATING if getattr(request, name)]:
        raise RequestError(
            f"{', '.join(other)} cannot be taken while an answer is generated. Extract them from "
            "prompt.answered(answer, phrases) afterwards."
        )
    chosen = ResolvedRequest.of(replace(request, reduce="none"), backbone.info)
    image_grids = backbone.locate_image_tokens(inputs)[0]
    earlier = int(request.align == "predictor")
    first = inputs.tensors["input_ids"].shape[1] - earlier
    rows = torch.arange(first, first + max_new_tokens - 1 + earlier)
    plan = RowPlan(rows, torch.zeros_like(rows), torch.cat([grid.tokens.flatten().cpu() for grid in image_grids]))
    with (
        without_compiled_code(backbone.model),
        capture_rows(backbone.model, [plan], chosen.layers, "none", chosen.heads) as recorder,
    ):
        answer = _answer(backbone, inputs, max_new_tokens, options)
        count = len(answer.ids or ()) - 1 + earlier
        recorder.end_after(count)
    plan = RowPlan(plan.rows[:count], plan.groups[:count], plan.columns)
    device = inputs.tensors["input_ids"].device
    attention = recorded_attention(chosen, recorder, plan, 0, device)[:count]
    nothing = torch.zeros(0, len(plan.columns), chosen.width, device=device)
    return answer, chosen.grids(image_grids, plan, Captured(attention, nothing, ()))
