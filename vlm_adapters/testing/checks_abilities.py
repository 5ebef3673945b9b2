"""Checks of adapters that can answer or point; skipped for others."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneAdapter, SupportsGeneration, SupportsPointing
from vlm_adapters.errors import PromptError
from vlm_adapters.geometry import Box, CoordinateFrame
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import (
    CheckSkipped,
    continued,
    maps,
    module_of,
    prompt,
    require,
    require_equal,
    require_error,
    require_identical,
    run,
    transformers_model_of,
)

_NEW_TOKENS = 6
_CANNOT_ANSWER = "the adapter does not answer (no SupportsGeneration)"
_CANNOT_POINT = "the adapter has no frame of coordinates (SupportsPointing): its model is not known to point"


def check_answer_is_the_likeliest(case: AdapterCase) -> None:
    """Every token of an answer is the likeliest, whatever the checkpoint's generation settings."""
    adapter = _answering(case)
    model = transformers_model_of(cast("BackboneAdapter", adapter))
    question = _question()
    ids = _likeliest(cast("BackboneAdapter", adapter), question)
    decode = cast("Any", adapter).processor.tokenizer.decode
    plain = model.generation_config.to_dict()
    for settings in ({}, {"do_sample": True, "temperature": 10.0, "repetition_penalty": 10.0, "num_beams": 3}):
        model.generation_config.update(**{**plain, **settings})
        # In half precision a cached step rounds differently from a full pass, and the two likeliest can swap.
        for count in (1, _NEW_TOKENS) if case.dtype == torch.float32 else (1,):
            found = adapter.generate(question, max_new_tokens=count)
            what = f"of an answer of {count} tokens with {settings}"
            require_equal(found.ids, tuple(ids[:count].tolist()), f"ids {what}")
            require_equal(found.text, decode(ids[:count], skip_special_tokens=True), f"text {what}")


def check_answering_changes_nothing(case: AdapterCase) -> None:
    """The same question gets the same answer again; weights, training mode and rows of the model do not change."""
    adapter = _answering(case)
    backbone = cast("BackboneAdapter", adapter)
    module = module_of(backbone)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    rows = maps(run(backbone, prompt())[1])
    first, second = (adapter.generate(_question(), max_new_tokens=_NEW_TOKENS) for _ in range(2))
    require_equal(second, first, "second answer to the same question")
    for name, tensor in module.state_dict().items():
        require_identical(tensor, before[name], f"{name} after an answer")
    require_equal([part.training for part in module.modules()], modes, "training mode of the modules after an answer")
    require_identical(maps(run(backbone, prompt())[1]), rows, "attention after an answer")


def check_only_a_user_is_answered(case: AdapterCase) -> None:
    """Answering a prompt that ends with the assistant's turn is a `PromptError`."""
    adapter = _answering(case)
    require_error(PromptError, lambda: adapter.generate(prompt(), max_new_tokens=1), "generate after the assistant")


def check_frame_of_coordinates(case: AdapterCase) -> None:
    """Images of all sizes have a frame, the same at every call, and a box converted to it and back is unchanged."""
    adapter = case.load()
    frames = [adapter.coordinate_frame(size) if isinstance(adapter, SupportsPointing) else None for size in case.sizes]
    if not any(frames):
        raise CheckSkipped(_CANNOT_POINT)
    for size, frame in zip(case.sizes, frames, strict=True):
        what = f"coordinate_frame of a {size} image"
        require(
            isinstance(frame, CoordinateFrame), f"{what}: expected a CoordinateFrame as for other images, found {frame}"
        )
        frame = cast("CoordinateFrame", frame)
        require_equal(cast("SupportsPointing", adapter).coordinate_frame(size), frame, f"{what}, second call")
        height, width = size
        image = (0.0, 0.0, float(width), float(height))
        _require_box(frame.from_image(image, size), (0, 0, frame.width, frame.height), f"{what}, box of the image")
        part = (width / 3, height / 7, 2 * width / 3, 6 * height / 7)
        _require_box(
            frame.to_image(frame.from_image(part, size), size), part, f"{what}, a box converted and converted back"
        )


def _answering(case: AdapterCase) -> SupportsGeneration:
    adapter = case.load()
    if not isinstance(adapter, SupportsGeneration):
        raise CheckSkipped(_CANNOT_ANSWER)
    return adapter


def _question() -> Prompt:
    return Prompt(prompt().messages[:1])


def _likeliest(adapter: BackboneAdapter, question: Prompt) -> Tensor:
    """The likeliest tokens `(T,)`, each by a plain pass without cache and without transformers' `generate`."""
    model, inputs = transformers_model_of(adapter), adapter.preprocess([question])
    device = inputs.tensors["input_ids"].device
    ends = torch.tensor(model.generation_config.eos_token_id or [], device=device).flatten()
    new = torch.empty(1, 0, dtype=torch.long, device=device)
    while new.shape[1] < _NEW_TOKENS and not torch.isin(new[:, -1:], ends).any():
        with torch.no_grad():
            logits: Tensor = model(**continued(adapter, inputs, new), use_cache=False).logits
        new = torch.cat([new, logits[:, -1:].argmax(-1)], dim=1)
    return new[0]


def _require_box(found: Box, expected: Box, what: str) -> None:
    difference = max(abs(one - other) for one, other in zip(found, expected, strict=True))
    require(difference <= 1e-6 * max(expected), f"{what}: expected {expected}, found {found}")
